"""The user's rows: which file is which split, and what is learnt from a row: a class, a number, tags or an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import (
    LABEL_NAMES,
    NUMBER_NAMES,
    SAMPLE_ROWS,
    TAG_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Columns,
    TableOptions,
    column_errors_as_user_errors,
    first_named,
    is_number,
    listed,
    short,
)
from hpml_bench.data.conversations import Shape, find_shape
from hpml_bench.data.files import Format, file_of, head_of, read_file, read_repository
from hpml_bench.data.tables import find
from hpml_bench.plugins.dataset import Target
from hpml_bench.starter.model import Model, source_of
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test", "validation")
NAMES = {"train": r"train(ing)?", "test": r"test(ing)?", "validation": r"val(id(ation)?)?|dev(elopment)?"}
"""Patterns of a split's name as a word in the name of a file, or a split of a repository."""
MOST_NUMBERED = 20
"""Most different whole numbers of a column that are taken for classes."""
ONLY_NUMBERS = frozenset(NUMBER_NAMES) - frozenset(LABEL_NAMES)
"""Names of columns that are numbers, however few different ones there are."""
ID_NAMES = frozenset({"", "id", "idx", "index", "row", "unnamed: 0", "nr", "no", "number"})


@dataclass(frozen=True)
class Data:
    """The data as a suite names them, with the training rows, or the first of them."""

    dataset: str
    """The data set that reads them."""
    options: Mapping[str, Any]
    """Its options: where the splits are."""
    heads: Mapping[str, Any]
    """The same, with the head of a large file in the place of the file."""
    train: Dataset
    where: str
    """Name of the training rows in errors."""
    named: bool = True
    """Whether columns have names of their own."""
    label: str | None = None
    """Column that the file itself calls the label."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Split -> share of its rows that is looked at, where it isn't 1."""
    why: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Option -> the reasons for it."""

    @property
    def name(self) -> str:
        """Name of the data in prose."""
        return str(self.options.get("dataset") or self.options["train"]).removeprefix("path:").partition("#")[0]

    @property
    def whole(self) -> bool:
        """Whether all rows are looked at."""
        return not self.shares

    def share_of(self, split: str) -> float:
        """Return the share of a split's rows that is looked at; of one that is split off, the training rows'."""
        return self.shares.get(split if self.options.get(split) else "train", 1.0)

    def named_in_errors(self) -> AbstractContextManager[None]:
        """Name the user's files in errors on their heads."""
        return _real_names(self.options, self.heads, self.dataset)


