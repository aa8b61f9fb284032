"""The user's rows: which file is which split, and what is learnt from a row: a class, a number,
tags or an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import (
    LABEL_NAMES,
    NUMBER_NAMES,
    SAMPLE_ROWS,
    TAG_NAMES,
    WORD_NAMES,
    Columns,
    column_errors_as_user_errors,
    column_named,
    counts_rows,
    first_named,
    is_float,
    label_candidates,
    listed,
    short,
    stray,
    without_strays,
)
from hpml_bench.data.conversations import TEXT_NAMES, find_turns, preferences
from hpml_bench.data.files import file_of, read_file, read_repository, sentences_of
from hpml_bench.data.numbers import Notation, notation_of, plain_number
from hpml_bench.data.tables import SPLIT_NAMES, find, split_by, split_of
from hpml_bench.plugins.dataset import Target
from hpml_bench.starter.model import Model, source_of
from hpml_bench.suite.registry import validate_options
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = tuple(SPLIT_NAMES)  # in the order of files that no name assigns
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage")
MOST_NUMBERED = 20  # most different whole numbers of a column that are taken for classes
CHOSEN = ("chosen", "rejected")  # columns of preferences
ONLY_NUMBERS = frozenset(NUMBER_NAMES) - frozenset(LABEL_NAMES)
"""Names of columns that are numbers, however few different ones there are."""


@dataclass(frozen=True)
class Data:
    """The data as a suite names them, with the training rows."""

    dataset: str  # the data set that reads them
    options: Mapping[str, Any]  # its options: where the splits are
    train: Dataset
    where: str  # name of the training rows in errors
    read: Any  # all options of the data set: columns and format, as given
    target: Target | None = None  # what is to be learnt, as given
    named: bool = True  # whether columns have names of their own
    label: str | None = None  # column that the file itself calls the label
    split: str | None = None  # column that names each row's split
    why: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # option -> the reasons for it

    @property
    def name(self) -> str:
        return (
            str(self.options.get("dataset") or self.options["train"])
            .removeprefix("path:")
            .partition("#")[0]
        )

    @cached_property
    def cells(self) -> dict[str, list[Any]]:
        """Columns with their first cells; that of the splits is left out."""
        sample: dict[str, list[Any]] = self.train[:SAMPLE_ROWS]
        return {name: cells for name, cells in sample.items() if name != self.split}

    def numbers(self, name: str) -> set[float]:
        """Return the different numbers of a column; none where a cell is something else."""
        cells = [cell for cell in self.cells[name] if cell not in ("", None)]
        if any(isinstance(cell, bool | list | dict) for cell in cells):
            return set()
        if all(is_float(str(cell)) for cell in cells):
            return set(map(float, cells))
        notation = notation_of(map(str, cells), plain_number)
        if notation is None:
            return set()
        numbers = (plain_number(str(cell), notation.decimal_mark) for cell in cells)
        return {number for number in numbers if number is not None}

    def is_id(self, name: str) -> bool:
        return counts_rows(name, self.cells[name])

    def stray(self, name: str) -> str | None:
        """Return the sentence on the first cell that is no number of a column of numbers; None for
        other columns.
        """
        found = stray(name, self.cells[name])
        if found is None or found.distinct <= MOST_NUMBERED:  # classes, one of which has a name
            return None
        return (
            f"{found.sentence}; correct such cells, or leave their rows out with --task regression "
            f"--label {name} and task.options.bad_rows: drop"
        )

    def doubt(self, name: str) -> str:
        if self.is_id(name):
            return " (which counts the rows)"
        return (
            " (which holds mappings)"
            if any(isinstance(cell, dict) for cell in self.cells[name])
            else ""
        )

    def lists(self, *kinds: type) -> list[str]:
        """Return the columns of lists that begin with a value of such a kind."""
        firsts = {
            name: cells[0] for name, cells in self.cells.items() if isinstance(cells[0], list)
        }
        return [name for name, first in firsts.items() if first and isinstance(first[0], kinds)]

    def find(self, target: Target, **columns: Any) -> Columns:
        """Return the columns that a target needs: those that are given, these, and others as a
        suite finds them.
        """
        options = self.read.model_copy(update=columns)
        found = find(self.train, self.where, target, options, named=self.named, split=self.split)
        for name in found.read if target in {"class", "number"} else ():
            if any(
                isinstance(cell, list | dict) for cell in self.cells[name]
            ):  # else read as Python prints them
                raise UserError(
                    f"{self.where}: column '{short(name)}' holds lists or mappings; give plain "
                    "cells, or for a tag per word the columns 'words' and 'tags'"
                )
        return found


def look_at_rows(
    given: Sequence[str], options: Mapping[str, Any], target: Target | None = None
) -> Data:
    """Return the data that files, or one repository of a data set, hold, with options and what
    to learn as given.
    """
    sources = [source_of(name) for name in given]
    folders = [
        uri for uri in sources if uri.startswith("hub:") or Path(uri.removeprefix("path:")).is_dir()
    ]
    if not folders:
        return _files(sources, options, target)
    if len(sources) > 1:
        raise UserError(
            f"--data: {folders[0]} is a data set of several splits; give it alone, or files alone"
        )
    parts, _ = read_repository(uri := folders[0], options.get("config"))
    found = {split: [name for name in parts if split_of(name) == split] for split in SPLITS}
    train = (found["train"] or list(parts))[0]
    own: dict[str, Any] = {"dataset": uri, "train": train}
    listing = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in parts.items())
    why: dict[str, tuple[str, ...]] = {"train": (f"splits there are: {listing}",)}
    for split in ("test", "validation"):
        own[split] = found[split][0] if found[split] and found[split][0] != train else None
        why[split] = (
            () if own[split] else ("none of that name; rows are split off the training rows",)
        )
    read = validate_options("datasets", "hub", {**own, **options}, "dataset.options")
    return Data("hub", own, parts[train], f"{uri} {train}", read, target, why=why)


def _files(sources: Sequence[str], options: Mapping[str, Any], target: Target | None) -> Data:
    splits, how = _assigned(sources)
    why = dict.fromkeys(splits, how)
    read: Any = validate_options("datasets", "text_files", {**splits, **options}, "dataset.options")
    rows, layout = read_file(file := file_of(splits["train"]), read)
    column = read.split if len(sources) == 1 else None
    if (
        column is None
        and len(sources) == 1
        and (name := first_named(rows.column_names, SPLIT_COLUMNS))
    ):
        named = {split_of(str(cell)) for cell in rows.unique(name)}
        if "train" in named and len(named) > 1 and None not in named:
            column, splits = name, splits | {"split": name}
            why["split"] = (
                "its cells name the splits; without this line all rows are training rows",
            )
    if column is not None:
        column = column_named(column, rows.column_names, str(file), "split")
        rows = split_by(rows, str(file), column).train[0]
    if target in {None, "tags"}:
        rows = sentences_of(rows)
    has_names, label = (True, None) if layout is None else (layout.named, layout.label)
    return Data("text_files", splits, rows, str(file), read, target, has_names, label, column, why)


def _assigned(sources: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return split -> source, and the reason, where there are several."""
    if len(sources) > len(SPLITS):
        raise UserError(
            f"--data: {len(sources)} files are given; join them to one file per split: "
            f"{', '.join(SPLITS)}"
        )
    if len(set(sources)) < len(sources):
        raise UserError(
            f"--data: {sources[-1].removeprefix('path:')} is given twice; give each split's file "
            f"once"
        )
    if len(sources) == 1:
        return {"train": sources[0]}, ()
    named = [split_of(Path(uri.partition("#")[0]).stem) for uri in sources]
    if len({*named} - {None}) < len(named) - named.count(None):  # two of one name: none counts
        named = [None] * len(sources)
    if not {None, "train"} & {*named}:
        raise UserError(
            f"--data: none of {', '.join(map(repr, named))} is a file of training rows; name one "
            f"train"
        )
    free = iter([split for split in SPLITS if split not in named])
    found = {split or next(free): uri for split, uri in zip(named, sources, strict=True)}
    why = "by the file's name"
    if None in named:
        start = "by its place among the files" + (
            " whose names don't say it" if any(named) else " given"
        )
        why = f"{start}: training, test, validation rows; exchange them if that is wrong"
    return {split: found[split] for split in SPLITS if split in found}, (why,)


