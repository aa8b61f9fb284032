"""Ends of sweeps whose methods race until a question is answered, with their reasons."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpml_bench.report.judge import Verdicts
from hpml_bench.report.numbers import sentence_list
from hpml_bench.statistics import Comparison
from hpml_bench.suite.suite import Until
from hpml_bench.system.text import sanitize

FUTILE_SEEDS = 5
"""Seeds from which the noise is known well enough to say that no number of seeds that is left would decide."""


def staying(found: Verdicts) -> tuple[str, ...]:
    """Return the methods that are in the race, or all where there is none, or seeds were added after it."""
    race = found.scores.race
    return found.rounds[-1].staying if found.rounds and race and not race.later else tuple(found.scores.means)


def race_end(found: Verdicts) -> str:
    """Return why a race has ended, as a sentence without its end; empty while it goes on, or where there is none."""
    race = found.scores.race
    if race is None or not found.rounds:
        return ""
    if race.later:
        return "seeds were added to those that were declared"
    names = staying(found)
    if len(names) < 2:
        return f"{sanitize(names[0])} is shown to score best" if names else "no method is left"
    every = (found.score, *(found.costs.values() if race.until.question == "costs" else ()))
    pairs = [c for of in every for c in of if {c.a, c.b} <= {*names}]
    return _of_several(sentence_list([*map(sanitize, names)]), pairs, found.rounds[-1].seeds, race.until)


def _of_several(names: str, pairs: Sequence[Comparison], seeds: int, until: Until) -> str:
    still, most = [c for c in pairs if c.verdict in {"undecided", "untested"}], until.rounds[-1]
    if not still:
        alike = f"{names} are shown to score alike"
        return "every pair that is left is decided" if until.question == "costs" else alike
    if seeds >= most:
        return f"{names} have the {most} seeds that were declared, and can't be told apart"
    # a pair that can't be tested may be with more seeds
    hope = any(c.verdict == "untested" or (c.seeds_needed or sys.maxsize) <= most for c in still)
    futile = f"no number of seeds up to {most} is expected to tell {names} apart"
    return futile if seeds >= FUTILE_SEEDS and not hope else ""
