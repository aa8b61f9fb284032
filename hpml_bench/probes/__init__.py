"""Probes, one file for each group of metrics: a class that extends plugins.probe.Probe.

May import `plugins` and what is before it, and `training` inside functions; no other plug-in.
"""
