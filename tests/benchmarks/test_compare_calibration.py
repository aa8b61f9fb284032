"""Simulated pages of `compare` rarely claim what is false (`benchmarks/compare_calibration.py`), as the docs say."""

from __future__ import annotations

import math
from pathlib import Path

import compare_calibration as calibration
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "compare.md"
PROMISED = [name for name, world in calibration.WORLDS.items() if world.promised]
PAGES = 60


def most(pages: int) -> float:
    """Return 5 % and three standard deviations of a rate of so many pages."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / pages)


@pytest.mark.calibration
@pytest.mark.parametrize("name", PROMISED)
def test_a_page_rarely_claims_what_is_false(name: str) -> None:
    """Few rows, and many systems: the sizes at which tests over rows claim most."""
    found = [calibration.rate(name, systems, rows, PAGES, seed=9) for systems, rows in ((2, 20), (2, 300), (5, 1000))]
    assert sum(one.false for one in found) / (PAGES * len(found)) <= most(PAGES * len(found))


@pytest.mark.calibration
def test_the_simulation_notices_a_careless_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guards against rare rows, a third of pages and more are false where one system fails rarely."""
    monkeypatch.setattr("hpml_bench.statistics.over_rows.OverRows.p_rare", lambda _: 0.0)
    monkeypatch.setattr("hpml_bench.statistics.over_rows.OverRows.error", lambda self, n: self.sd / math.sqrt(n))
    found = calibration.rate("rare failures of one system, 0 to 1", 2, 100, PAGES)
    assert found.false / found.pages > 0.3


def test_recorded_pages_are_rarely_false() -> None:
    """At every size at most 5 % but for the error of a simulation, and at most 5 % over all sizes of a world."""
    recorded = [one for one in calibration.load() if one.promised]
    sizes = {(one.systems, one.rows) for one in recorded}
    assert {(2, 20), (30, 20), (2, 10_000), (30, 10_000)} <= sizes
    assert {one.world for one in recorded} == set(PROMISED)
    for one in recorded:
        assert one.false / one.pages <= most(one.pages), one
    for name in PROMISED:
        own = [one for one in recorded if one.world == name]
        assert sum(one.false for one in own) <= 0.05 * sum(one.pages for one in own), name


def test_the_table_of_the_docs_is_the_recorded_one() -> None:
    """docs/compare.md has what `compare_calibration.py --table` prints."""
    assert calibration.rate_table(calibration.load()) in PAGE.read_text(encoding="utf-8")


def test_systems_are_equal_in_every_world() -> None:
    """Of 400,000 rows no two systems' means differ by more than chance: each claim of a page is false."""
    for name, world in calibration.WORLDS.items():
        scores = world.draw(np.random.default_rng(3), 3, 400_000)
        for other in scores[1:]:
            difference = scores[0] - other
            error = float(difference.std()) / math.sqrt(difference.size / (calibration.GROUP if world.grouped else 1))
            assert abs(float(difference.mean())) < 4 * error, name
