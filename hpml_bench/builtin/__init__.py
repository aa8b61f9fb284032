"""Plug-ins that ship with the package, a folder for each kind, a file for each plug-in.

May import everything but `api` and `cli`; heavy libraries inside functions; no other plug-in. All
other code gets them from the registry.
"""
