"""Base classes of plug-ins (Method, Task, DatasetLoader, Probe, Tracker), and the types that pass to and from them.

May import `config`, `records` and what is before them; no training library but inside functions.
"""
