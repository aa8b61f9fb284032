"""Shared preparation of data: from a source to token ids on disk, rows and batches, and the generated news.

New data sets go to `datasets`. May import `plugins` and what is before it.
"""
