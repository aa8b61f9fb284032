"""Rows: 120,000 as long as AG News's, tokenised once, then taken from the cache."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from hpml_bench.system.environment import PROCESS_ENVIRONMENT
from speed import shapes
from speed.target import Target

FIRST_SECONDS, AGAIN_SECONDS, FLAT = 20.0, 1.0, 1.1


def measure(rows: int) -> list[Target]:
    """Return first and second preparation, and the memory a tenth of the rows and all of them take."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, first, again = (_prepare(folder, count) for count in (rows // 10, rows, rows))
    raw = {"rows": [rows // 10, rows, rows], "measured": [few, first, again]}
    growth, anonymous = (first[kind] / few[kind] for kind in ("peak_mb", "anonymous_mb"))
    full = rows >= 120_000
    return [
        Target(
            f"{rows:,} rows tokenised and cached",
            first["seconds"],
            "s",
            FIRST_SECONDS if full else None,
            "at most",
            raw,
        ),
        Target("the same rows again", again["seconds"], "s", AGAIN_SECONDS if full else None, "at most", raw),
        Target("memory of ten times the rows", growth, "x", FLAT if full else None, "at most", raw),
        Target("of that, without mapped files", anonymous, "x", None, "at most", raw),
    ]


def _prepare(folder: Path, rows: int) -> dict[str, float]:
    """Return the seconds of `prepare` and the process's peak memory in MB, in a process that has its imports done."""
    table = folder / f"{rows}.csv"
    if not table.exists():
        write_rows(table, rows)
    environment = (
        os.environ
        | PROCESS_ENVIRONMENT
        | {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "TOKENIZERS_PARALLELISM": "true",  # as in the process that run-all prepares in
        }
    )
    command = [sys.executable, "-m", "speed.rows", str(table), str(rows)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_rows(path: Path, rows: int) -> None:
    """Write texts of made-up words, 52 a text on average, and one of four labels each."""
    generator = np.random.default_rng(0)
    syllables = np.array(
        ["ba", "co", "di", "fer", "gul", "ham", "in", "jor", "kel", "mon", "nor", "per", "sta", "ting"]
    )
    words = np.array(["".join(generator.choice(syllables, generator.integers(1, 4))) for _ in range(5000)])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for length in shapes.lengths(rows):
            writer.writerow([" ".join(generator.choice(words, length)), f"class {generator.integers(shapes.CLASSES)}"])


def main() -> None:
    """Prepare the rows of a table once and print seconds and peak memory as JSON."""
    from hpml_bench.data.prepare import prepare
    from hpml_bench.suite.settings import DatasetSpec, Settings

    table, rows = sys.argv[1], int(sys.argv[2])
    settings = Settings(
        backbone="embedded:newswire-gpt2",
        dataset=DatasetSpec(name="text_files", options={"train": f"path:{table}", "text": "text", "label": "label"}),
        steps=1, max_length=64, validation_samples=500, test_samples=rows // 20,
    )  # fmt: skip
    over, peaks = threading.Event(), [0.0]

    def look() -> None:
        while not over.wait(0.02):
            peaks.append(anonymous_mb())

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    prepare(settings)
    seconds = time.monotonic() - began
    over.set()
    looking.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "anonymous_mb": max(peaks)}))


def anonymous_mb() -> float:
    """Return the memory of this process now that is no file's: what the kernel can't drop and read anew."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


if __name__ == "__main__":
    main()
