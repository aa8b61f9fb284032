"""No claim against another: tables of pairs, ranks, fronts and the first screen follow from one set of verdicts."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_sections import tables

from helpers import made_records
from helpers.made_records import record
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
