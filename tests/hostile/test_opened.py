"""Files of each kind that commands open, made hostile: each command names them, hangs on none and
takes little memory.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import opened
import pyarrow as pa
import pytest
from pyarrow import parquet

from helpers import made_records
from helpers.commands import called
from hpml_bench.records.files import PLAN, POINTS, PREDICTIONS, RECORD, SUITE
from hpml_bench.records.jobs import CLAIMS, OWNER, claims, read_plan
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.predictions import read_predictions
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError
from hpml_bench.verify.verify import verify

SECONDS = 5
MOST_MB = 500
HUGE = 8 * 2**30


def as_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, HUGE)


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a huge file with holes": as_sparse,
    "a link to itself": lambda path: path.symlink_to(path),
    "binary rubbish": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "deep JSON": lambda path: path.write_text('{"a":' * 100_000),
    "huge numbers": lambda path: path.write_text('{"at": 1' + "0" * 100_000 + "}"),
    "NaN": lambda path: path.write_text('{"at": NaN, "seconds": Infinity}'),
    "other types": lambda path: path.write_text('[{"run_id": [], "spec": 7}]'),
    "empty": Path.touch,
}
"""What lies in a file's place -> how it is made."""
PLACES = {
    row.pattern: row.pattern.replace("claims/*", "claims/0").replace("*.json", "0.0.json")
    for row in opened.RESULTS
    if row.pattern not in {".lock", "*/run.json"}
} | {"*/run.json": "*/run.json"}
ENDINGS = {
    "kept/*": "kept/config.json",
    "report.*": "report.md",
    "figures/*": "figures/curve_train_loss.svg",
    "tables/*": "tables/runs.csv",
}
COMMANDS = ("status", "stop", "report", "verify", "compare", "run-all")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = made_records.write(tmp_path / "example", made_records.sweep(["lora", "full"], 2))
    (made / SUITE).write_text(load_suite("quickstart").model_dump_json())
    return made


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Break off what waits for a pipe that nobody writes to, or reads a device without end."""

    def hangs(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def place_in(folder: Path, pattern: str) -> Path:
    """Return the path of a row's file in a results folder, whose folders are made."""
    run = min(path for path in folder.iterdir() if (path / RECORD).exists())
    name = PLACES[pattern]
    if name.startswith("*/"):
        name = f"{run.name}/{name[2:]}"
    name = name.replace("rank*", "rank0").replace("checkpoints/*/*", "checkpoints/8/shared")
    for ending, file in ENDINGS.items():
        name = name.replace(ending, file)
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    return place


def megabytes() -> float:
    """Return the most memory that this process has used since it was last reset."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024


def words_of(command: str, folder: Path) -> list[str]:
    if command == "compare":
        return ["compare", str(folder), "--out", str(folder.parent / "compared")]
    if command == "run-all":
        return ["run-all", "quickstart", "--dry-run", "--out", str(folder.parent)]
    return [command, str(folder)]


def ends_well(command: str, folder: Path) -> None:
    """Assert that a command on a folder takes a few seconds, little memory, and no traceback."""
    ends_well_called(words_of(command, folder))


def ends_well_called(words: list[str]) -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = megabytes()
    signal.alarm(SECONDS)
    done = called(*words, status=None)
    signal.alarm(0)
    assert isinstance(done.exception, SystemExit | None), (words, done.exc_info)
    assert "Traceback" not in done.output
    assert done.output.strip()
    assert megabytes() - before < MOST_MB


# trained parts may be of any size, and are hashed whole: seconds for each gigabyte
CASES = sorted(set(product(PLACES, KINDS)) - {("*/kept/*", "a huge file with holes")})


@pytest.mark.parametrize(("pattern", "kind"), CASES)
def test_a_hostile_file_ends_no_command(pattern: str, kind: str, folder: Path) -> None:
    """A command says something and ends: no traceback, no hang, no memory."""
    KINDS[kind](place_in(folder, pattern))
    for command in COMMANDS:
        ends_well(command, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_claim_is_named(kind: str, tmp_path: Path) -> None:
    """What is no file in the place of a claim's owner is told by its path; what is no job's record
    holds no unit.
    """
    place = tmp_path / CLAIMS / "0" / OWNER
    place.parent.mkdir(parents=True)
    KINDS[kind](place)
    no_file = {"a pipe", "a device", "a folder", "a huge file with holes", "a link to itself"}
    signal.alarm(SECONDS)
    if kind in no_file:
        with pytest.raises(UserError, match=r"owner\.json: .*; make it readable, or remove"):
            claims(tmp_path)
    else:
        assert claims(tmp_path) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_plan_is_named(kind: str, tmp_path: Path) -> None:
    """A plan that can't be read ends in one sentence with its path."""
    KINDS[kind](tmp_path / PLAN)
    signal.alarm(SECONDS)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))) as told:
        read_plan(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_input_of_a_comparison_is_named(kind: str, tmp_path: Path) -> None:
    """So does an input, whether it has no reader or its reader can't read it."""
    for suffix in (".json", ".jsonl", ".csv", ".parquet"):
        place = tmp_path / f"scores{suffix}"
        KINDS[kind](place)
        ends_well_called(["compare", str(place), "--out", str(tmp_path / "compared")])


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_that_is_given_is_named(kind: str, tmp_path: Path) -> None:
    """So does a suite, a profile and a baseline."""
    place = tmp_path / "given.yaml"
    KINDS[kind](place)
    out = ("--out", str(tmp_path / "out"), "--dry-run")
    for words in (
        ["run-all", str(place), *out],
        ["run-all", "quickstart", "--on", str(place), *out],
        ["check", "--baseline", str(place)],
    ):
        ends_well_called(words)


def test_all_files_that_are_opened_have_a_row(folder: Path) -> None:
    """Every file of a results folder that a command reads is in the table."""
    seen: set[str] = set()
    listening = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            reads = not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if reads and path.startswith(f"{folder}/"):
                seen.add(path.removeprefix(f"{folder}/"))

    sys.addaudithook(note)
    for command in ("report", *COMMANDS):
        called(*words_of(command, folder), status=None)
    listening = False
    files = {path for path in seen if not (folder / path).is_dir()}
    assert any(path.endswith(RECORD) for path in files)
    assert not [path for path in sorted(files) if opened.row_of(path) is None]


@pytest.mark.parametrize("name", ["notes.txt", "notes.json", POINTS])
def test_verify_names_what_it_does_not_read(name: str, folder: Path) -> None:
    """A huge file fails the verification by name, and is neither hashed nor searched."""
    run = min(path for path in folder.iterdir() if (path / RECORD).exists())
    (run / name).unlink(missing_ok=True)
    as_sparse(run / name)
    signal.alarm(SECONDS)
    made = verify(folder)
    assert f"{run.name}/{name}" not in made.files
    told = [check.finding for check in made.checks if check.name == "plain files"]
    assert told == [
        f"{run.name}/{name}: is of {HUGE:,} bytes, and at most 4,000,000,000 are hashed"
    ]
    assert not made.consistent


def test_predictions_of_many_equal_rows_are_not_decoded(folder: Path) -> None:
    """A few megabytes that hold 120 million rows are left out of a report by name."""
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
    for command in ("report", "verify", "status"):
        ends_well(command, folder)
    assert run.name in called("verify", folder, status=None).output


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
