"""Groups of rows: kept in one split where splits are drawn, part of the data's digest, carried
to the predictions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import starters, tiny
from hpml_bench.builtin.datasets import hub, text_files
from hpml_bench.data.draw import draw, groups_of, whole_groups
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.dataset import LoadedData, make_loader
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import Rows, read_rows
from hpml_bench.plugins.task import make_task
from hpml_bench.records.predictions import read_predictions, write_predictions
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("offline_cache")

SIZES = (1, 2, 7, 3, 1, 5, 4, 9, 2, 6)  # rows of each document, over and over


def documents(rows: int) -> list[str]:
    named = np.repeat(np.arange(rows), np.resize(SIZES, rows))[:rows]
    return [f"document {number}" for number in np.random.default_rng(1).permutation(named)]


def write(path: Path, target: str, rows: int = 160, of: Sequence[str] | None = None) -> str:
    """Write rows that a task can learn, each with its document, and return their URI."""
    random = np.random.default_rng(2)
    named = documents(rows) if of is None else of
    rows = [tiny.row_to_learn(target, random) | {"document": name} for name in named]
    return f"path:{starters.jsonl(path, rows)}"


def settings(folder: Path, task: str, options: dict[str, Any], **changes: Any) -> Settings:
    dataset = {"name": "text_files", "options": {"group": "document"} | options}
    return tiny.task_settings(folder, task, **{"dataset": dataset} | changes)


def drawn(asked: Settings) -> dict[str, list[int]]:
    loaded = make_loader(asked).load(asked, make_task(asked.task).target)
    found = {split: groups_of(rows) for split, rows in draw(loaded, asked).items()}
    return {split: of.tolist() for split, of in found.items() if of is not None}


def test_whole_groups_come_equally_often() -> None:
    """As many groups as together have the rows, none partly; a large one is no likelier than a
    small one.
    """
    groups = np.repeat(np.arange(10), SIZES)
    random = np.random.default_rng(0)
    first = np.zeros(10)
    for _ in range(2000):
        chosen = whole_groups(groups, 1, random)
        (only,) = set(groups[chosen].tolist())
        assert chosen.sum() == SIZES[only]
        first[only] += 1
    assert first.min() > 140
    for count in (1, 5, 17, 40):
        chosen = whole_groups(groups, count, random)
        assert chosen.sum() >= count
        assert not set(groups[chosen].tolist()) & set(groups[~chosen].tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("test_samples", [25, None])
def test_rows_of_a_group_are_in_one_split(
    tmp_path: Path, seed: int, test_samples: int | None
) -> None:
    """Test rows and validation rows split off the training rows share no group with these or
    with each other.
    """
    train = write(tmp_path / "rows.jsonl", "class")
    asked = settings(
        tmp_path,
        "sequence_classification",
        {"train": train},
        data_seed=seed,
        test_samples=test_samples,
    )
    splits = drawn(asked)
    test, validation, learnt = (set(splits[name]) for name in ("test", "validation", "train"))
    assert not test & learnt
    assert not validation & learnt
    assert not test & validation
    assert len(splits["validation"]) == 16
    assert (
        len(splits["test"]) == 25 if test_samples else 16 <= len(splits["test"]) < 16 + max(SIZES)
    )
    assert drawn(asked) == splits
    assert drawn(asked.model_copy(update={"data_seed": seed + 1})) != splits
    fewer = drawn(
        asked.model_copy(update={"train_samples": 24})
    )  # more training rows only add to fewer
    assert fewer | {"train": None} == splits | {"train": None}
    assert splits["train"][:24] == fewer["train"]


def test_other_groups_are_other_data(tmp_path: Path) -> None:
    """The digest of the data has the groups, so that runs with other ones are not compared; none
    without a column.
    """
    train, digests = write(tmp_path / "rows.jsonl", "class"), set()
    for of in (documents(30), [*documents(29), "another"]):
        given = {"train": train, "test": write(tmp_path / "test.jsonl", "class", 30, of)}
        digests.add(prepare(settings(tmp_path, "sequence_classification", given)).digests.data)
    asked = settings(tmp_path, "sequence_classification", {"train": train, "group": None})
    without = tiny.task_settings(
        tmp_path,
        "sequence_classification",
        dataset={"name": "text_files", "options": {"train": train}},
    )
    ids = {tiny.spec().model_copy(update={"settings": one}).run_id for one in (asked, without)}
    assert len(ids) == 1, "`group: null` is what no `group` is"
    plain = prepare(asked)
    assert "groups" not in plain.notes
    assert read_rows(Path(plain.data) / "test").column_names == ["input_ids", "label"]
    assert len({*digests, plain.digests.data}) == 3


@pytest.mark.parametrize(
    "task", ["sequence_classification", "regression", "token_classification", "causal_lm"]
)
def test_groups_reach_the_predictions(tmp_path: Path, task: str, group: Group) -> None:
    """Each test row's own, as small integers, on disk and back; the notes say how many rows are
    in how many.
    """
    target = make_task(tiny.task_settings(tmp_path, task).task).target
    asked = settings(
        tmp_path, task, {"train": write(tmp_path / "rows.jsonl", target)}, world_size=1
    )
    done = prepare(asked)
    expected = drawn(asked)["test"]
    assert done.notes["groups"] == f"25 test rows in {len(set(expected))} groups"
    assert done.notes["columns"].endswith("; group from document")
    spec = tiny.spec("full").model_copy(update={"settings": asked})
    trainer = Trainer(assemble(spec, done, group))
    evaluation = trainer.evaluate(Rows(Path(done.data) / "test", done.pad_id), "test", 0)
    write_predictions(tmp_path, evaluation.predictions, trainer.task.scores(evaluation.predictions))
    found = read_predictions(tmp_path)
    assert (found.group.dtype, found.group.tolist()) == (np.int32, expected)


def test_rows_left_out_take_their_groups_with_them(tmp_path: Path) -> None:
    """Of a language model's test rows that are too long; the others keep their own."""
    random = np.random.default_rng(3)
    rows = [tiny.row_to_learn("answer", random) | {"document": f"d{n // 2}"} for n in range(30)]
    for place in (0, 7, 8, 20):
        rows[place]["prompt"] = " ".join(["w1"] * 40)
    test = starters.jsonl(tmp_path / "test.jsonl", rows)
    given = {"train": write(tmp_path / "rows.jsonl", "answer"), "test": f"path:{test}"}
    asked = settings(tmp_path, "causal_lm", given, test_samples=30)
    done = prepare(asked)
    left = read_rows(Path(done.data) / "test")
    loaded = make_loader(asked).load(asked, "answer")
    order = draw(loaded, asked)["test"]
    by_question = {
        contents[0]: number
        for contents, number in zip(order["contents"], order["group"], strict=True)
    }
    assert left.num_rows == 26
    assert left.column("group").to_pylist() == [
        by_question[text] for text in left.column("question").to_pylist()
    ]
    assert "26 test rows in 15 groups" in done.notes["groups"]


