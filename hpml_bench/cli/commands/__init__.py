"""Commands, one file each: a click command with the name of its file. Nothing heavy is imported
before one runs.
"""
