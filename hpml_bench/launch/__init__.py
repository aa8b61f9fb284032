"""One run: preparation, fork server, launcher, watchdog, outcome, agents on further nodes.

May import `training` and the packages before it.
"""
