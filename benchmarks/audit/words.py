"""Metrics and amounts as the page names them."""

from __future__ import annotations

from collections.abc import Iterable

from audit.study import Study
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


def amounts(values: Iterable[int]) -> str | int:
    """Return a count, or the range of several."""
    low, high = min(values := list(values)), max(values)
    return low if low == high else f"{low:,}–{high:,}"
