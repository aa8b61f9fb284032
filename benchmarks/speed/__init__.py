"""What `benchmarks/performance.py` measures, one file per target."""
