"""Samples of lm-evaluation-harness: what is read, in which shapes, and what is named instead of
guessed.

tests/files/lm_eval has samples of a real run (test_lm_eval_run.py), of which variants are made
here.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import called
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import InputScores, read
from hpml_bench.comparison.readers import lm_eval, peft, results
from hpml_bench.system.errors import UserError

KEPT = Path(__file__).parents[1] / "files/lm_eval"
MODEL = "newswire-gpt2"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "out"))


def file(out: Path, pattern: str, model: str = MODEL) -> Path:
    (found,) = (out / model).glob(pattern)
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    text = path.read_text()
    objects = [
        json.loads(one) for one in (text.splitlines() if path.suffix == ".jsonl" else [text])
    ]
    for one in objects:
        change(one)
    path.write_text("".join(f"{json.dumps(one)}\n" for one in objects))


def cloze(out: Path, metric: str | None = None, task: str = "news_cloze") -> InputScores:
    """Return the task of choices, or another one."""
    return next(one for one in lm_eval.read(out, metric) if one.lines["dataset"].iat[0] == task)


def test_a_folder_gives_a_data_set_for_each_task() -> None:
    """Systems are models, rows documents, `where` file and line; the page learns which metric
    was taken.
    """
    assert lm_eval.claims(KEPT)
    assert lm_eval.claims(file(KEPT, "samples_news_cloze_*"))
    assert not peft.claims(KEPT)
    assert not results.claims(KEPT)
    found = {one.lines["dataset"].iat[0]: one for one in lm_eval.read(KEPT)}
    assert list(found) == ["news_cloze", "news_words"]
    one = found["news_cloze"]
    assert (one.score.name, one.score.better, one.score.low, one.score.high) == (
        "acc",
        "higher",
        0.0,
        1.0,
    )
    assert set(one.lines["system"]) == {MODEL, f"{MODEL}-noisy"}
    assert (
        one.lines.groupby("system")["row"].apply(list).tolist() == [[str(n) for n in range(12)]] * 2
    )
    assert one.lines["where"].iat[0] == f"{file(KEPT, 'samples_news_cloze_*')}, line 1"
    assert one.lines.groupby("row")["content"].nunique().eq(1).all()
    assert one.remarks == (
        "news_cloze is compared by acc; its samples also have acc_norm (--metric).",
    )


def test_a_model_without_a_name_is_its_folder(out: Path) -> None:
    """A name that is no text would make one system of two; samples without a results file are
    refused.
    """
    for name in ({"path": "gpt2"}, ""):
        for path in out.rglob("results_*.json"):
            edit(path, lambda one, name=name: one.update(model_name=name))
        assert set(cloze(out).lines["system"]) == {MODEL, f"{MODEL}-noisy"}
    for path in out.glob("*/results_*"):
        path.unlink()
    with pytest.raises(
        UserError,
        match=r"there is no results_2026-.*json beside it, which lm_eval writes; give both",
    ):
        lm_eval.read(out)


def test_a_metric_is_chosen_with_or_without_its_filter() -> None:
    """Tasks without it give nothing; a metric that no task has is an error with those that there
    are.
    """
    assert [one.score.name for one in lm_eval.read(KEPT, "acc_norm")] == ["acc_norm"]
    said = (
        "no task has the metric bleu; there is news_cloze: acc, acc_norm; news_words: exact_match"
    )
    with pytest.raises(UserError, match=said):
        lm_eval.read(KEPT, "bleu")


def test_filters_of_a_task_are_no_data_sets_of_their_own(out: Path) -> None:
    """The same answers count once: through the first filter, or the one of --metric; the page names
    the others.

    The first is that of most models, and those without it are named; inputs through different
    filters aren't compared.
    """
    for metric, chosen, other in (
        (None, "whole", "word"),
        ("exact_match", "whole", "word"),
        ("exact_match,word", "word", "whole"),
    ):
        one = lm_eval.read(out, metric)[-1]
        assert (set(one.lines["dataset"]), one.score.name) == (
            {"news_words"},
            f"exact_match,{chosen}",
        )
        said = (
            f"news_words is compared by exact_match,{chosen}; its samples also have "
            f"exact_match,{other} (--metric)."
        )
        assert one.remarks == (said,)
    path = file(out, "samples_news_words_*")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["filter"] != "whole"))
    one = lm_eval.read(out)[-1]
    assert (set(one.lines["system"]), one.score.name) == (
        {MODEL, f"{MODEL}-noisy"},
        "exact_match,word",
    )
    one = lm_eval.read(out, "exact_match,whole")[-1]
    assert set(one.lines["system"]) == {f"{MODEL}-noisy"}
    assert f"Without samples of news_words through filter whole: {MODEL}." in one.remarks
    both = [lm_eval.read(out / name)[-1] for name in (MODEL, f"{MODEL}-noisy")]
    with pytest.raises(
        UserError, match=r"exact_match,whole and .* exact_match,word, of one data set; choose one"
    ):
        assemble(both)


def test_a_row_of_another_document_is_an_error(out: Path) -> None:
    """One number with two documents is never paired; the sentence names both places."""
    edit(
        file(out, "samples_news_cloze_*"),
        lambda one: one.update(doc_hash="0" * 64) if one["doc_id"] == 5 else None,
    )
    said = (
        r"noisy/samples_news_cloze_.*line 6: row '5' is another one than in .*gpt2/samples_.*line "
        r"6, by their"
    )
    with pytest.raises(UserError, match=said):
        assemble(lm_eval.read(out))
    with pytest.raises(UserError, match=said):  # also where each model is an input
        assemble([one for name in (MODEL, f"{MODEL}-noisy") for one in lm_eval.read(out / name)])


@pytest.mark.parametrize(
    ("value", "said"),
    [(float("nan"), "nan"), ("1.0", "'1.0'"), (None, "None"), ([1, 2], r"\[1, 2\]")],
    ids=str,
)
def test_a_value_that_is_no_number_is_named(value: object, said: str, out: Path) -> None:
    """With file, line, row and metric."""
    edit(
        file(out, "samples_news_cloze_*"),
        lambda one: one.update(acc=value) if one["doc_id"] == 3 else None,
    )
    with pytest.raises(UserError, match=f"line 4: acc of row 3 is {said}, and must be a number"):
        lm_eval.read(out)


@pytest.mark.parametrize("cut", ["samples_news_cloze_*", "results_*"])
def test_a_file_that_is_cut_off_is_named(cut: str, out: Path) -> None:
    """Samples with the line; a results file as a whole."""
    path = file(out, cut)
    path.write_text(path.read_text()[:-40])
    assert lm_eval.claims(out)
    with pytest.raises(UserError, match=f"{path.name}.*isn't JSON"):
        lm_eval.read(out)


REMARKED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "figures that are no means of the rows": (
        "samples_news_cloze_*",
        lambda one: one.update(acc=1.0 - one["acc"]) if one["doc_id"] == 0 else None,
        f"{MODEL}: the mean of the rows' acc is ",
    ),
    "a row that isn't logged": (
        "results_*",
        lambda one: one["n-samples"]["news_cloze"].update(effective=13),
        f"{MODEL}: 12 rows are logged on news_cloze, and the results file counts 13.",
    ),
    "the first rows alone": (
        "results_*",
        lambda one: one["n-samples"]["news_cloze"].update(original=500),
        f"{MODEL} was evaluated on 12 of news_cloze's 500 rows.",
    ),
    "another version": (
        "results_*",
        lambda one: one["versions"].update(news_cloze=0.5),
        f"Models were evaluated on news_cloze with another version of the task: {MODEL}: 0.5",
    ),
}


@pytest.mark.parametrize("name", REMARKED)
def test_what_rows_and_results_file_disagree_on_is_remarked(name: str, out: Path) -> None:
    """Of that model; scores are compared all the same."""
    pattern, change, said = REMARKED[name]
    edit(file(out, pattern), change)
    one = cloze(out)
    assert [remark for remark in one.remarks if remark.startswith(said)]
    assert not [remark for remark in one.remarks if remark.startswith(f"{MODEL}-noisy")]
    assert one.lines.groupby("system")["row"].count().tolist() == [12, 12]


def later(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Add a later run of the model, its results changed."""
    for path in list((out / MODEL).glob("*_2026*")):
        stem, date = path.name.rsplit("_", 1)
        shutil.copy(path, path.with_name(f"{stem}_2027{date[4:]}"))
    edit(file(out, "results_2027*"), change)


