"""Files with rows, read as they stand (csv, tsv, Orange's tab, json, jsonl, parquet, text), and
folders of them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import (
    SAMPLE_ROWS,
    TAG_NAMES,
    WORD_NAMES,
    first_named,
    is_number,
    short,
    some,
)
from hpml_bench.data.sources import fetch
from hpml_bench.suite.base import Frozen
from hpml_bench.system.cache import cache_folder, disk_error, locked
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import open_plain, read_bytes
from hpml_bench.system.text import digest, first_line, shortened

if TYPE_CHECKING:
    from datasets import Dataset

SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
NAME_WORDS, LONGEST_HEADER = 3, 10_000
"""Most words of a column's name, and most characters of a line of them, where a separator is
guessed.
"""
MAGIC = frozenset(
    "*?[]{}:"
)  # characters of a path that `datasets` would take for patterns and addresses
TEXT = {".txt": "text"}  # plain text, whose lines are rows with the one column `text`
OTHER = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
TAGGED = (
    ".conll",
    ".bio",
    ".iob",
    ".iob2",
    ".txt",
)  # suffixes of files that may have a word a line
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O|[BIESLU]-\S+")
SENTENCE_NAMES = ("sentence #", "sentence", "sentence_id", "sentence_idx", "sentence id", "sent_id")
ROW_TAG_NAMES = (*TAG_NAMES, "labels", "label")
LOOKED_AT = (
    100  # first lines of a .txt file that decide whether it has a word per line or plain text
)
PATTERNS = ("*.parquet", "*.csv", "*.jsonl")  # files with rows in a repository of a data set
MOST_TAGGED = 200_000_000  # bytes of a file with a word a line, which is read at once
MOST_JSON = 4_000_000_000  # bytes of a .json file: as one value it may be decoded at once
LONGEST_LINE = 100_000_000  # bytes of the first line of a file that is read line by line
MAX_CARD = 200_000  # most characters of settings at the head of such a repository's README.md
MAX_OBJECT = 16 * 2**20  # most characters of a json file that is one object with rows in it
ORANGE_TYPES = {
    "",
    "c",
    "d",
    "s",
    "t",
    "continuous",
    "discrete",
    "string",
    "time",
    "numeric",
    "categorical",
    "text",
}


class Layout(Frozen):
    """Layout of a separated file."""

    names: tuple[str, ...]
    named: bool
    skip: int  # lines before the first row of data
    sep: str
    label: str | None = None  # column whose role is `class` in Orange's third line


class Format(Frozen):
    """Options for reading separated files."""

    header: bool | None = None
    """Whether the first row of csv, tsv and tab files has column names; empty: yes, unless one
    of its cells is a number or occurs again in its column.
    """
    skip_lines: int | None = None
    """Lines left out after the header; empty: 2 for a .tab file with Orange's lines of types and
    roles, else 0.
    """
    quote: str = '"'
    """Quoting character of csv, tsv and tab files; empty for none."""
    sep: str | None = None
    """Separator of the cells of csv, tsv and tab files; empty: commas in csv files and tabs in
    others, unless the names of the columns are separated by another one.
    """
    encoding: str = "utf-8"
    """Encoding of csv, tsv, tab, txt and conll files, such as latin-1."""
    field: str | None = None
    """Key of the list of rows in a json file that is one object; empty for its only list of
    objects.
    """


def file_of(uri: str) -> Path:
    """Return the file with rows that a source names, fetched if necessary; a UserError if it has
    none.
    """
    path = fetch(uri).folder_or_file
    known = [*SEPARATED, *OTHER, *TAGGED]
    if path.suffix.lower() in SPREADSHEETS:
        raise UserError(
            f"{path}: is a spreadsheet, which can't be read; export it as CSV and give "
            f"{path.stem}.csv"
        )
    if not path.is_file() or path.suffix.lower() not in known:
        raise UserError(f"{path}: is no file that can be read; it must end in {', '.join(known)}")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    return path


def refuse_large(file: Path) -> None:
    """Raise UserError where a file isn't read in parts and is too large to be read at once.

    A file with holes may be of any size and take no room on the disk: its first line has no end.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return
    if suffix == ".json":
        if file.stat().st_size > MOST_JSON:
            raise UserError(
                f"{file}: is larger than {MOST_JSON:,} bytes; write it as jsonl, which is read in "
                "parts"
            )
        return
    with open_plain(file, follow=True) as lines:
        first_line_bytes = len(lines.readline(LONGEST_LINE + 1))
    if first_line_bytes > LONGEST_LINE:
        raise UserError(
            f"{file}: its first line is longer than {LONGEST_LINE:,} bytes; give a file with a row "
            "a line"
        )