@dataclass(frozen=True)
class Learnt:
    """Target that is learnt from a row, with the columns and reasons."""

    target: Target
    columns: Columns
    why: tuple[str, ...] = ("as given",)  # why this, and what else is possible
    # of numbers that are texts: how they are written; None where others or none are learnt
    notation: Notation | None = None


def find_target(data: Data, model: Model) -> Learnt:
    """Return what this model can learn: as given, else tags, conversations, a label by name,
    then by the cells.
    """
    with column_errors_as_user_errors(data.where):
        if not len(data.train):
            raise UserError(f"{data.where}: has column names and no row; give a file with rows")
        if data.target == "answer" and model.reads_both_ways:
            raise _cannot_answer(data, model)
        if data.target is not None:
            label = (
                data.label
                if data.target in {"class", "number"} and data.read.label is None
                else data.read.label
            )
            return Learnt(data.target, data.find(data.target, label=label))
        if (
            found := _tags(data)
            or _conversation(data, model)
            or _label(data)
            or _texts(data, model)
        ):
            return found
    columns = ", ".join(f"'{short(name)}'{data.doubt(name)}" for name in [*data.cells][:30])
    others = ", or 'words' and 'tags'" if data.lists(str, int) else ""
    if not model.reads_both_ways:
        others += ", or turns in a column 'messages', or 'prompt' and 'completion'"
    sep = (
        "; if its cells are separated otherwise, say how with dataset.options.sep"
        if len(data.cells) == 1
        else ""
    )
    raise UserError(
        f"{data.where}: nothing to learn is found in its columns {columns}; give a column 'text' "
        f"and one called 'label' with classes or numbers{others}, or name the task, and the "
        f"columns with dataset.options.text and dataset.options.label{sep}"
    )


