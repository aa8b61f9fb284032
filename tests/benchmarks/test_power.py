"""Pages simulated as arrays have the package's own p, and few of them are false (`benchmarks/power.py`)."""

from __future__ import annotations

import json

import numpy as np
import power
import power_pages
import pytest
from calibration import MARGIN_COST, MARGIN_QUALITY
from power_pages import AFTER, BEFORE, ROWS, World

from hpml_bench import statistics
from hpml_bench.statistics import evidence

PAGES = 1000


def package(right: np.ndarray, logs: np.ndarray) -> dict[str, tuple[statistics.Comparison, ...]]:
    """Return the package's verdicts on answers [methods, seeds, rows] and a cost's logarithms [methods, seeds]."""
    named = {f"m{at}": dict(enumerate(of)) for at, of in enumerate(right)}
    costs = {f"m{at}": dict(enumerate(np.exp(of))) for at, of in enumerate(logs)}
    family = {
        "score": statistics.compare_scores(named, MARGIN_QUALITY),
        "cost": statistics.compare_costs(costs, MARGIN_COST),
    }
    return statistics.decide_family(family, score="score")


@pytest.mark.parametrize("rule", ["before", "after"])
def test_simulated_pages_have_the_packages_p(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 pages of 2 to 6 methods with 3 to 6 seeds every adjusted p is the package's to 1e-9.

    `before` is the package without variances that methods share: the p of 200 pages before adjustment.
    """
    if rule == "before":
        monkeypatch.setattr(evidence, "PRIOR", 0.0)
    random = np.random.default_rng(4)
    for at in range((PAGES if rule == "after" else PAGES // 5) // 10):
        k, n = int(random.integers(2, 7)), int(random.integers(3, 7))
        world = World(str(random.choice(["normal", "t3", "skewed"])), tuple(random.choice([0.1, 1.0, 10.0], k)))
        right, seed = power_pages.answers(world, n, 10, random), [5, at]
        scores = power_pages.Squares(n, k, *power_pages._score(right))
        costs = power_pages.costs(world, n, 10, np.random.default_rng(seed))
        logs = power_pages.cost_logs(world, n, 10, np.random.default_rng(seed))
        used = BEFORE if rule == "before" else AFTER
        different, near = power_pages.decided([scores, costs], used)
        plain = [power_pages.p_values(of, used) for of in (scores, costs)]
        for page in range(10):
            decided = package(right[page], logs[page])
            for metric, name in enumerate(("score", "cost")):
                ours = decided[name]
                assert [c.p for c in ours] == pytest.approx(list(plain[metric][0][page]), rel=1e-9, abs=1e-12)
                assert [c.p_equivalent for c in ours] == pytest.approx(list(plain[metric][1][page]), rel=1e-9)
                if rule == "after":
                    assert [c.p_adjusted for c in ours] == pytest.approx(list(different[metric][page]), rel=1e-9)
                    equal = [c.p_equivalent_adjusted for c in ours]
                    assert equal == pytest.approx(list(near[metric][page]), rel=1e-9)


def test_pages_are_rarely_false() -> None:
    """Of pages of each promised world fewer than 6 % are false, by the worst seeds, and those found are as recorded."""
    for cell in power.cells():
        if cell.noise != "skewed" and cell.seeds == 3:
            false = cell.rates({"after": AFTER}, 400, draw=6)["after"]
            assert false <= 0.06 + 3 * (0.06 * 0.94 / 400) ** 0.5, cell


def test_the_table_of_the_docs_is_the_recorded_one() -> None:
    """docs/methodology.md has the tables that `power.py --table` prints."""
    record, page = (
        json.loads(power.RECORD.read_text()),
        (power.RECORD.parents[3] / "docs" / "methodology.md").read_text(),
    )
    assert power.rate_table(record) in page
    assert power.power_table(record) in page


def test_the_committed_record_holds() -> None:
    """Every promised cell of the record is within its bound, with the package's weight, the largest that holds."""
    record = json.loads(power.RECORD.read_text())
    assert record["prior"] == evidence.PRIOR <= record["largest_that_holds"]
    assert record["pages"] >= 4000
    assert len(record["false_pages"]) == len(list(power.cells())) <= 60
    assert [row for row in record["false_pages"] if not row["holds"]] == []


@pytest.mark.parametrize(
    ("difference", "seeds", "least"),
    [
        ("score, 6 points apart", 3, 0.2),
        ("score, 6 points apart", 5, 0.68),
        ("cost, 35 % apart, noise 2 %", 3, 0.9),
        ("cost, 35 % apart, noise 5 %", 3, 0.25),
    ],
)
def test_few_seeds_find_differences(difference: str, seeds: int, least: float) -> None:
    """Three and five seeds find this share of the pairs that differ, more than each pair's own spread finds."""
    (found,) = power.power(300, only=(difference, seeds))
    assert found["after"] >= least
    assert found["after"] > 1.5 * found["before"]


def test_rows_are_those_of_the_tables() -> None:
    """Pages have 500 test rows, as docs/methodology.md says."""
    assert ROWS == 500
