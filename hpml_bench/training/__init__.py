"""One run inside a rank: model, trainer, evaluation, clocks, and the worker. May import `data`
and rooms before it.
"""
