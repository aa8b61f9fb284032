"""No claim against another: tables of pairs, ranks, fronts and the first screen follow from one set of verdicts."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_sections import load, of, said, tables

from helpers import made_records
from helpers.made_records import record, sweep
from hpml_bench import statistics
from hpml_bench.records.run import RunRecord
from hpml_bench.report.answer import words
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.results import Results

METHODS = ("lora", "full", "adapter", "head")
BY = {"score": "test_accuracy", "time": "train_seconds", "memory": "peak_memory_mb"}


def design(present: list[list[bool]], random: np.random.Generator) -> list[RunRecord]:
    """Return the records of an incomplete design; methods and seeds differ by amounts near what can be told."""
    accuracy = 0.85 + 0.02 * random.standard_normal(len(METHODS))
    seconds = np.exp(0.1 * random.standard_normal(len(METHODS)))
    memory = 500 * np.exp(0.03 * random.standard_normal(len(METHODS)))
    of_seed = 0.03 * random.standard_normal(len(present[0]))
    made = []
    for m, method in enumerate(METHODS):
        for seed in (seed for seed, there in enumerate(present[m]) if there):
            score = accuracy[m] + of_seed[seed] + 0.004 * random.standard_normal()
            own = {
                "test_accuracy": float(np.clip(score, 0, 1)),
                "train_seconds": float(seconds[m] * np.exp(of_seed[seed] + 0.01 * random.standard_normal())),
                "peak_memory_mb": float(memory[m] * np.exp(0.003 * random.standard_normal())),
            }
            run = record(method, seed)
            made.append(run.model_copy(update={"metrics": run.metrics | own}))
    return made


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    present=st.lists(
        st.lists(st.booleans() | st.just(True), min_size=6, max_size=6), min_size=len(METHODS), max_size=len(METHODS)
    ),
    seed=st.integers(0, 10**6),
)
def test_no_claim_is_against_another(present: list[list[bool]], seed: int) -> None:
    """Over random incomplete designs: ranks, best methods, the front and the headline are those of the pairs."""
    records = design(present, np.random.default_rng(seed))
    if len({r.spec.method.name for r in records}) > 1:
        with TemporaryDirectory() as folder:
            assert_claims_agree(Results.load(made_records.write(Path(folder), records, lambda *_: [])))


def assert_claims_agree(results: Results) -> None:
    """Hold ranks, best methods, front and headline to the verdicts that the tables of pairs show."""
    answer, shown = answer_of(results), tables("comparisons", results)
    if "intervals" not in shown or answer.over != "seed":  # judged over rows, for these trained models
        return
    wins: dict[str, set[tuple[str, str]]] = {}
    even: dict[str, set[tuple[str, str]]] = {}
    for by, metric in BY.items():
        if f"pairs_{metric}" not in shown:
            wins[by], even[by] = set(), set()
            assert answer.best(by) == ()
            continue
        pairs = {tuple(re.split(r" [−/] ", row[0])): row[1] for row in shown[f"pairs_{metric}"].rows}
        tested = {method for pair, verdict in pairs.items() if verdict != "not tested" for method in pair}
        wins[by] = {pair[:: 1 if v.startswith(f"{pair[0]} is") else -1] for pair, v in pairs.items() if " better" in v}
        even[by] = {turned for pair, v in pairs.items() if v.startswith("equal") for turned in (pair, pair[::-1])}
        losers = {loser for _, loser in wins[by]}
        assert set(answer.best(by)) == tested - losers
        column = next(at for at, title in enumerate(shown["intervals"].columns)
                      if title.startswith(results.definitions[metric].title.capitalize()))  # fmt: skip
        for method, cell in ((row[0], row[column]) for row in shown["intervals"].rows if "rank" in row[column]):
            lost, won = (sum(pair[at] == method for pair in wins[by]) for at in (1, 0))
            ends = (1 + lost, len(results.values(metric)) - won)
            assert cell.rpartition("rank ")[2] == "–".join(map(str, dict.fromkeys(ends)))
    summary = tables("summary", results)["summary"]
    front = summary.columns.index("Pareto front") if "Pareto front" in summary.columns else None
    for method, place in ((row[0], row[front].partition(" ")[0]) for row in summary.rows if front is not None):
        others = [other for other in results.methods if other != method]
        beaten = any(
            any((other, method) in won for won in wins.values())
            and all((other, method) in wins[by] | even[by] for by in BY)
            for other in others
        )
        on = all(any((method, other) in won for won in wins.values()) for other in others)
        assert place == ("off" if beaten else "on" if on else "undecided")
    headline = words.headline(answer)
    if " scores best" in headline or " has the highest accuracy (" in headline:
        best = headline.split()[0]
        assert all((best, other) in wins["score"] for other in results.methods if other != best)


def test_an_incomplete_sweep_does_not_crown_the_lucky(tmp_path: Path) -> None:
    """A method that lacks its hardest seed has the best mean of its own seeds, and is not called the best."""
    hard = {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: -0.1}
    scores = {m: {"test_accuracy": [a + h + 0.001 * (s % 2) for s, h in hard.items()]} for m, a in
              (("lora", 0.87), ("full", 0.89))}  # fmt: skip
    results = load(tmp_path, [r for r in of(scores) if (r.spec.method.name, r.spec.seed) != ("lora", 4)])
    assert words.headline(answer_of(results)).startswith("full ")
    assert results.interval("full", "test_accuracy").mean == pytest.approx(0.8905)  # type: ignore[union-attr]
    assert_claims_agree(results)


def test_all_claims_of_a_page_are_one_family(tmp_path: Path) -> None:
    """A pair that differs by its metric alone, and not by Holm over all pairs of all metrics, is undecided everywhere.

    Of the two methods' differences in time p is 0.03, below the 4 % of a single pair and above a third of them.
    """
    seconds = {"full": [2.02, 2.3, 2.15, 2.52, 2.18], "lora": [1.9, 1.9, 2.0, 2.1, 2.1]}
    others = {"full": [0.86, 0.87, 0.88, 0.85, 0.86], "lora": [0.87, 0.86, 0.87, 0.86, 0.88]}
    own = {
        m: {"train_seconds": seconds[m], "test_accuracy": others[m], "peak_memory_mb": [1000 * v for v in others[m]]}
        for m in seconds
    }
    results = load(tmp_path, of(own))
    (pair,) = results.comparisons("train_seconds")
    assert pair.p is not None
    assert 0.04 / 3 < pair.p < 0.04
    assert pair.verdict == "undecided"
    assert statistics.decide([pair])[0].verdict == "different"
    assert "full / lora | can't tell" in said("comparisons", results)
    assert results.ranks("train_seconds") == {"full": (1, 2), "lora": (1, 2)}
    assert {of.place for of in results.front(results.headline).values()} == {"undecided"}


def test_claims_on_these_rows_are_no_claims_on_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that err on 100 rows each, others in every seed alike: their means are apart on these rows only."""

    def answers(item: RunRecord, _: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels, place, seed = np.arange(rows) % 4, np.arange(rows), item.spec.seed
        lora = item.spec.method.name == "lora"
        wrong = place < 100 + seed % 2 if lora else (place >= 500) & (place < 613 + seed % 2)
        return labels, np.where(wrong, (labels + 1) % 4, labels)

    monkeypatch.setattr(made_records, "answers", answers)
    results = load(tmp_path, sweep(["lora", "full"]))
    (pair,) = statistics.compare_pairs(results.values(results.quality), grid=results.grid(results.quality))
    assert pair.p is not None
    assert pair.p < 0.001
    assert [c.verdict for c in results.comparisons("test_accuracy")] == ["undecided"]


@pytest.mark.parametrize(
    ("memory", "grid", "row"),
    [
        ({"lora": [500.0] * 5, "full": [600.0] * 5}, None, "full / lora | can't tell | 1.200 | – | 0.062 |"),
        ({"lora": [500.0] * 5, "full": [600.0] * 5}, 0.004, "full / lora | lora is better | 1.200 | [1.200, 1.200] |"),
    ],
    ids=["no spread", "a known grid"],
)  # fmt: skip
def test_costs_without_spread(memory: dict[str, list[float]], grid: float | None, row: str, tmp_path: Path) -> None:
    """Equal factors tell no spread but that of a known grid."""
    made = of({method: {"peak_memory_mb": values} for method, values in memory.items()})
    own = [m.model_copy(update={"grid": grid}) if m.name == "peak_memory_mb" else m for m in made_records.DEFINITIONS]
    results = load(tmp_path, [r.model_copy(update={"definitions": tuple(own)}) for r in made])
    line = " | ".join(tables("comparisons", results)["pairs_peak_memory_mb"].rows[0])
    assert line.startswith(row)
    assert "10,000" not in line
