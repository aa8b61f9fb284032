"""A dataset of the Hugging Face hub: its parquet, csv or jsonl files, never code of its own."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import TableOptions
from hpml_bench.data.sources import Resolved, fetch, hub_snapshot
from hpml_bench.data.tables import Splits, find, load
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.cache import cache_folder, disk_error

if TYPE_CHECKING:
    from datasets import Dataset

MAX_CARD = 200_000
"""Most characters of settings at the head of a dataset's README.md."""

FORMATS = ("*.parquet", "*.csv", "*.jsonl")
"""Files with rows."""
PATTERNS = (*FORMATS, "README.md")
"""Data, and the card, whose header assigns the files to splits."""


class HubDataset(DatasetLoader):
    """Splits of a dataset repository."""

    targets = ("class", "number", "tags", "answer")

    class Source(Frozen):
        """Which dataset, and which parts of it."""

        dataset: str
        """`hub:OWNER/NAME[@REVISION]`, or `path:FOLDER` with a copy of such a repository."""
        config: str | None = None
        """Configuration of the dataset; empty where it has only one."""
        train: str = "train"
        """Split to train on."""
        validation: str | None = None
        """Split for the curves; empty to split rows off the training split."""
        test: str | None = "test"
        """Split of the final evaluation; empty to split `test_samples` (or a tenth) off the training split."""

    class Options(TableOptions, Source):
        """The dataset, and its columns."""

        label_names: tuple[str, ...] = ()
        """Names of the classes or tags, in the order of the labels; empty to take the dataset's own."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        """Return the rows of the dataset's splits."""
        options = self.options
        source = _snapshot(options.dataset)
        parts = _read(source.folder_or_file, options)
        train = _split(parts, options.train, options)
        found = find(train[0], options.dataset, target, options)
        notes = {"dataset": options.dataset + (f", commit {source.revision}" if source.revision else "")}
        test = _split(parts, options.test, options) if options.test else None
        validation = _split(parts, options.validation, options) if options.validation else None
        return load(Splits(train, validation, test), settings, found, target, options, notes)


def _snapshot(uri: str) -> Resolved:
    if uri.startswith("hub:"):
        return hub_snapshot(uri, "dataset", PATTERNS)
    source = fetch(uri)
    if not source.folder_or_file.is_dir():
        raise UserError(f"{uri}: is a file; use the data set text_files for files")
    return source


def _read(folder: Path, options: Any) -> dict[str, Dataset]:
    from datasets import load_dataset

    if not any(any(folder.rglob(pattern)) for pattern in FORMATS):
        raise UserError(
            f"{options.dataset}: holds no parquet, csv or jsonl files; a dataset made by code of its own is not run"
        )
    if elsewhere := _outside(folder / "README.md"):
        raise UserError(f"{options.dataset}: its card names files outside it ({elsewhere[:200]}), which are not read")
    try:
        return dict(load_dataset(str(folder), options.config, cache_dir=str(cache_folder() / "datasets")))
    except Exception as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        unreadable = UserError(
            f"{options.dataset}: can't be loaded (dataset.options.config is {options.config}): {reason}"
        )
        raise disk_error(error) or unreadable from None


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


def _split(splits: dict[str, Dataset], name: str, options: Any) -> tuple[Dataset, str]:
    """Return a split with its name in errors."""
    if name not in splits:
        raise UserError(f"{options.dataset}: there is no split '{name}'; there is {', '.join(splits)}")
    return splits[name], f"{options.dataset} {name}"
