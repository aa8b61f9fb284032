"""Hostile files: what may lie in the place of a file, and results folders in which one does."""

import ctypes
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import fake_slurm, forging
from hpml_bench.records.files import RECORD
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.jobs import (
    CLAIMS,
    LOGS,
    OWNER,
    SUBMITTED,
    Job,
    Submission,
    Submissions,
    plan_id,
    read_plan,
    write_job,
    write_plan,
)
from hpml_bench.system import temporary
from hpml_bench.system.files import is_plain_file, remove, write_atomically

HUGE = 8 * 2**30


def _sparse(path: Path, _: bytes) -> None:
    path.touch()
    os.truncate(path, HUGE)


def _unreadable(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0)


def _linked(path: Path, content: bytes) -> None:
    outside = Path(tempfile.mkdtemp(dir=temporary.folder())) / path.name
    outside.write_bytes(content)
    path.symlink_to(outside)


KINDS: dict[str, Callable[[Path, bytes], object]] = {
    "a pipe": lambda path, _: os.mkfifo(path),
    "a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a folder": lambda path, _: path.mkdir(),
    "a huge file with holes": _sparse,
    "a link to the file": _linked,
    "a link to itself": lambda path, _: path.symlink_to(path),
    "no permission": _unreadable,
    "binary rubbish": lambda path, _: path.write_bytes(bytes(range(256)) * 40),
    "deep JSON": lambda path, _: path.write_text('{"a":' * 100_000),
    "huge numbers": lambda path, _: path.write_text('{"at": 1' + "0" * 100_000 + "}"),
    "NaN": lambda path, _: path.write_text('{"at": NaN, "seconds": Infinity}'),
    "other types": lambda path, _: path.write_text('[{"run_id": [], "spec": 7}]'),
    "cut in half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "empty": lambda path, _: path.touch(),
}
"""What lies in a file's place -> how it is made there, of what the file held."""
NO_FILES = tuple(KINDS)[:7]
"""Kinds of which nothing can be read."""


# Linux's capabilities: DAC_OVERRIDE and DAC_READ_SEARCH let root read what no permission allows
_OVERRIDES = 1 << 1 | 1 << 2
_VERSION_3 = 0x20080522


@contextmanager
def without_overrides() -> Iterator[None]:
    """Let permissions count for this thread even where it is root's, as they do for a user."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits

    def check(failed: int) -> None:
        if failed:
            raise OSError(ctypes.get_errno(), "capabilities can't be read or set")

    check(libc.capget(head, rights))
    effective = rights[0]
    rights[0] = effective & ~_OVERRIDES
    check(libc.capset(head, rights))
    try:
        yield
    finally:
        rights[0] = effective
        check(libc.capset(head, rights))


# Results folders


def local(folder: Path) -> Path:
    """Make a results folder of a sweep on this machine whose runs are done, and return it."""
    return forging.of_quickstart(folder, ("lora", "head"), 2).folder


def by_jobs(room: Path) -> Path:
    """Make a results folder of a sweep by jobs on stand-ins for Slurm's commands; return it.

    Of its two units one is held by a job, whose run is under way, and the other isn't begun.
    """
    sweep = fake_slurm.opened(room, seeds=2, prepare="job")
    folder: Path = sweep.folder
    fake_slurm.resolved(sweep)
    suite = sweep.plan.suite
    (spec, *_) = suite.runs(["head"], [0])
    record = fake_slurm.record_of(spec)
    (folder / record.run_id).mkdir()
    RunFolder(folder / record.run_id).commit(record)
    began = "2026-01-02T03:00:00+00:00"
    job = Job(engine="slurm", job="7_0", restart=0, unit=0, host="n1", pid=1, began=began)
    write_job(folder, job)
    claim = folder / CLAIMS / "0" / OWNER
    claim.parent.mkdir(parents=True)
    write_atomically(claim, job.model_dump_json())
    submission = Submission(name="7", kind="units", units=(0, 1), first=0, at=time.time())
    write_atomically(folder / SUBMITTED, Submissions(made=(submission,)).model_dump_json())
    (folder / LOGS).mkdir(exist_ok=True)
    (folder / LOGS / "7_0.log").write_text("the job has begun\n")
    return folder


def copied(source: Path, target: Path) -> Path:
    """Copy a results folder; a plan in it is made one of its new place."""
    shutil.copytree(source, target)
    if (target / "plan.json").exists():
        write_plan(target, read_plan(target).model_copy(update={"id": plan_id(target)}))
    return target


FILES = {
    "claims/*/owner.json": "claims/0/owner.json",
    "jobs/*.json": "jobs/0.7_0.0.json",
    "running/*.json": "running/x.7_0.0.json",
    "running/*.came": "running/x.7_0.0.came",
    "logs/*": "logs/7_0.log",
    "*/heartbeat-rank*": "*/heartbeat-rank0",
    "*/rank*.log": "*/rank0.log",
    "*/error-rank*.json": "*/error-rank0.json",
    "*/checkpoints/*/*.safetensors": "*/checkpoints/8/shared.safetensors",
    "*/kept/*": "*/kept/config.json",
    "*/command/*": "*/command/guard.json",
    "*.answers.jsonl": "run.answers.jsonl",
    "report.*": "report.md",
    "figures/*": "figures/curve_train_loss.svg",
    "tables/*": "tables/runs.csv",
}
"""Pattern of a row of the table -> a file of it; `*/` is the folder of the first run."""


def emptied(folder: Path, pattern: str) -> tuple[Path, bytes]:
    """Remove a row's file from a results folder; return its path, and what it held."""
    name = FILES.get(pattern, pattern)
    if name.startswith("*/"):
        run = min(path.parent for path in folder.glob(f"*/{RECORD}"))
        name = f"{run.name}/{name[2:]}"
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    content = place.read_bytes() if is_plain_file(place) else b"{}"
    remove(place)
    return place, content


def names(text: str, place: Path, folder: Path) -> bool:
    """Return whether a text names a file of a results folder, by its name and that of its run; a
    record may be named by the run alone.
    """
    parts = place.relative_to(folder).parts
    needed = parts[:1] if parts[-1] == RECORD else (parts[0], parts[-1])
    return all(re.search(rf"(?<![\w-]){re.escape(part)}(?![\w-])", text) for part in needed)
