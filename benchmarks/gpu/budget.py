"""Cases of a check, done while its time lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

Cases = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Name and call of each case; what a call returns has `passed`: None with `skipped`, the reason."""


def gathered(cases: Cases, seconds: float) -> dict[str, Any]:
    """Do cases, and skip those for which less time is left than the longest has taken."""
    ends, longest = time.monotonic() + seconds, 0.0
    found: dict[str, dict[str, Any]] = {}
    for name, call in cases:
        began = time.monotonic()
        if began + longest > ends:
            found[name] = {"passed": None, "skipped": f"less than {longest:.0f} s are left, which the longest took"}
            continue
        found[name] = call()
        longest = max(longest, time.monotonic() - began)
    return {"passed": passed(found.values()), "cases": found}


def passed(results: Any) -> bool | None:
    """Return whether none of the results failed; None where all are skipped."""
    verdicts = {result["passed"] for result in results}
    return None if verdicts == {None} else False not in verdicts
