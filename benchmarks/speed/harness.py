"""The harness itself: the sweep that a user calls, rows prepared and cached, reports of many
records, and `--help`.

python -m speed.harness TABLE ROWS      prepares rows in a process that has its imports done
"""

import csv
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.load import load_records
from hpml_bench.records.run import RunRecord
from hpml_bench.system.environment import PROCESS_ENVIRONMENT
from speed import Target, at_most, import_path, memory_mb, shapes

SEEDS = 5  # of the suite quickstart
SWEEP_SECONDS, LEAST_TRAINING, FIRST_STEP, FIRST_RUN = 100.0, 0.7, 0.7, 5.0
TRAINING = ("train_seconds", "evaluation_seconds", "inference_seconds")
ROWS, FIRST_SECONDS, AGAIN_SECONDS, FLAT = 120_000, 20.0, 1.0, 1.1
"""Rows as long as AG News's, tokenised once, then taken from the cache."""
REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "quickstart"
REPORT_SECONDS = {1_000: 10.0, 10_000: 60.0}
REPORT_MB, LIST_SECONDS, HELP_SECONDS = 500.0, 2.0, 0.4


def sweep(seeds: int) -> list[Target]:
    """Return the sweep's targets; with other than the suite's seeds its time and shares are not
    held to theirs.
    """
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        environment = {
            key: value for key, value in os.environ.items() if key not in PROCESS_ENVIRONMENT
        }
        command = [
            sys.executable,
            "-m",
            "hpml_bench",
            "run-all",
            "quickstart",
            "--out",
            name,
            "--wandb",
            "off",
        ]
        subprocess.run(
            [*command, "--seeds", str(seeds)], env=environment, check=True, stdout=sys.stderr
        )
        wall = time.monotonic() - began
        records = sorted(
            load_records(Path(name) / "quickstart").records, key=lambda record: record.order or 0
        )
    if bad := [record.run_id for record in records if record.status != "ok"]:
        raise RuntimeError(f"these runs did not end well: {', '.join(bad)}")

    def measured(record: RunRecord, *metrics: str) -> float:
        return sum(record.metrics[name] or 0.0 for name in metrics)

    first, *later = [measured(record, "first_step_seconds") for record in records]
    spent, whole = sum(measured(record, *TRAINING) for record in records), seeds == SEEDS
    raw = {
        "runs": len(records),
        "wall_seconds": wall,
        "training_seconds": spent,
        "run_seconds": [r.seconds for r in records],
    }
    return [
        at_most(
            f"run-all quickstart, {len(records)} runs, report included",
            [wall],
            "s",
            SWEEP_SECONDS if whole else None,
            raw,
        ),
        Target(
            "of that, training and evaluation",
            spent / wall,
            "",
            LEAST_TRAINING if whole else None,
            "at least",
            raw,
        ),
        at_most(
            "launch to first step, second and later runs of a sweep, 2 ranks",
            later,
            "s",
            FIRST_STEP,
            {"seconds": later},
        ),
        at_most(
            "launch to first step, first run (the fork server's imports come before)",
            [first],
            "s",
            FIRST_RUN,
            {"seconds": [first]},
        ),
    ]


