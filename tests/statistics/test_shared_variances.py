"""Variances that methods share, against limma's formulas, and Shaffer's procedure against all
ways to be equal.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpml_bench import statistics
from hpml_bench.statistics import Comparison, Interval
from hpml_bench.statistics.evidence import OverSeeds, OverSeedsAndRows, share_variances
from hpml_bench.statistics.intervals import most_equal, shaffer, weighted_holm


def limma(
    differences: dict[tuple[str, str], np.ndarray], weight: float
) -> dict[tuple[str, str], float]:
    """Return each pair's p by limma's squeezeVar and moderated t, written from their formulas
    (Smyth 2004).

    The prior variance s0² of a pair is the mean variance of the pairs that have one of its methods,
    and its degrees of freedom the weight times the ratio of the mean variances of either method's
    pairs, the smaller over the larger.
    """
    found = {}
    for pair, d in differences.items():
        s02 = np.mean(
            [of.var(ddof=1) for other, of in differences.items() if set(other) & set(pair)]
        )
        noise = [
            np.mean([of.var(ddof=1) for other, of in differences.items() if m in other])
            for m in pair
        ]
        d0, df = weight * min(noise) / max(noise), len(d) - 1
        posterior = (d0 * s02 + df * d.var(ddof=1)) / (d0 + df)
        t = d.mean() / math.sqrt(posterior / len(d))
        found[pair] = float(2 * stats.t.sf(abs(t), df + d0))
    return found


def test_p_is_limmas() -> None:
    """Of 60 random tables of 3 to 8 methods with 3 to 10 seeds, some of which lack seeds, p is
    limma's to 1e-9.
    """
    random = np.random.default_rng(11)
    for _ in range(60):
        k, n = int(random.integers(3, 9)), int(random.integers(3, 11))
        spread = random.choice([0.1, 1.0, 5.0], k)
        drawn = 100 + spread[:, None] * random.standard_normal((k, n))
        values = {f"m{m}": dict(enumerate(of.tolist())) for m, of in enumerate(drawn)}
        if n > 5:
            del values["m0"][0], values["m1"][n - 1]
        differences = {
            (a, b): np.array(
                [values[a][s] - values[b][s] for s in values[a].keys() & values[b].keys()]
            )
            for a, b in itertools.combinations(values, 2)
        }
        theirs = limma(differences, 2.4 * min(1, (k - 2) / 3))
        ours = {(c.a, c.b): c.p for c in statistics.compare_pairs(values)}
        assert ours == {pair: pytest.approx(p, rel=1e-9) for pair, p in theirs.items()}


def test_unequal_noise_and_none_share_less() -> None:
    """A pair of a noisy and a quiet method shares by the ratio of their noise; without any
    spread there is nothing.
    """
    pairs = list(itertools.combinations("abcde", 2))
    shared = share_variances(
        {pair: (OverSeeds(3, 0.0, 3.0 if "a" in pair else 1.0),) for pair in pairs}, 5
    )
    quiet = (9 + 3 * 1) / 4
    assert shared["a", "b"][0].prior == pytest.approx(2.4 * quiet / 9)
    assert shared["c", "d"][0].prior == pytest.approx(2.4)
    still = OverSeedsAndRows(3, 50, 0.0, (0.0, 1.0, 0.0))
    assert share_variances(dict.fromkeys(pairs, (still,)), 5)["a", "b"] == (still,)


def test_a_score_shares_both_variances() -> None:
    """Over seeds and rows the seeds' mean square is shrunk, over seeds alone the variance with
    its grid.
    """
    random = np.random.default_rng(3)
    table = (random.random((4, 5, 50)) < 0.7).astype(float)
    scores = {f"m{m}": dict(enumerate(table[m])) for m in range(4)}
    own = {
        (f"m{a}", f"m{b}"): float((table[a] - table[b]).mean(axis=1).var(ddof=1))
        for a, b in itertools.combinations(range(4), 2)
    }
    grid = (1 / 50) ** 2 / 12
    for c in statistics.compare_scores(scores, 0.05):
        both, alone = c.evidence
        assert isinstance(both, OverSeedsAndRows)
        assert isinstance(alone, OverSeeds)
        for one, added in ((both, 0.0), (alone, grid)):
            near = np.mean([v for pair, v in own.items() if set(pair) & {c.a, c.b}]) + added
            noise = [
                np.mean([v for pair, v in own.items() if m in pair]) + added for m in (c.a, c.b)
            ]
            weight = 1.6 * min(noise) / max(noise)
            assert one.prior == pytest.approx(weight)
            assert one.variance == pytest.approx(
                (4 * (own[c.a, c.b] + added) + weight * near) / (4 + weight)
            )
        assert alone.freedom(5) == pytest.approx(4 + alone.prior)


@pytest.mark.parametrize("methods", range(2, 7))
def test_the_most_pairs_that_can_be_equal(methods: int) -> None:
    """By trying all ways to divide methods into groups of equals: the most equal pairs if so
    many differ.
    """
    every = methods * (methods - 1) // 2
    groups = itertools.product(range(methods), repeat=methods)
    possible = {sum(a == b for a, b in itertools.combinations(of, 2)) for of in groups}
    for different in range(every):
        most = max(count for count in possible if count <= every - different)
        assert most_equal(methods, different, every) == most
        assert most_equal(methods, different, different + 1) == min(1, most)


@given(st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_shaffer_is_between_holm_and_no_adjustment(p: list[float]) -> None:
    """Shaffer's p are no more than Holm's, no less than p, and in p's order; the smallest is
    Holm's.
    """
    ours, theirs = shaffer(p, 5), statistics.holm(p)
    assert all(one <= other + 1e-12 for one, other in zip(ours, theirs, strict=True))
    assert all(one >= other or one == 1 for one, other in zip(ours, p, strict=True))
    first = p.index(min(p))
    assert ours[first] == pytest.approx(theirs[first])
    order = sorted(range(10), key=p.__getitem__)
    assert [ours[at] for at in order] == sorted(ours)


def test_shared_variances_keep_the_level_of_many_pairs() -> None:
    """Where variances are shared Shaffer's factor is never under two thirds of the pairs: the
    last pair isn't alone.
    """
    p = [1e-9] * 9 + [0.004]
    assert shaffer(p, 5)[-1] == pytest.approx(0.004)
    assert shaffer(p, 5, 2 / 3)[-1] == pytest.approx(0.004 * 10 * 2 / 3)
    values = {f"m{m}": {seed: 10.0 * m + seed * (m + 1) % 3 for seed in range(4)} for m in range(5)}
    family = statistics.decide(statistics.compare_pairs(values))
    theirs = shaffer([c.p for c in family if c.p is not None], 5, 2 / 3)
    assert [c.p_adjusted for c in family] == pytest.approx(
        [min(1, one / (2 / 3 * 0.95)) for one in theirs]
    )


def pairs_of(
    methods: str, p: float, margin: float | None = 0.1, p_equivalent: float | None = 1.0
) -> list[Comparison]:
    return [
        Comparison(a, b, Interval(5, 1.0, 1.0, None, None), p, p_equivalent, margin)
        for a, b in itertools.combinations(methods, 2)
    ]


def test_metrics_have_shares_of_the_level() -> None:
    """Of three methods the score has 60 % of the differences' level and each of two costs 20 %;
    alone it has all.
    """
    three = pairs_of("abc", 0.01)
    family = {"score": three, "time": three, "memory": three}
    for of, levels in (
        (family, {"score": 0.6, "time": 0.2, "memory": 0.2}),
        ({"score": three}, {"score": 1.0}),
        ({"time": three, "memory": three}, {"time": 0.5}),
        ({"score": three, "time": []}, {"score": 1.0}),
    ):
        found = statistics.levels(of, 1, "score")
        whole = 0.05 * statistics.spent_at(1) * 0.8
        assert {m: found[m][0] for m in levels} == pytest.approx(
            {m: whole * w / 3 for m, w in levels.items()}
        )
    decided = statistics.decide_family(family, 1, "score")
    for metric, share in (("score", 0.6), ("memory", 0.2)):
        assert [c.p_adjusted for c in decided[metric]] == pytest.approx(
            [0.01 * 3 / (0.8 * statistics.spent_at(1) * share)] * 3
        )


def test_looks_leave_less() -> None:
    """A second look has a third of a first one's level, and says what the third would have."""
    (first,), (second,) = (
        statistics.decide(pairs_of("ab", 0.001), 1),
        statistics.decide(pairs_of("ab", 0.001), 2),
    )
    assert second.p_adjusted == pytest.approx(3 * (first.p_adjusted or 0))
    assert first.next_levels == second.first_levels


