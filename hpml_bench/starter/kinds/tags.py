"""A tag for each word."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from hpml_bench.data.columns import short
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.kinds.heads import label_names
from hpml_bench.starter.view import Kind, View, nothing


def _names(view: View) -> tuple[Entry, ...]:
    names = view.loaded.label_names
    counts = Counter(chain.from_iterable(view.loaded.train["tags"]))
    most = ", ".join(f"{short(names[tag])}: {count:,}" for tag, count in counts.most_common(12))
    return label_names(view, f"training words of each: {most}")


KIND = Kind("token_classification", nothing, _names, nothing)
