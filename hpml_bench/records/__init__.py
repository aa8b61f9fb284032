"""Records of runs on disk: the record itself, its points and predictions, and the folders that hold them.

May import `config` and `system`.
"""
