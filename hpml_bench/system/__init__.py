"""The operating system under the benchmark: processes, signals, disk, cache, environment, untrusted text.

Imports `errors` only; has no suites, models or records.
"""