def rows(count: int) -> list[Target]:
    """Return first and second preparation, and the memory a tenth of the rows and all of them
    take.
    """
    with tempfile.TemporaryDirectory() as name:
        few, first, again = (_prepare(Path(name), rows) for rows in (count // 10, count, count))
    raw = {"rows": [count // 10, count, count], "measured": [few, first, again]}
    growth, full = first["peak_mb"] / few["peak_mb"], count >= ROWS
    return [
        at_most(
            f"{count:,} rows tokenised and cached",
            [first["seconds"]],
            "s",
            FIRST_SECONDS if full else None,
            raw,
        ),
        at_most(
            "the same rows again", [again["seconds"]], "s", AGAIN_SECONDS if full else None, raw
        ),
        at_most("memory of ten times the rows", [growth], "x", FLAT if full else None, raw),
    ]


def _prepare(folder: Path, count: int) -> dict[str, float]:
    """Return the seconds of `prepare` and the process's peak memory in MB, in a process of its
    own.
    """
    table = folder / f"{count}.csv"
    if not table.exists():
        write_rows(table, count)
    own = {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TOKENIZERS_PARALLELISM": "true",
    } | import_path()  # as of run-all's
    command, env = (
        [sys.executable, "-m", "speed.harness", str(table), str(count)],
        os.environ | PROCESS_ENVIRONMENT,
    )
    done = subprocess.run(command, env=env | own, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_rows(path: Path, count: int) -> None:
    """Write texts of made-up words, 52 a text on average, and one of four labels each."""
    draw = np.random.default_rng(0)
    syllables = np.array("ba co di fer gul ham in jor kel mon nor per sta ting".split())  # noqa: SIM905
    words = np.array(["".join(draw.choice(syllables, draw.integers(1, 4))) for _ in range(5000)])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for length in shapes.lengths(count):
            writer.writerow(
                [" ".join(draw.choice(words, length)), f"class {draw.integers(shapes.CLASSES)}"]
            )


def main() -> None:
    from hpml_bench.data.prepare import prepare
    from hpml_bench.suite.settings import DatasetSpec, Settings

    table, count = sys.argv[1], int(sys.argv[2])
    settings = Settings(
        backbone="embedded:newswire-gpt2",
        dataset=DatasetSpec(
            name="text_files", options={"train": f"path:{table}", "text": "text", "label": "label"}
        ),
        steps=1,
        max_length=64,
        validation_samples=500,
        test_samples=count // 20,
    )
    began = time.monotonic()
    prepare(settings)
    print(json.dumps({"seconds": time.monotonic() - began, "peak_mb": memory_mb()}))


def reports(sizes: tuple[int, ...]) -> list[Target]:
    """Return the targets; records are copies of the committed quickstart's with their figures
    moved a little.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "quickstart"
        for size in sizes:
            multiply(folder, size)
            seconds, peak = _timed("report", str(folder), "--out", str(Path(name) / "out"))
            memory = REPORT_MB if size == 1_000 else None
            found.append(
                at_most(f"report of {size:,} records", [seconds], "s", REPORT_SECONDS.get(size), {})
            )
            found.append(at_most(f"its peak memory, {size:,} records", [peak], "MB", memory, {}))
        listed, _ = _timed("list", "runs", str(folder))
        found.append(
            at_most(
                f"list runs over {size:,}",
                [listed],
                "s",
                LIST_SECONDS if size >= 10_000 else None,
                {},
            )
        )
    times = [_timed("--help")[0] for _ in range(7)]
    return [*found, at_most("--help", times, "s", HELP_SECONDS, {"seconds": times})]


def multiply(folder: Path, size: int) -> None:
    """Write copies of the reference's records under new seeds until there are `size`; those
    there are kept.
    """
    by_method: dict[str, list[RunRecord]] = {}
    for record in load_records(REFERENCE).records:
        by_method.setdefault(record.spec.method.name, []).append(record)
    for own, seed in itertools.product(by_method.values(), range(size // len(by_method))):
        record = own[seed % len(own)]
        spec = record.spec.model_copy(update={"seed": seed})
        target, old = folder / spec.run_id, record.metrics
        if target.exists():
            continue
        target.mkdir(parents=True)
        noise = random.Random(spec.run_id)  # noqa: S311 - made-up figures
        moved = {
            k: v if v is None or "parameters" in k else v * noise.gauss(1, 0.01)
            for k, v in old.items()
        }
        moved["test_accuracy"] = old["test_accuracy"]
        for name in (POINTS, PREDICTIONS):
            shutil.copy(REFERENCE / record.run_id / name, target / name)
        made = record.model_copy(update={"spec": spec, "run_id": spec.run_id, "metrics": moved})
        (target / RECORD).write_text(made.model_dump_json(indent=1) + "\n")


def _timed(*arguments: str) -> tuple[float, float]:
    """Return seconds and peak memory in MB of `hpml-bench` with these arguments, as a process of
    its own.
    """
    code = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.monotonic()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "seconds = time.monotonic() - began\n"
        "print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 "
        "/ 1e6]))\n"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "hpml_bench", *arguments]
    seconds, peak = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return seconds, peak


if __name__ == "__main__":
    main()
