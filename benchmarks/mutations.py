"""Mutations: plausible bugs, one at a time, each of which its tests must notice.

    python benchmarks/mutations.py [--only ID ...] [-j N]

benchmarks/mutations.toml lists them: an area, a file, a text that occurs in it once, the text of the bug, and the
cheapest tests that notice it. Each is tried in a copy of the repository. It is killed where its tests fail or hang, and
has survived where they pass; it is stale where its text is not in the file once, or pytest can't run its tests. The
status is 1 where one has survived or is stale, or tests fail without any mutation.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")
AREAS = ("claims", "commit", "watchdog", "selection", "statistics")
SECONDS = 120.0  # seconds after which tests of a mutation hang
UNMUTATED_SECONDS = 1800.0
PASSED, FAILED, INTERRUPTED = 0, 1, 2
"""pytest's exit statuses: all passed, some failed, and files of tests that can't be imported."""


@dataclass(frozen=True)
class Mutation:
    """A bug, by the text that becomes another, and the tests that must notice it."""

    id: str
    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def stale(self, root: Path) -> str | None:
        """Return why it can't be tried on this repository; None where it can."""
        if not (root / self.file).is_file():
            return f"there is no {self.file}"
        if (count := (root / self.file).read_text(encoding="utf-8").count(self.old)) != 1:
            return f"its text occurs {count} times in {self.file}"
        missing = [test for test in self.tests if not (root / test.partition("::")[0]).is_file()]
        return f"there is no {missing[0]}" if missing else None


class Copy:
    """A copy of the repository's files, in which one mutation at a time is applied."""

    def __init__(self, root: Path) -> None:
        self.root, self._written = root, itertools.count(1)
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in listed.split("\0"):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)

    def test(self, tests: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Return pytest's status on these tests, None after so many seconds, and its output."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        own = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
        with subprocess.Popen(
            words, cwd=self.root, env=os.environ | own, text=True, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return None, process.communicate()[0]
        return process.returncode, said

    def write(self, path: Path, text: str) -> None:
        """Write a file with another second of change than before, by which Python knows compiled files as outdated."""
        path.write_text(text, encoding="utf-8")
        when = time.time() + 2 * next(self._written)
        os.utime(path, (when, when))


def read_table(path: Path = TABLE) -> tuple[Mutation, ...]:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return tuple(Mutation(**entry | {"tests": tuple(entry["tests"])}) for entry in entries)


def verdict(mutation: Mutation, copy: Copy) -> tuple[str, str]:
    """Return `killed`, `SURVIVED` or `stale`, and what says so."""
    if why := mutation.stale(copy.root):
        return "stale", why
    began, path = time.monotonic(), copy.root / mutation.file
    text = path.read_text(encoding="utf-8")
    copy.write(path, text.replace(mutation.old, mutation.new))
    try:
        status, said = copy.test(mutation.tests, SECONDS)
    finally:
        copy.write(path, text)
    took = f"{time.monotonic() - began:.1f} s"
    if status is None:
        return "killed", f"{took}, as its tests hang"
    if status == FAILED or (status == INTERRUPTED and "KeyboardInterrupt" in said):
        return "killed", took
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    return ("SURVIVED", took) if status == PASSED else ("stale", f"pytest ends with status {status}: {last}")


def try_all(mutations: Sequence[Mutation], jobs: int) -> Mapping[str, tuple[str, str]]:
    """Return id -> verdict; SystemExit where tests fail without any mutation."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as room, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for at in range(jobs):
            copies.put(Copy(Path(room) / str(at)))
        there = [one for one in mutations if one.stale(ROOT) is None]

        def one(mutation: Mutation) -> tuple[str, str]:
            copy = copies.get()
            try:
                found = verdict(mutation, copy)
            finally:
                copies.put(copy)
            print(f"{found[0]:<9} {mutation.area:<10} {mutation.id}: {found[1]}", flush=True)
            return found

        first = copies.get()
        status, said = first.test(list(dict.fromkeys(test for one in there for test in one.tests)), UNMUTATED_SECONDS)
        copies.put(first)
        if there and status != PASSED:
            raise SystemExit(f"{said}\nwithout a mutation these tests end with status {status}")
        return dict(zip((mutation.id for mutation in mutations), pool.map(one, mutations), strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="ID", help="these mutations")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mutations that are tried at a time")
    options = parser.parse_args(argv)
    table = read_table()
    if unknown := set(options.only or ()) - {one.id for one in table}:
        parser.error(f"there is no mutation {', '.join(sorted(unknown))}")
    chosen = [one for one in table if not options.only or one.id in options.only]
    found = [how for how, _ in try_all(chosen, options.jobs).values()]
    print(", ".join(f"{found.count(how)} {how}" for how in ("killed", "SURVIVED", "stale")))
    return int(found.count("killed") < len(found))


if __name__ == "__main__":
    sys.exit(main())
