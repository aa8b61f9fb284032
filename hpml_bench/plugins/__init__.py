"""Base classes of plug-ins, and the types that pass between them and the core."""
