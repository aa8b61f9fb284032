"""Recomputation of a report's figures from the records beside it; prints what disagrees.

    python benchmarks/recompute.py FOLDER [FOLDER...]
    python benchmarks/recompute.py --over PAGE FOLDER FOLDER...    the page over these in PAGE

A second implementation, written from docs/methodology.md, docs/metrics.md and the files of a
results folder alone. It imports nothing of hpml_bench, so that a mistake there is not repeated
here. It chooses the runs by itself, recomputes every number, name and verdict of report.json from
run.json, points.jsonl, predictions.parquet and suite.json, and compares them: numbers to a relative
1e-6. A value that it has no rule for disagrees, sentences apart. The pages' words and tables are
made from the same values, to which tests hold them; `hpml-bench verify` compares records with the
runs' files. Exit status: 0 all agree, 1 something doesn't, 2 a wrong call. Where the methodology
leaves something open, a comment says so.
"""

import json
import sys
from pathlib import Path

from audit.answer import answer_of, compared
from audit.over_suites import answer_over, read_over
from audit.study import read_study


def main(arguments: list[str]) -> int:
    over = arguments[:1] == ["--over"]
    pages, suites = (
        list(map(Path, part))
        for part in ((arguments[1:2], arguments[2:]) if over else [arguments] * 2)
    )
    if len(suites) < 1 + over or not all((suite / "suite.json").exists() for suite in suites):
        print(__doc__)
        return 2
    wrong = False
    for folder in pages:
        study = None if over else read_study(folder)
        checked, problems, given = 0, list[str](), folder / "report.json"
        if study is None or study.compared:
            if not given.exists():
                made = " ".join(map(str, [*suites, "--out", folder] if over else [folder]))
                print(
                    f"{folder} lacks report.json: `hpml-bench report {made} --format md` makes it"
                )
                return 2
            recomputed = answer_over(read_over(suites)) if study is None else answer_of(study)
            checked, problems = compared(json.loads(given.read_text(encoding="utf-8")), recomputed)
        for line in problems:
            print(f"DISAGREES: {line}")
        print(f"{folder}: {checked} figures checked, {len(problems)} disagree")
        wrong |= bool(problems)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
