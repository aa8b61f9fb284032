"""No sentence against a table: what the takeaways claim is what the tables of pairs, ranks and fronts show."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import made_records
from helpers.made_records import record
from hpml_bench.builtin.sections import comparisons, cost_quality, summary, takeaways
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results

METHODS = ("lora", "full", "adapter", "head")
TITLES = {"test_accuracy": "accuracy", "train_seconds": "training time", "peak_memory_mb": "peak memory"}
OPENINGS = {
    "test_accuracy": r"(\w+) has the highest mean accuracy",
    "train_seconds": r"(\w+) trained fastest",
    "peak_memory_mb": r"(\w+) needed the least memory",
}


def design(present: list[list[bool]], random: np.random.Generator) -> list[RunRecord]:
    """Return the records of an incomplete design; methods and seeds differ by amounts near what can be told."""
    accuracy = 0.85 + 0.02 * random.standard_normal(len(METHODS))
    seconds = np.exp(0.1 * random.standard_normal(len(METHODS)))
    memory = 500 * np.exp(0.03 * random.standard_normal(len(METHODS)))
    of_seed = 0.03 * random.standard_normal(len(present[0]))
    made = []
    for m, method in enumerate(METHODS):
        for seed, there in enumerate(present[m]):
            if there:
                own = {
                    "test_accuracy": float(
                        np.clip(accuracy[m] + of_seed[seed] + 0.004 * random.standard_normal(), 0, 1)
                    ),
                    "train_seconds": float(seconds[m] * np.exp(of_seed[seed] + 0.01 * random.standard_normal())),
                    "peak_memory_mb": float(memory[m] * np.exp(0.003 * random.standard_normal())),
                }
                run = record(method, seed)
                made.append(run.model_copy(update={"metrics": run.metrics | own}))
    return made


def tables(results: Results) -> dict[str, Table]:
    """Return the tables that sentences are held to, by name."""
    made = [summary.section(results), comparisons.section(results), cost_quality.section(results)]
    return {block.name: block for section in made if section for block in section.blocks if isinstance(block, Table)}


def column(table: Table, name: str) -> int:
    """Return a column's place."""
    return next(i for i, title in enumerate(table.columns) if title.startswith(name))


def names(text: str) -> list[str]:
    """Return the methods named in a piece of text, in order."""
    return re.findall(rf"\b({'|'.join(METHODS)})\b", text)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    present=st.lists(
        st.lists(st.booleans() | st.just(True), min_size=6, max_size=6), min_size=len(METHODS), max_size=len(METHODS)
    ),
    seed=st.integers(0, 10**6),
)
def test_no_sentence_is_against_a_table(present: list[list[bool]], seed: int) -> None:
    """Over random incomplete designs: leaders, wins, equivalences, undecided and untested pairs are the tables' own."""
    records = design(present, np.random.default_rng(seed))
    if len({r.spec.method.name for r in records}) < 2:
        return
    with TemporaryDirectory() as folder:
        assert_sentences_agree(Results.load(made_records.write(Path(folder), records, lambda *_: [])))


def assert_sentences_agree(results: Results) -> None:
    """Hold every sentence on a metric, and that on the front, to the tables."""
    made = takeaways.section(results)
    assert made
    sentences: tuple[str, ...] = made.blocks[0].sentences  # type: ignore[union-attr]
    shown = tables(results)
    seeds = {m: {r.spec.seed for r in results.runs(m)} for m in results.methods}
    for metric, title in TITLES.items():
        pairs = _verdicts(shown.get(f"pairs_{metric}"))
        told = [
            s
            for s in sentences
            if re.match(OPENINGS[metric], s) or f" by {title} than " in s or s.startswith(f"By {title} ")
        ]
        if any(verdict != "not tested" for verdict in pairs.values()):
            assert len(told) == 1
            assert_agrees(told[0], metric, pairs, shown, results, seeds)
        else:
            assert not told
    front = [s for s in sentences if s.startswith("The Pareto front")]
    if front:
        table = shown["pareto"]
        places = {row[0]: row[1] for row in table.rows}
        for place in ("on", "off", "undecided"):
            found = re.search(rf"\b{place}(?: it)?: ([^;.]*)", front[0])
            assert set(names(found[1]) if found else ()) == {m for m, of in places.items() if of == place}


VERDICT = {"can't tell": "undecided", "equal": "equivalent"}


def _verdicts(table: Table | None) -> dict[frozenset[str], str]:
    rows = table.rows if table else ()
    return {frozenset(re.split(r" [−/] ", row[0])): VERDICT.get(own := row[1].removesuffix(" ‡"), own) for row in rows}


