"""The decision rule: effects of pairs, looks, counts, exit statuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import made_checks
from hpml_bench.gate.decide import count_diff, rank_tests, spending, verdicts
from hpml_bench.gate.records import Block, MethodCount, Rules, Verdict
from hpml_bench.system.errors import UserError

RULES = Rules()


def effects(slowdown: float, pairs: int = 24, sd: float = 0.005, methods: int = 3, seed: int = 0) -> verdicts.Effects:
    """Return normal log ratios about a slowdown for methods m0, m1, ..."""
    generator = np.random.default_rng(seed)
    return {f"m{i}": list(math.log1p(slowdown) + sd * generator.standard_normal(pairs)) for i in range(methods)}


def statuses(found: tuple[Verdict, ...]) -> list[str]:
    """Return the statuses alone."""
    return [verdict.status for verdict in found]


def test_a_pairs_effect_is_the_mean_log_ratio_of_its_blocks() -> None:
    """By hand: ln(B1 B2 / A1 A2) / 2 in either order, averaged over the pair's blocks."""
    first = Block(pair=0, method="lora", order="ABBA", steps=9, seconds=(1.0, 1.2, 1.3, 1.1), steal=0, load=0)
    second = Block(pair=0, method="lora", order="BAAB", steps=9, seconds=(1.2, 1.0, 1.1, 1.3), steal=0, load=0)
    expected = math.log(1.2 * 1.3 / (1.0 * 1.1)) / 2
    assert verdicts.pair_effects([first, second]) == {"lora": [pytest.approx(expected)]}


@pytest.mark.parametrize("order", ["ABBA", "BAAB"])
def test_a_linear_drift_of_the_machine_cancels(order: str) -> None:
    """Each piece takes 1 % longer than the one before, and two equal versions still come out equal."""
    drifting = Block(
        pair=0, method="lora", order=order, steps=9, seconds=tuple(1.01**i for i in range(4)), steal=0, load=0
    )
    assert verdicts.pair_effects([drifting])["lora"] == [pytest.approx(0.0, abs=1e-12)]


def test_disturbed_blocks_do_not_count() -> None:
    """A block disturbed from outside changes no effect, and a pair of such blocks alone has none."""
    disturbed = made_checks.block(2.0, 0, disturbed="steal 9 %")
    found = verdicts.pair_effects(
        [disturbed, made_checks.block(1.02, 0), made_checks.block(2.0, 1, disturbed="load 3")]
    )
    assert found == {"lora": [pytest.approx(math.log(1.02))]}


def test_a_pairs_outlying_blocks_do_not_move_it() -> None:
    """The interquartile mean, by hand: of eight blocks the two least and the two largest are left out."""
    ratios = [0.7, 0.98, 1.00, 1.01, 1.02, 1.03, 1.2, 2.5]
    found = verdicts.pair_effects([made_checks.block(ratio) for ratio in ratios])
    assert found["lora"] == [pytest.approx(sum(map(math.log, ratios[2:6])) / 4)]


def test_effects_come_in_the_order_of_pairs() -> None:
    """Whatever the order of the blocks: the looks depend on it."""
    found = verdicts.pair_effects([made_checks.block(1.3, 2), made_checks.block(1.1, 0), made_checks.block(1.2, 1)])
    assert found["lora"] == [pytest.approx(math.log(1 + i / 10)) for i in (1, 2, 3)]


def test_too_many_methods_are_a_users_mistake() -> None:
    """Where no look could ever FAIL, the check says so instead of passing for ever."""
    with pytest.raises(UserError, match="50 methods can't be judged"):
        verdicts.look(effects(0.0, methods=50), Rules(looks=(8,)), 0)


def test_a_slowdown_fails_and_its_lower_bound_says_so() -> None:
    """Three percent at half a percent's spread: FAIL at the first look, the bound above what is let through."""
    for verdict in verdicts.look(effects(0.03), RULES, 0):
        assert verdict.status == "FAIL"
        assert verdict.lower is not None
        assert verdict.lower > RULES.null
        assert verdict.p is not None
        assert verdict.p <= RULES.alpha
        assert verdict.pairs == 12
        assert "longer; 1 % is let through" in verdict.detail


def test_no_change_passes_and_its_upper_bound_says_so() -> None:
    """Equal versions: PASS at the first look, the bound below the target, the detectable effect beside it."""
    for verdict in verdicts.look(effects(0.0), RULES, 0):
        assert verdict.status == "PASS"
        assert verdict.upper is not None
        assert verdict.upper < RULES.target
        assert verdict.mde is not None
        assert RULES.null < verdict.mde < RULES.target