def _layout(file: Path, form: Format) -> Layout:
    import pandas as pd

    own = (form.sep or SEPARATED[file.suffix.lower()]).replace("\\t", "\t")
    for sep in (own,) if form.sep else (_separator(file, form, own), own):
        try:
            table = pd.read_csv(
                file, header=None, nrows=SAMPLE_ROWS, dtype="str", **_as_pandas(form, sep)
            )
            break
        except (ValueError, OSError, pd.errors.ParserError) as error:
            if sep == own:
                raise _unreadable(file, error, form) from None
    first: list[list[str]] = table.fillna("").astype(str).to_numpy().tolist()
    orange = (
        file.suffix.lower() == ".tab"
        and len(first) > 2
        and {c.strip() for c in first[1]} <= ORANGE_TYPES
    )
    header = form.header
    if header is None:
        columns = [{row[position] for row in first[1:]} for position in range(len(first[0]))]
        cells = zip(first[0], columns, strict=True)
        header = orange or not any(
            is_number(cell) or (cell and cell in column) for cell, column in cells
        )
    # a column without a name gets that of pandas, which counts from 0
    names = tuple(
        (name if name.strip() else f"Unnamed: {place}") if header else f"column {place + 1}"
        for place, name in enumerate(first[0])
    )
    if len(set(names)) != len(names):
        raise UserError(
            f"{file}: two columns have the same name ({some([*map(short, names)])}); rename one"
        )
    skip = form.skip_lines if form.skip_lines is not None else (2 if orange and header else 0)
    roles = first[2] if orange else []
    label = next(
        (name for name, role in zip(names, roles, strict=False) if role.strip() == "class"), None
    )
    return Layout(names=names, named=header, skip=skip + header, sep=sep, label=label)


def _separator(file: Path, form: Format, own: str) -> str:
    """Return the separator of the first line's cells, where they look like names: a few words,
    no space around.
    """
    with file.open(encoding=form.encoding, errors="replace") as lines:
        header = lines.readline(LONGEST_HEADER).rstrip("\r\n")
    for sep in "" if own in header else ",;\t|":
        names = header.split(sep)
        if len(names) > 1 and all(
            name.strip() == name and len(name.split()) <= NAME_WORDS for name in names
        ):
            return sep
    return own


def _unreadable(file: Path, error: BaseException, form: Format) -> UserError:
    suffix, problem, advice = file.suffix.lower(), first_line(error), ""
    if "corresponds to no data" in problem:
        return UserError(f"{file}: has no rows; give a file with some")
    if isinstance(error, UnicodeError):
        problem = f"it isn't {form.encoding.upper()} ({problem})"
        with file.open("rb") as start:
            wide = start.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        advice = (
            f"; name its encoding with dataset.options.encoding, such as "
            f"{'utf-16' if wide else 'latin-1'}"
        )
    elif suffix in SEPARATED and ("fields in line" in problem or "inside string" in problem):
        advice = (
            "; mend that line: a cell with a separator needs quotes. Where quotes are part of the "
            "texts, set dataset.options.quote to nothing; where cells are separated otherwise, set "
            "dataset.options.sep"
        )
    elif suffix == ".jsonl":
        problem = _torn_line(file) or problem
    return UserError(f"{file}: can't be read as {suffix[1:]}: {problem}{advice}")


def _as_pandas(form: Format, sep: str) -> dict[str, Any]:
    """Return arguments of pandas' reader, with which every cell is read exactly as written."""
    quoting = {"quotechar": form.quote, "quoting": 0} if form.quote else {"quoting": 3}
    return {"sep": sep, "keep_default_na": False, "encoding": form.encoding, **quoting}


