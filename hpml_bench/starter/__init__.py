"""A first suite from a model and a file of rows: looks at both, chooses, and writes each choice
with its reason.

`start.py` has the steps in their order. May import `sweep` and what is before it.
"""