def test_the_newest_of_several_runs_counts_and_the_others_are_named(out: Path) -> None:
    """By the date in the name."""
    later(out, lambda one: None)
    remark = (
        f"{MODEL} was evaluated on news_cloze before {file(out, 'samples_news_cloze_2027*').name}"
    )
    one = cloze(out)
    assert one.lines.groupby("system")["row"].count().tolist() == [12, 12]
    assert all("_2027" in where for where in one.lines[one.lines["system"] == MODEL]["where"])
    assert any(said.startswith(remark) and said.endswith(" is left out.") for said in one.remarks)
    later(out, lambda one: one["n-shot"].update(news_cloze=2))
    one = cloze(out)
    assert one.lines.groupby("system")["row"].count().tolist() == [
        12,
        12,
    ]  # another number of examples is no seed


def test_seeds_of_examples_are_seeds(out: Path) -> None:
    """Two runs that differ in the examples before each row are two seeds of one system."""

    def shots(seed: int) -> Callable[[dict[str, Any]], None]:
        def change(one: dict[str, Any]) -> None:
            one["n-shot"]["news_cloze"], one["config"]["fewshot_seed"] = 5, seed

        return change

    for path in out.glob("*/results_*"):
        edit(path, shots(1))
    later(out, shots(2))
    one = cloze(out)
    assert sorted(one.lines[one.lines["system"] == MODEL]["seed"].unique()) == ["1", "2"]
    assert any("examples before each row" in remark for remark in one.remarks)


