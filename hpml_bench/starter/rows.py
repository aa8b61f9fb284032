"""The user's rows: which file is which split, and the first rows of each, as a suite without options reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.data.files import Format, file_of, head_of, read_file, read_repository
from hpml_bench.starter.model import source_of
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test", "validation")
NAMES = {"train": r"train(ing)?", "test": r"test(ing)?", "validation": r"val(id(ation)?)?|dev(elopment)?"}
"""Patterns of a split's name as a word in the name of a file, or a split of a repository."""


@dataclass(frozen=True)
class Data:
    """The data as a suite names them, with the training rows, or the first of them."""

    dataset: str
    """The data set that reads them."""
    options: Mapping[str, Any]
    """Its options: where the splits are."""
    heads: Mapping[str, Any]
    """The same, with the head of a large file in the place of the file."""
    train: Dataset
    where: str
    """Name of the training rows in errors."""
    named: bool = True
    """Whether columns have names of their own."""
    label: str | None = None
    """Column that the file itself calls the label."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Split -> share of its rows that is looked at, where it isn't 1."""
    why: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Option -> the reasons for it."""

    @property
    def name(self) -> str:
        """Name of the data in prose."""
        return str(self.options.get("dataset") or self.options["train"]).removeprefix("path:").partition("#")[0]

    @property
    def whole(self) -> bool:
        """Whether all rows are looked at."""
        return not self.shares

    def share_of(self, split: str) -> float:
        """Return the share of a split's rows that is looked at; of one that is split off, the training rows'."""
        return self.shares.get(split if self.options.get(split) else "train", 1.0)

    def named_in_errors(self) -> AbstractContextManager[None]:
        """Name the user's files in errors on their heads."""
        return _real_names(self.options, self.heads, self.dataset)


@contextmanager
def _real_names(options: Mapping[str, Any], heads: Mapping[str, Any], dataset: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        name = str(options.get("dataset") or options["train"]).removeprefix("path:")
        text = re.sub(rf"^data set {dataset}: ", lambda _: f"{name}: ", str(error))
        for split, head in heads.items():
            if head != options.get(split):
                text = text.replace(str(head).removeprefix("path:"), str(options[split]).removeprefix("path:"))
        raise UserError(text) from None


def look_at_rows(given: Sequence[str]) -> Data:
    """Return the data that files, or one repository of a data set, hold.

    Raises:
        UserError: one can't be read, or it can't be seen which file is which split.

    """
    sources = [source_of(name) for name in given]
    folders = [uri for uri in sources if uri.startswith("hub:") or Path(uri.removeprefix("path:")).is_dir()]
    if not folders:
        return _files(sources)
    if len(sources) > 1:
        raise UserError(f"--data: {folders[0]} is a data set of several splits; give it alone, or files alone")
    return _repository(folders[0])


def _files(sources: Sequence[str]) -> Data:
    splits, by_place = _assigned(sources)
    heads, shares, why = {}, {}, {}
    for split, uri in splits.items():
        file = file_of(uri)
        head = head_of(file)
        heads[split] = uri if head.share == 1 else f"path:{head.file}"
        reasons = []
        if len(sources) > 1:
            reasons.append(
                "by its place among the files given: training, test, validation rows; exchange them if that is wrong"
                if by_place
                else "by the file's name"
            )
        if head.share < 1:
            shares[split] = head.share
            reasons.append(
                f"It has {file.stat().st_size / 1e9:.3g} GB; all that is said of its rows here is of the first "
                f"{100 * head.share:.2g} %. run-all reads it whole."
            )
        why[split] = tuple(reasons)
    with _real_names(splits, heads, "text_files"):
        rows, layout = read_file(file_of(heads["train"]), Format())
    named, label = (True, None) if layout is None else (layout.named, layout.label)
    where = str(file_of(splits["train"]))
    return Data("text_files", splits, heads, rows, where, named, label, shares, why)


def _assigned(sources: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Return split -> source, and whether their places decided, not their names."""
    if len(sources) > len(SPLITS):
        raise UserError(f"--data: {len(sources)} files are given; join them to one file per split: {', '.join(SPLITS)}")
    if len(set(sources)) < len(sources):
        raise UserError(f"--data: {sources[-1].removeprefix('path:')} is given twice; give each split's file once")
    if len(sources) == 1:
        return {"train": sources[0]}, False
    named: dict[str, str] = {}
    for uri in sources:
        split = _split_of(Path(uri.partition("#")[0]).stem)
        if split is None or split in named:
            return dict(zip(SPLITS, sources, strict=False)), True
        named[split] = uri
    if "train" not in named:
        raise UserError(f"--data: none of {', '.join(map(repr, named))} is a file of training rows; name one train")
    return {split: named[split] for split in SPLITS if split in named}, False


def _split_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    found = [split for split, pattern in NAMES.items() if any(re.fullmatch(pattern, word) for word in words)]
    return found[0] if len(found) == 1 else None


def _repository(uri: str) -> Data:
    parts, _ = read_repository(uri)
    found = {split: [name for name in parts if _split_of(name) == split] for split in SPLITS}
    train = (found["train"] or list(parts))[0]
    options: dict[str, Any] = {"dataset": uri, "train": train}
    listing = ", ".join(f"{name} ({len(rows):,} rows)" for name, rows in parts.items())
    why: dict[str, tuple[str, ...]] = {"train": (f"splits there are: {listing}",)}
    for split in ("test", "validation"):
        options[split] = found[split][0] if found[split] and found[split][0] != train else None
        why[split] = () if options[split] else ("none of that name; rows are split off the training rows",)
    return Data("hub", options, options, parts[train], f"{uri} {train}", why=why)
