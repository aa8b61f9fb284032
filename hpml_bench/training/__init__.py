"""One run inside a rank: model, trainer, evaluation, clocks, self-checks, and the worker that puts them to use.

May import `data` and the packages before it.
"""
