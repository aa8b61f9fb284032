"""Training of one run inside a rank: worker, trainer, model, evaluation, clocks and self-checks.

May import `data`, `plugins` and what is below them.
"""
