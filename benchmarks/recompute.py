"""Recomputation of a report's figures from the records beside it; prints what disagrees.

    python benchmarks/recompute.py FOLDER [FOLDER...]
    python benchmarks/recompute.py --over PAGE FOLDER FOLDER...    the page over these suites that lies in PAGE

A second implementation, written from docs/methodology.md, docs/metrics.md and the files of a results folder alone. It
imports nothing of hpml_bench, so that a mistake there is not repeated here. It chooses the runs by itself, recomputes
every value of report.json from run.json, points.jsonl, predictions.parquet and suite.json, and compares them: numbers
to a relative 1e-6, those in texts to half a unit of their last digit. A value that it has no rule for disagrees. The
pages' words and tables are made from the same values, to which tests hold them; `hpml-bench verify` compares records
with the runs' files. Exit status: 0 all agree, 1 something doesn't, 2 a wrong call. Where the methodology leaves
something open, a comment says so.
"""

import sys

from audit.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
