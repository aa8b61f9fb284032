"""The decision rule: rank tests, levels of looks, effects of pairs and runs, verdicts on times
and counts.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import made_checks
from hpml_bench.gate import rank_tests, verdicts
from hpml_bench.gate.records import MethodCount, Rules, Verdict
from hpml_bench.gate.verdicts import verdicts_at
from hpml_bench.system.errors import UserError

RULES = Rules()


def effects(
    slowdown: float, pairs: int = 24, sd: float = 0.005, methods: int = 3, seed: int = 0
) -> verdicts.Effects:
    generator = np.random.default_rng(seed)
    return {
        f"m{i}": list(math.log1p(slowdown) + sd * generator.standard_normal(pairs))
        for i in range(methods)
    }


def statuses(found: tuple[Verdict, ...]) -> list[str]:
    """Return the statuses alone."""
    return [verdict.status for verdict in found]


@pytest.mark.parametrize("n", [1, 5, 12, 24])
def test_the_signed_rank_test_is_scipys(n: int) -> None:
    """P values in both directions, at zero and elsewhere, agree with scipy's exact ones."""
    values = np.random.default_rng(n).normal(0.3, 1, n)
    for centre in (0.0, 0.5):
        for sign, side in ((1, "greater"), (-1, "less")):
            exact = stats.wilcoxon(values - centre, alternative=side, method="exact").pvalue
            ours = rank_tests.signed_rank((sign * values).tolist()).p_above(sign * centre)
            assert ours == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 3), (10, 5), (12, 30)])
def test_the_rank_sum_test_is_scipys(m: int, n: int) -> None:
    """P values in both directions agree with scipy's exact Mann-Whitney test; the error is the t
    test's, pooled.
    """
    generator = np.random.default_rng(m)
    x, y = generator.normal(0, 1, m), generator.normal(0.5, 1, n)
    test = rank_tests.rank_sum(x.tolist(), y.tolist())
    turned = rank_tests.rank_sum(y.tolist(), x.tolist())
    for ours, side in ((test, "greater"), (turned, "less")):
        exact = stats.mannwhitneyu(y, x, alternative=side, method="exact").pvalue
        assert ours.p_above(0.0) == pytest.approx(exact, rel=1e-12)
    if m > 1:
        assert (y.mean() - x.mean()) / (test.error or 1) == pytest.approx(
            stats.ttest_ind(y, x).statistic
        )
        assert test.freedom == stats.ttest_ind(y, x).df


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(-1, 1).map(lambda value: round(value, 6)), min_size=1, max_size=14, unique=True
    ),
    st.sampled_from([0.3, 0.05, 0.01, 0.001]),
)
def test_a_bound_is_where_its_test_turns(values: list[float], level: float) -> None:
    """Just inside the bound the test rejects at its level, just outside it doesn't; the estimate
    is by definition.
    """
    test = rank_tests.signed_rank(values)
    walsh = [(x + y) / 2 for i, x in enumerate(values) for y in values[i:]]
    assert test.estimate == pytest.approx(float(np.median(walsh)))
    lower, upper, least = test.lower(level), test.upper(level), 2.0 ** -len(values)
    assert (lower is None) == (upper is None) == (test.attained(level) is None) == (least > level)
    if lower is not None and upper is not None:
        assert test.p_above(lower - 1e-9) <= level < test.p_above(lower + 1e-9)
        turned = rank_tests.signed_rank([-value for value in values])
        assert turned.p_above(-upper - 1e-9) <= level < turned.p_above(-upper + 1e-9)


