"""Checks of a results folder for `hpml-bench verify`: each says in a line what in it agrees, and
what doesn't.

May import `sweep` and the packages before it, and no training library.
"""
