"""Jobs and the process that waits for them, in a results folder with thousands of records.

    python benchmarks/many_records.py [--runs 5000]

Prints how much longer a job takes from its start to its end in a folder with N records than in one with few, where the
runs of its unit are recorded already (median of differences, interleaved), and time and peak memory of the waiting
process while it looks at the records.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = 5
"""Methods of the suite quickstart, and runs of a unit."""
LOOKS = 5
WAITER = """
import resource, sys, time
from pathlib import Path
from hpml_bench.sweep.jobs import find
sweep = find(Path(sys.argv[1]), print)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
took = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    states = sweep.watch.states()
    left = sweep.watch.left()
    took.append(time.perf_counter() - began)
print(len(states), len(left), took[0], min(took[1:]), before / 1024,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def call(*words: str) -> str:
    """Run the command line of this checkout, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hpml_bench", *words], check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "WANDB_MODE": "offline"},
    )  # fmt: skip
    return done.stdout


def planned(out: Path, seeds: int) -> Path:
    """Return a results folder with a plan of a unit a seed, whose first unit is done by a job and all others copied."""
    call("run-all", "quickstart", "--seeds", str(seeds), "--set", "steps=2", "--set", "train_samples=32",
         "--set", "latency_samples=0", "--on", "manual", "--out", str(out), "--wandb", "off")  # fmt: skip
    folder = out / "quickstart"
    call("work", str(folder / "plan.json"), "--unit", "0")
    fill(folder)
    return folder


def fill(folder: Path) -> None:
    """Give every unit but the last a copy of the recorded runs, under its own ids."""
    from hpml_bench.records.jobs import read_plan, read_resolved
    from hpml_bench.records.load import load_record

    plan = read_plan(folder)
    units = plan.resolved(read_resolved(folder) or plan.suite.settings).units
    recorded = {record.spec.method.name: (path.parent, record) for path in folder.glob("*/run.json")
                for record in [load_record(path)]}  # fmt: skip
    for spec in (spec for unit in units[1:-1] for spec in unit):
        source, record = recorded[spec.method.name]
        own = folder / spec.run_id
        shutil.copytree(source, own, copy_function=os.link, ignore=shutil.ignore_patterns("run.json"))
        changed = record.model_copy(update={"spec": spec, "run_id": spec.run_id})
        (own / "run.json").write_text(changed.model_dump_json(indent=1) + "\n")


def seconds_to_work(folder: Path) -> float:
    """Return the time from the start of a job to its end where the runs of its unit are recorded already."""
    began = time.perf_counter()
    call("work", str(folder / "plan.json"), "--unit", "0")
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000, help="records in the large folder")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpml-many-") as name:
        few, many = planned(Path(name) / "few", 3), planned(Path(name) / "many", given.runs // METHODS)
        pairs = [(seconds_to_work(few), seconds_to_work(many)) for _ in range(given.repeat)]
        differences = [large - small for small, large in pairs]
        waiter = subprocess.run(
            [sys.executable, "-c", WAITER, str(many), str(LOOKS)], check=True, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        ).stdout.split()  # fmt: skip
    runs, units, first, later, start, peak = map(float, waiter)
    print(json.dumps({
        "records": int(runs), "units left": int(units),
        "job, seconds more than among few": round(statistics.median(differences), 3),
        "job, seconds among few": round(statistics.median(small for small, _ in pairs), 3),
        "first look, seconds": round(first, 3), "later look, seconds": round(later, 4),
        "waiting process, MB after imports": round(start), "waiting process, MB at its peak": round(peak),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
