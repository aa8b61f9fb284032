"""Operating system: processes, signals, disk, cache, environment, text of others.

Imports `errors` only; knows nothing of runs, suites or models.
"""
