"""Base classes of plug-ins, and the types that they share with the core.

May import `suite`, `records` and the packages before them. Modules that import torch or
transformers are imported for types alone.
"""