def pair_of(
    p: float, margin: float | None = 0.1, p_equivalent: float | None = 1.0
) -> list[Comparison]:
    return pairs_of("ab", p, margin, p_equivalent)


@pytest.mark.parametrize(("p", "shown"), [
    ((0.0189, 0.5, 0.5), {"score"}),  # 60 % of 5 % x 2/3 x 0.95
    ((0.0191, 0.5, 0.5), set()),
    # time passes on 0.8 / 0.95 of its 20 %, by the weights 3:1
    ((0.0229, 0.006, 0.5), {"score", "time"}),
    ((0.0231, 0.006, 0.5), {"time"}),
    ((0.5, 0.0064, 0.5), set()),  # a cost has 20 %
    ((0.01, 0.0141, 0.5), {"score", "time"}),  # of the score's it gets half of what is passed on
    ((0.01, 0.0144, 0.5), {"score"}),
])  # fmt: skip
def test_two_methods_are_decided_by_weights(p: tuple[float, float, float], shown: set[str]) -> None:
    """The score has 60 % at the first step, and what another metric's difference passes on."""
    family = dict(zip(("score", "time", "memory"), map(pair_of, p), strict=True))
    decided = statistics.decide_family(family, 1, "score")
    assert {metric for metric, (c,) in decided.items() if c.differs} == shown


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=5), st.data())
def test_equal_weights_are_holms_procedure(p: list[float], data: st.DataObject) -> None:
    """With equal weights and all passed on it is Holm's; weights favour what has more; nothing
    is below its p.
    """
    equal = [1 / len(p)] * len(p)
    assert weighted_holm(p, equal) == pytest.approx(statistics.holm(p))
    raw = data.draw(st.lists(st.floats(0.1, 1), min_size=len(p), max_size=len(p)))
    weights = [w / sum(raw) for w in raw]
    whole, kept = weighted_holm(p, weights), weighted_holm(p, weights, 0.8)
    for value, one, other in zip(p, whole, kept, strict=True):
        assert value - 1e-12 <= one <= other + 1e-12


