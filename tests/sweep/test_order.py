"""The order of methods over seeds is drawn by lot."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from scipy.stats import chisquare

from hpml_bench.sweep.plan import methods_of_seed


def test_each_method_follows_each_other_as_often() -> None:
    """Over many seeds the 20 pairs of neighbours of five methods are equally frequent."""
    rows = [methods_of_seed(5, seed, "some") for seed in range(1000)]
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == 20
    assert chisquare(list(neighbours.values())).pvalue > 0.001


def test_no_methods_have_an_order() -> None:
    """Of a suite that names none, with methods given on the command line."""
    assert methods_of_seed(0, 3, "some") == ()


def test_two_methods_never_keep_one_order() -> None:
    """In three seeds that follow each other both orders come; over many seeds each is as frequent."""
    orders = [methods_of_seed(2, seed, "some") for seed in range(3000)]
    assert all(len({*three}) == 2 for three in zip(orders[::3], orders[1::3], orders[2::3], strict=True))
    assert 1400 < orders.count((0, 1)) < 1600
