"""Verdicts for anybody's numbers: readers of files, the statistics of systems over rows and seeds, and their page.

`readers/` has a file for each kind of input, all of which give `InputScores`; `doubtful.py` refuses numbers that stand
for something else, `assemble.py` and `align.py` give each data set's `AlignedScores`, `page.py` counts looks and writes
pages. May import `report` and what is before it; never torch.
"""
