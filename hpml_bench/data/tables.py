"""Tables as the splits of a task: their cells become texts, words, classes, numbers, tags or
conversations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.data.columns import (
    Columns,
    Row,
    TableOptions,
    check_columns,
    choose,
    column_errors_as_user_errors,
    column_named,
    converted,
    short,
    some,
)
from hpml_bench.data.conversations import as_conversations, find_turns
from hpml_bench.data.draw import split_off_test
from hpml_bench.data.keyboard import MARKS, DecimalMark
from hpml_bench.data.numbers import plain_number
from hpml_bench.plugins.dataset import GROUP, PAIR, LoadedData, Target
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000
DECIMAL_MARK = "task.options.decimal_mark"
BAD_ROWS, SUSPECT = "bad rows left out", "labels that may be missing"  # names of warnings
SPELLINGS = "labels that differ only in case or white space"
"""Name of the warning on them, and of the note where they are one."""
UNREAD_KEYS = "keys of turns left unread"  # name of a note
MISSING = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "-", "?"})
"""Texts that often stand for a missing label."""
FEW_CLASSES = 20  # number of classes up to which their number isn't compared with the rows'
SPLIT_NAMES = {
    "train": r"train(ing)?",
    "test": r"test(ing)?",
    "validation": r"val(id(ation)?)?|dev(elopment)?",
}
"""Patterns of a split's name as a word in the name of a file, a split of a repository, or a
cell.
"""

Index = dict[str, int]  # value as text -> index


class Splits(NamedTuple):
    """The tables of a data set, each with its name in errors."""

    train: tuple[Dataset, str]
    validation: tuple[Dataset, str] | None
    test: tuple[Dataset, str] | None
    """None: split off the training rows after their conversion, so that errors name a row by its
    number in its file.
    """

    def converted(self, convert: Callable[[Dataset], Dataset]) -> Splits:
        train, *others = (None if part is None else (convert(part[0]), part[1]) for part in self)
        return Splits(train or self.train, *others)


def find(
    train: Dataset,
    where: str,
    target: Target,
    options: TableOptions,
    label: str | None = None,
    *,
    named: bool = True,
    split: str | None = None,
) -> Columns:
    """Return the columns that a target needs: as the options say, else by name, else by content.

    `label`: column of the label where the options name none (not of answers); `named`: whether the
    table has column names of its own; `split`: column that says which split a row is of.
    """
    names = list(train.column_names)
    group = None if options.group is None else column_named(options.group, names, where, "group")
    given = label if options.label is None else options.label
    if options.text_pair is not None and target in {"answer", "tags"}:
        raise UserError(
            f"{where}: dataset.options.text_pair is for a class or a number; name all columns "
            f"with text"
        )
    if target == "answer":
        text = options.text if isinstance(options.text, tuple) else (options.text,)
        columns = find_turns(train, where, text, options.label)
    else:
        others = {name for name in (group, split) if name}
        columns = choose(train, where, target, options, given, kept_out=others, named=named)
    unread = tuple(name for name in names if name not in {*columns.read, group, split})
    return columns.model_copy(update={"group": group, "unread": unread})


def split_of(name: str) -> str | None:
    """Return the split that a name is of; None where it is of none, or of several."""
    words = re.split(r"[^a-z]+", name.lower())
    found = [
        split
        for split, pattern in SPLIT_NAMES.items()
        if any(re.fullmatch(pattern, word) for word in words)
    ]
    return found[0] if len(found) == 1 else None


def split_by(rows: Dataset, where: str, column: str) -> Splits:
    """Return the splits of a table whose cells in a column name them."""
    splits = [split_of(str(cell)) for cell in rows[column]]
    if None in splits or "train" not in splits:
        number = splits.index(None) if None in splits else 0
        raise UserError(
            f"{where}: row {number + 1} has '{short(str(rows[number][column]))}' in column "
            f"'{column}', whose cells must be train, validation or test, and some train; name "
            "another column with dataset.options.split"
        )
    parts = {
        split: (
            rows.select([place for place, of in enumerate(splits) if of == split]),
            f"{where}, {column} {split}",
        )
        for split in set(splits)
    }
    return Splits(parts["train"], parts.get("validation"), parts.get("test"))


def load(
    splits: Splits,
    settings: Settings,
    columns: Columns,
    options: TableOptions,
    notes: Mapping[str, str],
) -> LoadedData:
    """Return the splits with the columns of their target (plugins.dataset.LoadedData), and further
    notes.

    The settings say how many test rows are split off, and whether bad rows are dropped or end it
    with a UserError. Classes and tags become 0..C-1.
    """
    names, suspect, joined = tuple[str, ...](), dict[str, str](), dict[str, str]()
    if columns.kind in {"turns", "prompt", "text"}:
        # between the parts of a prompt a single space means an empty line
        between = "\n\n" if options.separator == " " else options.separator
        rows = partial(as_conversations, columns=columns, separator=between)
    else:
        decimal_mark = settings.task.options.get("decimal_mark")
        with column_errors_as_user_errors(splits.train[1]):
            names, row, types, spellings = _conversion(splits.train, columns, options, decimal_mark)
        rows = partial(converted, read=columns.read, row=row, types=types)
        missing = [
            name for name in names if columns.kind == "class" and name.strip().lower() in MISSING
        ]
        counts = Counter(map(as_text, splits.train[0][columns.label])) if missing else {}
        each = ", ".join(f"'{name}' ({counts[name]:,} rows)" for name in missing)
        suspect = (
            {SUSPECT: f"{each}: taken for a class; empty these cells if it is none"} if each else {}
        )
        if spellings:
            told = _told(spellings, "word" if columns.kind == "tags" else "row")
            if options.normalize_labels:
                joined[SPELLINGS] = f"taken for one each: {told}"
            else:
                suspect[SPELLINGS] = (
                    f"each spelling is a label of its own: {told}; "
                    f"dataset.options.normalize_labels: true joins them"
                )
    unread = {"columns not read": some(columns.unread)} if columns.unread else {}
    loaded = _loaded(splits, settings, rows, columns.group)
    notes = {**loaded.notes, "columns": str(columns), **unread, **joined, **notes}
    return replace(loaded, label_names=names, notes=notes, warnings={**loaded.warnings, **suspect})


def _loaded(
    splits: Splits, settings: Settings, convert: Callable[..., Dataset], group: str | None
) -> LoadedData:
    """Return the splits with converted rows; without a table of test rows, these are split off
    the training rows.
    """
    numbers: Index = {}
    bad: list[str] = []
    unread: set[str] = set()
    drop = settings.task.options.get("bad_rows") == "drop"

    def rows(split: tuple[Dataset, str]) -> Dataset:
        found = convert(*split)
        if group is not None:
            found = found.add_column(GROUP, _groups(*split, group, numbers))
        reasons = found["bad"][:]
        if wrong := [reason for reason in reasons if reason]:
            bad.extend(wrong)
            if not drop or len(wrong) == len(reasons):
                raise UserError(_bad_rows(wrong, len(reasons)))
            found = found.select([place for place, reason in enumerate(reasons) if not reason])
        if "unread" not in found.column_names:
            return found.remove_columns(["bad", "place"])
        unread.update(key for keys in found["unread"] for key in keys)
        return found.remove_columns(["bad", "unread"])

    train = rows(splits.train)
    validation = rows(splits.validation) if splits.validation else None
    test = rows(splits.test) if splits.test is not None else None
    notes = {UNREAD_KEYS: ", ".join(sorted(unread))} if unread else {}
    if test is None:
        train, test = split_off_test(train, settings, splits.train[1])
        notes |= {
            "test": f"{len(test)} rows split off {splits.train[1]}, as no test rows were given"
        }
    dropped = {BAD_ROWS: f"{len(bad):,}, such as {bad[0]}"} if bad else {}
    return LoadedData(train, validation, test, notes=notes, warnings=dropped)


def _bad_rows(wrong: Sequence[str], rows: int) -> str:
    """Return the sentence on a table's bad rows: the first of them, how many more, what to do."""
    more = f" ({len(wrong) - 1:,} more of {rows:,} rows are bad)" if wrong[1:] else ""
    if len(wrong) <= rows / 2:
        return f"{wrong[0]}{more}; task.options.bad_rows: drop leaves bad rows out"
    if DECIMAL_MARK in wrong[0]:
        return f"{wrong[0]}{more}"
    others = "dataset.options.text or dataset.options.label"
    return f"{wrong[0]}{more}; if the columns are wrong, name others with {others}"


