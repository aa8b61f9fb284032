"""Files of texts: csv, tsv, Orange's tab, json, jsonl or parquet, from a folder or a wheel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.config.base import Frozen
from hpml_bench.config.settings import Settings
from hpml_bench.data.columns import SAMPLE_ROWS, Column, choose, is_number, short
from hpml_bench.data.conversations import find_shape
from hpml_bench.data.sources import resolve
from hpml_bench.data.tables import Splits, in_conversations, labelled, split_off
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.system.cache import cache_folder, disk_error, locked
from hpml_bench.system.hashing import digest
from hpml_bench.system.text import first_line

if TYPE_CHECKING:
    from datasets import Dataset

SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
MAGIC = frozenset("*?[]{}:")
OTHER = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
ORANGE_TYPES = {"", "c", "d", "s", "t", "continuous", "discrete", "string", "time", "numeric", "categorical", "text"}


class _Layout(Frozen):
    """How a separated file is laid out."""

    names: tuple[str, ...]
    named: bool
    skip: int
    """Lines before the first row of data."""
    label: str | None = None
    """Column whose role is `class` in Orange's third line."""


class TextFiles(DatasetLoader):
    """Rows of files, by column names given or found."""

    targets = ("class", "number", "tags", "answer")

    class Options(Frozen):
        """What to read, and how."""

        train: str
        """Training rows: `path:FILE` or `wheel:NAME==VERSION/FILE#sha256=HEX`."""
        validation: str | None = None
        """Validation rows; empty to split them off the training rows."""
        test: str | None = None
        """Test rows; empty to split off `test_samples` of the training rows, or a tenth of them."""
        text: Column | tuple[Column, ...] = ()
        """Column or columns of the text or the prompt, or the one with lists of words or turns, by name or by position
        from 1; empty to find them."""
        label: Column | None = None
        """Column of the label (a class, a number, a list of tags, or a prompt's completion), by name or by position
        from 1; empty to find it."""
        label_names: tuple[str, ...] = ()
        """Names of classes or tags, in the order of the sorted label values; empty to take the values themselves."""
        separator: str = " "
        """Stands between the texts of several columns; between the parts of a prompt, an empty line does in place of a
        single space."""
        header: bool | None = None
        """Whether csv, tsv and tab files begin with column names; empty: unless a cell of the first row is a number or
        occurs again in its column."""
        skip_lines: int | None = None
        """Lines left out after the header; empty: 2 for a .tab file with Orange's lines of types and roles, else 0."""
        quote: str = '"'
        """Quoting character of csv, tsv and tab files; empty for none."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        """Return the rows of the files.

        Raises:
            UserError: a file can't be read, a column isn't found, or a label is missing or unknown.

        """
        options = self.options
        train_file = _file(options.train)
        train, layout = _read(train_file, options)
        text = options.text if isinstance(options.text, tuple) else (options.text,)
        label = options.label if options.label is not None or layout is None else layout.label
        shape, columns = None, None
        if target == "answer":
            shape = find_shape(train, str(train_file), text, options.label)
        else:
            columns = choose(train, str(train_file), target, text, label, named=layout is None or layout.named)
        notes = {}
        if options.test is None:
            train, test = split_off(train, settings, str(train_file))
            test_file = train_file
            notes["test"] = f"{len(test)} rows split off the training file, since no test file was given"
        else:
            test_file = _file(options.test)
            test = _read_like(layout, test_file, options)
        validation = None
        if options.validation is not None:
            validation_file = _file(options.validation)
            validation = (_read_like(layout, validation_file, options), str(validation_file))
        splits = Splits((train, str(train_file)), validation, (test, str(test_file)))
        if shape is not None:
            return in_conversations(splits, shape, options.separator, notes)
        assert columns is not None  # noqa: S101 - one of the two
        return labelled(splits, columns, target, options.separator, options.label_names, notes)


def _file(uri: str) -> Path:
    path = resolve(uri).folder_or_file
    known = [*SEPARATED, *OTHER]
    if not path.is_file() or path.suffix.lower() not in known:
        raise UserError(f"{path}: is no file that can be read; it must end in {', '.join(known)}")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    return path


def _layout(file: Path, options: Any) -> _Layout:
    """Find column names and header lines from the first rows."""
    first = _first_rows(file, options)
    names = tuple(first[0])
    orange = file.suffix.lower() == ".tab" and len(first) > 2 and {c.strip() for c in first[1]} <= ORANGE_TYPES
    header = options.header
    if header is None:
        header = orange or _is_header(first[0], first[1:])
    if not header:
        names = tuple(f"column {position}" for position in range(1, len(names) + 1))
    if len(set(names)) != len(names):
        raise UserError(f"{file}: two columns have the same name ({_listed(names)}); rename one")
    skip = options.skip_lines if options.skip_lines is not None else (2 if orange and header else 0)
    roles = first[2] if orange else []
    return _Layout(
        names=names,
        named=header,
        skip=skip + header,
        label=next((name for name, role in zip(names, roles, strict=False) if role.strip() == "class"), None),
    )


def _is_header(row: list[str], below: list[list[str]]) -> bool:
    columns = [{line[position] for line in below} for position in range(len(row))]
    return not any(is_number(cell) or (cell and cell in column) for cell, column in zip(row, columns, strict=True))


def _first_rows(file: Path, options: Any) -> list[list[str]]:
    import pandas as pd

    try:
        table = pd.read_csv(file, header=None, nrows=SAMPLE_ROWS, dtype="str", **_format(file, options))
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise UserError(f"{file}: can't be read as {file.suffix[1:]}: {first_line(error)}") from None
    rows: list[list[str]] = table.fillna("").astype(str).to_numpy().tolist()
    return rows


def _format(file: Path, options: Any) -> dict[str, Any]:
    """Return what pandas' reader must know, so that every cell is read exactly as it stands."""
    quoting = {"quotechar": options.quote, "quoting": 0} if options.quote else {"quoting": 3}
    return {
        "sep": SEPARATED[file.suffix.lower()],
        "keep_default_na": False,
        "encoding": "utf-8",
        **quoting,
    }


