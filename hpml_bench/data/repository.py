"""Repositories of data sets, of the Hugging Face hub or copies of them: their parquet, csv or jsonl files as splits."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hpml_bench.data.sources import Resolved, fetch, hub_snapshot
from hpml_bench.system.cache import cache_folder, disk_error
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

MAX_CARD = 200_000
"""Most characters of settings at the head of a dataset's README.md."""

FORMATS = ("*.parquet", "*.csv", "*.jsonl")
"""Files with rows."""
PATTERNS = (*FORMATS, "README.md")
"""Data, and the card, whose header assigns the files to splits."""


def _snapshot(uri: str) -> Resolved:
    if uri.startswith("hub:"):
        return hub_snapshot(uri, "dataset", PATTERNS)
    source = fetch(uri)
    if not source.folder_or_file.is_dir():
        raise UserError(f"{uri}: is a file; use the data set text_files for files")
    return source


def read_repository(uri: str, config: str | None = None) -> tuple[dict[str, Dataset], str | None]:
    """Return the splits of a dataset repository, `hub:OWNER/NAME[@REVISION]` or `path:FOLDER`, and its commit.

    Raises:
        UserError: it can't be reached or read, or holds no files with rows.

    """
    from datasets import load_dataset

    source = _snapshot(uri)
    folder = source.folder_or_file
    if not any(any(folder.rglob(pattern)) for pattern in FORMATS):
        raise UserError(f"{uri}: holds no parquet, csv or jsonl files; a dataset made by code of its own is not run")
    if elsewhere := _outside(folder / "README.md"):
        raise UserError(f"{uri}: its card names files outside it ({elsewhere[:200]}), which are not read")
    try:
        splits = load_dataset(str(folder), config, cache_dir=str(cache_folder() / "datasets"))
    except Exception as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        unreadable = UserError(f"{uri}: can't be loaded (dataset.options.config is {config}): {reason}")
        raise disk_error(error) or unreadable from None
    return dict(splits), source.revision


def _outside(card: Path) -> str | None:
    """Return a file outside the dataset that its card names, and `datasets` would fetch or read; None without one."""
    import yaml

    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
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
        if isinstance(value, str):
            parts = PurePosixPath(value).parts
            if "://" in value or "::" in value or value.startswith(("/", "~")) or ".." in parts:
                return value
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
    return None