def _groups(dataset: Dataset, file: str, column: str, numbers: Index) -> list[int]:
    """Return the number of each row's group; `numbers` has the groups of earlier tables, and
    gets the new ones.
    """
    check_columns(dataset, file, (column,))
    cells = (
        cell for batch in dataset.select_columns([column]).iter(BATCH) for cell in batch[column]
    )
    found = []
    for number, cell in enumerate(cells, 1):
        if (value := as_text(cell)) is None:
            raise UserError(f"{file}: row {number} {_empty('group', column)}")
        found.append(numbers.setdefault(value, len(numbers)))
    return found


def _conversion(
    train: tuple[Dataset, str],
    columns: Columns,
    options: TableOptions,
    decimal_mark: DecimalMark | None,
) -> tuple[tuple[str, ...], Row, dict[str, Any], list[Spellings]]:
    """Return the labels' names, the function that converts a row's cells, the types of what it
    returns, and the labels that have several spellings.
    """
    from datasets import Value

    label = columns.label or ""
    if columns.kind == "tags":
        feature = train[0].features[label]
        tag_feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        if tag_feature is None:
            what = f"{train[1]}: column '{label}' has no lists of tags"
            raise UserError(f"{what}; give a json, jsonl or parquet file with lists")
        batches = train[0].select_columns([label]).iter(BATCH)
        tags = Counter(tag for batch in batches for tags in batch[label] for tag in tags or ())
        spellings = spellings_of(tags)
        known = getattr(tag_feature, "names", None)
        names, labels = _labels(tags, spellings, train[1], known, options)
        words_and_tags = partial(_words_and_tags, column=columns.text[0], labels=labels)
        types = {"words": [Value("string")], "tags": [Value("int64")]}
        return names, words_and_tags, types, spellings
    row = partial(
        _text_and_label, columns=columns, separator=options.separator, decimal_mark=decimal_mark
    )
    texts = {name: Value("string") for name in ("text", *([PAIR] if columns.pair else []))}
    if columns.kind == "class":
        known = getattr(train[0].features[label], "names", None)  # a ClassLabel knows them
        values, rows = train[0].unique(label), len(train[0])
        spellings = spellings_of(values)
        if spellings:
            spellings = spellings_of(Counter(train[0][label]))
        names, labels = _labels(values, spellings, train[1], known, options)
        if not (known or options.label_names) and len(names) > max(FEW_CLASSES, rows / 2):
            raise UserError(
                f"{train[1]}: column '{label}' has {len(names):,} different labels in {rows:,} "
                "rows, too many for classes: is it a number of the row, a text or a measurement? "
                "Name the column of the classes with dataset.options.label; numbers are learnt by "
                "the task regression, answers in words by causal_lm"
            )
        return names, partial(row, labels=labels), {**texts, "label": Value("int64")}, spellings
    if options.label_names:
        raise UserError(
            f"{train[1]}: dataset.options.label_names are of classes or tags; numbers have none"
        )
    if options.normalize_labels:
        raise UserError(
            f"{train[1]}: dataset.options.normalize_labels is for classes or tags; leave it out "
            f"for numbers"
        )
    return (), partial(row, labels=None), {**texts, "label": Value("float64")}, []


