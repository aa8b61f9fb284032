"""Metrics and amounts as the page names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from audit.study import TIME, Study
from audit.values import Cell

Row = dict[str, str]
Cells = dict[str, Cell]


def metric_of(study: Study, header: str) -> tuple[str, float] | None:
    """Return the metric that a column is of, and what its values are multiplied by there."""
    title, _, unit = header.removesuffix(")").rpartition(" (") if header.endswith(")") else (header, "", "")
    for name, item in study.definitions.items():
        if item["title"].casefold() == title.casefold():
            factors = {item["unit"]: 1.0, "%": 1.0 if item["unit"] == "%" else 100.0}
            factors |= {"kB": 1e-3, "MB": 1e-6, "GB": 1e-9} if item["unit"] == "bytes" else {}
            return (name, factors[unit]) if unit in factors else None
    return None


def metric_in(study: Study, text: str) -> str:
    """Return which of the three metrics a caption or a sentence is about."""
    if re.search(r"training time|trained|time rank|rank: time", text, re.IGNORECASE):
        return TIME
    return study.memory if re.search("memory", text, re.IGNORECASE) else study.score


def amounts(values: Iterable[int]) -> str:
    """Return a count, or the range of several."""
    low, high = min(values := list(values)), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def listed(items: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
