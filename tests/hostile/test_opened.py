"""Files of each kind that commands open, made hostile: each command that needs one names it, the
others do without it, and none hangs or takes much memory.

There are 391 hostile results folders, of 28 rows of benchmarks/opened.py and 14 kinds of files.
README's tests try 65 of them; the marker `tables` all.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import opened
import pyarrow as pa
import pytest
from pyarrow import parquet

from helpers import fake_slurm, hostile_files, made_records
from helpers.commands import called
from helpers.hostile_files import HUGE, KINDS, NO_FILES
from hpml_bench.records.files import PLAN, POINTS, PREDICTIONS, RECORD
from hpml_bench.records.jobs import CLAIMS, OWNER, claims, read_plan
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.errors import UserError
from hpml_bench.verify.verify import verify

ROOT = Path(__file__).parents[2]
SECONDS = 5
HANGS = 30  # seconds of the clock: what computes has ended by then, also beside other tests
MOST_MB = 500
COMMANDS = ("status", "stop", "report", "verify", "compare")
QUICK = ("status", "stop")
UNCOUNTED = {"verified.json", ".lock", ".lock-holder.json"}
"""Files that `verify` takes for no part of the result."""
BY_JOBS = {
    "plan.json",
    "submitted.json",
    "resolved.json",
    "claims/*/owner.json",
    "jobs/*.json",
    "running/*.json",
    "running/*.came",
    "logs/*",
}
"""Rows that are tried in a sweep by jobs; the others in one on this machine."""
ROWS = {row.pattern: row for row in opened.RESULTS}


class Outcome(NamedTuple):
    """What a command gave."""

    status: int
    text: str


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Break off what waits for a pipe that nobody writes to, or reads a device without end."""

    def hangs(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Path]]:
    """A results folder of a sweep on this machine (False), and one by jobs (True)."""
    room = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        fake_slurm.stand_ins(room / "slurm", patch)
        yield {False: hostile_files.local(room / "local"), True: hostile_files.by_jobs(room)}


@pytest.fixture(scope="module")
def without() -> dict[tuple[str, str], Outcome]:
    """Row and command -> what the command gives where the row's file is missing."""
    return {}


@pytest.fixture
def folder(folders: dict[bool, Path], tmp_path: Path) -> Path:
    return hostile_files.copied(folders[False], tmp_path / "quickstart")


def megabytes() -> float:
    """Return the most memory that this process has used since it was last reset."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024


def given(words: list[str]) -> Outcome:
    """Call a command, which must take a few seconds and little memory, and tell no traceback."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, began = megabytes(), time.process_time()
    signal.alarm(HANGS)
    done = called(*words, status=None)
    signal.alarm(0)
    assert isinstance(done.exception, SystemExit | None), (words, done.exc_info)
    assert "Traceback" not in done.output
    assert done.output.strip()
    assert time.process_time() - began < SECONDS
    assert megabytes() - before < MOST_MB
    return Outcome(done.exit_code, done.output)


def outcome(command: str, folder: Path) -> Outcome:
    """Return what a command gives on a folder, with its page or its findings; without what differs
    from folder to folder.
    """
    words = [command, str(folder)]
    page = folder / "report.md"
    if command == "compare":
        out = folder.parent / "compared"
        words += ["--out", str(out)]
        page = out / "report.md"
    status, text = given(words)
    if command in {"report", "compare"} and page.is_file():
        text += page.read_text()
    if command == "verify" and status < 2:
        text += verified(folder)
    text = text.replace(str(folder), "DIR").replace(str(folder.parent), "PARENT")
    return Outcome(status, re.sub(r"[0-9a-f]{64}|\d+ files", "#", text))


def verified(folder: Path) -> str:
    """Return all findings of a verification, of which the command shows a few of each check."""
    content = json.loads((folder / "verified.json").read_text())
    return "".join(f"{check['finding']}\n" for check in content["checks"])


# trained parts may be of any size, and are hashed whole: seconds for each gigabyte
CASES = [
    pair
    for pair in product(ROWS, KINDS)
    if pair != ("*/kept/*", "a huge file with holes") and pair[0] != ".lock"
]


def in_turn(pattern: str, kind: str) -> bool:
    """Return whether a case is one of the two of its row that README's tests try."""
    return (list(ROWS).index(pattern) - list(KINDS).index(kind)) % 6 == 0


