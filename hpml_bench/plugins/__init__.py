"""Base classes of plug-ins, and the types that they share with the core.

May import `suite`, `records` and what is before them; what imports torch or transformers is imported for types alone.
"""
