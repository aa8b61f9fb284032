"""Engines that start the jobs of a sweep, one file each: a class that extends
plugins.engine.Engine.
"""
