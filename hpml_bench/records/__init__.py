"""What a run leaves on disk: the record, its points and predictions, and the folders that hold them.

May import `config` and `system`.
"""
