"""Files of runs and of tuning trials: the records, their schema, and the folders that hold them.

May import `suite` and what is before it.
"""
