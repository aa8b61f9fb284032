"""Pages of language models: the base model beside, answers, forgetting, and scores that are a
loss or no share.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_sections

from helpers import made_records, made_task_records
from hpml_bench.builtin.probes.forgetting import METRICS as FORGETTING
from hpml_bench.builtin.scorers.exact import Exact
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import read
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.verdicts import judge
from hpml_bench.page.answer import words
from hpml_bench.page.render import write_report
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.plugins.task import make_task
from hpml_bench.records.files import RECORD
from hpml_bench.records.predictions import Predictions, TextAnswers
from hpml_bench.records.run import Consumed, Declared, Point, RunRecord
from hpml_bench.suite.settings import DatasetSpec, TaskSpec
from hpml_bench.suite.suite import Margin

RIGHT = {"none": 0.1, "lora": 0.7, "full": 0.75}
ROWS = 300
HOSTILE = "<script>alert(1)</script> [x](javascript:alert(2)) \x1b[31m ::error::"


def predictions(item: RunRecord, share: float) -> Predictions:
    """Return answers of which about this share is right, the same rows being hard for every
    method.
    """
    hard = np.random.default_rng(5).random(ROWS)
    luck = np.random.default_rng([item.spec.seed, len(item.spec.method.name)]).normal(0, 0.05, ROWS)
    right = hard + luck < share
    tokens = tuple(np.array([7, 8, 9][: 1 + row % 3], dtype=np.int32) for row in range(ROWS))
    texts = TextAnswers(
        question=tuple(f"Question {row}?" for row in range(ROWS)),
        expected=tuple(f"answer {row}" for row in range(ROWS)),
        bytes=np.full(ROWS, 9),
        answer=tuple(f"Answer {row}." if ok else HOSTILE for row, ok in enumerate(right)),
        tokens=np.full(ROWS, 3),
        cut=np.zeros(ROWS, dtype=bool),
        near_tie=np.zeros(ROWS, dtype=bool),
    )
    losses = np.array([len(row) for row in tokens]) * (2.0 - share) + 0.2 * hard
    return Predictions(np.arange(ROWS), tokens, tokens, losses.astype(np.float32), texts)


def write(folder: Path, scorer: str | None, seeds: int = 4, **changes: Any) -> Path:
    """Write the runs of three methods, of which one trained nothing."""
    task = TaskSpec(name="causal_lm", options={"scorer": scorer} if scorer else {})
    settings = made_records.SETTINGS.model_copy(
        update={"task": task, "test_samples": ROWS, **changes}
    )
    for item in made_records.sweep(("lora", "full", "head"), seeds, settings=settings):
        name = {"head": "none"}.get(item.spec.method.name, item.spec.method.name)
        method = item.spec.method.model_copy(update={"name": name, "method": name})
        spec = item.spec.model_copy(update={"method": method})
        run = item.model_copy(update={"spec": spec, "run_id": spec.run_id})
        made, found, own = make_task(task), predictions(run, RIGHT[name]), dict(run.metrics)
        if made.decoding is None and found.texts is not None:
            found = replace(
                found, texts=replace(found.texts, answer=None, tokens=None, cut=None, near_tie=None)
            )
        points = [Point(metric="validation_loss", step=100, value=1.0), *made_records.steps_of(run)]
        own["forgetting"] = 0.5 + 0.1 * spec.seed
        if name == "none":
            nothing = Consumed(steps=0, samples=0, real_tokens=0, padded_tokens=0, order="-")
            phases = {metric.name: metric.phase for metric in run.definitions}
            own = {key: value for key, value in own.items() if phases.get(key) != "train"}
            own |= {"trainable_parameters": 0, "forgetting": 0.0}
            points, run = points[:1], run.model_copy(update={"consumed": nothing})
        run = run.model_copy(update={"metrics": own})
        made_task_records.commit(folder / spec.run_id, run, made, found, points, FORGETTING)
    return folder


def section(name: str, results: Results) -> Section:
    """Return a section."""
    found = report_sections.section(name, results)
    assert found is not None
    return found


def test_one_run_of_the_base_model_stands_for_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers alike with every seed: verdicts are those of a run for each, and nothing says
    that seeds lack.
    """
    made, first = predictions, {"name": "none"}

    def alike(item: RunRecord, share: float) -> Predictions:
        spec = item.spec.model_copy(
            update={"seed": 0} if item.spec.method.name in first.values() else {}
        )
        return made(item.model_copy(update={"spec": spec}), share)

    monkeypatch.setattr(f"{__name__}.predictions", alike)
    each = Results.load(write(tmp_path / "each", "exact"))
    folder = write(tmp_path / "one", "exact")
    for seed in (1, 2, 3):
        shutil.rmtree(next(folder.glob(f"none-s{seed}-*")))
    one = Results.load(folder)
    assert one.verdicts.score == each.verdicts.score
    assert [c.difference.n for c in one.verdicts.score] == [4, 4, 4]
    assert one.verdicts.costs == each.verdicts.costs
    (compared,) = assemble(read([folder]))
    assert [c.verdict for c in judge(compared).score] == [c.verdict for c in one.verdicts.score]
    answer = answer_of(one)
    assert (answer.shared, answer.failures) == (None, ())
    assert answer.by_name["none"].values["score"] == answer_of(each).by_name["none"].values["score"]
    assert "seed" not in " ".join(words.verdict(answer, "none").more)


