"""Trackers, one file each: a class that extends plugins.tracker.Tracker.

May import `plugins` and `tracking`, and a service's library inside functions; no other plug-in.
"""
