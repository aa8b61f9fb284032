"""Recomputation of a report's figures from the records beside it; prints what disagrees.

    python benchmarks/recompute.py FOLDER [FOLDER...]
    python benchmarks/recompute.py --over PAGE FOLDER FOLDER...    the page over these suites that lies in PAGE

A second implementation, written from docs/methodology.md, docs/metrics.md and the files of a results folder alone. It
imports nothing of hpml_bench, so that a mistake there is not repeated here. It chooses the runs by itself, recomputes
every number, name and verdict of report.json from run.json, points.jsonl, predictions.parquet and suite.json, and
compares them: numbers to a relative 1e-6. A value that it has no rule for disagrees, sentences apart. The pages' words
and tables are made from the same values, to which tests hold them; `hpml-bench verify` compares records with the runs'
files. Exit status: 0 all agree, 1 something doesn't, 2 a wrong call. Where the methodology leaves
something open, a comment says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from audit.answer import answer_of, compare_answer
from audit.over_suites import audit_over
from audit.reading import read_study
from audit.study import Study
from audit.values import Audit


def audit_page(study: Study, page: Path) -> Audit:
    """Check the answer in a page's folder."""
    audit = Audit()
    if study.compared:
        compare_answer(audit, json.loads((page / "report.json").read_text(encoding="utf-8")), answer_of(study))
    return audit


def main(arguments: list[str]) -> int:
    over = arguments[:1] == ["--over"]
    pages, suites = (list(map(Path, part)) for part in ((arguments[1:2], arguments[2:]) if over else [arguments] * 2))
    if len(suites) < 1 + over or not all((suite / "suite.json").exists() for suite in suites):
        print(__doc__)
        return 2
    wrong = False
    for folder in pages:
        study = None if over else read_study(folder)
        if (study is None or study.compared) and not (folder / "report.json").exists():
            made = " ".join(map(str, [*suites, "--out", folder] if over else [folder]))
            print(f"{folder} lacks report.json: `hpml-bench report {made} --format md` makes it")
            return 2
        audit = audit_over(folder, suites) if study is None else audit_page(study, folder)
        for line in audit.problems:
            print(f"DISAGREES: {line}")
        print(f"{folder}: {audit.checked} figures checked, {len(audit.problems)} disagree")
        wrong |= bool(audit.problems)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
