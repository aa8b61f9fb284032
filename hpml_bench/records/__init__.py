"""What a run leaves on disk, and trials of tuning: the records, their schema, and the folders that hold them.

May import `config` and what is before it.
"""
