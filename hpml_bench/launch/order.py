"""Order of methods within a seed: a Williams design, so that the place of a method doesn't bias its figures.

Over as many seeds as there are methods each has each place once. Over the whole design (as many seeds again, where the
number of methods is odd) each also follows each other equally often (Williams 1949, *Experimental designs balanced for
the estimation of residual effects of treatments*, Aust. J. Sci. Res. A 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from hpml_bench.config.settings import RunSpec
from hpml_bench.launch.outcome import Place

Row = tuple[int, ...]
"""Numbers of methods, in the order in which they run."""


def balanced(runs: Iterable[RunSpec], methods: Sequence[str]) -> list[RunSpec]:
    """Return the runs seed by seed, with another order of methods in each.

    A machine gets faster or slower over hours; in a fixed order that would look like a difference between methods. The
    order depends on the seed and the suite's `methods` alone, so that a sweep keeps it when it is resumed, gets more
    seeds or runs only some methods. Methods that the suite doesn't have come last.
    """

    def place(spec: RunSpec) -> tuple[int, int]:
        name, row = spec.method.name, methods_of_seed(len(methods), spec.seed)
        return spec.seed, row.index(methods.index(name)) if name in methods else len(methods)

    return sorted(runs, key=place)


def places(runs: Iterable[RunSpec]) -> dict[str, Place]:
    """Return run_id -> place in the sweep and within its seed."""
    seen: Counter[int] = Counter()
    found = {}
    for order, spec in enumerate(runs, start=1):
        seen[spec.seed] += 1
        found[spec.run_id] = Place(order, seen[spec.seed])
    return found


def methods_of_seed(count: int, seed: int) -> Row:
    """Return the numbers of `count` methods in the order of one seed; it depends on these two alone."""
    rows = design(count)
    return rows[seed % len(rows)]


@cache
def design(count: int) -> tuple[Row, ...]:
    """Return the rows of the design in the order of the seeds: a square, and a second one where `count` is odd."""
    if count < 1:
        return ((),)
    first = _zigzag(count)
    square = [tuple((number + shift) % count for number in first) for shift in range(count)]
    squares = [square] if count % 2 == 0 else [square, [row[::-1] for row in square]]
    return tuple(row for rows in squares for row in _spread(rows))


def _zigzag(count: int) -> Row:
    """Return 0, k - 1, 1, k - 2, ...: each difference of neighbours, modulo k, once (twice where k is odd)."""
    return tuple(place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(count))


def _spread(rows: list[Row]) -> list[Row]:
    """Return a square's rows so that few seeds are balanced too.

    The next row is always the one that leaves the sums of the methods' places so far most equal; of several the first.
    """
    left, chosen, sums = list(rows), [], [0] * len(rows)
    while left:
        best = min(left, key=lambda row: sum((sums[number] + place) ** 2 for place, number in enumerate(row)))
        left.remove(best)
        chosen.append(best)
        for place, number in enumerate(best):
            sums[number] += place
    return chosen
