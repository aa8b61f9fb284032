"""Checks: their states and texts, and running all of them side by side, each with a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from typing import Literal

from hpml_bench.system import checklist
from hpml_bench.system.checklist import name_of, printable

State = Literal["ok", "warn", "fail"]
"""ok: works; warn: something may be missing or go wrong here; fail: the suite quickstart can't run here."""
SECONDS = 90.0
"""Time limit of all checks; a network drive may not answer."""


Check = checklist.Check[State]
Found = checklist.Found[State]
Look = Callable[[], Found]
"""A check; its name is the function's. A UserError that it raises says why quickstart can't run."""


def look(checks: Sequence[Look]) -> Iterator[Check]:
    """Run checks in threads and yield their results in order; an exception of a check becomes its finding."""
    kept: dict[Look, Found] = {}
    threads = [threading.Thread(target=_keep, args=(check, kept), daemon=True) for check in checks]
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        yield printable(name_of(check), kept.get(check, Found("warn", "no answer in time")))


def refused(error: Exception, state: State = "fail") -> Found:
    """Return the result for a UserError, whose text is a problem, a semicolon and advice."""
    finding, _, advice = str(error).partition("; ")
    return Found(state, finding, advice)


def as_bytes(number: float) -> str:
    """Return a number of bytes as text."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def _keep(check: Look, kept: dict[Look, Found]) -> None:
    from hpml_bench.system.errors import UserError

    try:
        kept[check] = check()
    except UserError as error:
        kept[check] = refused(error)
    except PackageNotFoundError as error:
        kept[check] = Found("warn", f"not known: {error.name} isn't installed", "pip install . in the clone")
    except ImportError as error:  # of ours, or of a dependency
        kept[check] = Found("fail", str(error), "pip install . in the clone; see the line dependencies")
    except Exception as error:
        kept[check] = Found("warn", f"not known ({type(error).__name__}: {error})")
