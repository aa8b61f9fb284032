"""Data sets and ways to read them, one file each: a class that extends
plugins.dataset.DatasetLoader.
"""
