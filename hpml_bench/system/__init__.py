"""The operating system under the benchmark: processes, signals, disk, cache, environment, text of others.

Imports `errors` only; has no suites, models or records.
"""
