"""Preparation of data: from a source to token ids on disk, rows and batches.

New data sets go to `builtin/datasets`. May import `plugins` and the packages before it.
"""
