"""Each fault of docs/reliability.md once, on a Slurm of two nodes: the tests of tests/slurm, and a record of them.

    python benchmarks/cluster_faults.py --out reports/reference/soak/cluster-faults.json

As root; other arguments are pytest's, and so is the exit status. A record is written whatever comes of the tests, with
the first line of what one failed of, and why one was skipped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import soak

from hpml_bench.records.files import write_atomically

ROOT = Path(__file__).parents[1]
WITH = ("python", "torch", "hpml_bench", "kernel", "cores")  # with what the record was made


def rows(report: Path) -> list[dict[str, Any]]:
    """Return the tests of pytest's report in JUnit's format: name, how each ended, its seconds."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
        why = {part.tag: part.get("message", "").splitlines()[0:1] for part in case}
        how = next((tag for tag in ("error", "failure", "skipped") if tag in why), "passed")
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        row = {"test": name, "how": how, "seconds": round(float(case.get("time", 0)), 1)}
        found.append(row if how == "passed" else row | {"why": "".join(why[how])})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=soak.RECORDS / "cluster-faults.json")
    asked, others = parser.parse_known_args()
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        command = [sys.executable, "-m", "pytest", "-m", "cluster or cluster_slow", f"--junitxml={file.name}"]
        status = subprocess.run([*command, *others, str(ROOT / "tests" / "slurm")], cwd=ROOT, check=False).returncode
        found = rows(Path(file.name))
    made = soak.blank(0)
    record = {name: made[name] for name in WITH} | {"minutes": round((time.monotonic() - began) / 60, 1)}
    record["passed"] = sum(row["how"] == "passed" for row in found)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(asked.out, json.dumps(record | {"tests": found}, indent=1) + "\n")
    print(f"{asked.out}: {record['passed']} of {len(found)} passed")
    raise SystemExit(status)


if __name__ == "__main__":
    main()
