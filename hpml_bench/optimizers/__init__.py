"""Optimizers, one file each: a class that extends plugins.optimizer.Optimizer.

May import `plugins` and what is before it, and `training` inside functions; no other plug-in.
"""
