"""Races: verdicts at looks that were declared before the first, after each of which those shown
to be behind leave.
"""

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple, TypeVar

from hpml_bench.statistics.verdicts import Better, Comparison

Metric = TypeVar("Metric", bound=Hashable)
Family = Mapping[Metric, tuple[Comparison, ...]]


class Round(NamedTuple):
    """A look at the seeds of all systems that were in the race."""

    seeds: int  # seeds of each of them
    systems: tuple[str, ...]  # those in the race
    left: Mapping[str, str]  # system that left -> the best one that is shown to beat it

    @property
    def staying(self) -> tuple[str, ...]:
        """Those in the race after it."""
        return tuple(name for name in self.systems if name not in self.left)


def race(
    systems: Sequence[str],
    rounds: Sequence[int],
    complete: Callable[[tuple[str, ...], int], bool],
    compare: Callable[[tuple[str, ...], int], Family[Metric]],
    decide: Callable[[Family[Metric], int], Family[Metric]],
    score: Metric,
    better: Better,
    later: int = 0,
) -> tuple[Family[Metric], tuple[Round, ...]]:
    """Return the pairs of all systems with their verdicts after the last complete round, and the
    complete rounds.

    A system that is shown to be worse than another by score leaves, and its pairs keep what they
    were at that look, as a pair with a verdict does; the family stays whole (as of AdaStop,
    arXiv:2306.10882, by permutations). `rounds` are the numbers of seeds at the declared looks;
    `complete` returns whether all runs of systems below a number of seeds have ended, `compare`
    their pairs without verdicts, `decide` all pairs with those of a look, from 1. `later` is the
    number of looks at all seeds that weren't declared; the last is taken.
    """
    staying, taken, found = tuple(systems), list[Round](), dict[Metric, tuple[Comparison, ...]]()
    settled: dict[tuple[Metric, str, str], Comparison] = {}

    def look(
        number: int, names: tuple[str, ...], seeds: int
    ) -> dict[Metric, tuple[Comparison, ...]]:
        fresh = {
            (metric, c.a, c.b): c for metric, of in compare(names, seeds).items() for c in of
        } | settled
        metrics, pairs = (
            dict.fromkeys(metric for metric, _, _ in fresh),
            list(combinations(systems, 2)),
        )
        family = {
            m: tuple(fresh[m, *pair] for pair in pairs if (m, *pair) in fresh) for m in metrics
        }
        decided = decide(family, number)
        return {
            m: tuple(_standing(c, settled.get((m, c.a, c.b))) for c in of)
            for m, of in decided.items()
        }

    for number, seeds in enumerate(rounds, 1):
        if len(staying) < 2 or not complete(staying, seeds):
            break
        found = look(number, staying, seeds)
        taken.append(Round(seeds, staying, _beaten(found.get(score, ()), staying, better)))
        staying = taken[-1].staying
        settled |= {
            (m, c.a, c.b): c
            for m, of in found.items()
            for c in of
            if c.differs or c.equivalent or not {c.a, c.b} <= {*staying}
        }
    if later:
        settled = {key: c for key, c in settled.items() if c.differs or c.equivalent}
        found = look(len(rounds) + later, tuple(systems), sys.maxsize)
    return found, tuple(taken)


def _standing(c: Comparison, before: Comparison | None) -> Comparison:
    """Return a pair with the least adjusted p that it had since it settled: a claim that was
    made stands.
    """
    if before is None:
        return c
    values = {
        name: (getattr(before, name), getattr(c, name))
        for name in ("p_adjusted", "p_equivalent_adjusted")
    }
    return replace(c, **{name: min(both) for name, both in values.items() if None not in both})


def _beaten(score: Sequence[Comparison], staying: Sequence[str], better: Better) -> dict[str, str]:
    """Return those that are shown to be worse -> the one shown to be better by most."""
    beaten_by: dict[str, list[tuple[float, str]]] = {}
    for c in score:
        winner = c.winner(better)
        if winner and {c.a, c.b} <= {*staying}:
            beaten_by.setdefault(c.other(winner), []).append((abs(c.difference.mean), winner))
    return {name: max(beaten_by[name])[1] for name in staying if name in beaten_by}
