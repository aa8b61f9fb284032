"""The net: what users see of two versions of the harness, compared byte for byte.

    python benchmarks/net.py --against REV [--only PART ...] [--keep FOLDER]

The version of these files is compared with the revision REV. Both make the same calls in folders
of the same name. All that they print, each exit status and each file that they write must be equal,
but for what `VOLATILE` names. The parts:

    references  committed results: reports in all formats, what trackers get, pages of `check`
    compare     pages of `compare` over files of scores of every kind
    pages       reports of made folders: failures, hosts, jobs, races, looks, several suites
    commands    lists, previews, plans, dry runs and written suites
    errors      messages of users' mistakes
    help        `--help` of every command
    runs        records of short runs, as same_runs.py compares them

The status is 1 where anything differs, also where one version alone writes a file.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import same_runs
from net_cases import Case, commands, compared, folders, mistakes, references
from versions import ROOT, Version, checked_out

REFERENCE = ROOT / "reports" / "reference"
DRIVER = Path(__file__).parent / "net_cases" / "driver.py"
MOST_LINES = 40  # lines of a difference that are printed
LONGEST_LINE = 400  # characters of such a line
MOST_FILES = 25  # files of a part whose differences are printed
SLURM = ("sbatch", "squeue", "scancel", "sinfo", "sacct", "scontrol")


class Volatile(NamedTuple):
    """What may differ between two calls of one version."""

    pattern: re.Pattern[str]
    """The text, in files and on the terminal."""
    alike: Callable[[re.Match[str]], str]
    """What is compared in place of that text."""
    reason: str


def without_times(match: re.Match[str]) -> str:
    """Return a sentence without its times and its breaks of lines."""
    in_a_line = re.sub(r"\s+(# )?", " ", match[0])
    return re.sub(r"[\d.,]+ (s|min|h)\b", "* s", in_a_line)


VOLATILE = (
    Volatile(
        re.compile(r"hpml_bench/[\w/]+\.py:\d+(?=: \w+Warning: )(.*)\n  .*"),
        lambda match: f"FILE:LINE{match[1]}",
        "the place and the source line that Python adds to a warning",
    ),
    Volatile(
        re.compile(r"(?<=HPML_BENCH_QUEUED=)[\d:+T-]{25}"),
        lambda _: "*",
        "the time of a dry run, in the script that Slurm would get",
    ),
    Volatile(
        re.compile(r"Time here, within a factor of.*?cores\.", re.DOTALL),
        without_times,
        "`init` predicts times by a matrix product that it has just timed",
    ),
)
"""What is made alike before texts are compared; anything else that differs is a difference."""


class Inputs(NamedTuple):
    """A part's inputs: a function that writes what cases copy, and the cases."""

    write: Callable[[Path, Path], None]
    cases: Callable[[], Sequence[Case]]


PARTS = {
    "references": Inputs(references.write_inputs, references.cases),
    "compare": Inputs(compared.write_inputs, compared.cases),
    "pages": Inputs(folders.write_inputs, folders.cases),
    "commands": Inputs(commands.write_inputs, commands.cases),
    "errors": Inputs(mistakes.write_inputs, mistakes.cases),
    "help": Inputs(commands.write_inputs, commands.helps),
}
"""Parts whose calls one process of each version makes; `runs` comes beside them."""
RUNS = "runs"


@dataclass(frozen=True)
class Seen:
    """What a version showed in a part."""

    files: dict[str, bytes]
    seconds: float


