"""Files of texts: csv, tsv, Orange's tab, json, jsonl, parquet, CoNLL's or plain text, from a
folder or a wheel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_bench.data.columns import Column, TableOptions, column_named, short, some
from hpml_bench.data.files import Format, Layout, file_of, read_file, sentences_of
from hpml_bench.data.tables import Splits, find, load, split_by
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class TextFiles(DatasetLoader):
    """Rows of files, from columns given or found."""

    targets = ("class", "number", "tags", "answer")

    class Files(Frozen):
        """Files to read."""

        train: str
        """Training rows: `path:FILE` or `wheel:NAME==VERSION/FILE#sha256=HEX`."""
        validation: str | None = None
        """Validation rows; empty to split them off the training rows."""
        test: str | None = None
        """Test rows; empty to split off `test_samples` of the training rows, or a tenth of them."""
        split: Column | None = None
        """Column of the training file that says of each row whether it is for train, validation
        or test, by name or by position from 1; empty: all rows are for training.
        """

    class Options(Format, TableOptions, Files):
        """Files to read, their columns and their format."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        options, file = self.options, file_of(self.options.train)
        train, layout = read_file(file, options)
        label, named = (None, True) if layout is None else (layout.label, layout.named)
        split = (
            None
            if options.split is None
            else column_named(options.split, train.column_names, str(file), "split")
        )
        if split is None:
            test = None if options.test is None else _read_like(layout, options.test, options)
            validation = (
                None
                if options.validation is None
                else _read_like(layout, options.validation, options)
            )
            splits = Splits((train, str(file)), validation, test)
        elif options.test or options.validation:
            raise UserError(
                f"{file}: dataset.options.split names a column of all splits; leave test and "
                f"validation out"
            )
        else:
            splits = split_by(train, str(file), split)
        if target == "tags":
            splits = splits.converted(sentences_of)
        columns = find(splits.train[0], str(file), target, options, label, named=named, split=split)
        return load(splits, settings, columns, options, {})


def _read_like(train: Layout | None, uri: str, form: Format) -> tuple[Dataset, str]:
    """Return the rows of a file that must have the columns of the training file, and the file's
    name in errors.
    """
    file = file_of(uri)
    rows, layout = read_file(file, form)
    if train and layout and (train.names, train.named) != (layout.names, layout.named):
        raise UserError(
            f"{file}: has {'columns' if layout.named else 'no header and the columns'} "
            f"{some([*map(short, layout.names)])}, unlike the training file's "
            f"{some([*map(short, train.names)])}; mend "
            f"the file{'' if train.named and layout.named else ', or set dataset.options.header'}"
        )
    return rows, str(file)