def test_the_graph_of_two_methods_keeps_its_level() -> None:
    """Of pairs of which some are equal and the others just the margin apart, at most the whole is
    false.

    Exactly, by Bonferroni over the true hypotheses: a difference of an equal pair, at the level
    that all others pass on to it, and an equivalence of a pair that differs by the margin or more,
    at its fixed part.
    """
    every, kept = 0.95, 0.8
    weights = {"score": 0.6, "time": 0.2, "memory": 0.2}
    for equal in itertools.chain.from_iterable(
        itertools.combinations(weights, n) for n in range(4)
    ):
        left = sum(weights[metric] for metric in equal)
        spent = sum(weights[metric] * (every + kept * (1 - left) / left) for metric in equal)
        spent += 0.15 * (1 - left)
        assert spent <= every + 1e-12
        if not equal:
            continue
        # the levels above are those of the package
        p = {metric: 1e-9 if metric not in equal else 0.5 for metric in weights}
        target = equal[0]
        level = 0.05 * 2 / 3 * weights[target] * (every + kept * (1 - left) / left)
        for factor, shown in ((0.999, True), (1.001, False)):
            family = {m: pair_of(level * factor if m == target else one) for m, one in p.items()}
            (c,) = statistics.decide_family(family, 1, "score")[target]
            assert c.differs == shown