class Workshop:
    """A folder in which both versions work by turns, under the same paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        """A link to the version that works, so that paths of both are the same."""
        self.room = folder / "room"

    def write_inputs(self, part: str, inputs: Inputs) -> tuple[Path, list[Case]]:
        """Write a part's inputs once, and return their folder and the cases."""
        folder = self.folder / "inputs" / part
        folder.mkdir(parents=True)
        inputs.write(folder, REFERENCE)
        return folder, list(inputs.cases())

    def seen_of(self, checkout: Path, inputs: Path, cases: Sequence[Case]) -> Seen:
        """Let a version make a part's calls, and return all files that it left."""
        self.checkout.unlink(missing_ok=True)
        self.checkout.symlink_to(checkout, target_is_directory=True)
        listed = [self.prepare(case, inputs) for case in cases]
        plan = self.folder / "cases.json"
        plan.write_text(json.dumps(listed), encoding="utf-8")
        began = time.monotonic()
        version = Version(self.checkout, self.folder / "calls")
        try:
            version.python("-P", str(DRIVER), str(plan), variables=self.variables())
            seconds = time.monotonic() - began
            return Seen(normalised_files(self.room), seconds)
        finally:
            for left in (version.room, self.folder / "cache", self.folder / "home"):
                shutil.rmtree(left, ignore_errors=True)

    def prepare(self, case: Case, inputs: Path) -> dict[str, object]:
        """Make a case's folder with its files, and return what the driver is told of it."""
        folder = self.room / case.name
        folder.mkdir(parents=True)
        for name in case.copies:
            source = inputs / name
            target = folder / Path(name).name
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy(source, target)
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return {"folder": str(folder), "calls": case.calls}

    def variables(self) -> dict[str, str]:
        """Return the environment of both versions: nothing of the user's that a page may show."""
        stand_ins = self.folder / "stand-ins"
        home = self.folder / "home"
        home.mkdir()
        if not stand_ins.exists():
            stand_ins.mkdir()
            shutil.copy(DRIVER.with_name("wandb_stand_in.py"), stand_ins / "wandb.py")
            for name in SLURM:  # a Slurm in which no job is, also where a real one is installed
                (stand_ins / name).write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
                (stand_ins / name).chmod(0o755)
        return {
            "PYTHONPATH": f"{stand_ins}:{self.checkout}",
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "MPLCONFIGDIR": str(self.folder / "matplotlib"),
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def compare(self, part: str, inputs: Inputs, old: Path, kept: Path | None) -> list[str]:
        """Print how a part differs between two versions; return the names of the files that do."""
        folder, cases = self.write_inputs(part, inputs)
        seen = {}
        for side, checkout in (("before", old), ("after", ROOT)):
            seen[side] = self.seen_of(checkout, folder, cases)
            if kept is None:
                shutil.rmtree(self.room)
            else:
                shutil.move(self.room, kept / side / part)
        before, after = seen["before"], seen["after"]
        differing = [
            name
            for name in sorted(before.files.keys() | after.files.keys())
            if before.files.get(name) != after.files.get(name)
        ]
        for name in differing[:MOST_FILES]:
            print(
                *difference(f"{part}/{name}", before.files.get(name), after.files.get(name)),
                sep="\n",
            )
        calls = sum(len(case.calls) for case in cases)
        print(
            f"{part}: {len(cases)} cases, {calls} calls, {len(after.files)} files, "
            f"{len(differing)} differ; {before.seconds:.0f} s and {after.seconds:.0f} s",
            flush=True,
        )
        return [f"{part}/{name}" for name in differing]


def normalised_files(room: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by path, with what may differ made alike."""
    found = {}
    for path in sorted(room.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(room))] = f"link to {path.readlink()}".encode()
        elif path.is_file():
            found[str(path.relative_to(room))] = normalised(path.read_bytes())
    return found


def normalised(content: bytes) -> bytes:
    """Return a file's content with what may differ made alike; one that is no text as it is."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    for volatile in VOLATILE:
        text = volatile.pattern.sub(volatile.alike, text)
    return text.encode()


def difference(name: str, before: bytes | None, after: bytes | None) -> Iterator[str]:
    """Yield the lines of a unified difference of one file, cut to the first ones."""
    if before is None or after is None:
        yield f"{name}: only {'after' if before is None else 'before'}"
        return
    try:
        old, new = before.decode().splitlines(), after.decode().splitlines()
    except UnicodeDecodeError:
        yield f"{name}: {len(before)} bytes, then {len(after)} others"
        return
    sides = (f"before/{name}", f"after/{name}")
    unified = difflib.unified_diff(old, new, *sides, n=1, lineterm="")
    lines = [line[:LONGEST_LINE] for line in unified]
    yield from lines[:MOST_LINES] or [f"{name}: ends of lines differ"]
    if len(lines) > MOST_LINES:
        yield f"... and {len(lines) - MOST_LINES} lines more"


def compare_runs(folder: Path, old: Path) -> list[str]:
    """Let both versions do short runs, as same_runs.py does; return a line for each difference."""
    before = same_runs.Trained(old, folder / "runs" / "old")
    after = same_runs.Trained(ROOT, folder / "runs" / "new")
    number, lines = same_runs.compared(before, after)
    print(*lines, f"{RUNS}: {number} runs and tunings, {len(lines)} differences", sep="\n")
    return lines


def compare_all(revision: str, parts: Sequence[str], kept: Path | None) -> list[str]:
    """Compare the parts of these files with those of a revision; return what differs."""
    differing = []
    with tempfile.TemporaryDirectory(prefix="hpml-net-") as name:
        folder = Path(name).resolve()
        with checked_out(revision, folder / "older") as older:
            workshop = Workshop(folder)
            for part in parts:
                if part == RUNS:
                    differing += compare_runs(folder, older)
                else:
                    differing += workshop.compare(part, PARTS[part], older, kept)
    return differing


def parts_named(texts: Sequence[str] | None) -> list[str]:
    """Return the parts that `--only` names, with commas or without; all where it isn't given."""
    if texts is None:
        return [*PARTS, RUNS]
    named = [name for text in texts for name in text.split(",") if name]
    for name in named:
        if name not in {*PARTS, RUNS}:
            raise SystemExit(f"there is no part {name}; there are {', '.join([*PARTS, RUNS])}")
    return named


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--against", metavar="REV", required=True, help="the older version")
    parser.add_argument("--only", metavar="PART", nargs="+", help="parts; all if not given")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="keep what both wrote here")
    given = parser.parse_args()
    parts = parts_named(given.only)
    differing = compare_all(given.against, parts, given.keep)
    print(f"{len(differing)} differences" if differing else "no differences")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
