"""Many runs: plan, order, execution by one process or by jobs, tuning, and runs whose ranks
torchrun starts.

May import `launch` and what is before it.
"""