def read_file(file: Path, form: Format) -> tuple[Dataset, Layout | None]:
    """Return a file's rows, memory-mapped from the cache of `datasets`, and the layout of a
    separated file.
    """
    from datasets import Features, Value, load_dataset

    suffix, layout = file.suffix.lower(), None
    arguments: dict[str, Any] = {}
    cache, builder = str(cache_folder() / "datasets"), (OTHER | TEXT).get(suffix, "csv")
    refuse_large(file)
    try:
        if suffix in TAGGED and (tagged := read_tagged(file, form.encoding)):
            return tagged, None
        if suffix in SEPARATED:
            layout = _layout(file, form)
            arguments = {"names": list(layout.names), "header": None, "skiprows": layout.skip}
            arguments |= _as_pandas(form, layout.sep)
            arguments["features"] = Features({name: Value("string") for name in layout.names})
        elif suffix in TEXT:
            arguments["encoding"] = form.encoding
        elif suffix == ".json" and (field := form.field or _field_of(file)):
            arguments["field"] = field
        rows = load_dataset(
            builder, data_files=str(_literal(file)), split="train", cache_dir=cache, **arguments
        )
    except UserError:
        raise
    except Exception as error:
        raise disk_error(error) or _unreadable(file, error.__cause__ or error, form) from None
    if suffix in TEXT:
        rows = rows.filter(lambda row: bool(row["text"].strip()))
    return rows, layout


