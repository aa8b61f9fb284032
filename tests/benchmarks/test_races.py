"""Races simulated as arrays are the package's own, and few of their pages are false (`benchmarks/racing.py`)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import racing
from calibration import MARGIN_COST, MARGIN_QUALITY

from hpml_bench import statistics


def package(right: np.ndarray, costs: list[np.ndarray], rounds: tuple[int, ...]) -> tuple[dict[str, list[bool]], int]:
    """Return the package's claims by metric, and the runs, of a race on answers and costs of one page."""
    names = tuple(f"m{at}" for at in range(len(right)))

    def compare(staying: tuple[str, ...], seeds: int) -> dict[str, tuple[statistics.Comparison, ...]]:
        at = [names.index(name) for name in staying]
        rows = {name: dict(enumerate(right[one, :seeds])) for name, one in zip(staying, at, strict=True)}
        found = {"score": statistics.compare_scores(rows, MARGIN_QUALITY)}
        for number, of in enumerate(costs):
            values = {name: dict(enumerate(np.exp(of[one, :seeds]))) for name, one in zip(staying, at, strict=True)}
            found[f"cost {number}"] = statistics.compare_costs(values, MARGIN_COST)
        return found

    found, taken = statistics.race(
        names, rounds, lambda *_: True, compare,
        lambda family, look: statistics.decide_family(family, look, "score", declared=len(rounds)), "score", "higher",
    )  # fmt: skip
    runs = sum(len(one.systems) * (one.seeds - (taken[at - 1].seeds if at else 0)) for at, one in enumerate(taken))
    return {metric: [c.verdict != "undecided" for c in of] for metric, of in found.items()}, runs


@pytest.mark.parametrize("world", ["all equal", "two groups", "two groups (a tenfold spread)"])
def test_simulated_races_are_the_packages(world: str) -> None:
    """Every claim and every number of runs of 20 pages of each world."""
    rounds = (3, 4, 6, 8)
    data = racing.draw(racing.WORLDS[world], 8, 20, np.random.default_rng(7))
    found = racing.race(data, rounds)
    for page in range(20):
        claims, runs = package(data.right[page], [of[page] for of in data.costs], rounds)
        assert runs == found.runs[page]
        for metric, own in enumerate(claims.values()):
            assert own == list(found.different[metric][page] | found.near[metric][page])


def test_the_record_holds_its_bound() -> None:
    """Every world at every schedule of 2 to 8 looks, 4,000 pages each."""
    record = json.loads(racing.RECORD.read_text())
    assert record["pages"] >= 4000
    assert set(record["worlds"]) == set(racing.WORLDS)
    for by in record["worlds"].values():
        assert [len(rounds.split()) for rounds in by] == [2, 3, 4, 5, 6, 7, 8]
        assert all(of["bound"] < racing.BOUND for of in by.values())
