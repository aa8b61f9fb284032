"""Scorers of generated answers, one file each: a class that extends plugins.scorer.Scorer.

May import what is before it up to `plugins`; no training library, since reports score too, and no other plug-in.
"""