def test_a_direction_comes_from_the_results_file(out: Path) -> None:
    """Where lower is better, and where models disagree or nothing is said; of accuracies more is
    better then.
    """
    for path in out.glob("*/results_*"):
        edit(path, lambda one: one["higher_is_better"]["news_cloze"].update(acc_norm=False))
    assert cloze(out, "acc_norm").score.better == "lower"
    edit(
        file(out, "results_*"),
        lambda one: one["higher_is_better"]["news_cloze"].update(acc_norm=True),
    )
    with pytest.raises(UserError, match="disagree on whether more acc_norm is better"):
        lm_eval.read(out, "acc_norm")
    for path in out.glob("*/*"):
        text = path.read_text()
        path.write_text(
            text.replace("acc_norm", "oddness").replace('"higher_is_better": {', '"nothing": {')
        )
    assert cloze(out).score.better == "higher"
    with pytest.raises(UserError, match="doesn't say whether more oddness is better"):
        lm_eval.read(out, "oddness")


def test_samples_of_older_versions_are_refused(out: Path) -> None:
    """Before 0.4.6 they listed no metrics, and were other files beside results.json: what to run
    is said.
    """
    for path in out.glob("*/samples_*"):
        edit(path, lambda one: [one.pop(key) for key in ("filter", "metrics")])
    with pytest.raises(
        UserError, match=r"its samples name no metrics; evaluate with lm_eval 0\.4\.6 or newer"
    ):
        read([out])
    for path in [*out.glob("*/*")]:
        path.rename(
            path.with_name(
                "results.json" if path.suffix == ".json" else f"model_{path.name[8:18]}.jsonl"
            )
        )
    with pytest.raises(
        UserError, match=r"has no samples_TASK_DATE\.jsonl; give the samples that lm_eval writes"
    ):
        read([out])


def as_task(
    out: Path, task: str, change: Callable[[dict[str, Any]], object], old: str = "news_cloze"
) -> None:
    """Rename a task, and change its samples."""
    for path in list(out.glob(f"*/samples_{old}_*")):
        edit(path, change)
        path.rename(path.with_name(path.name.replace(old, task)))
    for path in out.glob("*/results_*"):
        path.write_text(path.read_text().replace(old, task))


