"""Optimizers, one file each: a class that extends plugins.optimizer.Optimizer."""