def other_labels(data: Data, learnt: Learnt) -> list[str]:
    """Return the columns that could be the label as well as the one that was guessed; none where
    it was given, or no other has a label's name, or else few different values.
    """
    label = learnt.columns.label
    if label is None or learnt.target not in {"class", "number"}:
        return []
    if data.read.label is not None or label == data.label:
        return []
    rest = [name for name in data.cells if name not in learnt.columns.read and not data.is_id(name)]
    known = {*LABEL_NAMES, *NUMBER_NAMES}
    if label.strip().lower() in known:
        return [name for name in rest if name.strip().lower() in known]
    if learnt.target == "number":  # the only column of numbers
        return []
    return label_candidates(rest, data.cells)


def _cannot_answer(data: Data, model: Model) -> UserError:
    return UserError(
        f"{data.where}: holds conversations, and {model} reads both ways and can't answer; give a "
        "model that generates, such as SmolLM2, or rows with a text and a label"
    )


def _tags(data: Data) -> Learnt | None:
    """Return lists of words, found by name, and of tags, given or found so."""
    lists, given = data.lists(str, int), data.read.label
    words = first_named(lists, WORD_NAMES)
    tags = (
        first_named(lists, TAG_NAMES)
        if given is None
        else next((name for name in lists if name == given), None)
    )
    if words is None or tags is None:
        return None
    why = f"Column '{short(tags)}' has a list of tags beside the list of words in '{short(words)}'."
    return Learnt("tags", data.find("tags", text=words, label=tags), (why,))


def _conversation(data: Data, model: Model) -> Learnt | None:
    """Return turns, or a prompt and its completion by name, for a model that can answer."""
    names = [*data.cells]
    if data.read.label is not None:
        if data.read.label in CHOSEN and (
            sentence := preferences(data.train, "--task to causal_lm")
        ):
            raise UserError(f"{data.where}: {sentence}")
        return None
    shape = _shape(data)
    labelled = first_named(names, TEXT_NAMES) and first_named(names, LABEL_NAMES)
    is_open = shape is None and not data.read.text and not labelled
    if is_open and (sentence := preferences(data.train, "--task to causal_lm")):
        raise UserError(f"{data.where}: {sentence}")
    if shape is None or shape.kind == "text":
        turns = [
            name for name in data.lists(dict) if {"role", "from"} & set(data.cells[name][0][0])
        ]
        shape = Columns(kind="turns", text=(turns[0],)) if turns else None
    if model.reads_both_ways and shape and shape.kind == "turns":
        raise _cannot_answer(data, model)
    if model.reads_both_ways or shape is None:
        return None
    answer = (
        f"the answers in column '{short(shape.label)}'" if shape.label else "the assistant's turns"
    )
    label = first_named(names, (*LABEL_NAMES, *NUMBER_NAMES))
    other = (
        f"Column '{short(label)}' could be learnt instead, by sequence_classification or "
        f"regression."
        if label and label not in shape.read
        else (
            "A class instead of words: sequence_classification, with a column of few different "
            "values."
        )
    )
    found = data.find("answer", text=data.read.text or shape.text, label=shape.label)
    return Learnt(
        "answer", found, (f"The columns are those of conversations: {answer} are learnt.", other)
    )


