"""Work on many items by forked processes, in the items' order, as one process would do it."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from hpml_bench.system.child import die_with_parent

_work: Callable[[Any], Any] = id  # of a forked process; its parent's needs no pickling


def in_order(work: Callable[[Any], Any], items: Iterable[Any], processes: int) -> Iterator[Any]:
    """Yield `work` of each item, done by that many processes; by this one what they can't do, or with fewer than two.

    A process ends with this one. An exception of `work` is raised here.
    """
    waiting = deque[Callable[[], Any]]()
    try:
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(processes, fork, _begin, (work,)) if processes > 1 else None
    except (OSError, ImportError, NotImplementedError, ValueError):  # there is no fork, or no semaphore
        pool = None
    try:
        for item in items:
            waiting.append(_sent(pool, work, item))
            if pool is None or len(waiting) > 2 * processes:
                yield waiting.popleft()()
        yield from (done() for done in waiting)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - one for each forked process
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads are the parent's alone
    _work = work


def _call(item: Any) -> Any:
    return _work(item)


def _sent(pool: ProcessPoolExecutor | None, work: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
    """Return a function that returns the item's result; it waits for a process, or does the work itself."""
    try:
        sent = None if pool is None else pool.submit(_call, item)
    except (OSError, RuntimeError, AssertionError):  # too many processes, a broken pool, a daemon's child
        sent = None

    def done() -> Any:
        try:
            return work(item) if sent is None else sent.result()
        except BrokenProcessPool:  # a process was killed
            return work(item)

    return done
