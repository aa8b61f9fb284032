"""Run in a mount namespace of its own (`unshare -rm`): a sweep on a disk that is small, then full, then read-only.

Prints a JSON object a line: what was done, exit status, what was said, and the statuses on disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from click.testing import CliRunner

from hpml_bench.cli import main
from hpml_bench.records.load import load_records


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def go(name: str, suite: str, folder: Path) -> None:
    options = ["--out", str(folder), "--wandb", "off", "--seeds", "1"]
    result = CliRunner().invoke(main, ["run-all", suite, *options])
    loaded = load_records(folder / "colours")
    told = {
        "name": name,
        "status": result.exit_code,
        "said": result.output,
        "exception": repr(result.exception) if result.exception and result.exit_code not in {0, 1, 2} else None,
        "statuses": [record.status for record in loaded.records],
        "problems": loaded.problems,
        "stamps": [path.stat().st_mtime_ns for path in sorted(folder.glob("colours/*/run.json"))],
        "temporary": [str(path) for path in folder.rglob(".*.tmp")],
    }
    print(json.dumps(told), flush=True)


def fill_while_the_second_trains(folder: Path) -> None:
    """Wait until one run is recorded and another one writes points, then fill the disk."""
    while len(list(folder.glob("colours/*/points.jsonl"))) < 2 or not list(folder.glob("colours/*/run.json")):
        time.sleep(0.01)
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


if __name__ == "__main__":
    suite, folder = sys.argv[1], Path(sys.argv[2])
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
