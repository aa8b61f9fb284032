"""Files of texts: csv, tsv, Orange's tab, json, jsonl or parquet, from a folder or a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.data.columns import Column, choose, group_column
from hpml_bench.data.conversations import find_shape
from hpml_bench.data.files import OTHER, SEPARATED, Format, Layout, listed_names, read_file
from hpml_bench.data.sources import resolve
from hpml_bench.data.tables import Splits, in_conversations, labelled
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset


class TextFiles(DatasetLoader):
    """Rows of files, from columns given or found."""

    targets = ("class", "number", "tags", "answer")

    class Options(Frozen):
        """Files to read, their columns and their format."""

        train: str
        """Training rows: `path:FILE` or `wheel:NAME==VERSION/FILE#sha256=HEX`."""
        validation: str | None = None
        """Validation rows; empty to split them off the training rows."""
        test: str | None = None
        """Test rows; empty to split off `test_samples` of the training rows, or a tenth of them."""
        text: Column | tuple[Column, ...] = ()
        """Column or columns of the text or the prompt, or the one with lists of words or turns, by name or by position
        from 1; empty to find them."""
        label: Column | None = None
        """Column of the label (a class, a number, a list of tags, or a prompt's completion), by name or by position
        from 1; empty to find it."""
        label_names: tuple[str, ...] = ()
        """Names of classes or tags, in the order of the sorted label values; empty to take the values themselves."""
        group: Column | None = None
        """Column that says which rows belong together (the questions of one document, near-copies), by name or by
        position from 1: they stay in one split where splits are drawn, and test rows of one group are tested together.
        Empty where each row stands alone."""
        separator: str = " "
        """Separator of the texts of several columns; between parts of a prompt a single space means an empty line."""
        header: bool | None = None
        """Whether the first row of csv, tsv and tab files has column names; empty: yes, unless one of its cells is a
        number or occurs again in its column."""
        skip_lines: int | None = None
        """Lines left out after the header; empty: 2 for a .tab file with Orange's lines of types and roles, else 0."""
        quote: str = '"'
        """Quoting character of csv, tsv and tab files; empty for none."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        """Return the rows of the files.

        Raises:
            UserError: a file can't be read, a column isn't found, or a label is missing or unknown.

        """
        options = self.options
        train_file = _file(options.train)
        form = Format(options.header, options.skip_lines, options.quote)
        train, layout = read_file(train_file, form)
        text = options.text if isinstance(options.text, tuple) else (options.text,)
        label = options.label if options.label is not None or layout is None else layout.label
        group = group_column(train, str(train_file), options.group)
        shape, columns = None, None
        if target == "answer":
            shape = find_shape(train, str(train_file), text, options.label)
        else:
            named = layout is None or layout.named
            columns = choose(train, str(train_file), target, text, label, group=group, named=named)
        test = None
        if options.test is not None:
            test_file = _file(options.test)
            test = (_read_like(layout, test_file, form), str(test_file))
        validation = None
        if options.validation is not None:
            validation_file = _file(options.validation)
            validation = (_read_like(layout, validation_file, form), str(validation_file))
        splits = Splits((train, str(train_file)), validation, test)
        if shape is not None:
            return in_conversations(splits, settings, shape, options.separator, group=group)
        assert columns is not None  # noqa: S101 - one of the two
        return labelled(splits, settings, columns, target, options.separator, options.label_names, group=group)


def _file(uri: str) -> Path:
    path = resolve(uri).folder_or_file
    known = [*SEPARATED, *OTHER]
    if not path.is_file() or path.suffix.lower() not in known:
        raise UserError(f"{path}: is no file that can be read; it must end in {', '.join(known)}")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    return path


def _read_like(train: Layout | None, file: Path, form: Format) -> Dataset:
    """Return the rows of a file that must have the columns of the training file."""
    rows, layout = read_file(file, form)
    if train and layout and (train.names, train.named) != (layout.names, layout.named):
        raise UserError(
            f"{file}: has {'columns' if layout.named else 'no header and the columns'} {listed_names(layout.names)}, "
            f"unlike the training file's {listed_names(train.names)}; mend the file, or set dataset.options.header"
        )
    return rows
