"""Races simulated as arrays are the package's own, and few of their pages are false (`benchmarks/racing.py`)."""

from __future__ import annotations

import json

import pytest
import racing


@pytest.mark.parametrize("world", ["all equal", "two groups", "two groups (a tenfold spread)"])
def test_simulated_races_are_the_packages(world: str) -> None:
    """Every claim and every number of runs of 20 pages of each world."""
    assert racing.disagreements(world, 20, [(3, 4, 6, 8)]) == 0


def test_the_record_holds_its_bound() -> None:
    """Every world at every schedule of 2 to 8 looks, 4,000 pages each."""
    record = json.loads(racing.RECORD.read_text())
    assert record["pages"] >= 4000
    assert set(record["worlds"]) == set(racing.WORLDS)
    for by in record["worlds"].values():
        assert [len(rounds.split()) for rounds in by] == [2, 3, 4, 5, 6, 7, 8]
        assert all(of["bound"] < racing.BOUND for of in by.values())
