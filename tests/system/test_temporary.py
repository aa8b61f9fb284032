"""Temporary files and folders of several processes, hosts and containers, told from those that
were left; locks.
"""

import errno
import fcntl
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import Mock

import pytest

from hpml_bench.records.folder import locked
from hpml_bench.records.jobs import write_once
from hpml_bench.system import cache, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import write_atomically
from hpml_bench.system.redaction import redact_files

DAY = 86_400


def killed(path: Path) -> Path:
    """Return a temporary file of a process that has ended."""
    program = "import sys; from pathlib import Path; from hpml_bench.system import temporary\n"
    program += "path = temporary.beside(Path(sys.argv[1])); path.touch(); print(path)"
    return Path(subprocess.check_output([sys.executable, "-c", program, path], text=True).strip())


def aged(path: Path, seconds: float) -> Path:
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def foreign(path: Path) -> Path:
    """Return a name as a process with this one's number has it in another container, or on
    another host.
    """
    return path.with_name(temporary.beside(path).name.replace(temporary.host_id(), "0123456789ab"))


def test_only_what_was_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living process's file stays, also another user's; a dead one's of this place goes, and
    one over a day old.
    """
    target = tmp_path / "suite.json"
    own, other, old_style = temporary.beside(target), foreign(target), tmp_path / ".run.json.1.tmp"
    kept = [own, other, old_style]
    for path in kept:
        path.touch()
    gone = [
        killed(target),
        aged(foreign(target), DAY + 60),
        aged(tmp_path / ".trials.json.1.tmp", DAY + 60),
    ]
    assert all(path.exists() for path in gone)
    aged(own, DAY + 60)  # a process that lives may be slow
    aged(other, DAY - 600)
    temporary.remove_left(tmp_path)
    assert {path for path in [*kept, *gone] if path.exists()} == set(kept)
    another = killed(target)
    monkeypatch.setattr(os, "kill", Mock(side_effect=PermissionError))
    assert not temporary.left_over(another)


def test_the_cache_keeps_an_entry_that_is_written(tmp_path: Path) -> None:
    """Another host's folder is as old as what was written last in it."""
    target = tmp_path / "entry"
    kept, old = foreign(target), foreign(target)
    for folder in (kept, old):
        (folder / "entry").mkdir(parents=True)
        (folder / "entry" / "weights").touch()
    for path in (old / "entry" / "weights", kept / "entry", old / "entry", kept, old):
        aged(path, DAY + 60)
    with cache.locked(target):
        assert {*tmp_path.iterdir()} == {kept, tmp_path / "entry.lock"}


@pytest.mark.parametrize("what", ["socket.gethostname", "processes.boot", "processes.namespace"])
def test_places_differ(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By host, kernel or namespace: a process there with the number of a dead one here is none
    that has ended.
    """
    here = temporary.host_id.__wrapped__()
    assert here == temporary.host_id()
    monkeypatch.setattr(f"hpml_bench.system.temporary.{what}", lambda: "another")
    assert temporary.host_id.__wrapped__() != here


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomically(path, "x"),
        lambda path: write_once(path, "x"),
        lambda path: (path.write_text("at https://me:pass@host"), redact_files(path)),
    ],
)
def test_no_names_are_shared(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even two of one process, host and file; and none stays."""
    name, seen = temporary.beside, list[str]()
    monkeypatch.setattr(
        temporary, "beside", lambda path: seen.append(name(path).name) or tmp_path / seen[-1]
    )
    for _ in range(2):
        write(tmp_path / "file")
    assert len(set(seen)) == 2
    assert all(temporary.host_id() in one and f".{os.getpid()}." in one for one in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def run(program: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(place)}
    program = f"from hpml_bench.system import temporary\n{program}"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_removes_its_folder_and_those_of_killed_ones(tmp_path: Path) -> None:
    """What a SIGKILL left goes as the next process begins, its own as it ends; not a living
    one's or another host's.
    """
    kept = [tmp_path / f"{temporary.PREFIX}{name}" for name in ("living", "elsewhere", "just-made")]
    for folder in kept:
        folder.mkdir()
    temporary.beside(kept[0] / "owner").touch()
    dead = killed(kept[1] / "owner")
    dead.rename(dead.with_name(dead.name.replace(temporary.host_id(), "0123456789ab")))
    for end in ("import os; os.kill(os.getpid(), 9)", ""):
        done = run(f"print(temporary.folder(), flush=True)\n{end}", tmp_path)
        assert Path(done.stdout.strip()).exists() == bool(end), done.stderr
    assert {*tmp_path.iterdir()} == {*kept}


def test_a_removed_folder_of_multiprocessing_ends_no_process_with_a_traceback(
    tmp_path: Path,
) -> None:
    """As where ranks remove their sockets while this process removes the folder."""
    program = (
        "import shutil, multiprocessing.util as util\nwith temporary.as_temporary(): "
        "shutil.rmtree(util.get_temp_dir())"
    )
    done = run(program, tmp_path)
    assert (done.returncode, done.stderr, [*tmp_path.iterdir()]) == (0, "", [])


# Locks where a file system has none: told in one sentence, and no marker is taken that would
# outlive its holder


LOCKS: dict[str, tuple[Callable[[Path], AbstractContextManager[object]], str]] = {
    "results": (locked, "give an --out on another one"),
    "cache": (lambda folder: cache.locked(folder / "entry"), "set HPML_BENCH_CACHE"),
}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("what", LOCKS)
def test_a_disk_without_locks_is_told(
    what: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flock answers becomes one sentence with the folder and what to do; nothing is taken
    for a lock instead.
    """
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    take, advice = LOCKS[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # a marker left by the first would be in the way of the second
            with (
                pytest.raises(UserError, match="this file system can't lock files") as told,
                take(tmp_path),
            ):
                pass
            assert str(tmp_path) in str(told.value)
            assert advice in str(told.value)
    monkeypatch.undo()
    with take(tmp_path):
        pass
