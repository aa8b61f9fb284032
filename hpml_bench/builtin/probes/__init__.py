"""Probes, one file for each group of metrics: a class that extends plugins.probe.Probe."""
