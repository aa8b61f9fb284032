"""From records to the runs that may be compared, with the reason for each that may not.

May import `records`, `plugins`, `statistics` and what is below them; no verdict, no page, no
training library.
"""
