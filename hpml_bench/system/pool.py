"""Work on many items by forked processes, in the items' order, as one process would do it."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from hpml_bench.system.child import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: Callable[[Any], Any] = id  # of a forked process; its parent's needs no pickling


def in_order(work: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """Yield `work` of each item, done by that many processes; by this one what they can't do or with fewer than two.

    A process ends with this one. An exception of `work` is raised here.
    """
    pool: ProcessPoolExecutor | None = None
    waiting: deque[tuple[Item, Future[Result] | None]] = deque()
    try:
        if processes > 1:
            context = multiprocessing.get_context("fork")
            pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(work,))
    except (OSError, ImportError, NotImplementedError, ValueError):  # no fork, or no semaphores
        pool = None
    try:
        for item in items:
            waiting.append((item, _sent(pool, item)))
            if len(waiting) > 2 * processes or pool is None:
                yield _done(work, *waiting.popleft())
        while waiting:
            yield _done(work, *waiting.popleft())
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - one for each forked process
    die_with_parent()
    _work = work


def _call(item: Any) -> Any:
    return _work(item)


def _sent(pool: ProcessPoolExecutor | None, item: Item) -> Future[Any] | None:
    try:
        return None if pool is None else pool.submit(_call, item)
    except (OSError, RuntimeError, AssertionError):  # too many processes, a broken pool, a daemon's child
        return None


def _done(work: Callable[[Item], Result], item: Item, sent: Future[Result] | None) -> Result:
    if sent is not None:
        try:
            return sent.result()
        except BrokenProcessPool:  # a process was killed
            pass
    return work(item)
