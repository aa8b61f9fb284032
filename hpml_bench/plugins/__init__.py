"""Base classes of plug-ins (Method, Task, DatasetLoader, Probe), and the types that pass between them and the core.

May import `config` and `records`; no training library but inside functions.
"""
