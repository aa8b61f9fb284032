"""Experiment trackers, one file each: a class that extends plugins.tracker.Tracker.

May import `tracking` and what is before it; no other plug-in.
"""
