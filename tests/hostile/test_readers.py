"""Readers of files that no command on a results folder opens: logs, lists of neighbours, kept
answers, saved runs, rows, the cache. Each takes hostile files of all kinds, and follows no link.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from helpers import fake_slurm, hostile_files, made_records
from helpers.fake_slurm import slurm
from helpers.hostile_files import KINDS, NO_FILES
from hpml_bench.comparison.readers.table import read as read_table
from hpml_bench.data.files import LONGEST_LINE, Format, read_file
from hpml_bench.data.sources import refuse_odd_files
from hpml_bench.launch.server import _kept
from hpml_bench.records.files import POINTS, RECORD
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import RUNNING, Job
from hpml_bench.records.load import changed, load_record
from hpml_bench.records.points import Tail, iterate_points, read_last_points
from hpml_bench.sweep.job import Neighbours, Running
from hpml_bench.system.cache import cache_folder, file_sha256
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import MAX_LOG_BYTES, is_plain_file
from hpml_bench.system.redaction import MAX_REDACTED, redact_files
from hpml_bench.system.text import digest
from hpml_bench.training.saving import RUN, TENSORS, read_saved
from hpml_bench.verify.verify import verify

__all__ = ["slurm"]
HANGS = 60  # seconds of the clock
READABLE = tuple(kind for kind in KINDS if kind not in NO_FILES)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Break off what waits for a pipe that nobody writes to, or reads a device without end."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of hostile file; permissions count where it is about them."""
    chosen: str = request.param
    rights = hostile_files.without_overrides() if chosen == "no permission" else nullcontext()
    with rights:
        yield chosen


def neighbours(folder: Path, number: int) -> Neighbours:
    """Return the registration of a run as of a job of this process."""
    record = made_records.sweep(("lora", "full"), 1)[number]
    job = Job(
        engine="e",
        job=str(number),
        restart=0,
        unit=number,
        host=socket.gethostname(),
        pid=os.getpid(),
        began="2026",
    )
    return Neighbours(SharedResults(folder, job), record.spec, [socket.gethostname()])


def test_lists_of_neighbours(kind: str, tmp_path: Path) -> None:
    """A list that can't be read is named, since it isn't known then who was a neighbour; lines that
    are no run's id are left out.
    """
    run = neighbours(tmp_path, 0)
    with pytest.raises(UserError, match=r"\.came: ") if kind in NO_FILES else nullcontext(), run:
        KINDS[kind](run._file.with_suffix(".came"), b"lora-s0-0123\n")
    assert all("lora-s0-0123".startswith(other) for other in run._others)
    assert list((tmp_path / RUNNING).iterdir()) == []


def test_lists_of_other_runs(kind: str, tmp_path: Path) -> None:
    """A run adds itself to the list of another one only where that is a regular file."""
    other, run = neighbours(tmp_path, 0), neighbours(tmp_path, 1)
    registration = Running(run="other", hosts=(socket.gethostname(),), owner=other._results.job)
    other._file.parent.mkdir()
    other._file.write_text(registration.model_dump_json())
    place = other._file.with_suffix(".came")
    KINDS[kind](place, b"")
    outside = place.resolve() if kind == "a link to the file" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpml_bench.sweep.job._was_killed", lambda *_: False)
        unusable = kind in NO_FILES and kind != "a huge file with holes"
        with pytest.raises(UserError, match=r"\.came: ") if unusable else nullcontext():
            run.__enter__()
    if outside is not None:
        assert outside.read_bytes() == b""


def test_kept_answers(kind: str, tmp_path: Path) -> None:
    """Nothing is taken from them, and a fresh file of this run lies there; what a link leads to
    stays as it is.
    """
    place = tmp_path / "run.answers.jsonl"
    KINDS[kind](place, b"other")
    outside = place.resolve() if kind == "a link to the file" else None
    if kind == "no permission":
        with pytest.raises(PermissionError):  # which the results folder makes a sentence
            _kept(place, "digest", 3)
        return
    assert _kept(place, "digest", 3) == {}
    assert place.read_text() == "digest\n"
    assert is_plain_file(place)
    if outside is not None:
        assert outside.read_bytes() == b"other"


