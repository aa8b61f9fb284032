"""Measurements of `benchmarks/performance.py`, a file for each part."""
