"""Scorers of generated answers, one file each: a class that extends plugins.scorer.Scorer.

Reports score too: no training library.
"""
