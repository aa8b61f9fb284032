"""The operating system under the benchmark: processes, signals, disk, cache, environment, untrusted
text.

Has no suites, models or records; imports nothing of ours.
"""
