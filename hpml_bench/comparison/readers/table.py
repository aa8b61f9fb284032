"""Tables of scores, a line per row and run: csv, tsv, json, jsonl, parquet."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import (
    COUNT,
    DATASET,
    GROUP,
    NAMES,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    InputScores,
)
from hpml_bench.judge.scores import CostDefinition, ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import open_plain
from hpml_bench.system.parquet import columns_of_types, is_number, is_text, read_table
from hpml_bench.system.text import count_of, sanitize

if TYPE_CHECKING:
    import pandas as pd

ORDER = 90
SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".parquet"})
LONGEST_FIELD = 10_000_000  # characters of a field; a file with longer ones holds texts, not scores
MOST_COLUMNS = 10_000
MOST_LISTED = 12  # names in a sentence
OF_LISTS = "Columns of lists, objects or bytes weren't read"
INDEX = re.compile(r"__index_level_\d+__")  # of pandas, without a name
NESTED: Any = object()  # in place of a list or an object in a cell
EXACT = 2.0**53  # size from which two whole numbers may be one float
WHOLE = re.compile(r"-?\d+(?:\.0*)?")
WORDS = {"true": 1.0, "false": 0.0, "<na>": math.nan, "": math.nan}
OTHERS: Mapping[str, tuple[str, ...]] = {
    SYSTEM: ("model", "modelname", "systemname", "method"),
    ROW: ("questionid", "rowid", "docid", "exampleid", "sampleid", "itemid", "id", "idx", "index"),
    SCORE: ("correct", "iscorrect", "exactmatch", "accuracy", "acc", "result"),
    SEED: ("run", "randomseed", "trial", "repeat", "replicate"),
    DATASET: ("task", "benchmark"),
}
"""Column -> other names for it, in small letters and figures alone."""
METRIC = re.compile(r"(^|_)(accuracy|acc|f1|em|bleu|rouge[a-z0-9]*|reward)(_|$)")
"""Names of numbers that may be the score, beside its other names, and are no costs."""
MORE = re.compile(r"(^|_)(throughput|speed|tps|qps)(_|$)|_per_(s|sec|second|minute|hour)$")
"""Names of numbers of which more is better, which are no costs."""
OF_SCORE = re.compile(r"(^|_)(std|sd|stdev|stderr|sem|ci|step|epoch)(_|$)")
"""Names of numbers that say how sure a score is, or when it was measured, which are no costs
either.
"""
NO_SYSTEM = re.compile(
    r"(^|_)(loss|nll|perplexity|seconds|time|latency|tokens|length|memory|cost|dollars)(_|$)"
    r"|^(label|target|gold|mean|average|avg|difficulty|year)$"
)
"""Names of numbers that are no systems, of a table with a column of numbers for each."""


def claims(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(
    path: Path, metric: str | None, columns: Mapping[str, str] | None = None
) -> tuple[InputScores, ...]:
    """Return the lines of a table.

    `metric`: column of the score where that isn't `score`; `columns`: our name of a column -> the
    file's. A UserError where the file can't be read as its ending says, lacks a column, or has a
    score or cost that is no number.
    """
    import pandas as pd

    suffix = path.suffix.lower()
    nested: Sequence[str] = ()
    try:
        if suffix in {".csv", ".tsv"}:
            cells = _separated(path)
        elif suffix == ".parquet":
            frame, nested = _parquet(path)
            cells = _placed(frame, path)
        else:
            if suffix == ".json" and not inputs.head_of(path, 1000).lstrip(
                b"\xef\xbb\xbf \t\r\n"
            ).startswith(b"["):
                raise ValueError("it holds no list of objects, one per row and run")
            inputs.refuse_large(path, inputs.MOST_TABLE)
            objects = _json_rows(path)
            cells = pd.DataFrame([*objects.values()], index=[*objects], dtype=object)
        for theirs in (columns or {}).values():
            if theirs not in cells and theirs not in nested:
                raise UserError(
                    f"{path}: there is no column '{sanitize(theirs, 60)}'; it has "
                    f"{_listed([*cells, *nested])}"
                )
        ours = {theirs: own for own, theirs in (columns or {}).items()}
        nested = [ours.get(name, name) for name in nested]
        return (measured(cells.rename(columns=ours), metric, str(path), nested),)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = str(error)
        advice = "" if ";" in reason else "; write it anew"
        raise UserError(f"{path}: it can't be read as {suffix[1:]}: {reason}{advice}") from None


def _json_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the objects of a file of JSON by their places; lists and objects within them are
    `NESTED`.
    """
    objects: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for where, fields in inputs.json_records(path):
        # a table of as many columns as all objects together have keys is made of them
        names |= fields.keys()
        _check_size(len(objects) + 1, len(names))
        objects[where] = {
            name: NESTED if isinstance(value, list | dict) else value
            for name, value in fields.items()
        }
    return objects


