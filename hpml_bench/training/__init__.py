"""One run inside a rank: model, trainer, evaluation, clocks, self-checks, and the worker that puts them to use.

May import `data`, `plugins` and what is below them.
"""
