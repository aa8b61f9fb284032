"""Experiment trackers, one file each: a class that extends plugins.tracker.Tracker."""