def test_known_tasks_group_their_rows(out: Path) -> None:
    """Questions on one paragraph of MultiRC depend on each other: verdicts are over paragraphs, as
    the page says.

    Documents of another making lack the field: without --group nothing is presumed of them.
    """
    as_task(out, "drop", lambda one: None)
    assert "group" not in cloze(out, task="drop").lines
    as_task(
        out, "multirc", lambda one: one["doc"].update(idx={"paragraph": one["doc_id"] // 4}), "drop"
    )
    one = cloze(out, task="multirc")
    assert (
        one.lines.groupby("system")["group"].apply(list).tolist()
        == [["0"] * 4 + ["1"] * 4 + ["2"] * 4] * 2
    )
    assert "Rows of multirc are grouped by idx.paragraph of their documents." in one.remarks
    assert assemble([one])[0].group_count == 3


def test_group_names_a_field_that_each_document_must_have(out: Path) -> None:
    """A row without the field ends the command with its line; a table has a column for it, as a
    sentence says.
    """
    for path in out.glob("*/samples_*"):
        edit(path, lambda one: one["doc"].update(of={"page": "p" * 100 + str(one["doc_id"] % 2)}))
    groups = [one.lines["group"] for one in read([out], None, "of.page")]
    assert [(of.nunique(), of.str.len().max()) for of in groups] == [
        (2, 16)
    ] * 2  # the digest of a long text
    edit(
        file(out, "samples_news_cloze_*"),
        lambda one: one["doc"].pop("of") if one["doc_id"] == 3 else None,
    )
    with pytest.raises(
        UserError,
        match=r"line 4: the document has no of\.page, by which rows are grouped; give files",
    ):
        lm_eval.read(out, group="of.page")
    table = out / "scores.csv"
    table.write_text("system,row,score\na,1,1\nb,1,0\n")
    with pytest.raises(
        UserError,
        match="--group is for samples of lm_eval; a table has its groups in a column group",
    ):
        read([table], None, "title")


@pytest.mark.parametrize(
    ("groups", "scored", "block"),
    [
        ({"mmlu": ["mmlu_stem"], "mmlu_stem": ["news_cloze"]}, ["mmlu", "mmlu_stem"], "mmlu"),
        ({"board": ["board_bbh"], "board_bbh": ["news_cloze"]}, ["board_bbh"], "board_bbh"),
        ({"news_cloze": []}, [], ""),
        ({"a": ["b", "news_cloze"], "b": ["a"]}, ["b"], "b"),
        ({"a": 3, "b": [None]}, ["a"], ""),
        ([], [], ""),
    ],
    ids=["topmost", "without a score of its own", "a task alone", "a circle", "odd", "none"],
)
def test_tasks_of_a_group_are_a_block(
    groups: Any, scored: list[str], block: str, out: Path
) -> None:
    """The widest group that has a score in the results file; one that only lists benchmarks has
    none.
    """
    for path in out.glob("*/results_*"):
        edit(
            path,
            lambda one: one.update(
                group_subtasks=groups, groups={name: {"acc,none": 0.5} for name in scored}
            ),
        )
    assert cloze(out).block == block
    assert assemble([cloze(out)])[0].block == block


def test_parts_of_a_known_benchmark_are_a_block_without_its_group(out: Path) -> None:
    """Where single subjects were asked for."""
    as_task(out, "mmlu_anatomy", lambda one: None)
    blocks = {one.lines["dataset"].iat[0]: one.block for one in lm_eval.read(out)}
    assert blocks == {"mmlu_anatomy": "mmlu", "news_words": ""}


def test_the_page_over_tasks_counts_a_group_once(out: Path, tmp_path: Path) -> None:
    """Eight subjects and another task are two data sets: too few for a test; rows are grouped as
    asked.
    """
    for path in list(out.glob("*/samples_news_cloze_*")):
        for n in range(8):
            shutil.copy(path, path.with_name(path.name.replace("news_cloze", f"mmlu_{n}")))
        path.unlink()
    for path in out.glob("*/results_*"):
        edit(
            path,
            lambda one: one["higher_is_better"].update(
                {f"mmlu_{n}": {"acc": True} for n in range(8)}
            ),
        )
    called("compare", out, "--out", tmp_path / "page", "--group", "text", "--format", "md")
    page = (tmp_path / "page" / "report.md").read_text()
    assert "8 tasks of mmlu count as one: systems are ranked by their mean rank over these." in page
    assert "2 data sets can't rank systems: take 6 or more." in page
    assert "mmlu (8 tasks as one)" in page
    third = (tmp_path / "page" / "mmlu_3" / "report.md").read_text().replace("\\", "")
    assert "Rows of mmlu_3 are grouped by text of their documents." in third


@pytest.mark.parametrize("name", ["mine.jsonl", "samples_news_cloze (1).jsonl"])
def test_samples_under_another_name_are_refused(name: str, out: Path) -> None:
    """As a table they would be compared without checks of documents, filters and direction."""
    path = file(out, "samples_news_cloze_*")
    with pytest.raises(
        UserError, match="keep the name that lm_eval gave it, beside its results file"
    ):
        read([path.rename(path.with_name(name))])


def test_results_without_samples_are_refused(out: Path) -> None:
    """Their means have no rows: the sentence says what to give, also where samples lie beside
    the file.
    """
    for given in (file(out, "results_*"), out):
        with pytest.raises(
            UserError, match=r"; give the samples that lm_eval writes with --log_samples"
        ):
            read([given])
        for samples in out.rglob("*.jsonl"):
            samples.unlink()
    other = out.parent / "samples_x_2026-01-01T00-00-00.jsonl"
    other.write_text('{"a": 1}\n')
    (out.parent / "results_2026-01-01T00-00-00.json").write_text("{}")
    with pytest.raises(UserError, match="line 1: there is no doc_id"):
        read([other])
