"""A run seen from its parent: limits, heartbeats, stopping, what is left behind, and how it ended."""
