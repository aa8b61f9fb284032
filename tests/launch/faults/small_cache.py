"""Run in a mount namespace of its own (`unshare -rm`): preparations whose cache lies on a disk that is too small.

Prints a JSON object a line: what was done, exit status, and what was said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner
from package_index import make_wheel

from hpml_bench.cli import main
from hpml_bench.system import disk


def go(name: str, suite: Path, cache: Path, megabytes: int, *options: str, read_only: bool = False) -> None:
    """Mount a disk of this size for the cache, run the command, and tell how it went."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(cache)], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    with tempfile.TemporaryDirectory() as out:
        fixed = ["--out", out, "--wandb", "off", "--seeds", "1", "--methods", "head"]
        result = CliRunner().invoke(main, ["run-all", str(suite), *fixed, *options])
    print(json.dumps({"name": name, "status": result.exit_code, "said": result.stderr}), flush=True)
    subprocess.run(["umount", str(cache)], check=True)


if __name__ == "__main__":
    suite, cache = Path(sys.argv[1]), Path(os.environ["HPML_BENCH_CACHE"])
    wheel, uri = make_wheel(suite.parent, suite.parent / "model", ballast=3_000_000)
    os.environ |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}
    go("too small", suite, cache, 8)
    go("read-only", suite, cache, 8, read_only=True)
    disk.LEAST_FREE_MB = 0  # so that small files fill it
    go("reading the rows", suite, cache, 1)
    go("labelling the rows", suite, cache, 2)
    go("tokenising the rows", suite, cache, 4)
    go("fetching a wheel", suite, cache, 2, "--set", f"backbone={uri}")
    go("enough", suite, cache, 64)
