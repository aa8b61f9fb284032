"""Sentences with a tag per word: files of a word a line, as CoNLL's, and tables of a word a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import TAG_NAMES, WORD_NAMES, first_named
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TAGGED = (".conll", ".bio", ".iob", ".iob2", ".txt")  # suffixes of files that may have a word a line
DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O|[BIESLU]-\S+")
SENTENCE_NAMES = ("sentence #", "sentence", "sentence_id", "sentence_idx", "sentence id", "sent_id")
ROW_TAG_NAMES = (*TAG_NAMES, "labels", "label")
LOOKED_AT = 100  # lines by which a .txt file is told from one of plain text


def read_tagged(file: Path, encoding: str) -> Dataset | None:
    """Return the sentences of a file with a word a line as lists `words` and `tags`; None for a .txt of plain text.

    A line has the word first and its tag last; an empty line ends a sentence. Comments (# before a sentence) and lines
    between documents are left out. Raises UserError where a line has no tag.
    """
    lines = [line.split() for line in file.read_text(encoding=encoding).removeprefix("\ufeff").split("\n")]
    first = [cells for cells in lines if cells][:LOOKED_AT]
    tagged = sum(len(cells) > 1 and bool(TAG.fullmatch(cells[-1])) for cells in first)
    if file.suffix.lower() == ".txt" and tagged <= len(first) / 2:
        return None
    sentences: list[list[int]] = [[]]
    for number, cells in enumerate(lines):
        if not cells or cells[0] == DOCUMENT:
            sentences.append([])
        elif len(cells) == 1:
            raise UserError(f"{file}: line {number + 1} has '{cells[0][:60]}' without a tag; a line has a word and one")
        elif sentences[-1] or cells[0] != "#" or TAG.fullmatch(cells[-1]):
            sentences[-1].append(number)
    ends = {"words": [(cells or [""])[0] for cells in lines], "tags": [(cells or [""])[-1] for cells in lines]}
    return _grouped(ends, sentences)


def sentences_of(rows: Dataset) -> Dataset:
    """Return a table with a word a row as one with lists, a sentence a row; any other as it is.

    It has columns of the sentence (whose cells may be empty from its second word on), the word and the tag by name.
    """
    names = [first_named(rows.column_names, known) for known in (SENTENCE_NAMES, WORD_NAMES, ROW_TAG_NAMES)]
    if None in names or any(isinstance(cell, list) for cells in rows[:1].values() for cell in cells):
        return rows
    current, sentences = "", list[list[int]]([[]])
    for number, (sentence, word) in enumerate(zip(rows[str(names[0])], rows[str(names[1])], strict=True)):
        if str(sentence) not in {"", "None", "nan", current}:
            current = str(sentence)
            sentences.append([])
        if str(word or "").strip():
            sentences[-1].append(number)
    return _grouped(rows[:], sentences) if len(sentences) <= len(rows) else rows


def _grouped(columns: Mapping[str, Sequence[Any]], groups: Sequence[Sequence[int]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({name: [[cells[n] for n in of] for of in groups if of] for name, cells in columns.items()})
