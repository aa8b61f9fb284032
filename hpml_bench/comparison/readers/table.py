"""Tables of scores, a line per row and run: csv, tsv, json, jsonl, parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.comparison.inputs import COUNT, GROUP, NAMES, ROW, SCORE, SEED, SYSTEM, WHERE, InputScores
from hpml_bench.report.answer.terms import ordinal
from hpml_bench.report.scores import CostDefinition, ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

ORDER = 90
SUFFIXES = {".csv": ",", ".tsv": "\t", ".json": "", ".jsonl": "", ".parquet": ""}
LONGEST_FIELD = 10_000_000
"""Characters of a field; a file with longer ones holds texts, not scores."""
NUMBERED = (ROW, SEED, GROUP)
"""Columns of ids that may be numbers."""
WHOLE = re.compile(r"-?\d+(?:\.0*)?")
EXACT = 2.0**53
"""Whole numbers from here on share a float with others."""
WORDS = {"true": 1.0, "false": 0.0}


def claims(path: Path) -> bool:
    """Return whether a path is a table by its name."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, metric: str | None) -> tuple[InputScores, ...]:
    """Return the lines of a table; `metric` names the column of the score where that isn't `score`.

    Raises:
        UserError: the file can't be read as its ending says, lacks a column, or has a score or cost that is no number.

    """
    try:
        names, lines = _lines(path)
        return (measured(names, lines, metric, str(path)),)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{path}: it can't be read as {path.suffix.lower()[1:]}: {error}; write it anew") from None


def of_frame(frame: pd.DataFrame, metric: str | None = None) -> InputScores:
    """Return the lines of a frame with the columns of a table; a message names the frame's row by its position.

    Raises:
        UserError: it lacks a column, or a score or cost is no number.

    """
    names = [str(name) for name in frame.columns]
    columns = [frame.iloc[:, at].tolist() for at in range(len(names))]
    lines = ((f"frame, row {at}", list(cells)) for at, cells in enumerate(zip(*columns, strict=True)))
    return measured(names, lines, metric, "frame")


Line = tuple[str, Sequence[Any]]
"""Where a line came from, and its cells."""


def measured(names: Sequence[str], lines: Iterable[Line], metric: str | None, source: str) -> InputScores:
    """Return lines of cells under these columns as measured scores."""
    import pandas as pd

    _check(names, metric, source)
    score = metric or SCORE
    where, cells = [], []
    for at, line in lines:
        where.append(at)
        cells.append(line)
    if not cells:
        raise UserError(f"{source}: it has no lines; give a line per row and run")
    columns = dict(zip(names, zip(*cells, strict=True), strict=True))
    found: dict[str, Sequence[Any]] = {WHERE: where}
    found[SCORE] = [_number(cell, score, at) for cell, at in zip(columns[score], where, strict=True)]
    if ROW not in columns and COUNT in columns:
        found[COUNT] = [_number(cell, COUNT, at) for cell, at in zip(columns[COUNT], where, strict=True)]
    found |= {name: _ids(columns[name], name, where) for name in NUMBERED if name in columns}
    found |= {name: list(map(_text, columns[name])) for name in NAMES if name in columns and name not in (*found,)}
    taken = {*NAMES} - {SCORE} | {score}
    costs, unread = [], []
    for name in (name for name in names if name not in taken):
        numbers = _numbers(columns[name])
        if numbers is None:
            unread.append(sanitize(name, 40) or _unnamed(names, name))
        elif not sanitize(name):
            raise UserError(
                f"{where[0]}: {_unnamed(names, name)}, holds numbers, as the index does that pandas writes; write "
                "the table without it (index=False), or give the column a name"
            )
        else:
            column = f"cost {name}"  # of no other column's name
            found[column] = numbers
            costs.append(CostDefinition(column, sanitize(name.replace("_", " "), 40)))
    remarks = (f"Columns that hold text weren't read: {', '.join(unread)}.",) if unread else ()
    return InputScores(
        pd.DataFrame(found),
        ScoreDefinition(sanitize(score, 60)),
        tuple(costs),
        (),
        remarks,
        f"table {sanitize(source, 300)}",
    )


