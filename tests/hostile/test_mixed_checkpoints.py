"""Checkpoints that were mixed, cut or edited: each of 37 is named, and none is gone on from."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.records.files import CHECKPOINTS, POINTS
from hpml_bench.records.plan import Limits
from hpml_bench.records.points import PointWriter
from hpml_bench.training import checkpoint, distributed
from hpml_bench.training.checkpoint import Checkpoints
from hpml_bench.training.trainer import Trainer

SPEC = tiny.spec(steps=30, world_size=1)
LIMITS = Limits(stall=0, checkpoint_steps=8)
OLDER, NEWER = 16, 24  # steps of the two checkpoints that stay of a run that ends after step 27
SHARED, RANK = "shared.safetensors", "rank0.safetensors"


class Killed(Exception):
    """Stands for a kill."""


def saved_run(folder: Path, prepared: Prepared, seed: int) -> Path:
    """Do a run up to a kill in step 28, which leaves two checkpoints; return its folder."""
    step = Trainer.step

    def until(trainer: Trainer, index: int, indices: Any) -> None:
        if index == 28:
            raise Killed
        step(trainer, index, indices)

    spec = SPEC.model_copy(update={"seed": seed})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", until)
        with pytest.raises(Killed):
            tiny.execute(tiny.request(spec, prepared, folder, LIMITS))
    dist.destroy_process_group()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Prepared, Group]]:
    """A run, and beside it another start of it (`again`) and a run of another seed (`other`)."""
    room = tmp_path_factory.mktemp("runs")
    prepared = tiny.prepared(room / "prepared")
    for name, seed in (("run", 0), ("again", 0), ("other", 1)):
        saved_run(room / name, prepared, seed)
    with tiny.alone() as group:
        yield room, prepared, group


class Room:
    """A copy of the run's folder, whose checkpoints a test changes."""

    def __init__(self, folder: Path, donors: Path) -> None:
        self.folder, self.donors = folder, donors

    def file(self, name: str, step: int = NEWER) -> Path:
        return self.folder / CHECKPOINTS / str(step) / name

    def take(self, name: str, donor: str, step: int = NEWER) -> None:
        """Put a file of another run's checkpoint, or of another step, into the newer one."""
        source = self.folder if donor == "run" else self.donors / donor
        shutil.copyfile(source / CHECKPOINTS / str(step) / name, self.file(name))

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what a file holds, and write it with a checksum that is right."""
        content = checkpoint.read(self.file(name))
        change(content)
        checkpoint.write(self.file(name), content)

    def cut(self, name: str, part: float) -> None:
        os.truncate(self.file(name), int(self.file(name).stat().st_size * part))

    def flip(self, name: str, part: float) -> None:
        content = bytearray(self.file(name).read_bytes())
        content[int(len(content) * part)] ^= 1
        self.file(name).write_bytes(content)

    def replaced(self, name: str, make: Callable[[Path], object]) -> None:
        self.file(name).unlink()
        make(self.file(name))

    def rename(self, step: int) -> None:
        shutil.rmtree(self.folder / CHECKPOINTS / str(step), ignore_errors=True)
        (self.folder / CHECKPOINTS / str(NEWER)).rename(self.folder / CHECKPOINTS / str(step))

    def points(self, change: Callable[[bytes], bytes]) -> None:
        file = self.folder / POINTS
        file.write_bytes(change(file.read_bytes()))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 * 2**30)


def claiming(path: Path) -> None:
    """Make a file of 40 GB that is as long as its head says, and holds nothing but the head."""
    size = 40 * 10**9
    parts = {"0": [0, size - 4], "crc": [size - 4, size]}
    head = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in parts.items()
    }
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + size)


def deep(path: Path) -> None:
    text = b'{"a":' * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def first_digit_changed(points: bytes) -> bytes:
    before, name, after = points.partition(b'"value":')
    digit = b"1" if after[:1] != b"1" else b"2"
    return before + name + digit + after[1:]


def without_a_line(points: bytes) -> bytes:
    lines = points.splitlines(keepends=True)
    # as many bytes stay, so that the size alone doesn't tell
    return b"".join([*lines[:3], b" " * len(lines[3][:-1]) + b"\n", *lines[4:]])


def renumbered(content: dict[str, Any]) -> None:
    content["part_of"]["step"] = NEWER + 1


HOSTILE: dict[str, tuple[Callable[[Room], object], str]] = {
    "shared file of an older step": (lambda r: r.take(SHARED, "run", OLDER), "is of step 16"),
    "rank's file of an older step": (lambda r: r.take(RANK, "run", OLDER), "is of step 16"),
    "shared file of another start": (lambda r: r.take(SHARED, "again"), "of two checkpoints"),
    "rank's file of another start": (lambda r: r.take(RANK, "again"), "of two checkpoints"),
    "rank's file of another run": (lambda r: r.take(RANK, "other"), "is of the run"),
    "shared file of another run": (lambda r: r.take(SHARED, "other"), "of two checkpoints"),
    "both files of another start": (
        lambda r: [r.take(SHARED, "again"), r.take(RANK, "again")],
        "doesn't begin with the points",
    ),
    "both files of another run": (
        lambda r: [r.take(SHARED, "other"), r.take(RANK, "other")],
        "is of the run",
    ),
    "both files of an older step": (
        lambda r: [r.take(SHARED, "run", OLDER), r.take(RANK, "run", OLDER)],
        "is of step 16",
    ),
    "folder under another step": (lambda r: r.rename(26), "is of step 24"),
    "step edited": (lambda r: r.edit(RANK, renumbered), "is of step 25"),
    "another number of ranks": (
        lambda r: r.edit(RANK, lambda own: own["part_of"].update(world=2)),
        "saved by 2 ranks",
    ),
    "another rank": (lambda r: r.edit(RANK, lambda own: own.update(rank=1)), "is of rank 1"),
    "another version's": (lambda r: r.edit(SHARED, lambda own: own.pop("part_of")), "version"),
    "other hardware": (lambda r: r.edit(RANK, lambda own: own.update(key="x")), "hardware"),
    "points that are no list": (lambda r: r.edit(SHARED, lambda own: own.update(points=7)), ""),
    "more points than there are": (
        lambda r: r.edit(SHARED, lambda own: own["points"].__setitem__(0, 10**9)),
        "doesn't begin with the points",
    ),
    "fewer points than none": (
        lambda r: r.edit(SHARED, lambda own: own.update(points=[-1, hashlib.sha256().hexdigest()])),
        "doesn't begin with the points",
    ),
    "parts that are none": (
        lambda r: r.edit(SHARED, lambda own: own.update(segments=[{"first": []}])),
        "doesn't tell the parts",
    ),
    "shared file cut in half": (lambda r: r.cut(SHARED, 0.5), "damaged"),
    "rank's file cut in half": (lambda r: r.cut(RANK, 0.5), "damaged"),
    "rank's file cut in its head": (lambda r: r.cut(RANK, 0.001), "damaged"),
    "empty": (lambda r: r.cut(SHARED, 0), "damaged"),
    "a bit of a tensor": (lambda r: r.flip(SHARED, 0.6), "damaged"),
    "a bit of a head": (lambda r: r.flip(RANK, 0.01), "damaged"),
    "binary rubbish": (
        lambda r: r.replaced(SHARED, lambda path: path.write_bytes(bytes(range(256)) * 99)),
        "damaged",
    ),
    "a huge file with holes": (lambda r: r.replaced(SHARED, sparse), "damaged"),
    "a head that claims holes": (lambda r: r.replaced(SHARED, claiming), "holes"),
    "a deep head": (lambda r: r.replaced(SHARED, deep), "damaged"),
    "a pipe": (lambda r: r.replaced(RANK, os.mkfifo), "no regular file"),
    "a folder": (lambda r: r.replaced(RANK, Path.mkdir), "no regular file"),
    "a device": (lambda r: r.replaced(RANK, lambda path: path.symlink_to("/dev/zero")), "link"),
    "missing": (lambda r: r.file(RANK).unlink(), "No such file"),
}
"""What was done to the newer checkpoint, how, and what says so."""
SPOILED_POINTS: dict[str, Callable[[bytes], bytes]] = {
    "a digit changed": first_digit_changed,
    "a line blanked": without_a_line,
    "cut": lambda points: points[:10],
    "empty": lambda _: b"",
}


@pytest.fixture
def room(runs: tuple[Path, Prepared, Group], tmp_path: Path) -> Room:
    shutil.copytree(runs[0] / "run", tmp_path / "run")
    return Room(tmp_path / "run", runs[0])


def gone_on_from(room: Room, runs: tuple[Path, Prepared, Group]) -> int:
    """Return the step from which the run goes on; 0 where it starts anew."""
    _, prepared, group = runs
    writer = PointWriter(room.folder)
    request = tiny.request(SPEC, prepared, room.folder, LIMITS)
    checkpoints = Checkpoints(request, group, ["here"], 0.0, writer)
    state = checkpoints.newest()
    writer.close()
    assert (state is not None) == bool(checkpoints.begun)
    return checkpoints.begun


def test_the_count_is_that_of_the_docs() -> None:
    """docs/security.md says how many spoiled checkpoints there are."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert f"{len(HOSTILE) + len(SPOILED_POINTS)} that were mixed, cut or edited" in page


