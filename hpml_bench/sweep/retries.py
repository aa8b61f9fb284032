"""Retries of units whose jobs ended with runs left to do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

VAIN = 2
"""Submissions of a unit in a row without a new run before it is given up."""
AGAIN_SECONDS = 60.0
"""Seconds between two submissions while other jobs live."""


class Retries:
    """Resubmissions of units, limited in number and in rate."""

    def __init__(self) -> None:
        self._tries: dict[int, tuple[int, int]] = {}
        """Unit -> runs left at its last submission, and submissions in a row without a new run."""
        self._last = self._refused_since = -float("inf")

    def due(self, left: Mapping[int, int], live: bool) -> tuple[int, ...]:
        """Return the units to submit now, of `left`: unit without a job -> its runs left; `live`: other jobs live."""
        if live and time.monotonic() - self._last < AGAIN_SECONDS:
            return ()
        self._last = time.monotonic()
        return tuple(unit for unit in left if not self._given_up(unit, left[unit]))

    def vain(self, left: Mapping[int, int]) -> bool:
        """Whether all units are given up."""
        return all(self._given_up(unit, runs) for unit, runs in left.items())

    def _given_up(self, unit: int, left: int) -> bool:
        runs, vain = self._tries.get(unit, (0, 0))
        return runs == left and vain >= VAIN

    def accepted(self, units: Iterable[int], left: Mapping[int, int]) -> None:
        """Note that the engine has accepted jobs of these units."""
        self._refused_since = -float("inf")
        for unit in units:
            runs, vain = self._tries.get(unit, (0, 0))
            now = left.get(unit, 0)
            self._tries[unit] = now, vain + 1 if runs == now else 1

    def refused(self, live: bool) -> float:
        """Note that the engine refuses jobs; return for how many seconds it has, since no other jobs live."""
        now = time.monotonic()
        if live:
            self._refused_since = -float("inf")
            return 0.0
        self._refused_since = now if self._refused_since == -float("inf") else self._refused_since
        return now - self._refused_since
