"""A class for each text."""

from __future__ import annotations

from collections import Counter

from hpml_bench.data.columns import short
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.kinds.heads import label_names, pooling
from hpml_bench.starter.view import Kind, View, nothing
from hpml_bench.system.errors import UserError


def _options(view: View) -> tuple[Entry, ...]:
    return (pooling(view),)


def _names(view: View) -> tuple[Entry, ...]:
    names = view.loaded.label_names
    counts = Counter(view.loaded.train["label"])
    if len(counts) == 1:
        only = short(names[next(iter(counts))])
        raise UserError(
            f"{view.data.where}: all training rows have the class '{only}'; give rows of two classes or more"
        )
    most = ", ".join(f"{short(names[label])}: {count:,}" for label, count in counts.most_common(12))
    return label_names(view, f"training rows of each: {most}")


KIND = Kind("sequence_classification", _options, _names, nothing)
