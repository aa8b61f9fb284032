"""Base classes of plug-ins (Method, Optimizer, Task, DatasetLoader, Probe, Tracker), and the types they share.

May import `config`, `records` and what is before them; no training library but inside functions.
"""