def test_ties_and_bad_values_give_no_verdict() -> None:
    """Effects that equal the slowdown let through are no evidence that it is exceeded; NaN is
    refused.
    """
    assert rank_tests.signed_rank([0.5] * 12).p_above(0.5) == 1.0
    for values in ([], [math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="finite"):
            rank_tests.signed_rank(values)


def test_levels_are_the_published_ones() -> None:
    """Kim and DeMets (1987), exponent 1: in proportion to the pairs; methods for which a look can't
    reject are refused.

    Holm's first step at each look is above the least p of so many pairs.
    """
    assert verdicts.alphas(RULES, 20) == pytest.approx((0.005, 0.01 / 6, 0.01 / 3))
    assert verdicts.betas(RULES) == pytest.approx((0.025, 0.05 / 6, 0.05 / 3))
    for level, look in zip(verdicts.alphas(RULES, 20), RULES.looks, strict=True):
        assert rank_tests.signed_rank_tail(look)[-1] <= level / 20
    with pytest.raises(UserError, match="21 methods can't be judged"):
        verdicts_at(effects(0.0, methods=21), RULES, 1)


@pytest.mark.parametrize("order", ["ABBA", "BAAB"])
def test_a_blocks_ratio_and_a_drift(order: str) -> None:
    """ln(B1 B2 / A1 A2) / 2 in either order; a drift of 1 % from piece to piece cancels."""
    assert verdicts.log_ratio(made_checks.block(1.2, order=order)) == pytest.approx(math.log(1.2))
    drifting = made_checks.block(1.0, order=order, seconds=tuple(1.01**i for i in range(4)))
    assert verdicts.log_ratio(drifting) == pytest.approx(0.0, abs=1e-12)
    uneven = made_checks.block(1.0, order="ABBA", seconds=(1.0, 1.2, 1.3, 1.1))
    assert verdicts.log_ratio(uneven) == pytest.approx(math.log(1.2 * 1.3 / 1.1) / 2)


def test_effects_of_pairs() -> None:
    """In the order of pairs; the interquartile mean of a pair's blocks; what was disturbed
    doesn't count.
    """
    ratios = [0.7, 0.98, 1.00, 1.01, 1.02, 1.03, 1.2, 2.5]
    of = made_checks.block
    disturbed = [of(2.0, pair, disturbed="steal 9 %") for pair in (1, 2)]
    found = verdicts.pair_effects([of(1.3, 2), *(of(ratio, 0) for ratio in ratios), *disturbed])
    assert found == {
        "lora": [pytest.approx(sum(map(math.log, ratios[2:6])) / 4), pytest.approx(math.log(1.3))]
    }


def test_a_slowdown_fails_equals_pass_and_a_wide_spread_is_undecided() -> None:
    """The bound that decides stands on its side of the limit, and the sentence says what was or
    would be found.
    """
    for verdict in verdicts_at(effects(0.03), RULES, 1):
        assert (verdict.status, verdict.pairs) == ("FAIL", 12)
        assert (verdict.lower or 0) > RULES.null
        assert (verdict.p or 1) <= RULES.alpha
        assert "longer; 1 % is let through" in verdict.detail
    for verdict in verdicts_at(effects(0.0), RULES, 1):
        assert verdict.status == "PASS"
        assert (verdict.upper or 1) < RULES.target
        assert RULES.null < (verdict.mde or 0) < RULES.target
    for verdict in verdicts_at(effects(0.02, sd=0.06), RULES, 3):
        assert verdict.status == "INCONCLUSIVE"
        assert (verdict.mde or 0) > RULES.target
        assert "they would have found " in verdict.detail


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3]))
def test_properties_of_looks(seed: int, looks: int) -> None:
    """FAIL just where the lower bound exceeds the null; a decision stands; pairs after the last
    look change nothing.
    """
    values = {
        f"m{i}": effects(0.008 * i, sd=0.012, methods=1, seed=seed * 9 + i)["m0"] for i in range(4)
    }
    found = verdicts_at(values, RULES, looks)
    for verdict in found:
        assert (verdict.status == "FAIL") == (
            verdict.lower is not None and verdict.lower > RULES.null
        )
        assert verdict.status != "PASS" or (
            verdict.upper is not None and verdict.upper < RULES.target
        )
    seen = {method: of[: RULES.looks[looks - 1]] for method, of in values.items()}
    assert verdicts_at(seen, RULES, looks) == found
    for before, after in zip(found, verdicts_at(values, RULES, 3), strict=True):
        assert before.status == "INCONCLUSIVE" or before == after


def test_holm_is_no_stricter_than_bonferroni_and_no_laxer_than_alpha() -> None:
    """With two clear slowdowns the third method is tested at the whole level of the look."""
    clear = effects(0.06, methods=2)
    level = verdicts.alphas(RULES, 3)[0]
    values = [
        math.log1p(RULES.null) + (-rank if rank == 5 else rank) / 1000 for rank in range(1, 13)
    ]
    p = rank_tests.signed_rank(values).p_above(math.log1p(RULES.null))
    assert level / 3 < p <= level, "the case this test is about"
    assert statuses(verdicts_at(clear | {"z": values}, RULES, 1)) == ["FAIL"] * 3
    assert statuses(verdicts_at(effects(0.0, methods=2) | {"z": values}, RULES, 1))[2] != "FAIL"


def test_the_end_of_time_uses_the_unspent_error() -> None:
    """Between looks all pairs count, at the level that the looks to come would have spent; after
    the last none is.
    """
    fourteen = effects(0.02, 14, sd=0.03, methods=1, seed=4)
    found = verdicts_at(fourteen, RULES)[0]
    level, of_pass = sum(verdicts.alphas(RULES, 1)[1:]), sum(verdicts.betas(RULES)[1:])
    test = rank_tests.signed_rank(fourteen["m0"])
    assert found.pairs == 14
    assert found.lower == pytest.approx(math.expm1(test.lower(level) or math.nan))
    assert found.upper == pytest.approx(math.expm1(test.upper(of_pass) or math.nan))
    assert found.mde == verdicts.detectable(test, RULES, level)
    values = effects(0.012, sd=0.02)
    assert verdicts_at(values, RULES) == verdicts_at(values, RULES, 3)


