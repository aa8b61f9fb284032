"""Sweeps whose runs are done by jobs: plan, submission and waiting on one side, the work of a job on the other.

May import `launch` and what is before it, and `report` inside functions.
"""
