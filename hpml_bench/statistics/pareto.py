"""Ranks on a metric, and the Pareto front over several, as far as verdicts show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpml_bench.statistics.verdicts import Better, Comparison

Place = Literal["on", "off", "undecided"]


@dataclass(frozen=True)
class Membership:
    """A method's place: on the front, off it, or undecided."""

    place: Place
    by: tuple[str, ...] = ()  # the methods that dominate it, where it is off


def pareto_membership(
    methods: Sequence[str], family: Mapping[str, Iterable[Comparison]], better: Mapping[str, Better]
) -> dict[str, Membership]:
    """Return each method's place on the front over the metrics of a decided family: metric -> pairs with verdicts."""
    # Off: some method is shown better in one metric and better or equivalent in all others. On: against every other
    # method it is shown better in some metric, so that none can dominate it. Else undecided.
    wins: set[tuple[str, str, str]] = set()
    even: set[tuple[str, str, str]] = set()
    for metric, comparisons in family.items():
        for c in comparisons:
            if winner := c.winner(better[metric]):
                wins.add((metric, winner, c.other(winner)))
            elif c.verdict == "equivalent":
                even |= {(metric, c.a, c.b), (metric, c.b, c.a)}

    def dominates(one: str, other: str) -> bool:
        won = [metric for metric in family if (metric, one, other) in wins]
        return bool(won) and all(metric in won or (metric, one, other) in even for metric in family)

    def place(method: str) -> Membership:
        others = [other for other in methods if other != method]
        if by := tuple(other for other in others if dominates(other, method)):
            return Membership("off", by)
        safe = all(any((metric, method, other) in wins for metric in family) for other in others)
        return Membership("on" if safe else "undecided")

    return {method: place(method) for method in methods}


def rank_intervals(
    comparisons: Iterable[Comparison], methods: Sequence[str], better: Better
) -> dict[str, tuple[int, int]]:
    """Return each method's rank as an interval: [1 + number shown to be better, k - number shown to be worse]."""
    # Undecided is not transitive, so a single order would claim more than is known.
    ahead, behind = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    for c in comparisons:
        if winner := c.winner(better):
            ahead[c.other(winner)] += 1
            behind[winner] += 1
    return {method: (1 + ahead[method], len(methods) - behind[method]) for method in methods}
