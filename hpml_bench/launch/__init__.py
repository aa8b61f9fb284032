"""One run: preparation, fork server, launcher, watchdog, agents on several nodes.

May import `training` and the packages before it.
"""
