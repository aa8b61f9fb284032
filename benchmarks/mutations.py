"""Mutations: plausible bugs, one at a time, each of which its tests must notice.

    python benchmarks/mutations.py [--only ID ...] [-j N]

benchmarks/mutations.toml lists them: an area, a file, a function in it, a text that occurs in that
function once, the text of the bug, and the cheapest tests that notice it. Texts are compared by
their tokens, so that a mutation stays when its function is reformatted. Each is tried in a copy of
the repository. It is killed where its tests fail or hang, and has survived where they pass. It is
stale where its function is gone, its text is not in the function exactly once, or pytest can't run
its tests. The status is 1 where one has survived or is stale, or tests fail without any mutation.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from code_fragments import Span, functions, occurrences

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")
AREAS = ("claims", "commit", "watchdog", "selection", "statistics")
SECONDS = 120.0  # seconds after which tests of a mutation hang
UNMUTATED_SECONDS = 1800.0
PASSED, FAILED, INTERRUPTED = 0, 1, 2
"""pytest's exit statuses: all passed, some failed, and files of tests that can't be imported."""


class StaleError(LookupError):
    """A mutation does not fit the code; the message says why."""


@dataclass(frozen=True)
class Mutation:
    """A bug, by the text that becomes another, and the tests that must notice it.

    `function` is a function's name or a method's `Class.method`, or `<module>` for code outside of
    functions. Further lines of `new` are indented relative to the line where the old text begins.
    """

    id: str
    area: str
    file: str
    function: str
    old: str
    new: str
    tests: tuple[str, ...]

    def stale(self, root: Path) -> str | None:
        """Return why it can't be tried on this repository; None where it can."""
        if not (root / self.file).is_file():
            return f"there is no {self.file}"
        try:
            self.span((root / self.file).read_text(encoding="utf-8"))
        except StaleError as error:
            return str(error)
        for test in self.tests:
            test_file = test.partition("::")[0]
            if not (root / test_file).is_file():
                return f"there is no {test_file}"
        return None

    def span(self, source: str) -> Span:
        """Return where its text stands in the source of its file; StaleError if not just once."""
        function_lines = functions(source).get(self.function)
        if function_lines is None:
            raise StaleError(f"there is no function {self.function} in {self.file}")
        spans = occurrences(self.old, source, function_lines)
        if len(spans) != 1:
            places = f"{self.function} of {self.file}"
            raise StaleError(f"its text occurs {len(spans)} times in {places}")
        return spans[0]

    def mutated(self, source: str) -> str:
        """Return the source of its file with the bug."""
        span = self.span(source)
        line = source[source.rfind("\n", 0, span.start) + 1 :]
        indentation = line[: len(line) - len(line.lstrip())]
        new_lines = textwrap.indent(textwrap.dedent(self.new).strip(), indentation)
        return source[: span.start] + new_lines.lstrip() + source[span.end :]


class Copy:
    """A copy of the repository's files, in which one mutation at a time is applied."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written = itertools.count(1)
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listing.stdout.split("\0"):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)

    def test(self, tests: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Return pytest's status on these tests, None after so many seconds, and its output."""
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
        }
        with subprocess.Popen(
            [*pytest, *tests],
            cwd=self.root,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return None, process.communicate()[0]
        return process.returncode, output

    def write(self, path: Path, text: str) -> None:
        """Write a file with a time of change of its own, so that Python compiles it anew."""
        path.write_text(text, encoding="utf-8")
        changed = time.time() + 2 * next(self._written)
        os.utime(path, (changed, changed))


def read_table(path: Path = TABLE) -> tuple[Mutation, ...]:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return tuple(Mutation(**entry | {"tests": tuple(entry["tests"])}) for entry in entries)


def verdict(mutation: Mutation, copy: Copy) -> tuple[str, str]:
    """Return `killed`, `SURVIVED` or `stale`, and what says so."""
    if why := mutation.stale(copy.root):
        return "stale", why
    began = time.monotonic()
    path = copy.root / mutation.file
    source = path.read_text(encoding="utf-8")
    copy.write(path, mutation.mutated(source))
    try:
        status, output = copy.test(mutation.tests, SECONDS)
    finally:
        copy.write(path, source)
    took = f"{time.monotonic() - began:.1f} s"
    if status is None:
        return "killed", f"{took}, as its tests hang"
    if status == FAILED or (status == INTERRUPTED and "KeyboardInterrupt" in output):
        return "killed", took
    if status == PASSED:
        return "SURVIVED", took
    last_line = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return "stale", f"pytest ends with status {status}: {last_line}"


def try_all(mutations: Sequence[Mutation], jobs: int) -> Mapping[str, tuple[str, str]]:
    """Return id -> verdict; SystemExit where tests fail without any mutation."""
    with (
        tempfile.TemporaryDirectory(prefix="mutations-") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number)))
        _try_without_mutation(mutations, copies)

        def in_a_copy(mutation: Mutation) -> tuple[str, str]:
            copy = copies.get()
            try:
                name, reason = verdict(mutation, copy)
            finally:
                copies.put(copy)
            print(f"{name:<9} {mutation.area:<10} {mutation.id}: {reason}", flush=True)
            return name, reason

        verdicts = pool.map(in_a_copy, mutations)
        return dict(zip((mutation.id for mutation in mutations), verdicts, strict=True))


def _try_without_mutation(mutations: Sequence[Mutation], copies: SimpleQueue[Copy]) -> None:
    """Run the tests of all mutations that fit the code, on that code; SystemExit if any fails."""
    fitting = [mutation for mutation in mutations if mutation.stale(ROOT) is None]
    if not fitting:
        return
    tests = dict.fromkeys(test for mutation in fitting for test in mutation.tests)
    copy = copies.get()
    status, output = copy.test(list(tests), UNMUTATED_SECONDS)
    copies.put(copy)
    if status != PASSED:
        raise SystemExit(f"{output}\nwithout a mutation these tests end with status {status}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", metavar="ID", help="these mutations")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mutations tried at a time")
    options = parser.parse_args(argv)
    table = read_table()
    if unknown := set(options.only or ()) - {mutation.id for mutation in table}:
        parser.error(f"there is no mutation {', '.join(sorted(unknown))}")
    chosen = [mutation for mutation in table if not options.only or mutation.id in options.only]
    names = [name for name, _ in try_all(chosen, options.jobs).values()]
    print(", ".join(f"{names.count(name)} {name}" for name in ("killed", "SURVIVED", "stale")))
    return int(names.count("killed") < len(names))


if __name__ == "__main__":
    sys.exit(main())
