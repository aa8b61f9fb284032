"""Pages of tasks that are no classification, of rare classes, of rows in groups, and of suites
with another metric.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_sections import tables

from helpers import made_records, made_task_records
from helpers.made_records import grouped, sweep
from hpml_bench import statistics
from hpml_bench.judge.caveats import beats_guess, beside_guess
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.page.answer import words
from hpml_bench.page.answer.screen import pictures
from hpml_bench.page.render import page_of
from hpml_bench.plugins.task import make_task
from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

BETTER = {"regression": min, "token_classification": max}


@pytest.fixture(scope="module", params=BETTER)
def task_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """Return five methods x five seeds of a task."""
    return Results.load(
        made_task_records.write(tmp_path_factory.mktemp(request.param), request.param)
    )


def test_no_verdict_is_against_the_direction(task_results: Results) -> None:
    """Who is called better in the table of pairs has the better mean, and takes no second place
    on the front to it.
    """
    better: Any = BETTER[task_results.reference.spec.settings.task.name]
    means = {
        name: np.mean([*of.values()])
        for name, of in task_results.values(task_results.quality).items()
    }
    shown = tables("comparisons", task_results)[f"pairs_{task_results.quality}"]
    claims = [row for row in shown.rows if "is better" in row[1]]
    assert claims
    for row in claims:
        pair = row[0].split(" − ")
        winner = row[1].split(" is better")[0]
        assert winner == better(pair, key=means.__getitem__)
        assert task_results.front((task_results.quality, "train_seconds"))[winner].by != (
            pair[pair.index(winner) - 1],
        )


def test_a_correlation_with_a_constant_is_none_and_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that answers one number has no correlation: its record says so, and its run is
    compared all the same.
    """
    usual = made_task_records._ratings

    def answers(item: RunRecord) -> Predictions:
        found = usual(item)
        loss = (np.asarray(found.reference) - 3.0) ** 2
        return (
            replace(found, prediction=np.full(400, 3.0), loss=loss)
            if item.spec.method.name == "head"
            else found
        )

    monkeypatch.setattr(made_task_records, "_ratings", answers)
    folder = made_task_records.write(tmp_path, "regression", ("lora", "head"), 3)
    results = Results.load(folder)
    assert len(results.runs("head")) == 3
    assert "head" not in results.values("test_pearson")
    assert beside_guess(results)["head"] == "not"


# Suites that rank by another metric


CLASSES = "sequence_classification"


def ranked(folder: Path, task: str, by: str | None = None) -> Results:
    return Results.load(made_task_records.write(folder, task, ("lora", "full"), 3, by))


def test_what_guessing_scores_is_the_headline(tmp_path: Path) -> None:
    """No method is above the most frequent class's 90 %; no axis goes beyond 100 %."""
    answer = answer_of(ranked(tmp_path / "plain", CLASSES))
    assert words.headline(answer) == "No method beats guessing (90.0 % accuracy)."
    assert max(picture.y.high for picture in pictures(answer)) <= 100.0
    below = answer.guess.below if answer.guess else ()
    ahead = answer.model_copy(
        update={"guess": answer.guess and answer.guess.model_copy(update={"score": 89.0})}
    )
    assert set(below) == {"lora", "full"}
    assert words.headline(ahead) == "No method is shown to beat guessing (89.0 % accuracy)."
    shown = answer_of(ranked(tmp_path / "ranked", CLASSES, "macro_f1"))
    assert "guessing" not in words.headline(shown)
    assert shown.guess
    assert "score" not in shown.guess.model_dump()


@pytest.mark.parametrize(
    ("task", "by"),
    [
        (CLASSES, "macro_f1"),
        (CLASSES, "mcc"),
        (CLASSES, "average_precision"),
        ("regression", "spearman"),
    ],
)
def test_methods_are_ranked_by_another_metric(task: str, by: str, tmp_path: Path) -> None:
    """Means are the metric's over seeds, claims over rows its rows', of equal mean; the page
    says by what.
    """
    results = ranked(tmp_path, task, by)
    assert len(results.compared) == 6, [group.reason for group in results.left_out.excluded]
    assert results.quality == f"test_{by}"
    for method in results.methods:
        rows, values = results.row_scores(method), results.values(results.quality)[method]
        assert {seed: of.mean() for seed, of in rows.items()} == pytest.approx(values)
    assert not results.aligned.binary
    answer = answer_of(results)
    assert answer.score.title == results.definitions[f"test_{by}"].title
    if task == CLASSES:
        assert (answer.methods[0].name, answer.guess and answer.guess.below) == ("full", ("lora",))
    text = str(page_of(results))
    assert answer.score.title in text
    assert "rank_by" in text


def test_a_rare_row_may_count_as_much_as_its_class(tmp_path: Path) -> None:
    """The span that tests allow for rare rows is that of a row of the rarest class."""
    aligned = ranked(tmp_path, CLASSES, "macro_f1").aligned
    rows = np.concatenate([of for by in (aligned.rows or {}).values() for of in by.values()])
    assert np.ptp(rows) <= aligned.span == pytest.approx(5.0)


RANKING = [
    name for name in registry.names("metrics") if registry.plugin("metrics", name).target == "class"
]


@pytest.mark.parametrize(
    ("suite", "by", "words"),
    [
        ("quickstart", "spearman", f"can be ranked by {', '.join(RANKING)}"),
        ("quickstart", "no_such", "settings.rank_by is 'no_such'"),
        ("faq", "macro_f1", "nothing but the task's score"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(suite: str, by: str, words: str) -> None:
    """When the suite is read; with the metrics that fit."""
    with pytest.raises(UserError, match=words):
        load_suite(suite, [f"rank_by={by}"])


def test_average_precision_is_of_two_classes() -> None:
    """Predictions have the probability of the right class alone."""
    settings = load_suite("quickstart", ["rank_by=average_precision"]).settings
    with pytest.raises(UserError, match="two classes, and there are 4"):
        make_task(settings.task, ("a", "b", "c", "d"), rank_by=settings.rank_by)


# Rows in groups


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Five methods with five seeds, right or wrong on 1,000 rows in 100 groups."""
    groups = np.repeat(np.arange(100), np.resize((1, 5, 10, 24), 100))
    return Results.load(
        grouped(made_records.write(tmp_path_factory.mktemp("grouped"), sweep()), groups)
    )


def test_verdicts_are_by_group(results: Results, tmp_path: Path) -> None:
    """Every pair's p is that of the seeds x groups table, in which the largest group can change
    most.
    """
    assert results.aligned.span == pytest.approx(24 / 10)
    for c in results.comparisons("test_accuracy"):
        table = np.array(
            [results.aligned.units[c.a][s] - results.aligned.units[c.b][s] for s in results.seeds]
        )
        assert c.p == pytest.approx(
            max(one.p() for one in statistics.crossed_evidence(table, span=2.4))
        )
    assert results.grid("test_accuracy") == 1 / 1000
    plain = Results.load(made_records.write(tmp_path, sweep()))
    assert {c.p for c in plain.comparisons("test_accuracy")} != {
        c.p for c in results.comparisons("test_accuracy")
    }
    assert plain.values("test_accuracy") == results.values("test_accuracy")


def test_what_is_below_guessing_is_not_shown_above_it() -> None:
    """However sure the difference is, over seeds and over rows."""
    gains = 0.01 * np.random.default_rng(0).standard_normal((4, 400))
    assert beats_guess([0.5 + gains, -0.5 - gains], 1.0, 1, 0.0) == ["seeds", "not"]
