"""Sweeps, and the processes of a run: preparation, fork server, launcher, watchdog, outcome, progress.

May import `training` for the worker that ranks begin with, `report` and `tracking` inside functions.
"""
