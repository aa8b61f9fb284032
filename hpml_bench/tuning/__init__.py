"""Learning rates chosen by the same number of trials for every method, on validation rows.

May import `launch` and what is below it.
"""