def test_wide_spread_is_inconclusive_and_names_what_would_have_been_found() -> None:
    """At 6 % spread 24 pairs decide nothing about 2 %; the minimum detectable effect says why."""
    for verdict in verdicts.look(effects(0.02, sd=0.06), RULES, 2):
        assert verdict.status == "INCONCLUSIVE"
        assert verdict.mde is not None
        assert verdict.mde > RULES.target
        assert "they would have found " in verdict.detail


@pytest.mark.parametrize("seed", range(20))
def test_bounds_and_holm_agree(seed: int) -> None:
    """FAIL exactly where the lower bound exceeds the null, with some methods slower than others."""
    mixed = {f"m{i}": effects(0.005 * (i + 1), sd=0.01, methods=1, seed=seed * 9 + i)["m0"] for i in range(5)}
    for verdict in verdicts.look(mixed, RULES, 0):
        assert (verdict.status == "FAIL") == (verdict.lower is not None and verdict.lower > RULES.null)


def test_holm_is_no_stricter_than_bonferroni_and_no_laxer_than_alpha() -> None:
    """With two clear slowdowns the third method is tested at the whole level of the look."""
    clear = effects(0.06, methods=2)
    level = spending.alphas(RULES, 3)[0]
    values = [math.log1p(RULES.null) + (-rank if rank == 5 else rank) / 1000 for rank in range(1, 13)]
    p = rank_tests.signed_rank(values).p_above(math.log1p(RULES.null))
    assert level / 3 < p <= level, "the case this test is about"
    assert statuses(verdicts.look(clear | {"z": values}, RULES, 0)) == ["FAIL"] * 3
    assert statuses(verdicts.look(effects(0.0, methods=2) | {"z": values}, RULES, 0))[2] != "FAIL"


def test_a_decision_stands() -> None:
    """What was decided at an early look is not revised by later pairs."""
    values = {"lora": [*effects(0.03, 12, methods=1)["m0"], *effects(-0.05, 12, methods=1)["m0"]]}
    assert statuses(verdicts.look(values, RULES, 0)) == statuses(verdicts.look(values, RULES, 2)) == ["FAIL"]
    assert verdicts.look(values, RULES, 2)[0].pairs == 12


def test_a_look_sees_only_its_pairs() -> None:
    """More values than the look asked for change nothing."""
    longer = effects(0.01, 24)
    shorter = {method: values[:12] for method, values in longer.items()}
    assert verdicts.look(longer, RULES, 0) == verdicts.look(shorter, RULES, 0)


def test_the_end_of_time_uses_the_unspent_error() -> None:
    """Between looks: all pairs count, at the level that the looks to come would have spent."""
    fourteen = effects(0.02, 14, sd=0.03, methods=1, seed=4)
    found = verdicts.final(fourteen, RULES)[0]
    level = sum(spending.alphas(RULES, 1)[1:])
    test = rank_tests.signed_rank(fourteen["m0"])
    assert found.pairs == 14
    assert found.lower == pytest.approx(math.expm1(test.lower(level) or math.nan))
    assert found.mde == verdicts.detectable(test, RULES, level)


def test_the_end_of_time_after_the_last_look_is_that_look() -> None:
    """No error is left, and none is spent twice."""
    values = effects(0.012, sd=0.02)
    assert verdicts.final(values, RULES) == verdicts.look(values, RULES, 2)


def test_few_pairs_say_so() -> None:
    """Four pairs can find nothing: no detectable effect, no FAIL however slow, and words for it."""
    found = verdicts.final(effects(0.5, 4), RULES)
    assert statuses(found) == ["INCONCLUSIVE"] * 3
    assert all(verdict.mde is None and verdict.lower is None for verdict in found)
    assert "too few" in found[0].detail


def test_a_method_without_a_pair_is_inconclusive() -> None:
    """All its blocks were disturbed: nothing is said of it, and the others keep their verdicts."""
    found = verdicts.final({"lora": [], **effects(0.0, 12, methods=1)}, RULES)
    assert [verdict.pairs for verdict in found] == [0, 12]
    assert found[0].status == "INCONCLUSIVE"
    assert "no pairs were measured" in found[0].detail