def _label(data: Data) -> Learnt | None:
    """Return a label that is given or known by name, else the column with the fewest values,
    else of numbers.
    """
    names = [*data.cells]
    given = data.read.label
    known = None if given is None else column_named(given, names, data.where, "label")
    if label := known or data.label or first_named(names, (*LABEL_NAMES, *NUMBER_NAMES)):
        return _class_or_number(data, label)
    with suppress(UserError):
        return _class_or_number(data, str(data.find("class").label))
    numeric = [name for name in names if data.numbers(name) and not data.is_id(name)]
    if len(numeric) > 1:
        raise UserError(
            f"{data.where}: {len(numeric)} columns hold numbers; name the one to learn with "
            f"dataset.options.label ({listed(numeric)})"
        )
    if numeric:
        return _class_or_number(data, numeric[0])
    if sentence := next(filter(None, map(data.stray, names)), None):
        raise UserError(f"{data.where}: {sentence}, or name what is learnt with --task and --label")
    return None


def _texts(data: Data, model: Model) -> Learnt | None:
    shape = _shape(data)
    if shape is None or shape.kind != "text" or model.reads_both_ways:
        return None
    why = (
        f"Column '{short(shape.text[0])}' is text without a prompt, and no other column is a "
        "label: every token is learnt.",
        (
            "To learn answers, give the columns prompt and completion; to learn classes, a column "
            "label."
        ),
    )
    return Learnt("answer", data.find("answer"), why)


def _shape(data: Data) -> Columns | None:
    with suppress(UserError):
        return find_turns(data.train, data.where)
    return None


def _class_or_number(data: Data, label: str) -> Learnt:
    if sentence := data.stray(label):
        raise UserError(f"{data.where}: {sentence}")
    values, rows, distinct = (
        data.numbers(label),
        len(data.cells[label]),
        len({*map(str, data.cells[label])}),
    )
    what = f"Column '{short(label)}'" if data.named else short(label).capitalize()
    whole = bool(values) and all(map(float.is_integer, values))
    few = whole and len(values) <= MOST_NUMBERED and label.strip().lower() not in ONLY_NUMBERS
    is_class = bool(data.read.label_names) or not values or few
    if whole and is_class:
        why = (
            f"{what} has {distinct} different whole numbers, which are taken for classes.",
            "If they are a scale, as stars are, regression learns them as numbers: `task: "
            "regression`, without label_names.",
        )
    elif is_class:
        why = (
            f"{what} has {distinct} different texts in the first {rows:,} rows: classes.",
            (
                "With a language model, answers in words could be learnt instead "
                "(docs/language-models.md)."
            ),
        )
    else:
        why = (
            f"{what} has {distinct} different numbers in the first {rows:,} rows.",
            "If they are names of classes: `task: sequence_classification`.",
        )
    target: Target = "class" if is_class else "number"
    return Learnt(target, data.find(target, label=label), why)


def with_notation(data: Data, learnt: Learnt) -> Learnt:
    """Return what is learnt with how its numbers are written, where Python alone wouldn't read
    them, or where they can be read in two ways.

    Raises UserError: nothing says which decimal mark the numbers have.
    """
    if learnt.target != "number":
        return learnt
    label = str(learnt.columns.label)
    texts = [cell for cell in data.train[label] if str(cell or "").strip()]
    if not all(isinstance(text, str) for text in texts):
        return learnt
    texts = without_strays(texts)  # the preparation names or drops these
    notation = notation_of(texts, plain_number)
    if notation is None:
        return learnt
    if all(map(is_float, texts)):
        return replace(learnt, notation=notation) if notation.ambiguous else learnt
    if notation.ambiguous:
        raise UserError(
            f"{data.where}: the numbers in column '{short(label)}' don't say whether "
            f"{short(notation.ambiguous.strip())} has decimals or groups of thousands; say "
            f"which with task.options.decimal_mark: comma or task.options.decimal_mark: point"
        )
    return replace(learnt, notation=notation)
