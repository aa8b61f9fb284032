"""Probes, one file for each group of metrics: a class that extends plugins.probe.Probe.

May import `plugins`, and `training` inside functions; no other plug-in.
"""
