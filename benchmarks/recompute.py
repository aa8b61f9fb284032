"""Recomputation of every figure of a report from the records beside it; prints what disagrees.

    python benchmarks/recompute.py [-v] FOLDER [FOLDER...]

A second implementation, written from docs/methodology.md, docs/metrics.md and the files of a results folder alone. It
imports nothing of hpml_bench, so that a mistake there is not repeated here. It chooses the runs by itself, recomputes
tables, takeaways and the figures' descriptions from run.json, points.jsonl, predictions.parquet and suite.json, and
compares them with report.md: a figure agrees if it is what the recomputed value rounds to. What it has no check for is
printed too; -v adds the lines with digits that it passes over. Exit status: 0 all agree, 1 something doesn't, 2 a wrong
call. Where the methodology leaves something open, a comment says so.
"""

import sys

from audit.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
