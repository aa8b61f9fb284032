"""Rows of a run's splits: drawn by seed, groups of rows kept whole, and the general text that
measures forgetting.

Every draw has a stream of random numbers of its own, `[data_seed, stream]`: 0 to 2 permute train,
validation and test.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpml_bench.data.conversations import as_conversations, find_turns
from hpml_bench.data.files import Format, file_of, read_file
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import fetch
from hpml_bench.plugins.dataset import GROUP, LoadedData
from hpml_bench.plugins.task import Task
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from hpml_bench.plugins.rows import Rows

TEST_ROWS, RETENTION_ROWS, OWN_ROWS, HELD_OUT_GROUPS, EXAMPLES = 3, 4, 4, 6, 7
"""Streams that draw test rows split off the training rows, general text, a seed's own training
rows (`[data_seed, 4, seed]`), the groups of validation rows split off, and the examples before a
seed's prompts (`[data_seed, 7, seed]`).
"""
# one training row in this many becomes a test or validation row, where nothing says how many
SHARE = 10


def groups_of(dataset: Dataset) -> NDArray[np.int64] | None:
    """Return the group of each row, [n]; None where rows have none."""
    if GROUP not in dataset.column_names:
        return None
    return np.asarray(dataset.with_format("numpy")[GROUP][:], dtype=np.int64)


def whole_groups(
    groups: NDArray[np.int64], count: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a mask [n] of the rows of groups, drawn whatever their size, which together have
    `count` rows or more.
    """
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = random.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[order[before < count]] = True
    return np.asarray(chosen[inverse])


def split_off_test(train: Dataset, settings: Settings, where: str) -> tuple[Dataset, Dataset]:
    """Return training rows and test rows drawn from them: whole groups, `test_samples` or a
    tenth, with `data_seed`.
    """
    count = settings.test_samples or max(1, len(train) // SHARE)
    if count >= len(train):
        raise UserError(
            f"{where}: has {len(train)} rows, too few to split off {count} test rows; lower "
            f"test_samples"
        )
    groups = groups_of(train)
    each = np.arange(len(train)) if groups is None else groups
    chosen = whole_groups(each, count, np.random.default_rng([settings.data_seed, TEST_ROWS]))
    if chosen.all():
        raise UserError(
            f"{where}: its {len(np.unique(each))} groups are too large to split off {count} test "
            "rows; lower test_samples, or name another column with dataset.options.group"
        )
    return train.select(np.flatnonzero(~chosen)), train.select(np.flatnonzero(chosen))


def draw(
    loaded: LoadedData, settings: Settings, most: int = Task.most_validation_rows
) -> dict[str, Dataset]:
    """Return the rows of each split that the settings ask for, or all where there are fewer, drawn
    with `data_seed`.

    Training rows are a prefix of one permutation, so that more `train_samples` only add rows;
    validation rows split off them come first in it and are never trained on (a tenth, `most` at
    most, if not set), and no group is in both. With `vary_data` all remaining rows are training
    rows, of which each seed draws its own: one digest for all seeds.
    """
    where = f"data set {settings.dataset.name}"
    order, validation, test = (
        np.random.default_rng([settings.data_seed, stream]).permutation(
            0 if rows is None else len(rows)
        )
        for stream, rows in enumerate((loaded.train, loaded.validation, loaded.test))
    )
    held_out = 0
    if loaded.validation is None:
        held_out = settings.validation_samples or min(most, max(1, len(order) // SHARE))
    held_rows, train, groups = order[:held_out], order[held_out:], groups_of(loaded.train)
    if held_out and groups is not None:
        random = np.random.default_rng([settings.data_seed, HELD_OUT_GROUPS])
        chosen = whole_groups(groups, held_out, random)[order]
        held_rows, train = order[chosen][:held_out], order[~chosen]
    if len(train) < settings.global_batch:
        by_groups = "" if groups is None else " by whole groups"
        raise UserError(
            f"{where}: {len(order)} training rows are too few for "
            + (f"{held_out} validation_samples split off them{by_groups} and " if held_out else "")
            + f"one global_batch of {settings.global_batch}; lower these"
        )
    if not settings.vary_data:
        train = train[: settings.train_samples]
    elif settings.train_samples is None:
        raise UserError("vary_data needs train_samples: how many training rows each seed draws")
    elif 2 * settings.train_samples > len(train):
        raise UserError(
            f"{where}: with vary_data each seed draws {settings.train_samples} train_samples, but "
            f"of {len(train)} rows "
            f"all would draw nearly the same; lower train_samples to at most {len(train) // 2}"
        )
    return {
        "train": loaded.train.select(train),
        "validation": loaded.train.select(held_rows)
        if loaded.validation is None
        else loaded.validation.select(validation[: settings.validation_samples or most]),
        "test": loaded.test.select(test[: settings.test_samples]),
    }


def training_rows(prepared: Prepared, settings: Settings, seed: int) -> Rows:
    """Return the rows that a seed trains on: all that were prepared, or with `vary_data` those
    it draws of them.
    """
    from hpml_bench.plugins.rows import Rows, read_rows

    folder = Path(prepared.data) / "train"
    if not settings.vary_data:
        return Rows(folder, prepared.pad_id)
    generator = np.random.default_rng([settings.data_seed, OWN_ROWS, seed])
    drawn = generator.permutation(read_rows(folder).num_rows)[: settings.train_samples]
    return Rows(folder, prepared.pad_id, drawn)


def retention_rows(source: str, most: int, loaded: LoadedData, settings: Settings) -> Dataset:
    """Return at most `most` texts of the data set or of a file's lines or rows, each a
    conversation of one turn.
    """
    if source == "dataset":
        if loaded.retention is None:
            raise UserError(
                f"task.options.retention: the data set {settings.dataset.name} has no general text "
                "of its own; name a file with path: or wheel:, or leave it empty"
            )
        rows = loaded.retention
    else:
        if source.startswith("hub:"):
            owner, name, inner = (*source.split("/", 2), "", "")[:3]
            if not inner:
                forms = "hub:OWNER/NAME/FILE or hub:OWNER/NAME@REVISION/FILE"
                raise UserError(f"task.options.retention: {source}: write {forms}")
            file = fetch(f"{owner}/{name}", "dataset", [inner]).folder_or_file / inner
            if not file.is_file():
                raise UserError(f"task.options.retention: {source}: the data set has no such file")
        else:
            file = fetch(source).folder_or_file
        rows, _ = read_file(file_of(f"path:{file}"), Format())
        if rows.column_names == ["text"]:  # lines of a text file, some of them empty
            rows = rows.filter(lambda row: bool((row["text"] or "").strip()))
        if not len(rows):
            raise UserError(f"task.options.retention: {file} holds no text")
        rows = as_conversations(rows, str(file), find_turns(rows, str(file)))
        if reason := next(filter(None, rows["bad"]), None):
            raise UserError(reason)
    order = np.random.default_rng([settings.data_seed, RETENTION_ROWS]).permutation(len(rows))
    return rows.select(order[:most])