def test_detectable_effect_by_hand() -> None:
    """d0 + (t(1 - a, 15) + t(0.95, 15)) s / √16 √(π / 3), a = 0.00912 being what 16 pairs attain below 0.01."""
    test = rank_tests.signed_rank(effects(0.0, 16, methods=1)["m0"])
    sd = np.std(effects(0.0, 16, methods=1)["m0"], ddof=1)
    expected = math.expm1(math.log(1.01) + (2.64840 + 1.75305) * sd / 4 * math.sqrt(math.pi / 3))
    assert verdicts.detectable(test, RULES, 0.01) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("slowdown", "status"), [(0.0, "PASS"), (0.06, "FAIL")])
def test_runs_of_a_baseline(slowdown: float, status: str) -> None:
    """Ten stored runs against ten made now, each side with its own spread."""
    reference = effects(0.0, 10, methods=3, seed=1)
    candidate = effects(slowdown, 10, methods=3, seed=2)
    found = verdicts.of_runs(reference, candidate, RULES)
    assert statuses(found) == [status] * 3
    assert "10 runs" in found[0].detail


def test_runs_of_a_method_the_baseline_lacks_now() -> None:
    """A method without runs on one side is undecided."""
    found = verdicts.of_runs({"lora": [0.0] * 10}, {}, RULES)
    assert statuses(found) == ["INCONCLUSIVE"]


@pytest.mark.parametrize(
    ("reference", "candidate", "tolerance", "status"),
    [
        (10, 10, 0.0, "PASS"),
        (10, 9, 0.0, "PASS"),
        (10, 11, 0.0, "FAIL"),
        (0, 1, 0.0, "FAIL"),
        (0, 0, 0.0, "PASS"),
        (100, 105, 0.05, "PASS"),
        (100, 106, 0.05, "FAIL"),
    ],
)
def test_counts(reference: float, candidate: float, tolerance: float, status: str) -> None:
    """Any increase above the tolerance fails, from nothing too."""
    count = MethodCount(
        method="lora", name="ops", title="Operators", unit="per step", reference=reference, candidate=candidate,
        tolerance=tolerance,
    )  # fmt: skip
    assert statuses(count_diff.judge([count])) == [status]


def test_a_grown_count_names_what_grew() -> None:
    """The operators are in the sentence."""
    grew = tuple(f"aten::op{i}" for i in range(5))
    count = MethodCount(method="lora", name="ops", title="Operators", unit="", reference=10, candidate=17, grew=grew)
    detail = count_diff.judge([count])[0].detail
    assert "17, from 10 (+70 %); what grew: aten.op0" in detail
    assert detail.endswith("aten.op4")


def verdict(status: str, pairs: int = 12) -> Verdict:
    """Return a verdict with nothing but a status."""
    return Verdict(method="lora", metric="step_time", status=status, pairs=pairs, detail="x")


@pytest.mark.parametrize(
    ("found", "strict", "expected"),
    [
        ([verdict("PASS")], True, 0),
        ([verdict("PASS"), verdict("FAIL"), verdict("INCONCLUSIVE")], True, 1),
        ([verdict("FAIL", pairs=0)], False, 1),
        ([], False, 2),
        ([verdict("INCONCLUSIVE", pairs=0)], False, 2),
        ([verdict("PASS"), verdict("INCONCLUSIVE")], False, 0),
        ([verdict("PASS"), verdict("INCONCLUSIVE")], True, 3),
        ([verdict("INCOMPARABLE", pairs=0)], False, 0),
        ([verdict("INCOMPARABLE", pairs=0)], True, 3),
    ],
)
def test_exit_statuses(found: list[Verdict], strict: bool, expected: int) -> None:
    """0 pass, 1 regression, 2 nothing measured, 3 undecided under --strict."""
    assert verdicts.exit_status(found, strict) == expected


def test_when_measuring_on_is_of_no_use() -> None:
    """After a FAIL, or when everything is decided."""
    assert verdicts.settled([verdict("FAIL"), verdict("INCONCLUSIVE")])
    assert verdicts.settled([verdict("PASS")])
    assert not verdicts.settled([verdict("PASS"), verdict("INCONCLUSIVE")])


@pytest.mark.parametrize("wrong", [{"null": 0.03}, {"looks": ()}, {"looks": (12, 12)}, {"looks": (16, 12)}])
def test_rules_that_cannot_decide_are_refused(wrong: dict[str, object]) -> None:
    """A null at the target, or looks that don't rise."""
    with pytest.raises(ValueError, match="must be"):
        Rules(**wrong)
