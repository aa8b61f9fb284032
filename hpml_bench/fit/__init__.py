"""Prediction of memory: a suite's own training step, evaluation and generation, run on fake
tensors; and advice.

May import training, data, plugins, suite, records, system; not what launches runs.
"""