def test_answers_are_text(tmp_path: Path) -> None:
    """No answer of a table of theirs runs or links."""
    folder = write(tmp_path, "exact")
    assert "alert(1)" in report_sections.said("answers", Results.load(folder))
    write_report(folder)
    page, markdown = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert not any(text in page for text in ("<script>alert(1)", 'href="javascript'))
    assert not any(text in markdown for text in ("<script>", "[x](javascript"))
    assert "\x1b" not in page + markdown


@pytest.mark.parametrize(
    ("scorer", "largest", "why"),
    [
        ("f1", 1.0, ""),
        ("f1", 0.01, "two methods differ by "),
        ("f1", 2.0, "it is above the score's range"),
        ("exact", 0.5, "the score is no mean of rows' real scores in a range"),
    ],
)
def test_a_declared_largest_difference_of_a_row_is_used_or_said_not_to_be(
    scorer: str, largest: float, why: str, tmp_path: Path
) -> None:
    """It takes the range's place in tests of pairs, not in a mean's own interval; the page says
    who declared it.
    """
    margin = Margin(largest_difference=largest)
    for path in write(tmp_path, scorer).glob(f"*/{RECORD}"):
        record = RunRecord.model_validate_json(path.read_bytes())
        declared = record.model_copy(update={"declared": Declared(seeds=4, margin=margin)})
        path.write_text(declared.model_dump_json())
    found = Results.load(tmp_path)
    assert found.not_largest.startswith(why)
    assert bool(found.not_largest) == bool(why)
    assert found.aligned.span == 1.0
    assert found.aligned.difference_span == (1.0 if why else largest)
    unused = f", isn't used: {why}" if why else "."
    assert f", declared in the suite{unused}" in section("definitions", found).model_dump_json()


def test_a_record_keeps_scores_of_a_former_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are compared by the scores they recorded, row by row, and named by their own
    definition.
    """
    write(tmp_path / "exact", "exact")
    before = Results.load(tmp_path / "exact")
    recorded = before.values("test_score")
    assert recorded["lora"][0] > 0
    monkeypatch.setattr(Exact, "score", lambda *_: 0.0)
    assert Results.load(tmp_path / "exact").absent, (
        "under one definition, scores must be those of the answers"
    )
    monkeypatch.setattr(Exact, "definition", "Nothing is right any more.")
    found = Results.load(tmp_path / "exact")
    assert (found.absent, found.values("test_score")) == ((), recorded)
    assert (found.aligned.units["lora"][0] == before.aligned.units["lora"][0]).all()
    assert found.definitions["test_score"].definition != Exact.definition


def test_pefts_figures_stand_beside_scores_of_its_own_definition_alone(tmp_path: Path) -> None:
    """On its data set; by another scorer the same answers would have another score."""
    for scorer, beside in (("peft_metamath", True), ("number", False)):
        found = Results.load(
            write(tmp_path / scorer, scorer, 1, dataset=DatasetSpec(name="metamath"))
        )
        assert (report_sections.section("document", found) is not None) == beside


def test_answers_that_were_cut_before_they_said_anything_are_told_by_method(tmp_path: Path) -> None:
    """A thinking base model's 0 is no wrong answer: the share, the mean over seeds, of those
    methods that have some.
    """
    found = Results.load(write(tmp_path / "cut", "exact", 2))
    (table, *_) = section("language", found).blocks
    assert isinstance(table, Table)
    assert table.notes == ()
    stored, rows = found.stored, np.arange(ROWS)
    first, second = (record.run_id for record in found.runs("none"))
    for run, emptied, cut in ((first, rows < ROWS, rows < ROWS), (second, rows < 150, rows < 60)):
        answers = stored[run].texts
        assert answers is not None
        assert answers.answer is not None
        texts = tuple(
            " " if empty else text for empty, text in zip(emptied, answers.answer, strict=True)
        )
        stored[run] = replace(stored[run], texts=replace(answers, answer=texts, cut=cut))
    (table, *_) = section("language", found).blocks
    assert isinstance(table, Table)
    (note,) = table.notes
    assert "counts as empty: none 60.0 %. A larger max_new_tokens" in note


def test_a_method_most_of_whose_answers_were_cut_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it, others seem better by answering briefly; half of the answers are no caution."""
    made = predictions

    def cut(run: RunRecord, share: float) -> Predictions:
        found = made(run, share)
        assert found.texts is not None
        some = np.arange(ROWS) < ROWS * (0.75 if run.spec.method.name == "none" else 0.5)
        return replace(found, texts=replace(found.texts, cut=some))

    monkeypatch.setattr(f"{__name__}.predictions", cut)
    page = str(section("cautions", Results.load(write(tmp_path / "cut", "exact", 2))))
    assert "Most answers were cut at max_new_tokens: none 75%. What others gain" in page
