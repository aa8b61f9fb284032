"""Rare classes: what guessing scores is the headline, and a suite may rank by a metric that rare classes count in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import made_task_records
from helpers.made_records import SETTINGS
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Digests, protocol_id
from hpml_bench.report.answer import words
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.pictures import axes
from hpml_bench.report.pictures.screen import pictures
from hpml_bench.report.render import page_of
from hpml_bench.report.results import Results
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

CLASSES = "sequence_classification"


def ranked(folder: Path, task: str, by: str | None = None) -> Results:
    return Results.load(made_task_records.write(folder, task, ("lora", "full"), 3, by))


def test_what_guessing_scores_is_the_headline(tmp_path: Path) -> None:
    """No method is above the most frequent class's 90 %; no axis goes beyond 100 %."""
    answer = answer_of(ranked(tmp_path / "plain", CLASSES))
    assert words.headline(answer) == "No method beats guessing (90.0 % accuracy)."
    assert max(picture.drawn.y.high for picture in pictures(answer)) <= 100.0
    below = answer.guess.below if answer.guess else ()
    ahead = answer.model_copy(update={"guess": answer.guess and answer.guess.model_copy(update={"score": 89.0})})
    assert set(below) == {"lora", "full"}
    assert words.headline(ahead) == "No method is shown to beat guessing (89.0 % accuracy)."
    shown = answer_of(ranked(tmp_path / "ranked", CLASSES, "macro_f1"))
    assert "guessing" not in words.headline(shown)
    assert shown.guess
    assert "score" not in shown.guess.model_dump()


@pytest.mark.parametrize(("values", "ends"), [
    ([97.0, 98.0], (96.9, 98.1)), ([90.0, 99.9], (89.01, 100.0)), ([98.0], (88.2, 100.0)), ([0.0, 60.0], (0.0, 66.0)),
    ([100.0], (90.0, 100.0)), ([99.0, 101.0], (98.8, 101.2)),
])  # fmt: skip
def test_an_axis_of_shares_ends_at_their_ends(values: list[float], ends: tuple[float, float]) -> None:
    """Unless a value lies beyond."""
    made = axes.axis("accuracy", values, share=0.1, within=axes.ends_of("%"))
    assert (made.low, made.high) == pytest.approx(ends)


@pytest.mark.parametrize(("task", "by"), [
    (CLASSES, "macro_f1"), (CLASSES, "mcc"), (CLASSES, "average_precision"), ("regression", "spearman"),
])  # fmt: skip
def test_methods_are_ranked_by_another_metric(task: str, by: str, tmp_path: Path) -> None:
    """Means are the metric's over seeds, claims over rows its rows', of equal mean; the page says by what."""
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


def test_the_metric_is_part_of_the_protocol_where_one_is_named() -> None:
    """Settings without one are written, and hashed, as before the key existed."""
    digests = Digests(weights="a", tokenizer="b", data="c")
    plain, other = SETTINGS, Settings.model_validate(SETTINGS.model_dump() | {"rank_by": "macro_f1"})
    assert "rank_by" not in plain.model_dump_json()
    assert protocol_id(plain, digests) != protocol_id(other, digests)
    method = load_suite("quickstart").method("full")
    ids = {RunSpec(suite="s", settings=of, method=method, seed=0).run_id for of in (plain, other)}
    assert len(ids) == 2


@pytest.mark.parametrize(("suite", "by", "words"), [
    ("quickstart", "spearman", "can be ranked by average_precision, brier, macro_f1, mcc"),
    ("quickstart", "no_such", "settings.rank_by is 'no_such'"), ("faq", "macro_f1", "nothing but the task's score"),
])  # fmt: skip
def test_a_metric_that_does_not_fit_is_refused(suite: str, by: str, words: str) -> None:
    """When the suite is read; with the metrics that fit."""
    with pytest.raises(UserError, match=words):
        load_suite(suite, [f"rank_by={by}"])


def test_average_precision_is_of_two_classes() -> None:
    """Predictions have the probability of the right class alone."""
    settings = load_suite("quickstart", ["rank_by=average_precision"]).settings
    with pytest.raises(UserError, match="two classes, and there are 4"):
        make_task(settings.task, ("a", "b", "c", "d"), rank_by=settings.rank_by)
