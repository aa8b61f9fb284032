"""Sentences with a tag per word: files of a word a line, as CoNLL's, and tables of a word a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.data.columns import TAG_NAMES, WORD_NAMES, first_named
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TAGGED = (".conll", ".bio", ".iob", ".iob2", ".txt")
"""Suffixes of files that may have a word a line."""
DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O|[BIESLU]-\S+")
SENTENCE_NAMES = ("sentence #", "sentence", "sentence_id", "sentence_idx", "sentence id", "sent_id")
ROW_TAG_NAMES = (*TAG_NAMES, "labels", "label")
LOOKED_AT = 100  # lines by which a .txt file is told from one of plain text
Word = tuple[str, str]
"""A word and its tag."""


def read_tagged(file: Path, encoding: str) -> Dataset | None:
    """Return the sentences of a file with a word a line as lists `words` and `tags`; None for a .txt of plain text.

    A line has the word first and its tag last; an empty line ends a sentence. Comments (# before a sentence) and lines
    between documents are left out.

    Raises:
        UserError: a line has no tag.

    """
    from datasets import Dataset

    with file.open(encoding=encoding) as lines:
        text = lines.read().removeprefix("\ufeff").splitlines()
    first = [line.split() for line in text if line.strip()][:LOOKED_AT]
    if (
        file.suffix.lower() == ".txt"
        and not sum(len(c) > 1 and bool(TAG.fullmatch(c[-1])) for c in first) > len(first) / 2
    ):
        return None
    sentences = list(_sentences(file, text))
    return Dataset.from_dict(
        {name: [[pair[at] for pair in of] for of in sentences] for at, name in enumerate(("words", "tags"))}
    )


def _sentences(file: Path, lines: Iterable[str]) -> Iterator[list[Word]]:
    words: list[Word] = []
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells or cells[0] == DOCUMENT:
            yield from [words] if words else []
            words = []
        elif words or cells[0] != "#" or TAG.fullmatch(cells[-1]):
            if len(cells) < 2:
                raise UserError(
                    f"{file}: line {number} has '{cells[0][:60]}' without a tag; a line is a word and its tag"
                )
            words.append((cells[0], cells[-1]))
    yield from [words] if words else []


def sentences_of(rows: Dataset) -> Dataset:
    """Return a table with a word a row as one with lists of words and tags, a sentence a row; any other as it is.

    It has columns of the sentence (whose cells may be empty from its second word on), the word and the tag by name.
    """
    from datasets import Dataset

    known = (SENTENCE_NAMES, WORD_NAMES, ROW_TAG_NAMES)
    names = [first_named(rows.column_names, of) for of in known]
    if None in names or not len(rows) or any(isinstance(rows[0][name], list) for name in names if name):
        return rows
    sentence, word, tag = (str(name) for name in names)
    current, numbers = None, []
    for cell in map(str, rows[sentence]):
        if cell not in {"", "None", "nan", current}:
            current = cell
        numbers.append(current)
    words = zip(numbers, rows[word], rows[tag], strict=True)
    groups = [[(str(w), t) for _, w, t in of if str(w or "").strip()] for _, of in groupby(words, lambda of: of[0])]
    if len(groups) == len(rows):
        return rows
    return Dataset.from_dict(
        {name: [[pair[at] for pair in of] for of in groups if of] for at, name in enumerate((word, tag))}
    )
