"""Verdicts for anybody's numbers: readers of files, the statistics of systems over rows and seeds,
and their page.

`readers/` has a file for each kind of input, all of which give `InputScores`; `assemble.py` and
`align.py` give each data set's `AlignedScores` and refuse numbers that stand for something else,
`looks.py` counts looks, and `page.py` writes pages. May import `report` and what is before it;
never torch.
"""
