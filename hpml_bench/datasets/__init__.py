"""Data sets and ways to read them, one file each: a class that extends plugins.dataset.DatasetLoader.

May import `data` and what is before it; no other plug-in.
"""
