"""Sweeps and the processes of a run: preparation, fork server, launcher, watchdog, outcome, progress.

May import `training` and what is before it, and `report` inside functions.
"""
