"""Configuration: settings, suites and their YAML, options of plug-ins, devices.

May import `registry` and `system`.
"""
