"""Behaviour: the answer's numbers are the page's: its means, verdicts and selection, in the
units that it names.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_sections import load, tables, without

from helpers import made_records
from helpers.made_records import METHODS, failed, record, sweep
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.page.answer import words
from hpml_bench.page.answer.sections import answer_table
from hpml_bench.page.seed_plan import plan
from hpml_bench.records.run import RunRecord
from hpml_bench.system.errors import UserError


def test_relations_follow_winners(tmp_path: Path) -> None:
    """A relation is seen from both sides alike, and sizes that are exact decide themselves."""
    answer = answer_of(load(tmp_path, sweep()))
    mirrored = {
        "better": "worse",
        "worse": "better",
        "open": "open",
        "equal": "equal",
        "untested": "untested",
    }
    names = [method.name for method in answer.methods]
    for by in ("score", "time", "memory", "size"):
        for a in names:
            for b in (n for n in names if n != a):
                assert answer.relation(by, b, a) == mirrored[answer.relation(by, a, b)]
    assert answer.best("size") == (
        min(names, key=lambda n: answer.by_name[n].values["saved_bytes"].mean),
    )


def test_no_compared_run_leaves_an_answer_without_methods(tmp_path: Path) -> None:
    """Where every run failed the answer says so, and counts the failures; it names no rows and
    seeds.
    """
    answer = answer_of(
        load(tmp_path, [failed("lora", seed, "diverged", "loss is NaN") for seed in range(3)])
    )
    assert words.banner(answer) == "3 of 3 runs failed (loss not finite)."
    assert not any(part.startswith("0 ") for part in words.setup_line(answer))


def test_methods_that_lack_seeds_have_means_over_shared_ones(tmp_path: Path) -> None:
    """Means are over the seeds that all methods share; set-up line and rows say so, and a failed
    run lacks no more.
    """
    diverged = failed("lora", 4, "diverged", "loss is NaN")
    cases = (
        (without("lora", 4), 4, ["4 of 5 seeds"]),
        ([*without("lora", 4), diverged], 4, ["1 run failed"]),
        ([*without("lora", 3, 4), diverged], 3, ["3 of 5 seeds", "1 run failed"]),
    )
    for at, (runs, shared, said) in enumerate(cases):
        answer = answer_of(load(tmp_path / str(at), runs))
        shown = words.verdict(answer, "lora").in_full.split("; ")
        assert [text for text in shown if "seeds" in text or "failed" in text] == said
        assert not any("seeds" in text for text in words.verdict(answer, "full").more)
        assert answer.shared == shared
        assert all(len(method.values["score"].runs) == shared for method in answer.methods)
        assert f"5 seeds, means over the {shared} that all share" in words.setup_line(answer)
        assert answer_table(answer).caption.endswith(
            "at its test's level, over the seeds that two share"
        )


@pytest.mark.parametrize("quiet", [0, 1])
def test_costs_of_neighbours_rank_nothing(quiet: int, tmp_path: Path) -> None:
    """Runs that shared a host have costs without verdicts, also where one had it alone; the
    answer says why.
    """
    beside = [
        r.model_copy(update={"neighbours": ("other",) * (n >= quiet)})
        for n, r in enumerate(sweep(METHODS[:2]))
    ]
    answer = answer_of(load(tmp_path, beside))
    assert answer.unranked == "runs had neighbours on their host"
    assert set(answer.pairs) == {"score"}
    assert all(axis.tested is None for axis in answer.axes)
    with pytest.raises(UserError, match="neighbours on their host"):
        plan(tmp_path, "train_seconds=3%")
    assert "tell no hours" in " ".join(plan(tmp_path, "accuracy=2pp").sentences)


# No claim against another: tables of pairs, ranks, fronts and the first screen follow from one set
# of verdicts


FOUR = ("lora", "full", "adapter", "head")
BY = {"score": "test_accuracy", "time": "train_seconds", "memory": "peak_memory_mb"}


def design(present: list[list[bool]], random: np.random.Generator) -> list[RunRecord]:
    """Return the records of an incomplete design; methods and seeds differ by amounts near what
    can be told.
    """
    accuracy = 0.85 + 0.02 * random.standard_normal(len(FOUR))
    seconds = np.exp(0.1 * random.standard_normal(len(FOUR)))
    memory = 500 * np.exp(0.03 * random.standard_normal(len(FOUR)))
    of_seed = 0.03 * random.standard_normal(len(present[0]))
    made = []
    for m, method in enumerate(FOUR):
        for seed in (seed for seed, there in enumerate(present[m]) if there):
            score = accuracy[m] + of_seed[seed] + 0.004 * random.standard_normal()
            own = {
                "test_accuracy": float(np.clip(score, 0, 1)),
                "train_seconds": float(
                    seconds[m] * np.exp(of_seed[seed] + 0.01 * random.standard_normal())
                ),
                "peak_memory_mb": float(memory[m] * np.exp(0.003 * random.standard_normal())),
            }
            run = record(method, seed)
            made.append(run.model_copy(update={"metrics": run.metrics | own}))
    return made


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    present=st.lists(
        st.lists(st.booleans() | st.just(True), min_size=6, max_size=6),
        min_size=len(FOUR),
        max_size=len(FOUR),
    ),
    seed=st.integers(0, 10**6),
)
def test_no_claim_is_against_another(present: list[list[bool]], seed: int) -> None:
    """Over random incomplete designs: ranks, best methods, the front and the headline are those
    of the pairs.
    """
    records = design(present, np.random.default_rng(seed))
    if len({r.spec.method.name for r in records}) > 1:
        with TemporaryDirectory() as folder:
            assert_claims_agree(
                Results.load(made_records.write(Path(folder), records, lambda *_: []))
            )


def assert_claims_agree(results: Results) -> None:
    """Hold ranks, best methods, front and headline to the verdicts that the tables of pairs
    show.
    """
    answer, shown = answer_of(results), tables("comparisons", results)
    if (
        "intervals" not in shown or answer.over != "seed"
    ):  # judged over rows, for these trained models
        return
    wins: dict[str, set[tuple[str, str]]] = {}
    even: dict[str, set[tuple[str, str]]] = {}
    for by, metric in BY.items():
        rows = shown[f"pairs_{metric}"].rows if f"pairs_{metric}" in shown else ()
        pairs = {tuple(re.split(r" [−/] ", row[0])): row[1] for row in rows}
        tested = {
            method for pair, verdict in pairs.items() if verdict != "not tested" for method in pair
        }
        wins[by] = {
            pair[:: 1 if v.startswith(f"{pair[0]} is") else -1]
            for pair, v in pairs.items()
            if " better" in v
        }
        even[by] = {
            turned
            for pair, v in pairs.items()
            if v.startswith("equal")
            for turned in (pair, pair[::-1])
        }
        assert set(answer.best(by)) == tested - {loser for _, loser in wins[by]}
        if not rows:
            continue
        title = results.definitions[metric].title.capitalize()
        column = next(
            at for at, name in enumerate(shown["intervals"].columns) if name.startswith(title)
        )
        for method, cell in (
            (row[0], row[column]) for row in shown["intervals"].rows if "rank" in row[column]
        ):
            lost, won = (sum(pair[at] == method for pair in wins[by]) for at in (1, 0))
            ends = (1 + lost, len(results.values(metric)) - won)
            assert cell.rpartition("rank ")[2] == "–".join(map(str, dict.fromkeys(ends)))
    summary = tables("summary", results)["summary"]
    front = summary.columns.index("Pareto front") if "Pareto front" in summary.columns else None
    for method, place in (
        (row[0], row[front].partition(" ")[0]) for row in summary.rows if front is not None
    ):
        others = [other for other in results.methods if other != method]
        on = all(any((method, other) in won for won in wins.values()) for other in others)
        off = any(
            any((other, method) in won for won in wins.values())
            and all((other, method) in wins[by] | even[by] for by in BY)
            for other in others
        )
        assert place == ("off" if off else "on" if on else "undecided")
    headline = words.headline(answer)
    if " scores best" in headline or " has the highest accuracy (" in headline:
        best = headline.split()[0]
        assert all((best, other) in wins["score"] for other in results.methods if other != best)