@contextmanager
def _real_names(options: Mapping[str, Any], heads: Mapping[str, Any], dataset: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        name = str(options.get("dataset") or options["train"]).removeprefix("path:")
        text = re.sub(rf"^data set {dataset}: ", lambda _: f"{name}: ", str(error))
        for split, head in heads.items():
            if head != options.get(split):
                text = text.replace(str(head).removeprefix("path:"), str(options[split]).removeprefix("path:"))
        raise UserError(text) from None


def look_at_rows(given: Sequence[str]) -> Data:
    """Return the data that files, or one repository of a data set, hold.

    Raises:
        UserError: one can't be read, or it can't be seen which file is which split.

    """
    sources = [source_of(name) for name in given]
    folders = [uri for uri in sources if uri.startswith("hub:") or Path(uri.removeprefix("path:")).is_dir()]
    if not folders:
        return _files(sources)
    if len(sources) > 1:
        raise UserError(f"--data: {folders[0]} is a data set of several splits; give it alone, or files alone")
    return _repository(folders[0])


def _files(sources: Sequence[str]) -> Data:
    splits, by_place = _assigned(sources)
    heads, shares, why = {}, {}, {}
    for split, uri in splits.items():
        file = file_of(uri)
        head = head_of(file)
        heads[split] = uri if head.share == 1 else f"path:{head.file}"
        reasons = []
        if len(sources) > 1:
            reasons.append(
                "by its place among the files given: training, test, validation rows; exchange them if that is wrong"
                if by_place
                else "by the file's name"
            )
        if head.share < 1:
            shares[split] = head.share
            reasons.append(
                f"It has {file.stat().st_size / 1e9:.3g} GB; all that is said of its rows here is of the first "
                f"{100 * head.share:.2g} %. run-all reads it whole."
            )
        why[split] = tuple(reasons)
    with _real_names(splits, heads, "text_files"):
        rows, layout = read_file(file_of(heads["train"]), Format())
    named, label = (True, None) if layout is None else (layout.named, layout.label)
    where = str(file_of(splits["train"]))
    return Data("text_files", splits, heads, rows, where, named, label, shares, why)


def _assigned(sources: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Return split -> source, and whether their places decided, not their names."""
    if len(sources) > len(SPLITS):
        raise UserError(f"--data: {len(sources)} files are given; join them to one file per split: {', '.join(SPLITS)}")
    if len(set(sources)) < len(sources):
        raise UserError(f"--data: {sources[-1].removeprefix('path:')} is given twice; give each split's file once")
    if len(sources) == 1:
        return {"train": sources[0]}, False
    named: dict[str, str] = {}
    for uri in sources:
        split = _split_of(Path(uri.partition("#")[0]).stem)
        if split is None or split in named:
            return dict(zip(SPLITS, sources, strict=False)), True
        named[split] = uri
    if "train" not in named:
        raise UserError(f"--data: none of {', '.join(map(repr, named))} is a file of training rows; name one train")
    return {split: named[split] for split in SPLITS if split in named}, False


def _split_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    found = [split for split, pattern in NAMES.items() if any(re.fullmatch(pattern, word) for word in words)]
    return found[0] if len(found) == 1 else None


def _repository(uri: str) -> Data:
    parts, _ = read_repository(uri)
    found = {split: [name for name in parts if _split_of(name) == split] for split in SPLITS}
    train = (found["train"] or list(parts))[0]
    options: dict[str, Any] = {"dataset": uri, "train": train}
    listing = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in parts.items())
    why: dict[str, tuple[str, ...]] = {"train": (f"splits there are: {listing}",)}
    for split in ("test", "validation"):
        options[split] = found[split][0] if found[split] and found[split][0] != train else None
        why[split] = () if options[split] else ("none of that name; rows are split off the training rows",)
    return Data("hub", options, options, parts[train], f"{uri} {train}", why=why)


@dataclass(frozen=True)
class Learnt:
    """What is learnt from a row, with the columns and reasons."""

    target: Target
    columns: Columns | Shape
    why: tuple[str, ...]
    """Why this, and what else is possible."""
    how: str
    """How the label was found."""
    text: str
    """What the column or columns of texts are, and how they were found."""


@dataclass(frozen=True)
class _Table:
    """The first rows of the training data."""

    data: Data
    names: tuple[str, ...]
    cells: Mapping[str, Sequence[Any]]

    @property
    def where(self) -> str:
        return self.data.where

    def numbers(self, name: str) -> bool:
        """Whether all cells are numbers."""
        cells = [cell for cell in self.cells[name] if cell not in {None, ""}] if self.has_scalars(name) else []
        return bool(cells) and all(not isinstance(cell, bool) and is_number(str(cell)) for cell in cells)

    def whole(self, name: str) -> set[float] | None:
        """Return the different whole numbers of a column; None where a cell is none."""
        values = {float(cell) for cell in self.cells[name] if cell not in {None, ""}} if self.numbers(name) else set()
        return values if values and all(value.is_integer() for value in values) else None

    def is_id(self, name: str) -> bool:
        """Whether a column numbers the rows."""
        whole = self.whole(name) or set()
        if not len(whole) == len(self.cells[name]) > 1:
            return False
        return name.strip().lower() in ID_NAMES or max(whole) - min(whole) < 2 * len(whole)

    def doubt(self, name: str) -> str:
        """Return why a column isn't learnt, where its cells show it."""
        if self.is_id(name):
            return " (which counts the rows)"
        return " (which holds mappings)" if any(isinstance(cell, dict) for cell in self.cells[name]) else ""

    def has_scalars(self, name: str) -> bool:
        """Whether no cell is a list or a mapping."""
        return not any(isinstance(cell, list | dict) for cell in self.cells[name])


def find_target(data: Data, model: Model) -> Learnt:
    """Return what can be learnt: tags, conversations, a named label, then what the cells of columns look like.

    Raises:
        UserError: nothing can, or not by this model.

    """
    with column_errors_as_user_errors(data.where):
        if not len(data.train):
            raise UserError(f"{data.where}: has column names and no row; give a file with rows")
        table = _Table(data, tuple(data.train.column_names), data.train[:SAMPLE_ROWS])
        found = _tags(table) or _conversation(table, model) or _named_label(table) or _label_by_cells(table)
        if found := found or _text(table, model):
            return found
    columns = ", ".join(f"'{short(name)}'{table.doubt(name)}" for name in table.names[:30])
    answers = "" if model.reads_both_ways else ", or turns in a column 'messages', or 'prompt' and 'completion'"
    raise UserError(
        f"{data.where}: nothing to learn is found in its columns {columns}; give a column 'text' and one called "
        f"'label' with classes or numbers{answers}"
    )


def _tags(table: _Table) -> Learnt | None:
    words, tags = first_named(table.names, WORD_NAMES), first_named(table.names, TAG_NAMES)
    if words is None or tags is None or not all(isinstance(table.cells[name][0], list) for name in (words, tags)):
        return None
    why = (f"Column '{short(tags)}' has a list of tags beside the list of words in '{short(words)}'.",)
    return Learnt("tags", Columns(text=(words,), label=tags), why, "found by its name", "words, found by name")


def _conversation(table: _Table, model: Model) -> Learnt | None:
    """Turns; or a prompt and its completion, for a model that can answer."""
    shape = _shape(table)
    if shape is None or shape.text or (model.reads_both_ways and not shape.turns):
        return None
    if model.reads_both_ways:
        raise UserError(
            f"{table.where}: holds conversations, and {model} reads both ways and can't answer; give a model that "
            "generates, such as SmolLM2, or rows with a text and a label"
        )
    answer = f"the answers in column '{short(shape.completion)}'" if shape.completion else "the assistant's turns"
    label = first_named(table.names, (*LABEL_NAMES, *NUMBER_NAMES))
    other = (
        f"Column '{short(label)}' could be learnt instead, by sequence_classification or regression."
        if label and label not in shape.read
        else "A class instead of words: sequence_classification, with a column of few different values."
    )
    text = "turns" if shape.turns else "the prompt"
    why = (f"The columns are those of conversations: {answer} are learnt.", other)
    return Learnt("answer", shape, why, "found by its name", f"{text}, found by name")


def _named_label(table: _Table) -> Learnt | None:
    names = (*LABEL_NAMES, *(name for name in NUMBER_NAMES if name not in LABEL_NAMES))
    label = table.data.label or first_named(table.names, names)
    return None if label is None else _class_or_number(table, label, "found by its name")


def _label_by_cells(table: _Table) -> Learnt | None:
    """Find the column with the fewest different values, else the only one of numbers that doesn't count the rows."""
    with suppress(UserError):
        label = find(table.data.train, table.where, "class", TableOptions(), named=table.data.named).columns.label  # type: ignore[union-attr]
        others = [short(name) for name in table.names if name != label and table.numbers(name)]
        more = f" (others with numbers: {', '.join(others)})" if others else ""
        return _class_or_number(
            table, label, f"no column is called label or the like; this one has the fewest different values{more}"
        )
    numeric = [name for name in table.names if table.numbers(name) and not table.is_id(name)]
    if len(numeric) > 1:
        raise UserError(
            f"{table.where}: {len(numeric)} columns hold numbers; call the one to learn 'label' ({listed(numeric)})"
        )
    return (
        _class_or_number(table, numeric[0], "no column is called label or the like; this is the only one of numbers")
        if numeric
        else None
    )


def _text(table: _Table, model: Model) -> Learnt | None:
    shape = _shape(table)
    if shape is None or not shape.text or model.reads_both_ways:
        return None
    why = (
        f"Column '{short(shape.text[0])}' is text without a prompt, and no other column is a label: every token is "
        "learnt.",
        "To learn answers, give the columns prompt and completion; to learn classes, a column label.",
    )
    return Learnt("answer", shape, why, "", "texts, found by name")


def _shape(table: _Table) -> Shape | None:
    with suppress(UserError):
        return find_shape(table.data.train, table.where)
    return None


def _class_or_number(table: _Table, label: str, how: str) -> Learnt:
    _check_plain(table, (label,), "one class or number per text is learnt")
    whole = table.whole(label)
    what = f"Column '{short(label)}'" if table.data.named else short(label).capitalize()
    distinct = len({str(cell) for cell in table.cells[label]})
    is_class = not table.numbers(label) or (
        whole is not None and len(whole) <= MOST_NUMBERED and label.strip().lower() not in ONLY_NUMBERS
    )
    if is_class and whole is None and distinct > len(table.cells[label]) / 2 > 1:
        raise UserError(
            f"{table.where}: {what} has {distinct} different texts in {len(table.cells[label]):,} rows, too many for "
            "classes; to learn them as answers, call it 'completion' and the column of the text 'prompt'"
        )
    target: Target = "class" if is_class else "number"
    if whole is not None and is_class:
        why = (
            f"{what} has {distinct} different whole numbers, which are taken for classes.",
            "If they are a scale, as stars are, regression learns them as numbers: `task: regression`, without "
            "label_names.",
        )
    elif is_class:
        why = (
            f"{what} has {distinct} different texts in the first {len(table.cells[label]):,} rows: classes.",
            "With a language model, answers in words could be learnt instead (docs/language-models.md).",
        )
    else:
        why = (
            f"{what} has {distinct} different numbers in the first {len(table.cells[label]):,} rows.",
            "If they are names of classes: `task: sequence_classification`.",
        )
    columns = find(table.data.train, table.where, target, TableOptions(label=label), named=table.data.named).columns
    _check_plain(table, columns.text, "texts are read as they stand")
    by = "the longest texts" if table.data.named else "cells that are no numbers"
    by = "name" if all(name.strip().lower() in TEXT_NAMES for name in columns.text) else by
    joined = ", joined by a space" if len(columns.text) > 1 else ""
    return Learnt(target, columns, why, how, f"found by {by}{joined}")


def _check_plain(table: _Table, names: Sequence[str], why: str) -> None:
    """Refuse columns of lists and mappings, which would be read as the text that Python prints of them."""
    for name in names:
        if not table.has_scalars(name):
            raise UserError(
                f"{table.where}: column '{short(name)}' holds lists or mappings, and {why}; give plain cells, or for a "
                "tag per word the columns 'words' and 'tags'"
            )
