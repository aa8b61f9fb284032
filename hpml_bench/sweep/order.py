"""Order of methods within a seed: drawn at random, so that the place of a method doesn't bias its figures.

A machine gets faster or slower over hours, or is disturbed every so many runs. Any fixed design, such as a Williams
square, meets a disturbance of some period with the same method again and again; random orders meet it by chance alone,
for which tests over seeds allow (Fisher 1935, *The Design of Experiments*, §9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

from hpml_bench.records.run import Declared
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.training.request import Place


def shuffled(runs: Iterable[RunSpec], suite: Suite) -> list[RunSpec]:
    """Return the runs seed by seed, with another order of methods in each.

    The order depends on the seed and the suite's name and methods alone, so that a sweep keeps it when it is resumed,
    gets more seeds or runs only some methods. Methods that the suite doesn't have come last.
    """
    methods = list(suite.methods)

    def place(spec: RunSpec) -> tuple[int, int]:
        name, row = spec.method.name, methods_of_seed(len(methods), spec.seed, suite.name)
        return spec.seed, row.index(methods.index(name)) if name in methods else len(methods)

    return sorted(runs, key=place)


def places(runs: Iterable[RunSpec], suite: Suite) -> dict[str, Place]:
    """Return run_id -> place in the sweep and within its seed, with the suite's declarations."""
    declared, seen = Declared(seeds=suite.seeds, margin=suite.margin), Counter[int]()
    by_run = {}
    for order, spec in enumerate(runs, start=1):
        seen[spec.seed] += 1
        by_run[spec.run_id] = Place(order, seen[spec.seed], declared)
    return by_run


def methods_of_seed(count: int, seed: int, lot: str) -> tuple[int, ...]:
    """Return the numbers of `count` methods in the order of one seed; `lot` makes it differ between suites.

    Two methods don't keep one order in three seeds, counted from 0: by chance they would in a quarter of suites, and a
    disturbance of every second run would then meet the same method in all three.
    """
    if count == 2 and seed % 3 == 2 and _drawn(2, seed - 2, lot) == _drawn(2, seed - 1, lot):
        return _drawn(2, seed - 1, lot)[::-1]
    return _drawn(count, seed, lot)


def _drawn(count: int, seed: int, lot: str) -> tuple[int, ...]:
    return tuple(Random(f"{lot} {seed}").sample(range(count), count))  # noqa: S311 - no secret