def test_few_pairs_and_none() -> None:
    """Four pairs can find nothing, however slow; a method without a pair is undecided, the
    others keep theirs.
    """
    for verdict in verdicts_at(effects(0.5, 4), RULES):
        assert (verdict.status, verdict.mde, verdict.lower) == ("INCONCLUSIVE", None, None)
        assert "too few" in verdict.detail
    found = verdicts_at({"lora": [], **effects(0.0, 12, methods=1)}, RULES)
    assert [(verdict.status, verdict.pairs) for verdict in found] == [
        ("INCONCLUSIVE", 0),
        ("PASS", 12),
    ]


def test_detectable_effect_by_hand() -> None:
    """d0 + (t(1 - a, 15) + t(0.95, 15)) s / √16 √(π / 3), a = 0.00912 being what 16 pairs attain
    below 0.01.
    """
    values = effects(0.0, 16, methods=1)["m0"]
    expected = math.expm1(
        math.log(1.01) + (2.64840 + 1.75305) * np.std(values, ddof=1) / 4 * math.sqrt(math.pi / 3)
    )
    assert verdicts.detectable(rank_tests.signed_rank(values), RULES, 0.01) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize(("reference", "candidate", "tolerance", "status"), [
    (10, 10, 0.0, "PASS"), (10, 9, 0.0, "PASS"), (10, 11, 0.0, "FAIL"),
    (0, 1, 0.0, "FAIL"), (0, 0, 0.0, "PASS"),
    (100, 105, 0.05, "PASS"), (100, 106, 0.05, "FAIL"),
])  # fmt: skip
def test_counts(reference: float, candidate: float, tolerance: float, status: str) -> None:
    """Any increase above the tolerance fails, from nothing too; what grew is named as torch
    writes it.
    """
    count = MethodCount(
        method="lora",
        name="ops",
        title="Operators",
        unit="per step",
        reference=reference,
        candidate=candidate,
        tolerance=tolerance,
        grew=("aten::op0 +1", "aten::op1 +1"),
    )
    found = verdicts.of_count(count)
    assert found.status == status
    assert ("aten.op0 +1, aten.op1 +1" in found.detail) == (candidate > reference)


def test_counts_of_two_sides() -> None:
    """Parts that grew are named largest first, new ones too, not those that shrank; none where only
    a name changed.

    Of two tolerances the smaller holds, and a count that only one side has is told apart by name.
    """
    before = {"title": "n", "unit": "", "value": 1, "tolerance": 0, "parts": {}}
    assert verdicts.grew({"a": 1, "b": 5, "c": 9}, {"a": 3, "b": 4, "c": 9, "d": 7}) == (
        "d +7",
        "a +2",
    )
    renamed = ({"n": {**before, "parts": {name: 2}}} for name in ("old", "new"))
    assert verdicts.compare_counts("m", *renamed)[0][0].grew == ()
    after = before | {"value": 9, "tolerance": 10}
    (count,), (found, *lone) = verdicts.compare_counts(
        "m", {"n": before, "old": before}, {"n": after, "new": after}
    )
    assert (count.tolerance, found.status) == (0, "FAIL")
    assert [(verdict.metric, verdict.status, verdict.detail) for verdict in lone] == [
        ("new", "INCOMPARABLE", "only the candidate counts new"),
        ("old", "INCOMPARABLE", "only the reference counts old"),
    ]


def verdict(status: str, pairs: int = 12, metric: str = "step_time") -> Verdict:
    return Verdict(method="lora", metric=metric, status=status, pairs=pairs, detail="x")


@pytest.mark.parametrize(
    ("found", "strict", "expected"),
    [
        ([verdict("PASS")], True, 0),
        ([verdict("PASS"), verdict("FAIL"), verdict("INCONCLUSIVE")], True, 1),
        ([verdict("FAIL", pairs=0)], False, 1),
        ([], False, 2),
        ([verdict("INCONCLUSIVE", pairs=0)], False, 2),
        ([verdict("INCONCLUSIVE", pairs=0), verdict("PASS", metric="flops")], False, 2),
        ([verdict("PASS", pairs=0, metric="flops")], False, 0),
        ([verdict("PASS"), verdict("INCONCLUSIVE")], False, 0),
        ([verdict("PASS"), verdict("INCONCLUSIVE")], True, 3),
        ([verdict("INCOMPARABLE", pairs=0)], False, 0),
        ([verdict("INCOMPARABLE", pairs=0)], True, 3),
    ],
)
def test_exit_statuses(found: list[Verdict], strict: bool, expected: int) -> None:
    """0 pass, 1 regression, 2 nothing measured, 3 undecided under --strict; measuring on is of
    use while undecided.
    """
    assert verdicts.exit_status(found, strict) == expected
    undecided = any(v.status == "INCONCLUSIVE" for v in found) and all(
        v.status != "FAIL" for v in found
    )
    assert verdicts.settled(found) == (not undecided)


@pytest.mark.parametrize(
    "wrong", [{"null": 0.03}, {"looks": ()}, {"looks": (12, 12)}, {"looks": (16, 12)}]
)
def test_rules_that_cannot_decide_are_refused(wrong: dict[str, object]) -> None:
    """A null at the target, or looks that don't rise."""
    with pytest.raises(ValueError, match="must be"):
        Rules(**wrong)