# Labels


def as_text(label: Any) -> str | None:
    """Return a label as text, so that 1, 1.0 and "1" are the same; None where the cell is empty."""
    if label is None or label == "" or label != label:  # noqa: PLR0124 - NaN
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip() or None


def normalized(text: str) -> str:
    """Return a label without what differs in case or white space alone."""
    return " ".join(text.casefold().split())


class Spelling(NamedTuple):
    """One of several texts of a label, and the number of cells that have it."""

    text: str
    cells: int


Spellings = tuple[Spelling, ...]  # of one label, the most frequent first


def spellings_of(labels: Iterable[Any]) -> list[Spellings]:
    """Return the labels of several spellings, which differ only in case or white space, of cells,
    or of a mapping of them to their counts.
    """
    counts = Counter[str]()
    for label, count in Counter(labels).items():
        text = as_text(label)
        if text is not None:
            counts[text] += count
    by_label = dict[str, list[Spelling]]()
    for text, count in sorted(counts.items()):
        by_label.setdefault(normalized(text), []).append(Spelling(text, count))
    return [
        tuple(sorted(spellings, key=lambda spelling: -spelling.cells))
        for spellings in by_label.values()
        if len(spellings) > 1
    ]


def _told(spellings: Sequence[Spellings], unit: str) -> str:
    """Return each label's spellings with the number of rows, or words, that have them."""
    lines = []
    for first, *others in spellings:
        more = " and ".join(f"'{short(text)}' ({count:,})" for text, count in others)
        plural = "" if first.cells == 1 else "s"
        lines.append(f"'{short(first.text)}' ({first.cells:,} {unit}{plural}) and {more}")
    return some(lines, 12)


