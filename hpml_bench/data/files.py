"""Files with rows: csv, tsv, Orange's tab, json, jsonl, parquet and plain text, read as they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import SAMPLE_ROWS, is_number, short, some
from hpml_bench.data.sources import fetch
from hpml_bench.suite.base import Frozen
from hpml_bench.system.cache import cache_folder, disk_error, locked
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, first_line

if TYPE_CHECKING:
    from datasets import Dataset

SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
NAME_WORDS, LONGEST_HEADER = 3, 10_000
"""Most words of a column's name, and most characters of a line of them, where a separator is guessed."""
MAGIC = frozenset("*?[]{}:")
TEXT = {".txt": "text"}
"""Plain text, whose lines are rows with the one column `text`."""
OTHER = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
ORANGE_TYPES = {"", "c", "d", "s", "t", "continuous", "discrete", "string", "time", "numeric", "categorical", "text"}


class Layout(Frozen):
    """Layout of a separated file."""

    names: tuple[str, ...]
    named: bool
    skip: int
    """Lines before the first row of data."""
    label: str | None = None
    """Column whose role is `class` in Orange's third line."""


class Format(Frozen):
    """Options for reading separated files."""

    header: bool | None = None
    """Whether the first row of csv, tsv and tab files has column names; empty: yes, unless one of its cells is a
    number or occurs again in its column."""
    skip_lines: int | None = None
    """Lines left out after the header; empty: 2 for a .tab file with Orange's lines of types and roles, else 0."""
    quote: str = '"'
    """Quoting character of csv, tsv and tab files; empty for none."""


def file_of(uri: str) -> Path:
    """Return the file with rows that a source names, fetched if necessary; a UserError if it has none."""
    path = fetch(uri).folder_or_file
    known = [*SEPARATED, *OTHER]
    if not path.is_file() or path.suffix.lower() not in known:
        raise UserError(f"{path}: is no file that can be read; it must end in {', '.join(known)}")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    return path


def _layout(file: Path, form: Format) -> Layout:
    """Find column names and header lines from the first rows."""
    first = _first_rows(file, form)
    orange = file.suffix.lower() == ".tab" and len(first) > 2 and {c.strip() for c in first[1]} <= ORANGE_TYPES
    header = form.header
    if header is None:
        header = orange or _is_header(first[0], first[1:])
    names = tuple(name if header else f"column {position}" for position, name in enumerate(first[0], 1))
    if len(set(names)) != len(names):
        raise UserError(f"{file}: two columns have the same name ({some([*map(short, names)])}); rename one")
    skip = form.skip_lines if form.skip_lines is not None else (2 if orange and header else 0)
    roles = first[2] if orange else []
    label = next((name for name, role in zip(names, roles, strict=False) if role.strip() == "class"), None)
    return Layout(names=names, named=header, skip=skip + header, label=label)


def _is_header(row: list[str], below: list[list[str]]) -> bool:
    columns = [{line[position] for line in below} for position in range(len(row))]
    return not any(is_number(cell) or (cell and cell in column) for cell, column in zip(row, columns, strict=True))


def _first_rows(file: Path, form: Format) -> list[list[str]]:
    import pandas as pd

    try:
        table = pd.read_csv(file, header=None, nrows=SAMPLE_ROWS, dtype="str", **_as_pandas(file, form))
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise _unreadable(file, error) from None
    rows: list[list[str]] = table.fillna("").astype(str).to_numpy().tolist()
    other = _other_separator(file, rows[0][0]) if len(rows) > 1 and len(rows[0]) == 1 else None
    if other is not None and all(row[0].count(other) >= rows[0][0].count(other) for row in rows):
        raise _separated_by(other, file)
    return rows


def _other_separator(file: Path, header: str) -> str | None:
    """Return the separator of a line of column names that a file of this kind doesn't have; None for other lines."""
    right = SEPARATED[file.suffix.lower()]
    for separator in SEPARATORS:
        names = header.split(separator)
        if right not in header and len(names) > 1 and all(_is_name(name) for name in names):
            return separator
    return None


def _is_name(text: str) -> bool:
    """Return whether a text may be a column's name: a few words without space around them."""
    return text.strip() == text.rstrip("\r\n") and len(text.split()) <= NAME_WORDS


def _separated_by(separator: str, file: Path) -> UserError:
    suffix = file.suffix.lower()
    return UserError(
        f"{file}: its cells are separated by {SEPARATORS[separator]}, and those of a {suffix} file must be by "
        f"{SEPARATORS[SEPARATED[suffix]]}; save it with these"
    )


def _unreadable(file: Path, error: BaseException) -> UserError:
    """Return the error for a file that a library can't read."""
    suffix, problem, advice = file.suffix.lower(), first_line(error), ""
    if "corresponds to no data" in problem:
        return UserError(f"{file}: has no rows; give a file with some")
    if isinstance(error, UnicodeDecodeError):
        problem = f"it isn't UTF-8 ({problem})"
        advice = "; convert it, if it is Latin-1 by iconv -f latin1 -t utf-8"
    elif suffix in SEPARATED and "fields in line" in problem:
        with file.open(encoding="utf-8", errors="replace") as lines:
            other = _other_separator(file, lines.readline(LONGEST_HEADER))
        if other is not None:
            return _separated_by(other, file)
        advice = "; mend that line: a cell with a separator needs quotes"
    elif suffix == ".jsonl":
        problem = _torn_line(file) or problem
    return UserError(f"{file}: can't be read as {suffix[1:]}: {problem}{advice}")


def _as_pandas(file: Path, form: Format) -> dict[str, Any]:
    """Return arguments of pandas' reader, with which every cell is read exactly as written."""
    quoting = {"quotechar": form.quote, "quoting": 0} if form.quote else {"quoting": 3}
    return {"sep": SEPARATED[file.suffix.lower()], "keep_default_na": False, "encoding": "utf-8", **quoting}


def read_file(file: Path, form: Format) -> tuple[Dataset, Layout | None]:
    """Return a file's rows, memory-mapped from the cache of `datasets`, and the layout of a separated file."""
    from datasets import Features, Value, load_dataset

    suffix, layout, arguments = file.suffix.lower(), None, {}
    if suffix in SEPARATED:
        layout = _layout(file, form)
        arguments = {"names": list(layout.names), "header": None, "skiprows": layout.skip, **_as_pandas(file, form)}
        arguments["features"] = Features({name: Value("string") for name in layout.names})
    cache, builder = str(cache_folder() / "datasets"), (OTHER | TEXT).get(suffix, "csv")
    try:
        rows = load_dataset(builder, data_files=str(_literal(file)), split="train", cache_dir=cache, **arguments)
    except Exception as error:
        raise disk_error(error) or _unreadable(file, error.__cause__ or error) from None
    return rows, layout


def _torn_line(file: Path) -> str:
    """Return the error of the first line that is no JSON; empty where all are."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    json.loads(line)
            except (ValueError, RecursionError) as error:
                return f"line {number} is no JSON ({first_line(error)}); mend or remove it"
    return ""


def _literal(file: Path) -> Path:
    """Return a path without `*`, `[` or `::`, which `datasets` would expand: the file's own, or a link to it.

    The link's name changes with the file, since `datasets` decides by the link's own time stamp whether to read anew.
    """
    if not MAGIC & set(str(file)):
        return file
    facts = file.stat()
    name = digest([str(file.resolve()), facts.st_size, facts.st_mtime_ns])
    link = cache_folder() / "links" / f"{name}{file.suffix.lower()}"
    with locked(link):
        if not link.is_symlink():
            link.symlink_to(file.resolve())
    return link