def needed(pattern: str, kind: str, command: str) -> bool:
    """Return whether a command must name a row's file of a kind."""
    row = ROWS[pattern]
    if command == "verify" and kind == "a folder":
        return "verify" in row.named_by and not row.ignored  # another folder is no fault
    if command == "verify" and kind in NO_FILES:
        return pattern not in UNCOUNTED
    return command in row.named_by and (not row.ignored or kind in NO_FILES)


def check(
    pattern: str,
    kind: str,
    command: str,
    folders: dict[bool, Path],
    without: dict[tuple[str, str], Outcome],
    room: Path,
) -> None:
    """Assert that a command names a hostile file, or does as if it weren't there."""
    source = folders[pattern in BY_JOBS]
    folder = hostile_files.copied(source, room / command / "quickstart")
    place, content = hostile_files.emptied(folder, pattern)
    KINDS[kind](place, content)
    rights = hostile_files.without_overrides() if kind == "no permission" else nullcontext()
    with rights:
        made = outcome(command, folder)
    if hostile_files.names(made.text, place, folder):
        return
    assert not needed(pattern, kind, command), made.text
    if (pattern, command) not in without:
        bare = hostile_files.copied(source, room / "bare" / command / "quickstart")
        hostile_files.emptied(bare, pattern)
        without[pattern, command] = outcome(command, bare)
    assert made == without[pattern, command]


def test_the_counts_are_those_of_the_docs() -> None:
    """docs/security.md says how many hostile folders there are."""
    page = (ROOT / "docs" / "security.md").read_text()
    assert f"each of {len(KINDS)} kinds" in page
    assert f"{len(CASES)} results\nfolders" in page
    assert sum(in_turn(*case) for case in CASES) == 65


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        pytest.param(pattern, kind, marks=[] if in_turn(pattern, kind) else pytest.mark.tables)
        for pattern, kind in CASES
    ],
)
def test_a_hostile_file_is_named_or_does_without(
    pattern: str,
    kind: str,
    folders: dict[bool, Path],
    without: dict[tuple[str, str], Outcome],
    tmp_path: Path,
) -> None:
    """A command that needs the file names it; another gives what it gives without the file.

    No traceback, no hang, no memory.
    """
    named_by = [command for command in COMMANDS if command in ROWS[pattern].named_by]
    for command in dict.fromkeys([*QUICK, *named_by]):
        check(pattern, kind, command, folders, without, tmp_path)


@pytest.mark.tables
@pytest.mark.parametrize(("pattern", "kind"), CASES)
def test_a_hostile_file_changes_no_other_command(
    pattern: str,
    kind: str,
    folders: dict[bool, Path],
    without: dict[tuple[str, str], Outcome],
    tmp_path: Path,
) -> None:
    """So do the commands that don't need the file; `verify` names what is no regular file."""
    others = {"report", "verify", "compare"} - set(ROWS[pattern].named_by)
    for command in sorted(others):
        check(pattern, kind, command, folders, without, tmp_path)


def made(kind: str, place: Path) -> Path:
    """Make a hostile file, and return its path."""
    place.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](place, b"{}")
    return place


