"""Forked processes do work in order, and what they can't do is done here."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from hpml_bench.system import child
from hpml_bench.system.child import in_order

HERE = os.getpid()


def none_to_be_had(*_: Any, **__: Any) -> Any:
    raise OSError("no semaphores")


def where(item: int) -> tuple[int, bool]:
    """Return the item, and whether it is done in another process."""
    return item, os.getpid() != HERE


def killed(item: int) -> tuple[int, bool]:
    """Return as `where`; the process of the fifth item is killed."""
    if item == 5 and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return where(item)


@pytest.mark.parametrize(("work", "processes", "elsewhere"), [(where, 3, 20), (where, 1, 0), (where, 0, 0)])
def test_results_come_in_order(work: Callable[[int], Any], processes: int, elsewhere: int) -> None:
    """Of several processes and of this one, which does the work alone with fewer than two."""
    found = list(in_order(work, range(20), processes))
    assert [item for item, _ in found] == list(range(20))
    assert sum(other for _, other in found) == elsewhere
    assert not multiprocessing.active_children()


def test_work_goes_on_where_a_process_is_killed() -> None:
    """As for lack of memory: this process does the rest."""
    found = list(in_order(killed, range(20), 2))
    assert [item for item, _ in found] == list(range(20))
    assert found[5] == (5, False)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("get_context", multiprocessing), ("ProcessPoolExecutor", child), ("submit", ProcessPoolExecutor)],
)
def test_work_is_done_here_where_there_is_no_pool(name: str, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without fork or semaphores, or that starts no more processes."""
    monkeypatch.setattr(owner, name, none_to_be_had)
    assert list(in_order(where, range(7), 3)) == [(item, False) for item in range(7)]


def test_an_error_of_the_work_is_raised_here() -> None:
    """The first one, by its item."""
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // (item - 3), range(9), 2))
