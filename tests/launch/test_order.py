"""The order of methods over seeds: each place and each pair of neighbours equally often."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from hpml_bench.launch.order import design, methods_of_seed


@pytest.mark.parametrize("count", range(1, 12))
def test_each_method_has_each_place_once(count: int) -> None:
    """In every `count` seeds from the design's begin on, also in the second square and beyond the design."""
    for first in range(0, 4 * count, count):
        rows = [methods_of_seed(count, seed) for seed in range(first, first + count)]
        assert all(sorted(row) == list(range(count)) for row in rows)
        assert all(len({row[place] for row in rows}) == count for place in range(count))


@pytest.mark.parametrize("count", range(2, 12))
def test_each_method_follows_each_other_equally_often(count: int) -> None:
    """Over the whole design: once where the number of methods is even, twice where it is odd."""
    rows = design(count)
    assert len(rows) == count * (1 + count % 2)
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == count * (count - 1)
    assert set(neighbours.values()) == {1 + count % 2}


def test_the_first_row_goes_to_and_fro() -> None:
    """0, 5, 1, 4, 2, 3."""
    assert design(6)[0] == (0, 5, 1, 4, 2, 3)


@pytest.mark.parametrize("count", [4, 5, 6, 8])
def test_two_seeds_are_balanced_too(count: int) -> None:
    """The second row undoes what the first did: sums of places are more equal than after the row shifted by one."""

    def spread(rows: list[tuple[int, ...]]) -> int:
        return sum(sum(row.index(method) for row in rows) ** 2 for method in range(count))

    first, second = design(count)[:2]
    shifted = tuple((number + 1) % count for number in first)
    assert spread([first, second]) < spread([first, shifted])


def test_no_methods_have_an_order() -> None:
    """Of a suite that names none, with methods given on the command line."""
    assert methods_of_seed(0, 3) == ()