def test_answers_of_other_rows_and_types_are_not_kept(tmp_path: Path) -> None:
    """Only whole lines of rows that the run has, with values of the right types."""
    place = tmp_path / "run.answers.jsonl"
    lines = [
        {"row": 1, "text": "yes", "tokens": 2, "cut": False},
        {"row": 3, "text": "no such row", "tokens": 2, "cut": False},
        {"row": -1, "text": "no such row", "tokens": 2, "cut": False},
        {"row": 0, "text": ["no text"], "tokens": 2, "cut": False},
        7,
        [],
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    place.write_text(f"digest\n{text}" + "[" * 100_000 + "\n" + '{"row": 2, "te')
    assert [(number, reply.text) for number, reply in _kept(place, "digest", 3).items()] == [
        (1, "yes")
    ]


def test_logs_that_are_redacted(kind: str, tmp_path: Path) -> None:
    """What is no regular file is left alone; of a huge file only the end stays."""
    log = tmp_path / "rank0.log"
    KINDS[kind](log, b"https://someone:secret@host")
    outside = log.resolve() if kind == "a link to the file" else None
    if kind == "no permission":
        with pytest.raises(PermissionError):
            redact_files(log)
        return
    redact_files(log)
    if outside is not None:
        assert b"secret" in outside.read_bytes()
    if kind == "a huge file with holes":
        assert log.stat().st_size < MAX_LOG_BYTES + 1_000


def test_the_end_of_a_huge_log_is_redacted(tmp_path: Path) -> None:
    """It says how much was left out, begins with a whole line, and holds no secret."""
    log = tmp_path / "rank0.log"
    end = b"half a line https://someone:secret@host\n" + b"a line https://someone:secret@host\n" * 9
    with log.open("wb") as file:
        file.truncate(MAX_REDACTED + 1)
        file.seek(0, os.SEEK_END)
        file.write(b"x" * (MAX_LOG_BYTES - len(end) + 20) + end)
    redact_files(log)
    first, second, *_ = log.read_text().splitlines()
    assert re.fullmatch(r"\[[\d,]+ bytes were left out here: .*\]", first)
    assert second == "a line https://host"
    assert "someone" not in log.read_text()


def test_logs_of_jobs(kind: str, tmp_path: Path, slurm: Path) -> None:
    """Why no job began its work is told by the last line of a log that can be read."""
    sweep = fake_slurm.opened(tmp_path)
    log = sweep.folder / "logs" / "7_0.log"
    log.parent.mkdir(exist_ok=True)
    KINDS[kind](log, b"line 12: command not found\n")
    reasons = sweep.reasons()
    assert len(reasons) == 1
    assert len(reasons[0]) < MAX_LOG_BYTES + 1_000


def test_points(kind: str, tmp_path: Path) -> None:
    """None are read of what holds none, also by what follows a run."""
    KINDS[kind](tmp_path / "points.jsonl", b"")
    assert list(iterate_points(tmp_path)) == []
    tail = Tail(tmp_path / "points.jsonl")
    lines = tail.lines()
    tail.close()
    assert lines == [] or kind in READABLE


@pytest.mark.parametrize("name", [RUN, TENSORS])
def test_saved_runs(name: str, kind: str, tmp_path: Path) -> None:
    """A folder that holds no saved run is named."""
    (tmp_path / RUN).write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    KINDS[kind](tmp_path / name, b"{}")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        read_saved(tmp_path)


def test_digests_in_the_cache(kind: str, tmp_path: Path) -> None:
    """A digest that can't be read is computed again."""
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    os.utime(file, (time.time() - 60, time.time() - 60))
    memo = cache_folder() / "hashes" / digest(str(file.resolve()))
    memo.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](memo, b"{}")
    assert file_sha256(file) == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "txt", "conll"])
def test_rows_of_huge_files(suffix: str, tmp_path: Path) -> None:
    """A file with holes, whose first line has no end, is named and not read."""
    place = tmp_path / f"rows.{suffix}"
    KINDS["a huge file with holes"](place, b"")
    with pytest.raises(UserError, match=rf"rows\.{suffix}: .*larger|longer"):
        read_file(place, Format())
    assert LONGEST_LINE < 500_000_000


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a huge file with holes"])
def test_files_of_a_model(kind: str, tmp_path: Path) -> None:
    """Files that a library would wait for, or read without end, are named before it opens them."""
    place = tmp_path / "tokenizer.json"
    KINDS[kind](place, b"")
    with pytest.raises(UserError, match=re.escape(str(place))):
        refuse_odd_files(tmp_path)


def test_points_of_holes_are_neither_read_nor_hashed(tmp_path: Path) -> None:
    """A file below the bound that is mostly holes can't be read, also not to compare its digest."""
    run = min(path.parent for path in holes_of(tmp_path).glob("*/run.json"))
    record = load_record(run / RECORD)
    (run / POINTS).unlink(missing_ok=True)
    (run / POINTS).touch()
    os.truncate(run / POINTS, 990_000_000)
    assert changed(run, record) == f"{POINTS} can't be read: most of it is holes"
    assert list(iterate_points(run)) == []
    told = [check for check in verify(run.parent).checks if check.name == "plain files"]
    assert [check.finding for check in told] == [
        f"{run.name}/{POINTS}: is of 990,000,000 bytes, most of which are holes, and isn't hashed"
    ]