def assert_agrees(
    sentence: str,
    metric: str,
    pairs: dict[frozenset[str], str],
    shown: dict[str, Table],
    results: Results,
    seeds: dict[str, set[int]],
) -> None:
    """Hold one sentence to the table of its pairs, to the ranks and to the means of the summary."""
    if "no method leads" in sentence:
        losers = {(set(pair) - {v.split()[0]}).pop() for pair, v in pairs.items() if "is better" in v}
        assert losers == set(results.values(metric))
        return
    found = re.match(OPENINGS[metric], sentence) or re.search(r"shown to be better by .+? than (\w+)", sentence)
    assert found
    leader = found[1]
    uneven = len({frozenset(of) for of in seeds.values()}) > 1
    if uneven:
        assert not re.search("has the highest|fastest|least", sentence)
    own = {next(iter(pair - {leader})): verdict for pair, verdict in pairs.items() if leader in pair}
    assert not [verdict for verdict in own.values() if "is better" in verdict and not verdict.startswith(leader)]
    lead, _, rest = sentence.partition(". ")
    lead = re.sub(rf"^[^;]*{leader}[^;]*", "", lead, count=1)
    parts = {
        "better": [name for name in names(lead) if name != leader],
        "equivalent": names(_after(rest, "Equivalent to it: ")),
        "undecided": names(_after(rest, "Undecided against ")),
        "not tested": names(_after(rest, " is not tested against ")),
    }
    for kind, named in parts.items():
        expected = {
            other
            for other, v in own.items()
            if (v.startswith(f"{leader} is better") if kind == "better" else v == kind)
        }
        assert set(named) == expected, (kind, sentence)
        assert len(set(named)) == len(named)
    never = {m for m in results.values(metric) if m != leader and not seeds[m] & seeds[leader]}
    assert set(names(_after(rest, "Never compared with "))) == never
    table = shown["summary"]
    intervals = shown["intervals"]
    spot = column(intervals, results.definitions[metric].title.capitalize())
    told = next(row[spot] for row in intervals.rows if row[0] == leader)
    assert re.search(r"rank 1(–|$)", told)
    if not uneven:
        spot = column(table, results.definitions[metric].title.capitalize())
        assert table.values is not None
        means = {str(row[0]): float(row[spot]) for row in table.values if row[spot] is not None}  # type: ignore[arg-type]
        best = max(means.values()) if metric == "test_accuracy" else min(means.values())
        assert means[leader] == best
    for other in parts["better"]:
        _same_number(lead, leader, other, shown[f"pairs_{metric}"])


def _after(text: str, opening: str) -> str:
    """Return what follows an opening, to the end of its sentence."""
    _, there, rest = text.partition(opening)
    return re.split(r"\. (?=[A-Z]|\w+ is not tested)|\.$", rest)[0] if there else ""


def _same_number(lead: str, leader: str, other: str, table: Table) -> None:
    """The lead's figure is the table's difference or factor, seen from the leader."""
    found = re.search(rf"\b{other}\b(?: by| took)? (−?[\d.,]+)", lead)
    assert found
    row = next(row for row in table.values or () if {leader, other} == set(re.split(r" [−/] ", str(row[0]))))
    value: Any = row[2]
    first = re.split(r" [−/] ", str(row[0]))[0]
    if " / " in str(row[0]):
        expected = value if first == other else 1 / value
    else:
        expected = value if first == leader else -value
    figure = found[1].replace(",", "")
    digits = len(figure.partition(".")[2])
    assert abs(float(figure) - expected) <= 0.51 * 10.0**-digits


def test_an_incomplete_sweep_does_not_crown_the_lucky(tmp_path: Path) -> None:
    """A method that lacks its hardest seed has the best mean of its own seeds, and is not said to be the best."""
    hard = {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: -0.1}
    made = []
    for method, accuracy in (("lora", 0.87), ("full", 0.89)):
        for seed, harder in hard.items():
            if (method, seed) != ("lora", 4):
                run = record(method, seed)
                own = {"test_accuracy": accuracy + harder + 0.001 * (seed % 2)}
                made.append(run.model_copy(update={"metrics": run.metrics | own}))
    results = Results.load(made_records.write(tmp_path, made))
    text = "\n".join(takeaways.section(results).blocks[0].sentences)  # type: ignore[union-attr]
    assert (
        "No method is shown to be better by accuracy than full, which has 89.05 % over the 4 seeds that all methods "
        "share" in text
    )
    assert "lora has the highest" not in text
    assert_sentences_agree(results)


def test_the_best_mean_of_few_seeds_is_no_leader(tmp_path: Path) -> None:
    """Faster in the three seeds that all methods share, slower in the nine others: a test decides, not that mean."""
    made = []
    for method, seeds in (("lora", 12), ("full", 12), ("head", 3)):
        for seed in range(seeds):
            slower = 0.05 if method == "lora" and seed > 2 else -0.001 if method == "lora" else 0.0
            run = record(method, seed)
            own = {"train_seconds": float(np.exp(slower + 0.001 * (seed % 3))) * (3 if method == "head" else 1)}
            made.append(run.model_copy(update={"metrics": run.metrics | own}))
    results = Results.load(made_records.write(tmp_path, made))
    assert results.interval("lora", "train_seconds").mean < results.interval("full", "train_seconds").mean  # type: ignore[union-attr]
    assert takeaways.leading(results, "train_seconds") == "full"
    assert_sentences_agree(results)