def test_an_untouched_one_is_used(room: Room, runs: tuple[Path, Prepared, Group]) -> None:
    """The newer of two whole checkpoints is gone on from."""
    assert gone_on_from(room, runs) == NEWER


def test_a_folder_of_no_step_is_not_used(room: Room, runs: tuple[Path, Prepared, Group]) -> None:
    """A name of more digits than a step may have is none, and the newest checkpoint is used."""
    (room.folder / CHECKPOINTS / "100000000000000000000").mkdir()
    assert gone_on_from(room, runs) == NEWER


def test_a_huge_tail_is_cut_without_being_read(tmp_path: Path) -> None:
    """Of 40 GB behind a checkpoint's points only the first megabytes are looked at."""
    line = b'{"step": 1, "metric": "step_seconds", "value": 1.0}\n'
    (tmp_path / POINTS).write_bytes(line * 2)
    os.truncate(tmp_path / POINTS, 40 * 10**9)
    writer = PointWriter(tmp_path)
    began = time.monotonic()
    lost = writer.cut(len(line))
    assert time.monotonic() - began < 10
    writer.close()
    assert [point.value for point in lost] == [1.0]
    assert (tmp_path / POINTS).read_bytes() == line


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_belong_together_is_not_used(
    kind: str,
    room: Room,
    runs: tuple[Path, Prepared, Group],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log says in one line why, and the run goes on from the older checkpoint."""
    spoil, words = HOSTILE[kind]
    spoil(room)
    assert gone_on_from(room, runs) == OLDER
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].startswith("no checkpoint: ")
    assert words in told[0]
    assert told[1].startswith(f"going on after step {OLDER}")


def test_rank_0_says_what_another_rank_could_not_read(
    room: Room,
    runs: tuple[Path, Prepared, Group],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The terminal shows its log alone, and its record has the reason."""
    failures = ["", "checkpoints/24 is not used: damaged"]
    monkeypatch.setattr(distributed, "gathered", lambda *_: failures)
    _, prepared, group = runs
    writer = PointWriter(room.folder)
    request = tiny.request(SPEC, prepared, room.folder, LIMITS)
    checkpoints = Checkpoints(request, group, ["here"], 0.0, writer)
    room.file(RANK).unlink()  # stands for the other rank's
    assert checkpoints.newest() is not None
    writer.close()
    assert checkpoints.unused == (failures[1],)
    assert f"no checkpoint: rank 1: {failures[1]}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("kind", SPOILED_POINTS)
def test_changed_points_are_not_gone_on_from(
    kind: str,
    room: Room,
    runs: tuple[Path, Prepared, Group],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The points are not those that were written: the run starts anew, and says so."""
    room.points(SPOILED_POINTS[kind])
    assert gone_on_from(room, runs) == 0
    *told, last = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert all("doesn't begin with the points" in line for line in told)
    assert last == "no checkpoint can be used: the run starts anew"
    assert (room.folder / POINTS).read_bytes() == b""
    assert not (room.folder / CHECKPOINTS).exists()
