"""A second implementation of a report, which shares no code with the first: what `recompute.py`
runs.
"""