def _field_of(file: Path) -> str | None:
    """Return the key of the only list of objects in a file that is one object; None for other
    files.
    """
    with file.open(encoding="utf-8", errors="replace") as opened:
        text = opened.read(MAX_OBJECT).lstrip("\ufeff \t\r\n")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if text[end:].strip() or not isinstance(value, dict):  # an object a line, or a list
        return None
    lists = [
        key
        for key, part in value.items()
        if isinstance(part, list) and part[1:] and isinstance(part[0], dict)
    ]
    return lists[0] if len(lists) == 1 else None


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
    """Return a path without `*`, `[` or `::`, which `datasets` would expand: the file's own, or a
    link to it.

    The link's name changes with the file, since `datasets` decides by the link's own time stamp
    whether to read anew.
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


# Sentences with a tag per word


def read_tagged(file: Path, encoding: str) -> Dataset | None:
    """Return the sentences of a file with a word a line as lists `words` and `tags`; None for a
    .txt of plain text.

    An empty line ends a sentence. Comments (# before a sentence) and lines between documents are
    left out.
    """
    if file.suffix.lower() == ".txt" and not _begins_with_tags(file, encoding):
        return None
    if file.stat().st_size > MOST_TAGGED:
        raise UserError(
            f"{file}: is larger than {MOST_TAGGED:,} bytes; give a part of its sentences"
        )
    text = read_bytes(file, MOST_TAGGED, follow=True).decode(encoding)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.split() for line in text.removeprefix("\ufeff").split("\n")]
    sentences: list[list[int]] = [[]]
    for number, cells in enumerate(lines):
        if not cells or cells[0] == DOCUMENT:
            sentences.append([])
        elif len(cells) == 1:
            word = shortened(cells[0], 60)
            raise UserError(
                f"{file}: line {number + 1} has '{word}' without a tag; a line has a word and one"
            )
        elif sentences[-1] or cells[0] != "#" or TAG.fullmatch(cells[-1]):
            sentences[-1].append(number)
    ends = {
        "words": [(cells or [""])[0] for cells in lines],
        "tags": [(cells or [""])[-1] for cells in lines],
    }
    return _grouped(ends, sentences)


def _begins_with_tags(file: Path, encoding: str) -> bool:
    """Return whether most of a file's first `LOOKED_AT` lines that aren't empty end in a tag."""
    looked_at = 0
    tagged = 0
    with file.open(encoding=encoding) as lines:
        while looked_at < LOOKED_AT and (line := lines.readline(LONGEST_LINE)):
            cells = line.removeprefix("\ufeff").split()
            if not cells:
                continue
            looked_at += 1
            if len(cells) > 1 and TAG.fullmatch(cells[-1]):
                tagged += 1
    return tagged > looked_at / 2


def sentences_of(rows: Dataset) -> Dataset:
    """Return a table of a word a row as lists, a sentence (named beside its first word) a row;
    others as they are.
    """
    names = [
        first_named(rows.column_names, known)
        for known in (SENTENCE_NAMES, WORD_NAMES, ROW_TAG_NAMES)
    ]
    if None in names or any(
        isinstance(cell, list) for cells in rows[:1].values() for cell in cells
    ):
        return rows
    current, sentences = "", list[list[int]]([[]])
    for number, (sentence, word) in enumerate(
        zip(rows[str(names[0])], rows[str(names[1])], strict=True)
    ):
        if str(sentence) not in {"", "None", "nan", current}:
            current = str(sentence)
            sentences.append([])
        if str(word or "").strip():
            sentences[-1].append(number)
    return _grouped(rows[:], sentences) if len(sentences) <= len(rows) else rows


def _grouped(columns: Mapping[str, Sequence[Any]], groups: Sequence[Sequence[int]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict(
        {name: [[cells[n] for n in of] for of in groups if of] for name, cells in columns.items()}
    )


# Folders


def read_repository(
    uri: str, config: str | None = None, patterns: Sequence[str] = PATTERNS
) -> tuple[dict[str, Dataset], str | None]:
    """Return the splits of a dataset repository, `hub:OWNER/NAME[@REVISION]` or `path:FOLDER`, and
    its commit.

    The header of its README.md, its card, assigns the files to splits; code of its own is not run.
    Without a card a configuration is a folder.
    """
    from datasets import load_dataset

    source = fetch(uri, "dataset", (*patterns, "README.md"))
    folder = source.folder_or_file
    if not folder.is_dir():
        raise UserError(f"{uri}: is a file; use the data set text_files for files")
    if config and (folder / config).is_dir() and not (folder / "README.md").exists():
        folder, config = folder / config, None
    if not any(any(folder.rglob(pattern)) for pattern in patterns):
        raise UserError(
            f"{uri}: holds no parquet, csv or jsonl files; a dataset made by code of its own is "
            f"not run"
        )
    if elsewhere := _outside(folder / "README.md"):
        names = shortened(elsewhere, 200)
        raise UserError(f"{uri}: its card names files outside it ({names}), which are not read")
    try:
        splits = load_dataset(str(folder), config, cache_dir=str(cache_folder() / "datasets"))
    except Exception as error:
        cause = error.__cause__ or error
        reason = shortened(" ".join(str(cause).split()), 300) or type(cause).__name__
        unreadable = UserError(
            f"{uri}: can't be loaded (dataset.options.config is {config}): {reason}"
        )
        raise disk_error(error) or unreadable from None
    return dict(splits), source.revision


def split_in(splits: Mapping[str, Dataset], name: str, uri: str) -> Dataset:
    if name not in splits:
        raise UserError(f"{uri}: there is no split '{name}'; there is {', '.join(splits)}")
    return splits[name]


def _text_of_card(card: Path) -> str:
    """Return a card's text, empty where there is none."""
    try:
        return read_bytes(card, follow=True).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{card}: the card can't be read: {error.strerror}") from None


def _outside(card: Path) -> str | None:
    """Return a file outside the dataset that its card names, and `datasets` would fetch or read;
    None without one.
    """
    import yaml

    text = _text_of_card(card)
    head = re.match(r"\s*---[ \t]*\n(.*?)\n---", text, re.DOTALL)
    if head is None:
        return None
    if len(head[1]) > MAX_CARD:
        return f"more than {MAX_CARD} characters of settings"
    try:
        content = yaml.safe_load(head[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return f"not readable as YAML: {type(error).__name__}"
    todo, seen = [content.get("configs") if isinstance(content, dict) else None], set()
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and (
            "://" in value
            or "::" in value
            or value.startswith(("/", "~"))
            or ".." in PurePosixPath(value).parts
        ):
            return value
    return None