@pytest.fixture
def rights(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let permissions count where the kind is about them."""
    if request.getfixturevalue("kind") != "no permission":
        yield
        return
    with hostile_files.without_overrides():
        yield


def test_permissions_count(tmp_path: Path) -> None:
    """Without its overrides even root can't read what no permission allows, and after it can."""
    place = made("no permission", tmp_path / "file")
    with hostile_files.without_overrides(), pytest.raises(PermissionError):
        place.read_bytes()
    if os.geteuid() == 0:
        assert place.read_bytes() == b"{}"


@pytest.mark.usefixtures("rights")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_claim_is_named(kind: str, tmp_path: Path) -> None:
    """What is no file in the place of a claim's owner is told by its path; what is no job's record
    holds no unit.
    """
    made(kind, tmp_path / CLAIMS / "0" / OWNER)
    signal.alarm(HANGS)
    if kind in NO_FILES:
        with pytest.raises(UserError, match=r"owner\.json: .*; make it readable, or remove"):
            claims(tmp_path)
    else:
        assert claims(tmp_path) == ()


@pytest.mark.usefixtures("rights")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_plan_is_named(kind: str, tmp_path: Path) -> None:
    """A plan that can't be read ends in one sentence with its path."""
    made(kind, tmp_path / PLAN)
    signal.alarm(HANGS)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / PLAN))) as told:
        read_plan(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("rights")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_a_hostile_input_of_a_comparison_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    """So does an input, whether it has no reader or its reader can't read it."""
    place = made(kind, tmp_path / f"scores.{suffix}")
    status, text = given(["compare", str(place), "--out", str(tmp_path / "compared")])
    assert status == 2
    assert place.name in text


@pytest.mark.usefixtures("rights")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_that_is_given_is_named(kind: str, tmp_path: Path) -> None:
    """So does a suite, a profile and a baseline."""
    place = made(kind, tmp_path / "given.yaml")
    out = ("--out", str(tmp_path / "out"))
    for words in (
        ["run-all", str(place), *out],
        ["run-all", "quickstart", "--on", str(place), "--dry-run", *out],
        ["check", "--baseline", str(place)],
    ):
        status, text = given(words)
        assert status == 2
        assert place.name in text


def test_all_files_that_are_opened_have_a_row(folders: dict[bool, Path], tmp_path: Path) -> None:
    """Every file of a results folder that a command reads is in the table."""
    seen: set[str] = set()
    listening = True
    folder = tmp_path

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            reads = not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if reads and path.startswith(f"{folder}/") and not Path(path).is_dir():
                seen.add(path.removeprefix(f"{folder}/"))

    sys.addaudithook(note)
    for by_jobs, source in folders.items():
        folder = hostile_files.copied(source, tmp_path / str(by_jobs) / "quickstart")
        for command in ("report", *COMMANDS):
            outcome(command, folder)
        assert any(path.endswith(RECORD) for path in seen)
        assert not [path for path in sorted(seen) if opened.row_of(path) is None]
        seen.clear()
    listening = False


@pytest.mark.parametrize("name", ["notes.txt", "notes.json", POINTS])
def test_verify_names_what_it_does_not_read(name: str, folder: Path) -> None:
    """A huge file fails the verification by name, and is neither hashed nor searched."""
    run = min(path for path in folder.iterdir() if (path / RECORD).exists())
    (run / name).unlink(missing_ok=True)
    KINDS["a huge file with holes"](run / name, b"")
    signal.alarm(HANGS)
    verification = verify(folder)
    assert f"{run.name}/{name}" not in verification.files
    told = [check.finding for check in verification.checks if check.name == "plain files"]
    assert told == [
        f"{run.name}/{name}: is of {HUGE:,} bytes, most of which are holes, and isn't hashed"
    ]
    assert not verification.consistent


def test_predictions_of_many_equal_rows_are_not_decoded(folder: Path) -> None:
    """A few megabytes that hold 120 million rows: `verify` names the run, and a page does without
    its rows.
    """
    run = min(path for path in folder.iterdir() if (path / RECORD).exists())
    column = pa.array(np.zeros(10_000_000, np.int32))
    names = ("index", "reference", "prediction", "loss", "score")
    part = pa.table(dict.fromkeys(names, column))
    with parquet.ParquetWriter(run / PREDICTIONS, part.schema) as writer:
        for _ in range(12):
            writer.write_table(part)
    assert (run / PREDICTIONS).stat().st_size < 10_000_000
    record = load_record(run / RECORD)
    made_records.rewrite(run, record.model_copy(update={"files": digests_of(run)}))
    outcome("report", folder)
    assert run.name in outcome("verify", folder).text


def test_a_long_text_in_many_rows_is_not_decoded(tmp_path: Path) -> None:
    """Texts that would take more than a gigabyte, and take a megabyte on disk, aren't read."""
    rows = 1_100
    numbers = pa.array(np.arange(rows, dtype=np.int32))
    columns: dict[str, Any] = dict.fromkeys(("index", "reference", "prediction"), numbers)
    columns |= dict.fromkeys(("loss", "score"), pa.array(np.zeros(rows)))
    columns |= {"said_expected": pa.array(["x"] * rows), "said_bytes": numbers}
    columns["said_question"] = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 1_000_000])
    )
    parquet.write_table(pa.table(columns), tmp_path / PREDICTIONS)
    assert (tmp_path / PREDICTIONS).stat().st_size < 2_000_000
    assert read_predictions(tmp_path) is None
