"""Locks where a file system has none: told in one sentence, and no marker is taken that would outlive its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from hpml_bench.records.folder import ResultsFolder, locked
from hpml_bench.system import cache
from hpml_bench.system.errors import UserError


def enter(context) -> None:
    with context:
        pass


LOCKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "results": (lambda folder: enter(locked(folder)), "give an --out on another one"),
    "opened": (lambda folder: enter(ResultsFolder.open(folder)), "give an --out on another one"),
    "cache": (lambda folder: enter(cache.locked(folder / "entry")), "set HPML_BENCH_CACHE"),
}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("what", LOCKS)
def test_a_file_system_without_locks_is_told(
    what: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flock answers becomes one sentence with the folder and what to do; nothing is taken for a lock instead."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    take, advice = LOCKS[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # a marker left by the first would be in the way of the second
            with pytest.raises(UserError, match="this file system can't lock files") as told:
                take(tmp_path)
            assert str(tmp_path) in str(told.value)
            assert advice in str(told.value)
    monkeypatch.undo()
    take(tmp_path)
