"""Verdicts for anybody's numbers: readers of files, the statistics of systems over rows and seeds, and their page.

`readers/` has a file for each kind of input, all of which give `Measured`; `assemble.py` aligns them, `verdicts.py`
chooses the test, `page.py` writes the page. May import `report` and what is before it; never torch.
"""
