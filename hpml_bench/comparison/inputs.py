"""Inputs of a comparison: scores as readers found them; a file or folder goes to the first
reader that claims it.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hpml_bench.comparison import readers
from hpml_bench.judge.scores import Circumstances, CostDefinition, FailedRun, ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import open_plain, read_bytes
from hpml_bench.system.text import count_of, sanitize, summary_of

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("system", "row", "score", "seed", "group", "dataset", "rows", "content", "host", "where")
SYSTEM, ROW, SCORE, SEED, GROUP, DATASET, COUNT, CONTENT, HOST, WHERE = NAMES
"""Columns with a meaning; a reader names those that are costs. All are texts but score and rows.

What is compared; the row's id within its data set; the score; the run; rows that belong together;
the data set; of inputs without a line per row, the number of rows that the score is the mean of; a
digest of what a row holds, by which one id is known to mean one row; the machine of a run, since
costs of a seed are compared on one; for messages, file and line that a line came from.
"""
MOST_MAPPING = 50_000_000  # bytes of a file that is one object of JSON
MOST_BYTES = 1_000_000_000  # of the samples of one task
MOST_TABLE = 100_000_000  # bytes of a table of text
MOST_LIST = 15_000_000  # bytes of one list of JSON: as objects it takes thirty times as many
LONGEST_LINE = 5_000_000  # characters of a line of JSON
MOST_LINES = 10_000_000  # lines of a file of JSON, empty ones too
MOST_ROWS = 1_000_000  # rows of a table
MOST_CELLS = 3_000_000  # rows times columns of a table
LONGEST = 100  # characters of a name; a longer one is cut


def source_of(kind: str, path: Path, files: int) -> str:
    """Return kind and path of an input as one line, of a folder with the number of files that
    were read.
    """
    return f"{kind} {sanitize(path, 300)}" + (
        f" ({count_of(files, 'file')})" if path.is_dir() else ""
    )


def head_of(file: Path, size: int) -> bytes:
    """Return the first bytes of a file; none where it can't be read."""
    try:
        with open_plain(file, follow=True) as stream:
            return stream.read(size)
    except OSError:
        return b""


@contextmanager
def _reading(where: object) -> Iterator[None]:
    """Make errors of a file, or of JSON, UserErrors that say where."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{where} can't be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # of UTF-8, or of JSON
        raise UserError(
            f"{where} isn't JSON ({error}); it may be cut off: fetch it again, or take it away"
        ) from None


def json_mapping(file: Path) -> dict[str, Any]:
    """Return the object that a file of JSON holds; a UserError where there is none."""
    with _reading(file):
        data = json.loads(read_bytes(file, MOST_MAPPING, follow=True))
    if not isinstance(data, dict):
        raise UserError(f"{file} holds no object of JSON; take it away")
    return data


def json_records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and content of each object of a file of JSON, a line each or one list; a
    UserError where it isn't.
    """
    with _reading(file), _text_of(file) as stream:
        is_list = stream.read(1000).lstrip().startswith("[")
        stream.seek(0)
        if is_list:
            if file.stat().st_size > MOST_LIST:
                raise UserError(
                    f"{file} is one list of more than {MOST_LIST:,} bytes; write an object a line "
                    f"(.jsonl)"
                )
            entries = json.load(stream)
            for number, entry in enumerate(entries, 1):
                where = f"{file}, entry {number}"
                yield where, _mapping(entry, where)
            return
        for number, line in enumerate(lines_of(file, stream, LONGEST_LINE), 1):
            if number > MOST_LINES:
                raise UserError(f"{file} has more than {MOST_LINES:,} lines; remove empty ones")
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            with _reading(where):
                entry = json.loads(line)
            yield where, _mapping(entry, where)


def _mapping(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: it is no object; give one for each row")
    return entry


def lines_of(file: Path, stream: io.TextIOWrapper, longest: int) -> Iterator[str]:
    """Yield the lines of an open file; a UserError for one of more than `longest` characters."""
    number = 1
    while line := stream.readline(longest + 1):
        if len(line) > longest:
            raise UserError(
                f"{file}, line {number}: it has more than {longest:,} characters; take long "
                f"texts out of the table"
            )
        yield line
        number += 1


def refuse_large(file: Path, most: int = MOST_BYTES) -> None:
    """Raise UserError for a file of more bytes than one read at once may have."""
    if file.stat().st_size > most:
        raise UserError(
            f"{file} is larger than {most:,} bytes; give the rows that are compared alone"
        )


def _text_of(file: Path) -> io.TextIOWrapper:
    """Open a regular file of JSON to read; raises OSError for what is none, UserError for one too
    large.
    """
    opened = open_plain(file, follow=True)
    try:
        refuse_large(file)
    except UserError:
        opened.close()
        raise
    return io.TextIOWrapper(opened, encoding="utf-8-sig", newline="\n")


@dataclass(frozen=True)
class InputScores(Circumstances):
    """Content of one input: a line per row of a data set, or per run."""

    lines: pd.DataFrame
    """Columns of `NAMES` and the costs; `system`, `score` and `where` in each, and `row` or,
    without rows, `rows`.
    """
    score: ScoreDefinition
    costs: tuple[CostDefinition, ...] = ()
    failed: tuple[FailedRun, ...] = ()
    remarks: tuple[
        str, ...
    ] = ()  # sentences for the page: what a number of this input holds, what it lacks
    source: str = ""  # kind and path of the input, as of `source_of`
    directed: bool = True  # whether it says which scores are better


FOR = {
    "group": "--group is for samples of lm_eval; a table has its groups in a column group",
    "columns": "--columns is for tables; leave it out",
}
"""Option -> what it is for, where an input's reader doesn't take it."""


@cache
def known() -> tuple[ModuleType, ...]:
    """Return the readers, in the order in which they are asked."""
    found = pkgutil.iter_modules(readers.__path__)
    modules = [importlib.import_module(f"{readers.__name__}.{module.name}") for module in found]
    return tuple(sorted(modules, key=lambda module: (module.ORDER, module.__name__)))


def read(
    paths: Iterable[Path],
    metric: str | None = None,
    group: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[InputScores, ...]:
    """Return what the readers find in files and folders.

    `metric`: name of the score, the reader's own choice where None; `group`: field by which rows
    are grouped, and `columns`: our name of a table's column -> its own, both for readers whose
    `read` takes one. A UserError where there is no such file, no reader claims it, its reader can't
    read it, or takes no `group` or `columns`.
    """
    found: list[InputScores] = []
    options = {name: given for name, given in (("group", group), ("columns", columns)) if given}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; name what holds the scores")
        reader = next((one for one in known() if one.claims(path)), None)
        if reader is None:
            kinds = "; ".join(summary_of(one).rstrip(".") for one in known())
            raise UserError(f"{path}: no reader knows it; known are: {kinds} (docs/compare.md)")
        for name in options.keys() - inspect.signature(reader.read).parameters.keys():
            raise UserError(f"{path}: {FOR[name]}")
        found += reader.read(path, metric, **options)
    return tuple(found)
