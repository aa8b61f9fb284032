"""Kinds of work, one file each: a class that extends plugins.task.Task.

May import `plugins` and what is before it, and `training` inside functions; no other plug-in.
"""
