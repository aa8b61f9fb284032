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
    column_named,
    first_named,
    is_number,
    listed,
    short,
)
from hpml_bench.data.conversations import Shape, find_shape
from hpml_bench.data.files import file_of, head_of, read_file, read_repository
from hpml_bench.data.sentences import sentences_of
from hpml_bench.data.tables import SPLIT_NAMES, find, split_by, split_of
from hpml_bench.plugins.dataset import Target
from hpml_bench.starter.model import Model, source_of
from hpml_bench.suite import registry
from hpml_bench.suite.options import validate_options
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = tuple(sorted(SPLIT_NAMES, key=("train", "test", "validation").index))
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage")
MOST_NUMBERED = 20
"""Most different whole numbers of a column that are taken for classes."""
ONLY_NUMBERS = frozenset(NUMBER_NAMES) - frozenset(LABEL_NAMES)
"""Names of columns that are numbers, however few different ones there are."""
ID_NAMES = frozenset({"", "id", "idx", "index", "row", "unnamed: 0", "nr", "no", "number"})
GIVEN = "as given"
"""How a column was found that the user names."""


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
    read: Any
    """All options of the data set: columns and format, as given."""
    task: str | None = None
    """Name of the task, as given."""
    named: bool = True
    """Whether columns have names of their own."""
    label: str | None = None
    """Column that the file itself calls the label."""
    split: str | None = None
    """Column that names each row's split."""
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


def look_at_rows(given: Sequence[str], options: Mapping[str, Any], task: str | None = None) -> Data:
    """Return the data that files, or one repository of a data set, hold, with options and a task that are given.

    Raises:
        UserError: one can't be read, or it can't be seen which file is which split.

    """
    sources = [source_of(name) for name in given]
    folders = [uri for uri in sources if uri.startswith("hub:") or Path(uri.removeprefix("path:")).is_dir()]
    if not folders:
        return _files(sources, options, task)
    if len(sources) > 1:
        raise UserError(f"--data: {folders[0]} is a data set of several splits; give it alone, or files alone")
    return _repository(folders[0], options, task)


def _files(sources: Sequence[str], options: Mapping[str, Any], task: str | None) -> Data:
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
    read: Any = validate_options("datasets", "text_files", {**heads, **options}, "dataset.options")
    where = str(file_of(splits["train"]))
    with _real_names(splits, heads, "text_files"):
        rows, layout = read_file(file_of(heads["train"]), read)
    column = read.split if len(sources) == 1 else None
    if column is None and len(sources) == 1 and (column := _split_column(rows)):
        splits, heads = splits | {"split": column}, heads | {"split": column}
        why["split"] = ("its cells name the splits; without this line all rows are training rows",)
    column = None if column is None else column_named(column, rows.column_names, where, "split")
    rows = rows if column is None else split_by(rows, where, column).train[0]
    if task in {None, "token_classification"}:
        rows = sentences_of(rows)
    named, label = (True, None) if layout is None else (layout.named, layout.label)
    return Data("text_files", splits, heads, rows, where, read, task, named, label, column, shares, why)


def _split_column(rows: Dataset) -> str | None:
    """Return the column whose cells name training rows and others, by its name."""
    name = first_named(rows.column_names, SPLIT_COLUMNS)
    named = set() if name is None else {split_of(str(cell)) for cell in rows.unique(name)}
    return name if "train" in named and len(named) > 1 and None not in named else None


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
        split = split_of(Path(uri.partition("#")[0]).stem)
        if split is None or split in named:
            return dict(zip(SPLITS, sources, strict=False)), True
        named[split] = uri
    if "train" not in named:
        raise UserError(f"--data: none of {', '.join(map(repr, named))} is a file of training rows; name one train")
    return {split: named[split] for split in SPLITS if split in named}, False


def _repository(uri: str, given: Mapping[str, Any], task: str | None) -> Data:
    parts, _ = read_repository(uri, given.get("config"))
    found = {split: [name for name in parts if split_of(name) == split] for split in SPLITS}
    train = (found["train"] or list(parts))[0]
    options: dict[str, Any] = {"dataset": uri, "train": train}
    listing = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in parts.items())
    why: dict[str, tuple[str, ...]] = {"train": (f"splits there are: {listing}",)}
    for split in ("test", "validation"):
        options[split] = found[split][0] if found[split] and found[split][0] != train else None
        why[split] = () if options[split] else ("none of that name; rows are split off the training rows",)
    read = validate_options("datasets", "hub", {**options, **given}, "dataset.options")
    return Data("hub", options, options, parts[train], f"{uri} {train}", read, task, why=why)


@dataclass(frozen=True)
class Learnt:
    """What is learnt from a row, with the columns and reasons."""

    target: Target
    columns: Columns | Shape
    unread: tuple[str, ...]
    """Names of the other columns."""
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
    options: TableOptions
    """Columns, as given."""

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

    def lists(self, kind: type | tuple[type, ...]) -> list[str]:
        """Return the columns of lists that begin with such a value."""
        first = {name: cells[0] for name, cells in self.cells.items()}
        return [name for name, cell in first.items() if isinstance(cell, list) and cell and isinstance(cell[0], kind)]

    def learnt(self, target: Target, why: Sequence[str], how: str, **columns: Any) -> Learnt:
        """Return what is learnt from the columns that are given or found, with the text's as a sentence."""
        named, options = self.data.named, self.options.model_copy(update=columns)
        found = find(self.data.train, self.where, target, options, named=named, split=self.data.split)
        if isinstance(found.columns, Shape):
            what = "turns" if found.columns.turns else "texts" if found.columns.text else "the prompt"
            by = GIVEN if options.text else "found by name"
            return Learnt(target, found.columns, found.unread, tuple(why), how, f"{what}, {by}")
        text, pair = found.columns.text, found.columns.pair
        if target == "tags":
            return Learnt(target, found.columns, found.unread, tuple(why), how, f"words, {how}")
        for name in (*text, *([pair] if pair else [])):
            self.check_plain(name, "texts are read as they stand")
        by = "the longest texts" if named else "cells that are no numbers"
        by = "name" if pair or all(name.strip().lower() in TEXT_NAMES for name in text) else by
        joined = f", joined by {options.separator!r}" if len(text) > 1 else ""
        return Learnt(target, found.columns, found.unread, tuple(why), how,
                      f"{GIVEN if self.options.text else f'found by {by}'}{joined}")  # fmt: skip

    def check_plain(self, name: str, why: str) -> None:
        """Refuse a column of lists or mappings, which would be read as the text that Python prints of them."""
        if not self.has_scalars(name):
            raise UserError(
                f"{self.where}: column '{short(name)}' holds lists or mappings, and {why}; give plain cells, or for a "
                "tag per word the columns 'words' and 'tags'"
            )


def find_target(data: Data, model: Model) -> Learnt:
    """Return what can be learnt: as given, else tags, conversations, a label by name, then what cells look like.

    Raises:
        UserError: nothing can, or not by this model.

    """
    with column_errors_as_user_errors(data.where):
        if not len(data.train):
            raise UserError(f"{data.where}: has column names and no row; give a file with rows")
        names = tuple(name for name in data.train.column_names if name != data.split)
        sample: dict[str, list[Any]] = data.train[:SAMPLE_ROWS]
        table = _Table(data, names, {name: sample[name] for name in names}, data.read)
        if data.task:
            found = _as_asked(table, model)
        elif table.options.label is not None:
            found = _tags(table) or _label(table)
        else:
            found = _tags(table) or _conversation(table, model) or _label(table)
        if found := found or _texts(table, model):
            return found
    columns = ", ".join(f"'{short(name)}'{table.doubt(name)}" for name in table.names[:30])
    answers = "" if model.reads_both_ways else ", or turns in a column 'messages', or 'prompt' and 'completion'"
    sep = "; if its cells are separated otherwise, say how with dataset.options.sep" if len(names) == 1 else ""
    raise UserError(
        f"{data.where}: nothing to learn is found in its columns {columns}; give a column 'text' and one called "
        f"'label' with classes or numbers{answers}, or name them with dataset.options.text and "
        f"dataset.options.label{sep}"
    )


def _as_asked(table: _Table, model: Model) -> Learnt | None:
    """Return what the task that is given learns."""
    task = registry.plugin("tasks", table.data.task or "")
    if task.model_kind == "language_model" and model.reads_both_ways:
        raise _cannot_answer(table, model)
    target: Target = task.target
    given = None if target in {"answer", "tags"} else table.data.label
    return table.learnt(target, (GIVEN,), GIVEN if table.options.label else "found by name, else by its cells",
                        label=table.options.label or given)  # fmt: skip


def _cannot_answer(table: _Table, model: Model) -> UserError:
    return UserError(
        f"{table.where}: holds conversations, and {model} reads both ways and can't answer; give a model that "
        "generates, such as SmolLM2, or rows with a text and a label"
    )


def _tags(table: _Table) -> Learnt | None:
    """Return lists of words and tags, by name, else the only lists of texts of which two are of equal lengths."""
    words, tags = first_named(table.names, WORD_NAMES), first_named(table.names, TAG_NAMES)
    lists = table.lists((str, int))
    if (label := table.options.label) is not None:
        tags = column_named(label, [*table.names], table.where, "label")
        return table.learnt("tags", (GIVEN,), GIVEN) if tags in lists else None
    texts = [name for name in table.lists(str) if name not in {words, tags}]
    how = "found by its name"
    if words not in lists or tags not in lists:
        pairs = [(a, b) for a in texts for b in lists if a != b and all(
            isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
            for one, other in zip(table.cells[a], table.cells[b], strict=True)
        )]  # fmt: skip
        if not pairs:
            return None
        words, tags = min(pairs, key=lambda pair: len({str(tag) for cell in table.cells[pair[1]] for tag in cell}))
        how = "found by its lists, as long as those of the words"
    why = (f"Column '{short(tags or '')}' has a list of tags beside the list of words in '{short(words or '')}'.",)
    return table.learnt("tags", why, how, text=words, label=tags)


def _conversation(table: _Table, model: Model) -> Learnt | None:
    """Turns; or a prompt and its completion, for a model that can answer."""
    shape, options, how = _shape(table), table.options, "found by its name"
    turns = [name for name in table.lists(dict) if {"role", "from"} & set(table.cells[name][0][0])]
    if (shape is None or shape.text) and turns:
        shape = Shape(turns=turns[0])
    elif shape is None or shape.text:
        varied = [
            name
            for name in table.names
            if table.has_scalars(name) and not table.numbers(name)
            and len({*map(str, table.cells[name])}) > len(table.cells[name]) / 2
        ]  # fmt: skip
        if len(varied) != 2 or len(table.names) - len(varied) > sum(map(table.is_id, table.names)):
            return None
        shape, how = Shape(prompt=(varied[0],), completion=varied[1]), "the second of two columns of texts"
    if model.reads_both_ways and not shape.turns:
        return None
    if model.reads_both_ways:
        raise _cannot_answer(table, model)
    answer = f"the answers in column '{short(shape.completion)}'" if shape.completion else "the assistant's turns"
    label = first_named(table.names, (*LABEL_NAMES, *NUMBER_NAMES))
    other = (
        f"Column '{short(label)}' could be learnt instead, by sequence_classification or regression."
        if label and label not in shape.read
        else "A class instead of words: sequence_classification, with a column of few different values."
    )
    why = (f"The columns are those of conversations: {answer} are learnt.", other)
    text = options.text or ((shape.turns,) if shape.turns else shape.prompt)
    return table.learnt("answer", why, how, text=text, label=options.label or shape.completion)


def _label(table: _Table) -> Learnt | None:
    """Return a label that is given or known by name, else the column with the fewest values, else of numbers."""
    names = (*LABEL_NAMES, *(name for name in NUMBER_NAMES if name not in LABEL_NAMES))
    if table.options.label is not None:
        return _class_or_number(table, column_named(table.options.label, [*table.names], table.where, "label"), GIVEN)
    if label := table.data.label or first_named(table.names, names):
        return _class_or_number(table, label, "found by its name")
    with suppress(UserError):
        label = str(getattr(table.learnt("class", (), "").columns, "label", ""))
        others = [short(name) for name in table.names if name != label and table.numbers(name)]
        more = f" (others with numbers: {', '.join(others)})" if others else ""
        return _class_or_number(
            table, label, f"no column is called label or the like; this one has the fewest different values{more}"
        )
    numeric = [name for name in table.names if table.numbers(name) and not table.is_id(name)]
    if len(numeric) > 1:
        raise UserError(
            f"{table.where}: {len(numeric)} columns hold numbers; name the one to learn with dataset.options.label "
            f"({listed(numeric)})"
        )
    how = "no column is called label or the like; this is the only one of numbers"
    return _class_or_number(table, numeric[0], how) if numeric else None


def _texts(table: _Table, model: Model) -> Learnt | None:
    shape = _shape(table)
    if shape is None or not shape.text or model.reads_both_ways:
        return None
    why = (
        f"Column '{short(shape.text[0])}' is text without a prompt, and no other column is a label: every token is "
        "learnt.",
        "To learn answers, give the columns prompt and completion; to learn classes, a column label.",
    )
    return table.learnt("answer", why, "")


def _shape(table: _Table) -> Shape | None:
    with suppress(UserError):
        return find_shape(table.data.train, table.where)
    return None


def _class_or_number(table: _Table, label: str, how: str) -> Learnt:
    table.check_plain(label, "one class or number per text is learnt")
    whole = table.whole(label)
    what = f"Column '{short(label)}'" if table.data.named else short(label).capitalize()
    distinct = len({str(cell) for cell in table.cells[label]})
    is_class = not table.numbers(label) or (
        whole is not None and len(whole) <= MOST_NUMBERED and label.strip().lower() not in ONLY_NUMBERS
    )
    if is_class and whole is None and distinct > len(table.cells[label]) / 2 > 1:
        raise UserError(
            f"{table.where}: {what} has {distinct} different texts in {len(table.cells[label]):,} rows, too many for "
            "classes; name the column of the classes with dataset.options.label, or to learn these texts as answers, "
            "set the task causal_lm and name the prompt with dataset.options.text"
        )
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
    return table.learnt("class" if is_class else "number", why, how, label=label)
