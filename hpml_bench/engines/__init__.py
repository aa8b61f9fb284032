"""Engines: what starts the jobs of a sweep, one file each. May import `plugins.engine` and what is before it."""