class Labels(NamedTuple):
    """Places of labels among their names."""

    places: Index
    """Text of a label, normalised or as it is -> its place."""
    normalize: bool = False

    def place(self, text: str) -> int | None:
        return self.places.get(normalized(text) if self.normalize else text)

    def similar(self, text: str) -> str | None:
        """Return a label that differs only in case or white space; None if there is none."""
        wanted = normalized(text)
        return next((known for known in self.places if normalized(known) == wanted), None)


def _labels(
    cells: Iterable[Any],
    spellings: Sequence[Spellings],
    file: str,
    known: Sequence[str] | None,
    options: TableOptions,
) -> tuple[tuple[str, ...], Labels]:
    """Return names and places: the data set's own names, the sorted values themselves, or the
    names given.
    """
    given, normalize = options.label_names, options.normalize_labels
    if known and not given:
        return tuple(known), Labels({str(i): i for i in range(len(known))})
    values = {value for label in cells if (value := as_text(label)) is not None}
    if normalize:
        values -= {spelling.text for _, *others in spellings for spelling in others}
    # a class's number, and not a text of digits
    integers = bool(values) and all(v.removeprefix("-").isdecimal() and len(v) < 20 for v in values)
    ordered = sorted(values, key=int if integers else str)
    by_value = _places(ordered, normalize=normalize)
    if not given:
        return tuple(ordered), by_value
    by_name = _places(given, normalize=normalize)
    if len(by_name.places) != len(given):
        raise UserError(
            f"{file}: dataset.options.label_names holds a name twice: {some([*map(short, given)])}"
        )
    if not integers or values <= set(given):
        return tuple(given), by_name
    if len(ordered) == len(given):
        return tuple(given), by_value
    if all(0 <= int(value) < len(given) for value in ordered):
        return tuple(given), Labels({str(i): i for i in range(len(given))})
    raise UserError(
        f"{file}: the {len(ordered)} labels {some([*map(short, ordered)], 12)} don't fit the "
        f"{len(given)} label_names given"
    )


def _places(names: Sequence[str], *, normalize: bool) -> Labels:
    keys = [normalized(name) if normalize else name for name in names]
    return Labels({key: place for place, key in enumerate(keys)}, normalize)


