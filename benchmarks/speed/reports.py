"""Reports of a thousand and ten thousand records, the list of their runs, and `--help`."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.load import load_records
from hpml_bench.records.run import RunRecord
from speed.target import Target

REFERENCE = Path(__file__).parent.parent.parent / "reports" / "reference" / "quickstart"
REPORT_SECONDS = {1_000: 10.0, 10_000: 60.0}
REPORT_MB, LIST_SECONDS, HELP_SECONDS = 500.0, 2.0, 0.4


def measure(sizes: tuple[int, ...]) -> list[Target]:
    """Return the targets; records are copies of the committed quickstart's with their figures moved a little."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            folder = Path(name) / "quickstart"
            multiply(folder, size)
            seconds, peak = _timed("report", str(folder), "--out", str(Path(name) / "out"))
            asked = REPORT_SECONDS.get(size)
            found.append(Target(f"report of {size:,} records", seconds, "s", asked, "at most"))
            memory = REPORT_MB if size == 1_000 else None
            found.append(Target(f"its peak memory, {size:,} records", peak, "MB", memory, "at most"))
        listed, _ = _timed("list", "runs", str(folder))
        found.append(
            Target(f"list runs over {size:,}", listed, "s", LIST_SECONDS if size >= 10_000 else None, "at most")
        )
    times = [_timed("--help")[0] for _ in range(7)]
    spread = min(times), max(times)
    found.append(Target("--help", statistics.median(times), "s", HELP_SECONDS, "at most", {"seconds": times}, spread))
    return found


def multiply(folder: Path, size: int) -> None:
    """Write copies of the reference's records under new seeds until there are `size`; those there are kept."""
    records = load_records(REFERENCE).records
    methods = sorted({record.spec.method.name for record in records})
    for method in methods:
        own = [record for record in records if record.spec.method.name == method]
        for seed in range(size // len(methods)):
            _copy(own[seed % len(own)], seed, folder)


def _copy(record: RunRecord, seed: int, folder: Path) -> None:
    spec = record.spec.model_copy(update={"seed": seed})
    target = folder / spec.run_id
    if target.exists():
        return
    target.mkdir(parents=True)
    noise = random.Random(spec.run_id)  # noqa: S311 - made-up figures
    moved = {k: v if v is None or "parameters" in k else v * noise.gauss(1, 0.01) for k, v in record.metrics.items()}
    update = {
        "spec": spec,
        "run_id": spec.run_id,
        "metrics": moved | {"test_accuracy": record.metrics["test_accuracy"]},
    }
    for name in (POINTS, PREDICTIONS):
        shutil.copy(REFERENCE / record.run_id / name, target / name)
    (target / RECORD).write_text(record.model_copy(update=update).model_dump_json(indent=1) + "\n")


def _timed(*arguments: str) -> tuple[float, float]:
    """Return seconds and peak memory in MB of `hpml-bench` with these arguments, as a process of its own."""
    code = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.monotonic()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "seconds = time.monotonic() - began\n"
        "print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6]))\n"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "hpml_bench", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak
