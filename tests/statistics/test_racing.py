"""Races: verdicts at declared looks, after each of which those that are shown to be behind
leave.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_bench import statistics

MARGIN = 0.01
Scores = Mapping[str, Mapping[int, float]]


def drawn(seed: int, gaps: tuple[float, ...], most: int = 8) -> dict[str, dict[int, float]]:
    """Return scores of methods over seeds that lie apart by `gaps`."""
    random = np.random.default_rng(seed)
    return {
        f"m{at}": dict(enumerate(0.7 + gap + 0.01 * random.standard_normal(most)))
        for at, gap in enumerate(gaps)
    }


def raced(
    values: Scores, rounds: tuple[int, ...], later: int = 0, done: int = 100
) -> tuple[Any, Any]:
    """Return the pairs and rounds of a race by these scores alone, of which seeds below `done`
    have ended.
    """

    def compare(names: tuple[str, ...], seeds: int) -> dict[str, tuple[statistics.Comparison, ...]]:
        of = {
            name: {seed: value for seed, value in values[name].items() if seed < seeds}
            for name in names
        }
        return {"score": statistics.compare_pairs(of, margin=MARGIN)}

    def decide(family: Any, look: int) -> Any:
        return statistics.decide_family(family, look, "score", declared=len(rounds))

    found, taken = statistics.race(
        tuple(values),
        rounds,
        lambda _, seeds: seeds <= done,
        compare,
        decide,
        "score",
        "higher",
        later,
    )
    return {(c.a, c.b): c for c in found.get("score", ())}, taken


def test_declared_looks_share_the_level_equally_and_others_take_two_thirds_of_what_is_left() -> (
    None
):
    """All looks together never spend more than the whole."""
    assert [statistics.spent_at(look, 4) for look in (1, 4, 5, 6)] == pytest.approx(
        [0.2375, 0.2375, 0.1 / 3, 0.1 / 9]
    )
    assert [statistics.spent_at(look) for look in (1, 2, 3)] == pytest.approx(
        [2 / 3, 2 / 9, 2 / 27]
    )
    assert statistics.spent_at(1, 1) == pytest.approx(0.95)
    for declared in (0, 1, 2, 7):
        assert sum(statistics.spent_at(look, declared) for look in range(1, 60)) == pytest.approx(1)


def test_a_race_of_one_look_is_the_decision_of_its_seeds() -> None:
    """The same p; the look's share is that of all declared ones."""
    values = drawn(1, (0.0, 0.05, 0.06))
    pairs, (only,) = raced(values, (5,))
    part = {name: {seed: of[seed] for seed in range(5)} for name, of in values.items()}
    plain = statistics.decide(statistics.compare_pairs(part, margin=MARGIN))
    assert [c.p for c in pairs.values()] == [c.p for c in plain]
    assert (only.seeds, only.systems) == (5, ("m0", "m1", "m2"))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([0.0, 0.005, 0.04, 0.08]), min_size=2, max_size=5),
)
def test_what_holds_of_every_race(seed: int, gaps: list[float]) -> None:
    """Who is behind leaves at once and for good; its pairs, and claims, stay; a look uses no
    seed beyond its round.
    """
    values, rounds = drawn(seed, tuple(gaps)), (3, 4, 6, 8)
    before: dict[tuple[str, str], statistics.Comparison] = {}
    staying = {*values}
    for count, seeds in enumerate(rounds, 1):
        pairs, taken = raced(values, rounds, done=seeds)
        if len(taken) < count:
            assert len(staying) < 2
            break
        hidden = {name: {s: v for s, v in of.items() if s < seeds} for name, of in values.items()}
        assert raced(hidden, rounds, done=seeds) == (pairs, taken), "later seeds don't count"
        assert {*taken[-1].systems} == staying
        for (a, b), c in before.items():
            if c.verdict in {"different", "equivalent"}:
                assert pairs[a, b].verdict == c.verdict
            if not {a, b} <= staying:
                assert (pairs[a, b].p, pairs[a, b].difference) == (c.p, c.difference)
        behind = {
            c.other(c.winner("higher") or "")
            for c in pairs.values()
            if c.differs and {c.a, c.b} <= staying
        }
        assert {*taken[-1].left} == behind
        assert all(pairs[tuple(sorted((name, by)))].differs for name, by in taken[-1].left.items())
        staying, before = staying - behind, pairs


def test_a_round_that_is_not_complete_is_no_look() -> None:
    """Runs under way change no verdict, and a race without a complete round has none."""
    values = drawn(3, (0.0, 0.002, 0.05))
    ended = {name: {seed: of[seed] for seed in range(3)} for name, of in values.items()}
    assert raced(values, (3, 4, 8), done=3) == raced(ended, (3, 4, 8), done=3)
    assert raced(values, (3, 4, 8), done=2) == ({}, ())


def test_seeds_added_by_hand_are_a_further_look_at_all_methods() -> None:
    """Who left is judged again, with less of the level; claims stand though the new seeds deny
    them.
    """
    values = drawn(5, (0.0, 0.05, 0.052), most=12)
    pairs, taken = raced(values, (3, 5))
    assert taken[-1].left or taken[0].left
    claimed = [pair for pair, c in pairs.items() if c.differs]
    turned = values | {
        "m0": {seed: value + 0.2 * (seed >= 5) for seed, value in values["m0"].items()}
    }
    again, same = raced(turned, (3, 5), later=1)
    assert same == taken
    assert all(
        again[pair].differs and again[pair].difference == pairs[pair].difference for pair in claimed
    )
    assert again["m1", "m2"].difference.n == 12
