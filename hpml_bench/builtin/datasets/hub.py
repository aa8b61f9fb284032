"""A dataset of the Hugging Face hub: its parquet, csv or jsonl files, never code of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import TableOptions
from hpml_bench.data.files import read_repository
from hpml_bench.data.tables import Splits, find, load
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class HubDataset(DatasetLoader):
    """Splits of a dataset repository."""

    targets = ("class", "number", "tags", "answer")

    class Source(Frozen):
        """Repository of the data set, and the parts of it that are read."""

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
        options = self.options
        parts, revision = read_repository(options.dataset, options.config)
        train = _split(parts, options.train, options)
        columns = find(train[0], options.dataset, target, options)
        notes = {"dataset": options.dataset + (f", commit {revision}" if revision else "")}
        test = _split(parts, options.test, options) if options.test else None
        validation = _split(parts, options.validation, options) if options.validation else None
        return load(Splits(train, validation, test), settings, columns, options, notes)


def _split(splits: dict[str, Dataset], name: str, options: Any) -> tuple[Dataset, str]:
    if name not in splits:
        raise UserError(f"{options.dataset}: there is no split '{name}'; there is {', '.join(splits)}")
    return splits[name], f"{options.dataset} {name}"
