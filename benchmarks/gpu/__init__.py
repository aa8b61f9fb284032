"""Checks of `benchmarks/on_gpu.py`, a module for each kind; a check's cases are done while time
lasts.
"""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from helpers import tiny  # type: ignore[import-not-found]

Cases = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Name and call of each case; what a call returns has `passed`: None with `skipped`, the reason."""
RUNNING = {
    "passed": False,
    "error": "the process ended in this case",
}  # a case that began, until it has ended


@contextmanager
def alone() -> Iterator[Path]:
    """Yield a new folder, in the environment of a rank that is alone."""
    os.environ.update(tiny.ALONE, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def gathered(
    cases: Cases,
    seconds: float,
    known: Mapping[str, Any] | None = None,
    write: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Do the cases that aren't known, and skip those for which less time is left than the longest
    has taken.

    An error is a case's result. Where it has left CUDA unusable the process ends, for another to do
    the rest.
    """
    ends, longest = time.monotonic() + seconds, 0.0
    found: dict[str, dict[str, Any]] = {**(known or {})}
    for name, call in cases:
        if name in found:
            continue
        began = time.monotonic()
        if began + longest > ends:
            found[name] = {
                "passed": None,
                "skipped": f"less than {longest:.0f} s are left, which the longest took",
            }
            continue
        write({"passed": False, "cases": found | {name: RUNNING}})
        try:
            found[name] = call()
        except Exception as error:
            found[name] = {
                "passed": False,
                "error": f"{type(error).__name__}: {error}",
                "at": traceback.format_exc(-2),
            }
        longest = max(longest, time.monotonic() - began)
        found[name]["seconds"] = round(time.monotonic() - began, 1)
        write({"passed": passed(found.values()), "cases": {**found}})
        if "error" in found[name] and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                os._exit(1)
    return {"passed": passed(found.values()), "cases": found}


def passed(results: Any) -> bool | None:
    """Return whether none failed; None where all are skipped."""
    verdicts = {result["passed"] for result in results}
    return None if verdicts == {None} else False not in verdicts