# Rows


def _text_and_label(
    *cells: Any,
    columns: Columns,
    separator: str,
    labels: Labels | None,
    decimal_mark: DecimalMark | None,
) -> tuple[str | float, ...]:
    *texts, label = cells
    column = columns.label or ""
    if labels is not None:
        value: float = _looked_up(label, labels, "label", column)
    else:
        value = _finite(label, column, decimal_mark)
    text = separator.join(str(cell) for cell in texts[: len(columns.text)] if cell is not None)
    seconds = tuple("" if cell is None else str(cell) for cell in texts[len(columns.text) :])
    for part, names in (
        (text, columns.text),
        *((second, (columns.pair or "",)) for second in seconds),
    ):
        if not part.strip():
            raise _empty("text", *names)
    return text, *seconds, value


def _finite(cell: Any, column: str, decimal_mark: DecimalMark | None) -> float:
    """Return the number of a cell, read by its decimal mark. Raises ValueError: it is none."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise _empty("number", column)
    if decimal_mark == "comma" and isinstance(cell, float):
        # 1.234 may have been written for a thousand, which its reader took for a decimal point
        raise ValueError(
            f"has {cell!r} in column '{column}', a number already, whose text {DECIMAL_MARK}: "
            f"comma would have to read; leave {DECIMAL_MARK} out, or give the numbers as texts"
        )
    value = _as_float(cell, decimal_mark)
    if not math.isfinite(value):
        raise ValueError(
            f"has '{short(str(cell))}' in column '{column}', which is no finite number"
            f"{_readings(str(cell), decimal_mark)}"
        )
    return value


def _as_float(cell: Any, decimal_mark: DecimalMark | None) -> float:
    """Return a cell's number; NaN where it is none."""
    if decimal_mark == "comma" and isinstance(cell, str):
        number = plain_number(cell, decimal_mark)
        return math.nan if number is None else number
    # Python's own `1_000` and truth values are refused
    if not isinstance(cell, bool) and "_" not in str(cell):
        with suppress(TypeError, ValueError, OverflowError):
            return float(cell)
    number = plain_number(str(cell), "point") if decimal_mark == "point" else None
    return math.nan if number is None else number


def _readings(text: str, decimal_mark: DecimalMark | None) -> str:
    """Return what the decimal marks that weren't chosen would read, as the end of a sentence."""
    numbers = {mark: plain_number(text, mark) for mark in MARKS if mark != decimal_mark}
    readings = [
        f"with {DECIMAL_MARK}: {mark} it is {number:.12g}"
        for mark, number in numbers.items()
        if number is not None
    ]
    return f"; {', and '.join(readings)}" if readings else ""


def _words_and_tags(
    words: Any, tags: Any, column: str, labels: Labels
) -> tuple[list[str], list[int]]:
    if not words:
        raise _empty("words", column)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"holds no list of words in column '{column}'")
    count = len(tags) if isinstance(tags, list) else 0
    if count != len(words):
        raise ValueError(f"has {len(words)} words and {count} tags; give one tag per word")
    return words, [_looked_up(tag, labels, "tag") for tag in tags]


def _looked_up(raw: Any, labels: Labels, what: str, column: str = "") -> int:
    text = as_text(raw)
    if text is None and column:
        raise _empty(what, column)
    place = labels.place(text or "")
    if place is not None:
        return place
    advice, similar = "", labels.similar(text or "")
    if similar is not None:
        advice = f"; dataset.options.normalize_labels: true takes it for '{short(similar)}'"
    raise ValueError(
        f"has the {what} '{short(text or '')}', which is not among the {len(labels.places)} known "
        f"ones ({some([*map(short, labels.places)], 12)}){advice}"
    )


def _empty(what: str, *columns: str) -> ValueError:
    where = " or ".join(f"'{column}'" for column in columns)
    return ValueError(f"has no {what} in column {where}; fill it or remove the row")