def holes_of(folder: Path) -> Path:
    return made_records.write(folder, made_records.sweep(("lora", "full"), 1))


def test_only_the_last_points_tell_the_newest_step(tmp_path: Path) -> None:
    """They are those of the end of a long file, whose first line may be cut."""
    lines = [f'{{"step":{step},"metric":"step_seconds","value":1.0}}\n' for step in range(50_000)]
    (tmp_path / POINTS).write_text("".join(lines))
    points = read_last_points(tmp_path)
    assert points[-1].step == 49_999
    assert 1_000 < len(points) < 10_000


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_tables_of_many_values(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is named once it holds more values than are read."""
    monkeypatch.setattr("hpml_bench.comparison.inputs.MOST_CELLS", 20)
    place = tmp_path / f"scores.{suffix}"
    lines = {"csv": ["system,score"] + ["a,1"] * 11, "jsonl": ['{"system": "a", "score": 1}'] * 11}
    place.write_text("\n".join(lines[suffix]) + "\n")
    with pytest.raises(UserError, match=rf"scores\.{suffix}: .* more than 20 values"):
        read_table(place, None)


@pytest.mark.parametrize(
    ("size", "words"),
    [(90_000_000, "line 1: it has more than 10,000,000"), (990_000_000, "larger")],
)
def test_tables_of_holes(size: int, words: str, tmp_path: Path) -> None:
    """A file whose first line has no end is refused, and at most a part of it is read."""
    place = tmp_path / "scores.csv"
    place.touch()
    os.truncate(place, size)
    with pytest.raises(UserError, match=rf"scores\.csv.*{words}"):
        read_table(place, None)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_tables_of_many_rows(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is named once it holds more rows than are read."""
    monkeypatch.setattr("hpml_bench.comparison.inputs.MOST_ROWS", 10)
    place = tmp_path / f"scores.{suffix}"
    lines = {"csv": ["system,score"] + ["a,1"] * 11, "jsonl": ['{"system": "a", "score": 1}'] * 11}
    place.write_text("\n".join(lines[suffix]) + "\n")
    with pytest.raises(UserError, match=rf"scores\.{suffix}: .* more than 10 rows"):
        read_table(place, None)


def test_keys_of_all_objects_are_the_columns_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few objects, each with a key of its own, would be a table of many empty cells."""
    monkeypatch.setattr("hpml_bench.comparison.inputs.MOST_CELLS", 90)
    place = tmp_path / "scores.jsonl"
    lines = [f'{{"system": "a", "score": 1, "key {number}": 0}}' for number in range(10)]
    place.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"scores\.jsonl: .* more than 90 values"):
        read_table(place, None)


LISTS = {
    "a long list": ("scores.json", "[" + "[]," * 5_100_000 + "[]]", "one list of more than 15,000"),
    "a long line": ("scores.jsonl", '{"a": [' + "[]," * 1_700_000 + "[]]}", "line 1: it has more"),
    "empty lines": ("scores.jsonl", "\n" * 10_000_001, "more than 10,000,000 lines"),
}


@pytest.mark.parametrize(("name", "content", "words"), LISTS.values(), ids=LISTS)
def test_json_that_takes_much_memory(name: str, content: str, words: str, tmp_path: Path) -> None:
    """What takes thirty times its room on disk as objects is refused before it is parsed."""
    place = tmp_path / name
    place.write_text(content)
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        read_table(place, None)


@pytest.mark.parametrize("value", ["[1, 2]", '{"a": 1}'])
def test_columns_of_lists_are_left_unread(value: str, tmp_path: Path) -> None:
    """They are named, unless a line can't be understood without them."""
    place = tmp_path / "scores.jsonl"
    place.write_text(f'{{"system": "a", "score": 1, "tokens": {value}}}\n' * 3)
    (scores,) = read_table(place, None)
    assert scores.remarks == ("Columns of lists, objects or bytes weren't read: tokens.",)
    assert [*scores.lines.score] == [1.0] * 3
    place.write_text(f'{{"system": "a", "score": 1, "row": {value}}}\n')
    with pytest.raises(UserError, match=r"line 1: row is a list or an object; give a number or"):
        read_table(place, None)