def _read(file: Path, options: Any) -> tuple[Dataset, _Layout | None]:
    """Return a file's rows, memory-mapped from the cache of `datasets`, and the layout of a separated file."""
    from datasets import Features, Value, load_dataset

    suffix = file.suffix.lower()
    layout, arguments = None, {}
    if suffix in SEPARATED:
        layout = _layout(file, options)
        arguments = {"names": list(layout.names), "header": None, "skiprows": layout.skip, **_format(file, options)}
        arguments["features"] = Features({name: Value("string") for name in layout.names})
    cache = str(cache_folder() / "datasets")
    try:
        place = str(_literal(file))
        rows = load_dataset(OTHER.get(suffix, "csv"), data_files=place, split="train", cache_dir=cache, **arguments)
    except Exception as error:
        cause = error.__cause__ or error
        torn = _torn_line(file) if suffix == ".jsonl" else ""
        unreadable = UserError(f"{file}: can't be read as {suffix[1:]}: {torn or first_line(cause)}")
        raise disk_error(error) or unreadable from None
    return rows, layout


def _torn_line(file: Path) -> str:
    """Return what is wrong with the first line that is no JSON; empty where all are."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    json.loads(line)
            except (ValueError, RecursionError) as error:
                return f"line {number} is no JSON ({first_line(error)}); mend or remove it"
    return ""


def _literal(file: Path) -> Path:
    """Return a path that `datasets` takes as it is: of one with `*`, `[` or `::` it would read other files.

    It is a link whose name changes with the file: `datasets` tells by the link's own time stamp whether to read anew.
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


def _read_like(train: _Layout | None, file: Path, options: Any) -> Dataset:
    """Return the rows of a file that must have the columns of the training file."""
    rows, layout = _read(file, options)
    if train and layout and (train.names, train.named) != (layout.names, layout.named):
        raise UserError(
            f"{file}: has {'columns' if layout.named else 'no header and the columns'} {_listed(layout.names)}, "
            f"unlike the training file's {_listed(train.names)}; mend the file, or set dataset.options.header"
        )
    return rows


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(short, names[:30]), *(["..."] if len(names) > 30 else [])])
