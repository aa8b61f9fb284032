"""`hpml-bench check`: the comparison of two versions of this code by counts and by paired timings.

May import `training`, `report` and what is below them; inside, measure <- decide <- render.
"""