def load(
    folder: Path, rows: list[dict[str, Any]], kind: type, target: Any = "class", **options: Any
) -> LoadedData:
    """Load rows of a file, or of a repository's."""
    (folder / "rows").mkdir(exist_ok=True)
    file = starters.jsonl(folder / "rows/train.jsonl", rows)
    of_hub = {"dataset": f"path:{file.parent}", "test": None}
    given = of_hub if kind is hub.HubDataset else {"train": f"path:{file}"}
    return kind(kind.Options(**given, **options)).load(tiny.settings(test_samples=2), target)


ROWS = [
    {"topic": f"t{n // 2}", "title": f"title {n // 3}", "text": f"text {n}", "stars": n % 3}
    for n in range(12)
]


@pytest.mark.parametrize("kind", [text_files.TextFiles, hub.HubDataset])
def test_a_column_of_groups_is_no_label(tmp_path: Path, kind: type) -> None:
    """By name or position; it is taken for the label neither by its name nor by its content, and
    for text by name.
    """
    by_name, by_place = (load(tmp_path, ROWS, kind, group=group) for group in ("topic", 1))
    assert (
        by_name.notes["columns"]
        == by_place.notes["columns"]
        == "text from title, text; label from stars; group from topic"
    )
    assert by_name.train[:] == by_place.train[:]
    titled = load(tmp_path, ROWS, kind, group="title")
    assert titled.notes["columns"] == "text from title, text; label from topic; group from title"
    numbered = [{"grade": float(n), "said": f"text {n}", "thread": n // 3} for n in range(12)]
    threads = load(tmp_path, numbered, kind, "number", group="thread")
    assert threads.notes["columns"].startswith("text from said; label from grade")


@pytest.mark.parametrize("kind", [text_files.TextFiles, hub.HubDataset])
def test_mistakes_with_groups_are_told(tmp_path: Path, kind: type) -> None:
    """A column that isn't there, a row without a group, and groups that can't be split."""
    with pytest.raises(
        UserError, match=r"there is no group column 'document'; the columns are 1 'topic'"
    ):
        load(tmp_path, ROWS, kind, group="document")
    with pytest.raises(
        UserError, match=r"row 12 has no group in column 'topic'; fill it or remove the row"
    ):
        load(tmp_path, [*ROWS[:-1], ROWS[-1] | {"topic": None}], kind, group="topic")
    with pytest.raises(
        UserError,
        match=r"its 1 groups are too large to split off 2 test rows; lower test_samples, or",
    ):
        load(tmp_path, [row | {"topic": "one"} for row in ROWS], kind, group="topic", label="stars")


def test_files_that_do_not_fit_their_groups_are_told(tmp_path: Path) -> None:
    """All must have the column; and where too few training rows are left beside whole groups."""
    given = {
        "train": write(tmp_path / "rows.jsonl", "class"),
        "test": f"path:{tmp_path / 'test.jsonl'}",
    }
    (tmp_path / "test.jsonl").write_text('{"text": "w1", "label": "red"}\n')
    with pytest.raises(
        UserError, match=r"test.jsonl: there is no column 'document'; there is 1 'text', 2 'label'"
    ):
        prepare(settings(tmp_path, "sequence_classification", given))
    given = {"train": write(tmp_path / "rows.jsonl", "class", 40, ["a"] * 30 + ["b"] * 10)}
    with pytest.raises(
        UserError,
        match=r"training rows are too few for \d+ validation_samples split off them by whol",
    ):
        drawn(
            settings(
                tmp_path, "sequence_classification", given, validation_samples=12, test_samples=2
            )
        )


def test_copies_are_noted_and_warned_of(tmp_path: Path) -> None:
    """In the notes of every preparation, and as a warning where test rows have some; once
    prepared, the same again.
    """
    uri = write(train := tmp_path / "rows.jsonl", "class", 120)
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join([*lines, *lines[:40]]))
    asked = settings(tmp_path, "sequence_classification", {"train": uri, "group": None})
    done = prepare(asked)
    assert "equal)" in done.notes["copies and near-copies"]
    (warning,) = done.warnings
    assert warning.startswith("copies: of 25 test rows ")
    assert "with dataset.options.group, or remove the copies" in warning
    assert prepare(asked) == done
