"""Settings, suites and their YAML, options of plug-ins, devices.

May import `registry`, `system` and `errors`.
"""
