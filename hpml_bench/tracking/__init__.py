"""Publishing of runs to services, a package for each that needs more than its file in `trackers`.

May import `records`, `report` and what is below them; a service's library only in a process of its own.
"""
