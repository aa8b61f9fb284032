"""Run folders: written whole or not at all, and nothing in them can bring the reader down."""

import os
from pathlib import Path

import pytest

from helpers import made_records
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, SET_ASIDE
from hpml_bench.records.folder import RunFolder, locked
from hpml_bench.records.load import headlines, load_records, read_record
from hpml_bench.records.points import PointWriter, read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import SCHEMA_VERSION, Point
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json, write_atomically


def test_an_interrupted_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing breaks off before the end, the old content stands and no half file lies
    about.
    """
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def broken(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["run.json"]


def test_the_content_is_on_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced under its temporary name, its folder then: a crash can't leave an empty
    run.json.

    Who has the old file open still reads that.
    """
    path, seen, sync = tmp_path / "run.json", list[str](), os.fsync
    path.write_text("old")
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (seen.append(path.read_text()), sync(descriptor))
    )
    with path.open() as old:
        write_atomically(path, "new")
        assert old.read() == "old"
    assert seen == ["old", "new"]


def test_what_is_torn_is_left_out(tmp_path: Path) -> None:
    """A line of points cut short by a crash doesn't cost those before it, in their order, None and
    small numbers too.

    Half a table or JSON object is none.
    """
    points = [
        Point(metric="loss", step=i, value=value)
        for i, value in enumerate((0.1, None, 1e-300, 0.25), start=1)
    ]
    writer = PointWriter(tmp_path)
    writer.write(points[:2])
    assert read_points(tmp_path) == points[:2], "flushed lines can be read while the writer is open"
    writer.write(points[2:])
    writer.close()
    file = tmp_path / POINTS
    file.write_bytes(file.read_bytes()[:-9])
    assert read_points(tmp_path) == points[:3]
    for name, read in (
        (PREDICTIONS, lambda: read_predictions(tmp_path)),
        ("x", lambda: read_json(tmp_path / "x")),
    ):
        (tmp_path / name).write_bytes(b'{"PAR1')
        assert read() is None


def test_points_are_cut(tmp_path: Path) -> None:
    """Those behind are returned but for damaged lines; the writer goes on where the rest ends."""
    points = [Point(metric="loss", step=step, value=0.5) for step in range(1, 5)]
    writer = PointWriter(tmp_path)
    writer.write(points[:1])
    size = writer.sync().size
    writer.write(points[1:3])
    with (tmp_path / POINTS).open("ab") as file:
        file.write(b"\0\xff\n{}\ntorn")
    assert writer.cut(size) == points[1:3]
    writer.write(points[3:])
    assert read_points(tmp_path) == [points[0], points[3]]
    assert writer.cut(0) == [points[0], points[3]]
    assert (tmp_path / POINTS).read_bytes() == b""


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "not readable"),
        (lambda text: "", "not readable"),
        (lambda text: "[" * 100_000, "not readable"),
        (lambda text: "null", "schema version"),
        (
            lambda text: text.replace(
                f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'
            ),
            "schema version 99",
        ),
        (lambda text: text.replace('"schema_version"', '"version"'), "schema version None"),
        (
            lambda text: text.replace('"status": "ok"', '"status": "splendid"'),
            "not a run record: status",
        ),
        (lambda text: text.replace('"seconds"', '"secs"'), "not a run record"),
    ],
)
def test_a_damaged_record_is_told_and_set_aside(damage, words: str, tmp_path: Path) -> None:
    """One sentence names the file and the reason; the other records are there, and nothing is
    averaged in.
    """
    folder = made_records.write(tmp_path, made_records.sweep(("lora", "head"), 1))
    victim = next(folder.glob("lora*/run.json"))
    text = victim.read_text()
    assert damage(text) != text
    victim.write_text(damage(text))
    loaded = load_records(folder)
    assert [record.spec.method.name for record in loaded.records] == ["head"]
    (problem,) = loaded.problems
    assert f"{victim.parent.name}/run.json" in problem
    assert words in problem
    assert read_record(victim.parent) is None, "so that run-all does it again"


def test_an_unreadable_or_huge_record_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the record's place, and a file beyond the limit, are problems and not crashes."""
    folder = made_records.write(tmp_path, [made_records.record("lora")])
    (folder / "odd/run.json").mkdir(parents=True)
    monkeypatch.setattr("hpml_bench.records.load.MAX_RECORD_BYTES", 1_000)
    loaded = load_records(folder)
    assert loaded.records == ()
    assert len(loaded.problems) == 2


def test_headlines_say_what_the_records_do(tmp_path: Path) -> None:
    """The quick reading of a folder gives each sound record's suite, run, status, seconds and
    metrics, and no other.
    """
    folder = made_records.write(tmp_path, made_records.sweep(("lora", "full"), 2))
    assert [record.spec.method.name for record in load_records(folder).records] == [
        "lora",
        "full",
    ] * 2, "oldest first"
    damaged = min(folder.glob("lora*")) / RECORD
    damaged.write_text(damaged.read_text()[:100])
    expected = {
        r.run_id: (r.spec.suite, r.status, r.seconds, r.metrics)
        for r in load_records(folder).records
    }
    found = {h.run_id: (h.suite, h.status, h.seconds, h.metrics) for h in headlines(folder)}
    assert found == expected
    assert len(found) == 3


def test_an_attempt_begins_with_an_empty_folder(tmp_path: Path) -> None:
    """Nothing of an earlier attempt remains; a damaged run gets the first free number; of a link
    only the link moves.

    What the link leads to stays as it was.
    """
    run, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"
    run.begin()
    (run.path / "points.jsonl").write_text("old")
    (run.path / "deep").mkdir()
    run.begin()
    assert list(run.path.iterdir()) == []
    (tmp_path / SET_ASIDE / "run.2").mkdir(parents=True)
    assert run.set_aside().name == "run.1"
    elsewhere.mkdir()
    (elsewhere / RECORD).write_text("mine")
    run.path.symlink_to(elsewhere)
    assert run.set_aside().name == "run.3"
    assert (elsewhere / RECORD).read_text() == "mine"


def test_a_folder_is_locked_by_one(tmp_path: Path) -> None:
    """A second one is refused while the first holds the lock, and not afterwards.

    A results folder whose lock or holder's file is a link to a file of the user's leaves that file
    alone.
    """
    for _ in range(2):
        with (
            locked(tmp_path),
            pytest.raises(UserError, match="in use by process"),
            locked(tmp_path),
        ):
            pass
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".lock-holder.json").unlink(missing_ok=True)
    (tmp_path / ".lock-holder.json").symlink_to(mine)
    with locked(tmp_path):
        assert not (tmp_path / ".lock-holder.json").is_symlink()
    (tmp_path / ".lock").unlink(missing_ok=True)
    (tmp_path / ".lock").symlink_to(mine)
    with pytest.raises(UserError, match="a link"), locked(tmp_path):
        pass
    assert mine.read_text() == "mine"