def _check_size(rows: int, columns: int) -> None:
    if rows > inputs.MOST_ROWS:
        raise ValueError(f"it holds more than {inputs.MOST_ROWS:,} rows; compare fewer at a time")
    if columns > MOST_COLUMNS:
        raise ValueError(f"it holds more than {MOST_COLUMNS:,} columns; take out those not needed")
    if rows * columns > inputs.MOST_CELLS:
        raise ValueError(
            f"it holds more than {inputs.MOST_CELLS:,} values; take out columns that aren't needed"
        )


def _parquet(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns of a file that hold numbers, texts or times, and the names of the others,
    which aren't decoded.
    """
    import pyarrow as pa

    columns, nested = columns_of_types(path, _may_be, follow=True)
    _check_size(0, len(columns) + len(nested))
    table = read_table(path, _may_be, inputs.MOST_CELLS, columns, follow=True)
    _check_size(table.num_rows, table.num_columns)
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    # what pandas wrote about its index isn't followed: an index with a name is a column as others
    table = table.replace_schema_metadata(None)
    indices = [name for name in table.column_names if INDEX.fullmatch(name)]
    # whole numbers of a column with missing ones stay whole
    return table.drop_columns(indices).to_pandas(integer_object_nulls=True), nested


def _may_be(_: str, kind: Any) -> bool:
    """Return whether a column of a table may have this `pyarrow.DataType`."""
    import pyarrow as pa

    return bool(
        is_text(kind)
        or is_number(kind)
        or pa.types.is_null(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_decimal(kind)
    )


def of_frame(frame: pd.DataFrame, metric: str | None = None) -> InputScores:
    """Return the lines of a frame, as `read` of a table; a message names the frame's row by its
    position.
    """
    if {*frame.index.names} & {*NAMES} - {*frame.columns}:  # as `pivot` gives one
        frame = frame.reset_index()
    return measured(_placed(frame, "frame"), metric, "frame")


def _placed(frame: pd.DataFrame, source: object) -> pd.DataFrame:
    where = [f"{source}, row {at}" for at in range(len(frame))]
    return frame.astype(object).set_axis(where, axis=0).set_axis([*map(str, frame.columns)], axis=1)


def measured(
    cells: pd.DataFrame, metric: str | None, source: str, nested: Sequence[str] = ()
) -> InputScores:
    """Return cells by their places, in columns of any names, as measured scores.

    `nested`: names of further columns, which hold lists, objects or bytes and aren't in `cells`.
    """
    import pandas as pd

    if not all(map(sanitize, cells)):
        what = "a column has no name, as the index that pandas writes"
        raise UserError(
            f"{source}: {what}; write the table without it (index=False), or give the column a name"
        )
    wide = _systems(cells, metric)
    if wide:  # a line per system and row that it has
        cells = cells.melt(
            [name for name in [*cells] if name not in wide], wide, SYSTEM, SCORE, ignore_index=False
        )
        cells = cells[[not math.isnan(_value(cell) or 0.0) for cell in cells[SCORE]]]
    score = SCORE if wide else metric or SCORE
    for name in nested:
        if name in {*NAMES, score}:
            raise UserError(
                f"{source}: the column '{sanitize(name, 60)}' holds lists, objects or bytes; give "
                f"a number or text in each row"
            )
    _check([*cells, *nested], score, source)
    if cells.empty:
        raise UserError(f"{source}: it has no lines; give a line per row and run")
    where = [*cells.index]
    for name in (name for name in (*NAMES, score) if name in cells):
        for place, cell in cells[name].items():
            if cell is NESTED:
                raise UserError(f"{place}: {name} is a list or an object; give a number or text")
    values: dict[str, Sequence[Any]] = {WHERE: where}
    for name, column in (
        (SCORE, score),
        *([(COUNT, COUNT)] if COUNT in cells and ROW not in cells else []),
    ):
        values[name] = [_value(cell) for cell in cells[column]]
        for at, cell, value in zip(where, cells[column], values[name], strict=True):
            if value is None:
                what = f"{column} is '{sanitize(cell, 40)}', which is no number"
                raise UserError(f"{at}: {what}; give a number in each line")
    for name in (name for name in NAMES if name in cells and name not in values):
        ids = name in {ROW, SEED, GROUP}
        values[name] = _ids(cells[name]) if ids else list(map(_text, cells[name]))
    meant = {*NAMES} - {SCORE} | {score}
    costs, remarks = _costs(
        {name: [*cells[name]] for name in map(str, cells) if name not in meant}, nested
    )
    return InputScores(
        pd.DataFrame(values | {cost.column: of for cost, of in costs.items()}),
        ScoreDefinition(sanitize(metric or score, 60)),
        tuple(costs),
        remarks=(*remarks, *(["The table has a column per system."] if wide else [])),
        source=f"table {sanitize(source, 300)}",
        directed=False,
    )


def _systems(cells: pd.DataFrame, metric: str | None) -> list[str]:
    """Return the columns of a table with a column of numbers per system; none of a table with a
    line per system.
    """
    if (
        ROW not in cells
        or {SYSTEM, SCORE, metric} & {*cells}
        or cells.columns.has_duplicates
        or cells.empty
    ):
        return []
    found = [
        name
        for name in map(str, cells)
        if name not in NAMES and _numbers([*cells[name]]) is not None
    ]
    kinds = (METRIC, MORE, NO_SYSTEM)
    named = any(
        kind.search(_words(name)) for name in found for kind in kinds
    )  # metrics, of one system
    return found if len(found) > 1 and not named else []


def _costs(
    columns: Mapping[str, Sequence[Any]], nested: Sequence[str]
) -> tuple[dict[CostDefinition, list[float]], list[str]]:
    """Return those columns of numbers that are costs with their values, and remarks on the
    others and on the `nested` ones.
    """
    costs: dict[CostDefinition, list[float]] = {}
    unread: dict[str, list[str]] = defaultdict(list)
    unread[OF_LISTS] = [*nested]
    for name, cells in columns.items():
        if any(cell is NESTED for cell in cells):
            unread[OF_LISTS].append(name)
        elif (numbers := _numbers(cells)) is None:
            unread["Columns that hold text weren't read"].append(name)
        elif _may_be_score(name):
            unread["Other scores weren't read (--metric chooses one)"].append(name)
        elif MORE.search(_words(name)):
            unread["More of these is better, so that they are no costs and weren't read"].append(
                name
            )
        elif OF_SCORE.search(_words(name)):
            unread["Of the score, not of costs, and so not read"].append(name)
        else:
            costs[CostDefinition(f"cost {name}", sanitize(name.replace("_", " "), 40))] = numbers
    return costs, [f"{why}: {_listed(names)}." for why, names in unread.items() if names]


def _check(names: Sequence[str], score: str, source: str) -> None:
    """Check that a table has its columns, each once."""
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(
                f"{source}: {times} columns are named '{sanitize(name, 60)}'; rename all but one"
            )
    needed, others = (SYSTEM, score), {SCORE, WHERE, *([ROW] if COUNT in names else [])} - {score}
    scores = [*filter(_may_be_score, names)]
    several = SCORE not in names and score == SCORE and len(scores) > 1
    wanted = [
        name
        for name in dict.fromkeys((*needed, *NAMES))
        if name not in names and name not in others
    ]
    found = {
        ours: theirs
        for ours in wanted
        for theirs in names
        if theirs not in NAMES
        and _plain(theirs) in {_plain(ours), *OTHERS.get(ours, ())}
        and not (ours == SCORE and several)
    }
    if found:  # its lines would be pooled, or be a cost
        give = sanitize(",".join(f"{ours}={theirs}" for ours, theirs in found.items()), 300)
        ours, theirs = next(iter(found.items()))
        raise UserError(
            f"{source}: the column '{sanitize(theirs, 60)}' may be '{ours}'; rename it, or give "
            f"--columns {give}, or take it out"
        )
    for name in (name for name in needed if name not in names):
        if name == SCORE and several:
            what = f"there is no column '{SCORE}', and each of these may be it: {_listed(scores)}"
            raise UserError(
                f"{source}: {what}; choose one, as by --metric {sanitize(scores[0], 60)}"
            )
        has = f"it has {_listed(names)} (docs/compare.md names the columns)"
        raise UserError(f"{source}: there is no column '{name}'; {has}")
    if {ROW, COUNT} <= set(names):
        what = f"it has the columns '{ROW}' and '{COUNT}'"
        raise UserError(f"{source}: {what}; a line is a row or the mean of many, so remove one")


def _listed(names: Sequence[str]) -> str:
    """Return names in a line: the first of many, and how many others there are."""
    others = len(names) - MOST_LISTED
    listed = [sanitize(name, 40) for name in names[:MOST_LISTED]]
    if others > 0:
        listed[-1] = f"{listed[-1]} and {count_of(others, 'other')}"
    return ", ".join(listed) or "none"


def _may_be_score(name: str) -> bool:
    return _plain(name) in {SCORE, *OTHERS[SCORE]} or METRIC.search(_words(name)) is not None


def _plain(name: str) -> str:
    """Return a name's letters and figures alone, in small letters."""
    return re.sub(r"[\W_]", "", name.lower())


def _words(name: str) -> str:
    """Return a name in small letters, with one underscore between words, and `per` for a stroke."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("/", "_per_")).strip("_")


def _ids(cells: pd.Series[Any]) -> list[str | None]:
    """Return ids as text; of whole numbers alone without decimals, as one tool writes `3` and
    another `3.0`.
    """
    for at, cell in cells.items():
        if isinstance(cell, float) and EXACT <= abs(cell) < math.inf:
            what = (
                f"{cells.name} is {cell:.17g} as a float, which can't tell whole numbers of that "
                f"size apart"
            )
            raise UserError(f"{at}: {what}; give it as an integer or text")
    texts = list(map(_text, cells))
    whole = all(text is None or WHOLE.fullmatch(text) for text in texts)
    return [text.partition(".")[0] if whole and text is not None else text for text in texts]


def _text(cell: Any) -> str | None:
    """Return an id as text; None where it is missing. A whole number has no decimals, however it
    is stored.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return text if text and text not in {"<NA>", "NaT"} else None


def _value(cell: Any) -> float | None:
    """Return a cell as a number, NaN where it is missing; None where it is text."""
    if isinstance(cell, float):
        return cell
    text = "" if cell is None else str(cell).strip().lower()
    if text in WORDS:
        return WORDS[text]
    if isinstance(cell, str) and "_" in cell:
        return None  # Python alone takes 1_5 for 15
    try:
        return float(cell)
    except OverflowError:
        return (
            math.inf if cell > 0 else -math.inf
        )  # an integer beyond floats, as text of that size would be
    except (TypeError, ValueError):
        return None


def _numbers(cells: Sequence[Any]) -> list[float] | None:
    """Return a column of numbers; None where a cell is text, or all are empty."""
    values = [_value(cell) for cell in cells]
    there = [value for value in values if value is not None]
    return there if len(there) == len(values) and not all(map(math.isnan, there)) else None


def _separated(path: Path) -> pd.DataFrame:
    csv.field_size_limit(LONGEST_FIELD)
    inputs.refuse_large(path, inputs.MOST_TABLE)
    # line breaks inside quotes stay what they are
    with io.TextIOWrapper(
        open_plain(path, follow=True), encoding="utf-8-sig", newline=""
    ) as stream:
        return _cells_of(stream, path)


def _cells_of(stream: io.TextIOWrapper, path: Path) -> pd.DataFrame:
    import pandas as pd

    header = stream.readline(LONGEST_FIELD)
    stream.seek(0)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.reader(
        inputs.lines_of(path, stream, LONGEST_FIELD), delimiter=delimiter, strict=True
    )
    names, lines, where = [name.strip() for name in next(reader, [])], [], []
    for cells in filter(None, reader):
        where.append(f"{path}, line {reader.line_num}")
        _check_size(len(where), len(names))
        if len(cells) != len(names):
            raise UserError(
                f"{where[-1]}: it has {len(cells)} fields and the header {len(names)}; quote commas"
            )
        lines.append(cells)
    return pd.DataFrame(lines, columns=names, index=where, dtype=object)