def _check(names: Sequence[str], metric: str | None, source: str) -> None:
    """Check that a table has its columns, each once."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None and not sanitize(twice):
        raise UserError(
            f"{source}: {_unnamed(names, twice)}, isn't the only one; write the table without an index "
            "(index=False in pandas), or give each column a name"
        )
    if twice is not None:
        raise UserError(f"{source}: two columns are named '{sanitize(twice, 60)}'; rename or remove one")
    needed = (SYSTEM, metric or SCORE)
    for name in (*needed, ROW, GROUP, COUNT):
        alike = next((other for other in names if other != name and _plain(other) == _plain(name)), None)
        if name not in names and alike is not None:
            raise UserError(f"{source}: the column '{sanitize(alike, 60)}' must be written '{name}'; rename it")
    for name in needed:
        if name not in names:
            has = ", ".join(sanitize(other, 40) or "one without a name" for other in names[:12]) or "none"
            raise UserError(f"{source}: there is no column '{name}'; it has {has} (docs/compare.md names the columns)")
    if {ROW, COUNT} <= set(names):
        raise UserError(
            f"{source}: it has the columns '{ROW}' and '{COUNT}'; a line is a row or the mean of many, so remove one"
        )


def _unnamed(names: Sequence[str], name: str) -> str:
    """Return what a column without a name that prints is called: the first, by its place."""
    place = names.index(name) + 1
    return f"the {'first' if place == 1 else ordinal(place)} column, which has no name"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _ids(cells: Sequence[Any], name: str, where: Sequence[str]) -> list[str | None]:
    """Return ids as text; of whole numbers alone without decimals, as one tool writes `3` and another `3.0`."""
    for cell, at in zip(cells, where, strict=True):
        if isinstance(cell, float) and EXACT <= abs(cell) < math.inf:
            raise UserError(
                f"{at}: {name} is {cell:.17g} as a float, which can't tell whole numbers of that size apart; give it "
                "as an integer or text"
            )
    texts = list(map(_text, cells))
    whole = all(text is None or WHOLE.fullmatch(text) for text in texts)
    return [text.partition(".")[0] if whole and text is not None else text for text in texts]


def _text(cell: Any) -> str | None:
    """Return an id as text; None where it is missing. A whole number has no decimals, however it is stored."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return text if text and text not in {"<NA>", "NaT"} else None


def _value(cell: Any) -> float | None:
    """Return a cell as a number, NaN where it is missing; None where it is text."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip().lower()
        cell = WORDS.get(text, text or math.nan)
    if isinstance(cell, str) and "_" in cell:
        return None  # Python alone takes 1_5 for 15
    try:
        return float(cell)
    except OverflowError:
        return math.inf if cell > 0 else -math.inf  # an integer beyond floats, as text of that size would be
    except (TypeError, ValueError):
        return math.nan if str(cell) == "<NA>" else None


def _number(cell: Any, name: str, where: str) -> float:
    value = _value(cell)
    if value is None:
        raise UserError(f"{where}: {name} is '{sanitize(cell, 40)}', which is no number; give a number in each line")
    return value


def _numbers(cells: Sequence[Any]) -> list[float] | None:
    """Return a column of numbers; None where a cell is text, or all are empty."""
    values = [_value(cell) for cell in cells]
    there = [value for value in values if value is not None]
    return there if len(there) == len(values) and not all(map(math.isnan, there)) else None


# Files


def _lines(path: Path) -> tuple[list[str], Iterator[Line]]:
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        return _separated(path, SUFFIXES[suffix])
    if suffix == ".parquet":
        import pandas as pd

        frame = pd.read_parquet(path)
        columns = [frame[name].tolist() for name in frame.columns]
        cells = zip(*columns, strict=True)
        return list(map(str, frame.columns)), ((f"{path}, row {at}", list(c)) for at, c in enumerate(cells))
    return _of_json(path, list(_jsonl(path)) if suffix == ".jsonl" else _json(path))


def _separated(path: Path, delimiter: str) -> tuple[list[str], Iterator[Line]]:
    csv.field_size_limit(LONGEST_FIELD)
    text = path.read_bytes().decode("utf-8-sig")  # line breaks inside quotes stay what they are
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader, [])]
    if not names:
        raise ValueError("the file is empty")

    def lines() -> Iterator[Line]:
        for cells in reader:
            if cells:
                where = f"{path}, line {reader.line_num}"
                if len(cells) != len(names):
                    raise UserError(f"{where}: it has {len(cells)} fields and the header {len(names)}; quote commas")
                yield where, cells

    return names, lines()


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for at, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"{path}, line {at}", json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}, line {at}: it is no JSON: {error.msg}; write an object a line") from None


def _json(path: Path) -> list[tuple[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, list):
        raise ValueError("it holds no list of objects, one per row and run")  # noqa: TRY004 - said of the file
    return [(f"{path}, entry {at}", one) for at, one in enumerate(found, 1)]


def _of_json(path: Path, objects: Sequence[tuple[str, Any]]) -> tuple[list[str], Iterator[Line]]:
    for where, one in objects:
        if not isinstance(one, Mapping):
            raise UserError(f'{where}: it is no object; write one as {{"system": ..., "row": ..., "score": ...}}')
    names = list(dict.fromkeys(str(name) for _, one in objects for name in one))
    if not names:
        raise ValueError(f"{path.name} holds no object")
    return names, ((where, [one.get(name) for name in names]) for where, one in objects)
