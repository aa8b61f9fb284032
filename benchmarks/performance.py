"""Speed of the project against its targets: a line for each target with figure, spread and whether
it is met.

    python benchmarks/performance.py [--quick] [--only PART,PART] [--json FILE]
    python benchmarks/performance.py --show FILE

The parts are sweep, rows, reports, probes and training; and, measured only when named, language
models against TRL (language, which needs `pip install trl`). Contenders take turns on this machine,
in processes of their own, in random order. The whole takes up to 25 minutes on two cores; `--quick`
measures less of everything, within five, and its figures that aren't of the target's size are for
comparison. With `--only`, FILE keeps the other parts it had, each with its date. Probes and
language are measured on the CPU only, also where there is a GPU. Exit status 1 if a target is not
met.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speed import HEADER, Target, harness, language, probes, shapes, training

from hpml_bench.system.environment import describe

APART = ("language",)
"""Parts that need a package of the opponent's, measured only when named, with a record of their
own.
"""
MINUTES = {False: 25, True: 5}  # that the table may take, whole and by `--quick`


def parts(quick: bool) -> dict[str, Callable[[], list[Target]]]:
    models = ("gpt2",) if quick else shapes.MODELS
    methods = ("lora",) if quick else tuple(shapes.METHODS)
    return {
        "sweep": lambda: harness.sweep(1 if quick else harness.SEEDS),
        "rows": lambda: harness.rows(12_000 if quick else harness.ROWS),
        "reports": lambda: harness.reports((1_000,) if quick else (1_000, 10_000)),
        "probes": lambda: probes.measure(*((4, 2) if quick else (probes.BLOCKS, probes.TRAININGS))),
        "training": lambda: training.measure(1 if quick else 3, models, methods),
        "language": lambda: language.measure(1 if quick else 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="parts, separated by commas", metavar="A,B")
    parser.add_argument("--json", type=Path, help="write the measurements here", metavar="FILE")
    parser.add_argument(
        "--show", type=Path, help="print the table of a record, and measure nothing", metavar="FILE"
    )
    options = parser.parse_args()
    if options.show:
        record = json.loads(options.show.read_text())
        print(HEADER, *rows_of(record), sep="\n")
        if "training" in record["parts"]:
            print("", *ratios_of(record), sep="\n")
        return 0
    known = parts(options.quick)
    wanted = (
        options.only.split(",") if options.only else [name for name in known if name not in APART]
    )
    if unknown := set(wanted) - set(known):
        parser.error(
            f"--only: no part is called {', '.join(sorted(unknown))}; there are {', '.join(known)}"
        )
    found: list[Target] = []
    started = time.monotonic()
    print(HEADER)
    for name in wanted:
        began = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        measured = known[name]()
        for target in measured:
            print(target.row(), flush=True)
        print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        found.extend(measured)
        if options.json:
            keep(options.json, name, measured, options.quick)
    if not options.only:
        minutes = (time.monotonic() - started) / 60
        found.append(Target("this table", minutes, "min", MINUTES[options.quick], "at most"))
        print(found[-1].row())
        if options.json:
            keep(options.json, "time", found[-1:], options.quick)
    return 0 if all(target.met is not False for target in found) else 1


def rows_of(record: dict[str, Any]) -> list[str]:
    kept = [target for part in record["parts"].values() for target in part["targets"]]
    return [
        Target(**{key: value for key, value in one.items() if key != "met"}).row() for one in kept
    ]


def ratios_of(record: dict[str, Any]) -> list[str]:
    """Return a short table of a record's ratios to the HF Trainer, a line a model and method."""
    medians = {
        target["name"]: target["figure"] for target in record["parts"]["training"]["targets"]
    }
    opponents = list(training.TITLES.values())
    cases = dict.fromkeys(name.partition(":")[0] for name in medians if "against" in name)
    lines = [
        f"| our samples/s against | {' | '.join(opponents)} |",
        "|---" * (1 + len(opponents)) + "|",
    ]
    for case in cases:
        cells = [f"{medians[f'{case}: samples/s against {title}']:.2f} x" for title in opponents]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def revision() -> str | None:
    """Return the commit of what is measured and measures, with "-dirty" where files differ; None
    without git.
    """
    git = ["git", "-C", str(Path(__file__).parents[1])]
    commit = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], check=False, capture_output=True, text=True
    )
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "hpml_bench", "benchmarks"], check=False
    )
    return commit.stdout.strip() + "-dirty" * (changed.returncode == 1) or None


def keep(file: Path, part: str, targets: list[Target], quick: bool) -> None:
    """Write a part into the record, in place of what was there of it."""
    record = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    record["parts"][part] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe(),
        "revision": revision(),
        "quick": quick,
        "targets": [{**asdict(target), "met": target.met} for target in targets],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
