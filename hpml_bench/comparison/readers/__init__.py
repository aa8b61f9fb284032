"""Readers of what others measured, a file for each kind of input."""
