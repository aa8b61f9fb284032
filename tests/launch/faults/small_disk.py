"""Run in a mount namespace of its own (`unshare -rm`): sweeps whose results, or whose cache, lie on
a disk too small.

Prints a JSON object a line: what was done, exit status, what was said, and the statuses of the runs
on disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from click.testing import CliRunner
from package_index import make_wheel

from hpml_bench.cli import main
from hpml_bench.records.load import load_records
from hpml_bench.system import disk


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def go(name: str, suite: str, folder: Path, *options: str) -> None:
    """Run the sweep, and tell how it went."""
    fixed = ["--out", str(folder), "--wandb", "off", "--seeds", "1"]
    result = CliRunner().invoke(main, ["run-all", suite, *fixed, *options])
    loaded = load_records(folder / "colours")
    told = {
        "name": name,
        "status": result.exit_code,
        "said": result.output,
        "error": result.stderr,
        "exception": repr(result.exception)
        if result.exception and result.exit_code not in {0, 1, 2}
        else None,
        "statuses": [record.status for record in loaded.records],
        "problems": loaded.problems,
        "stamps": [path.stat().st_mtime_ns for path in sorted(folder.glob("colours/*/run.json"))],
        "temporary": [str(path) for path in folder.rglob(".*.tmp")],
    }
    print(json.dumps(told), flush=True)


def fill_while_the_second_trains(folder: Path) -> None:
    """Wait until one run is recorded and another one writes points, then fill the disk."""
    while len(list(folder.glob("colours/*/points.jsonl"))) < 2 or not list(
        folder.glob("colours/*/run.json")
    ):
        time.sleep(0.01)
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


def results(suite: str, folder: Path) -> None:
    """Do a sweep on a disk that is small, then full, then read-only."""
    mount(folder, "size=8m")
    go("too small", suite, folder)
    mount(folder, "size=48m")
    filler = threading.Thread(target=fill_while_the_second_trains, args=(folder,), daemon=True)
    filler.start()
    go("filled", suite, folder)
    filler.join()
    go("still full", suite, folder)
    (folder / "filler").unlink()
    go("freed", suite, folder)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    go("read-only", suite, folder)


def cached(name: str, suite: str, megabytes: int, *options: str, read_only: bool = False) -> None:
    """Do a sweep whose cache is on a disk of this size."""
    cache = Path(os.environ["HPML_BENCH_CACHE"])
    mount(cache, f"size={megabytes}m")
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    with tempfile.TemporaryDirectory() as out:
        go(name, suite, Path(out), "--methods", "head", *options)
    subprocess.run(["umount", str(cache)], check=True)


def caches(suite: str) -> None:
    wheel, uri = make_wheel(Path(suite).parent, Path(suite).with_name("model"), ballast=3_000_000)
    os.environ |= {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
    }
    cached("too small", suite, 8)
    cached("read-only", suite, 8, read_only=True)
    disk.LEAST_FREE_MB = 0  # so that small files fill it
    cached("reading the rows", suite, 1)
    cached("labelling the rows", suite, 2)
    cached("tokenising the rows", suite, 4)
    cached("fetching a wheel", suite, 2, "--set", f"backbone={uri}")
    cached("enough", suite, 64)


if __name__ == "__main__":
    suite, *folders = sys.argv[1:]
    results(suite, Path(*folders)) if folders else caches(suite)
