"""A dataset of the Hugging Face hub: its parquet, csv or jsonl files, never code of its own."""

from typing import Any, cast

from hpml_bench.data.columns import TableOptions
from hpml_bench.data.files import read_repository, split_in
from hpml_bench.data.tables import Splits, find, load
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings


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
        """Split of the final evaluation; empty to split `test_samples` (or a tenth) off the
        training split.
        """

    class Options(TableOptions, Source):
        """The dataset, and its columns."""

        label_names: tuple[str, ...] = ()
        """Names of the classes or tags, in the order of the labels; empty to take the dataset's
        own.
        """

    def load(self, settings: Settings, target: Target) -> LoadedData:
        options = self.options
        parts, revision = read_repository(options.dataset, options.config)
        names = (options.train, options.validation, options.test)
        tables = [
            (split_in(parts, of, options.dataset), f"{options.dataset} {of}") if of else None
            for of in names
        ]
        splits = Splits(*cast(Any, tables))
        columns = find(splits.train[0], options.dataset, target, options)
        notes = {"dataset": options.dataset + (f", commit {revision}" if revision else "")}
        return load(splits, settings, columns, options, notes)
