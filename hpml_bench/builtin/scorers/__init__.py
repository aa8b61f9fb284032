"""Scorers of generated answers, one file each: a class that extends plugins.scorer.Scorer.

Scorers import no training library, since reports score too.
"""
