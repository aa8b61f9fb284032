"""Checks of `benchmarks/on_gpu.py` that compute, a module for each kind."""
