"""Numbers as text, and the building of tables: one place decides units, digits and how a missing value looks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Tabs, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.run import Metric
from hpml_bench.report.results import Results
from hpml_bench.statistics import Interval

MISSING = "–"
MINUS = "−"
_FORMAT = re.compile(r",?(?:\.(\d{1,2}))?([%gfde])")
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))

Shown = tuple[str, float | str | None]
"""Text, and the value behind it; None where there is none."""
Cell = str | int | Shown | None
"""Text alone, a count, a number as shown, or None for a value that is missing."""


def number(value: float | None, spec: str = ".3g") -> str:
    """Return a number as text: thousands separated, significant digits without an exponent.

    `spec` is a metric's format; one that isn't understood counts as `.3g`. Percent signs belong to the header.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    value = float(f"{value:.12g}")  # one rounding for numbers that differ in their last bits alone
    match = _FORMAT.fullmatch(spec)
    digits, kind = (int(match[1]) if match[1] else None, match[2]) if match else (3, "g")
    if kind == "d":
        text = f"{round(value):,d}"
    elif kind == "e":
        text = f"{value:.{2 if digits is None else digits}e}"
    elif kind in {"f", "%"}:
        text = f"{value:,.{1 if digits is None else digits}f}"
    else:
        text = _significant(value, 3 if digits is None else max(1, digits))
    if not text.strip("-0.,"):  # a negative number that rounds to zero
        return text.removeprefix("-")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def cell(value: float | None, spec: str = ".3g") -> Cell:
    """Return a number as text with the value behind it; none where it isn't finite."""
    return number(value, spec), None if value is None or not math.isfinite(value) else float(value)


def fact(key: str, value: str) -> str:
    """Return `key: value` of a run's notes, with percent signs set as elsewhere in a report."""
    return f"{key}: {re.sub(r'(?<=[0-9])%', ' %', value)}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def p_value(p: float | None) -> str:
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_cell(p: float | None) -> Cell:
    return p_value(p), p


def limits(low: float | None, high: float | None, spec: str) -> str:
    return MISSING if low is None or high is None else f"[{number(low, spec)}, {number(high, spec)}]"


def rank(interval: tuple[int, int] | None) -> str:
    """Return a rank interval: `1`, or `2–4`."""
    if interval is None:
        return MISSING
    low, high = interval
    return str(low) if low == high else f"{low}–{high}"


@dataclass(frozen=True)
class Quantity:
    """A metric as a report shows it: title, unit, scale, and digits that suit the spread of all methods."""

    metric: Metric
    scale: float
    unit: str
    places: int | None
    """Decimals that show the typical standard deviation to two digits; None where nothing spreads."""

    @classmethod
    def of(cls, results: Results, name: str) -> Quantity:
        """Return the metric `name` scaled for the values in `results`."""
        metric = results.definitions[name]
        intervals = [results.interval(method, name) for method in results.values(name)]
        known = [interval for interval in intervals if interval is not None]
        scale, unit = _scale(metric, [abs(interval.mean) for interval in known])
        spreads = [interval.sd * scale for interval in known if interval.sd]
        means = sorted(abs(interval.mean) * scale for interval in known)
        # one that is out of all proportion, as the perplexity of an untrained model, must not take the others' digits
        largest = max((mean for mean in means if mean <= 1000 * means[len(means) // 2]), default=0.0)
        return cls(metric, scale, unit, _places(median(spreads), largest) if spreads else None)

    @classmethod
    def alone(cls, metric: Metric) -> Quantity:
        """Return a metric of which no values are known, in the digits of its own format."""
        scale, unit = _scale(metric, [])
        return cls(metric, scale, unit, None)

    @property
    def title(self) -> str:
        return self.metric.title

    @property
    def ends(self) -> tuple[float, ...]:
        return tuple(self.scale * end for end in self.metric.bounds if end is not None)

    @property
    def heading(self) -> str:
        return capitalized(self.title)

    @property
    def header(self) -> str:
        """Heading with unit, for a column or an axis."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: points of a percentage, else the metric's own; empty where it has none."""
        return "points" if self.unit == "%" else self.unit

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or self.metric.name.replace("_", "-")

    def difference(self, value: float) -> str:
        """Return an amount by which two values differ, of six significant digits at most: `1 point`, `0.5 s`."""
        amount = f"{value * self.scale:g}"
        unit = "point" if self.difference_unit == "points" and amount == "1" else self.difference_unit
        return f"{amount} {unit}".strip()

    def text(self, value: float | None, *, unit: bool = False) -> str:
        if value is None or not math.isfinite(value):
            return MISSING
        spec = self.metric.format if self.scale in {1.0, 100.0} else ".3g"  # a format is made for its own unit
        shown = number(value * self.scale, spec if self.places is None else f".{self.places}f")
        return f"{shown} {self.unit}" if unit and self.unit else shown

    def cell(self, value: float | None) -> Shown:
        return self.text(value), None if value is None or not math.isfinite(value) else value * self.scale

    def spread(self, interval: Interval | None) -> Cell:
        if interval is None:
            return MISSING, None
        text = self.text(interval.mean)
        if interval.sd is not None and self.places is not None:
            text += f" ± {self.text(interval.sd)}"
        return text, interval.mean * self.scale

    def between(self, interval: Interval | None) -> str:
        if interval is None or interval.low is None or interval.high is None:
            return MISSING
        return f"[{self.text(interval.low)}, {self.text(interval.high)}]"


def _scale(metric: Metric, means: Sequence[float]) -> tuple[float, str]:
    if metric.format.endswith("%"):
        return 100.0, "%"
    if metric.unit.lower() in {"b", "byte", "bytes"}:
        divisor, unit = next(((d, u) for d, u in _BYTES if max(means, default=0) >= d), _BYTES[-1])
        return 1 / divisor, unit
    return 1.0, metric.unit


def _places(sd: float, largest: float) -> int:
    """Return decimals for one digit of the spread, two where it begins with 1 to 3, and four of the mean at most.

    The Particle Data Group's rounding rule, for a whole column at once.
    """
    magnitude = math.floor(math.log10(sd))
    wanted = (1 if sd < 3.55 * 10.0**magnitude else 0) - magnitude
    room = 3 - math.floor(math.log10(largest)) if largest > 0 else wanted
    return max(0, min(wanted, room, 8))


def table(
    name: str, caption: str, columns: Iterable[str], rows: Iterable[Iterable[Cell]], notes: Iterable[str] = ()
) -> Table:
    pairs = [list(map(_pair, row)) for row in rows]
    return Table(
        name=name, caption=caption, columns=tuple(columns),
        rows=tuple(tuple(text for text, _ in row) for row in pairs),
        values=tuple(tuple(value for _, value in row) for row in pairs), notes=tuple(notes),
    )  # fmt: skip


def _pair(cell: Cell) -> Shown:
    if cell is None:
        return MISSING, None
    if isinstance(cell, int):
        return str(cell), float(cell)
    return (cell, cell) if isinstance(cell, str) else cell


def section_of(
    slug: str,
    title: str,
    *blocks: Text | Table | Picture | Tabs | Fold | None,
    question: Question = "setup",
    about: str = "",
    folded: bool = True,
) -> Section | None:
    """Return a section of the blocks that there are: tables without rows are left out; None without a block."""
    there = tuple(block for block in blocks if block and not (isinstance(block, Table) and not block.rows))
    if not there:
        return None
    return Section(slug=slug, title=title, blocks=there, question=question, about=about, folded=folded)


def by_method(
    results: Results, name: str, caption: str, metrics: Iterable[str], notes: Iterable[str] = ()
) -> Table | None:
    """Return a table of `mean ± sd`, one row per method, one column per measured metric; None if there is none."""
    quantities = [Quantity.of(results, metric) for metric in results.measured(*metrics)]
    if not quantities:
        return None
    if not results.costs_ranked and any(quantity.metric.depends_on_machine for quantity in quantities):
        notes = [*notes, f"Costs rank nothing: {results.aligned.unranked}."]
    rows = [[method, *spreads(results, method, quantities)] for method in results.methods]
    return table(name, caption, ["method", *(quantity.header for quantity in quantities)], rows, notes)


def spreads(results: Results, method: str, quantities: Iterable[Quantity]) -> list[Cell]:
    return [quantity.spread(results.interval(method, quantity.metric.name)) for quantity in quantities]


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence_list(items: Sequence[str], last: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def option_list(options: Mapping[str, Any]) -> str:
    """Return options as `rank = 8, alpha = 16`; empty without any."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(str, value))}]"
        return "none" if value is None else str(value)

    return ", ".join(f"{key} = {text(value)}" for key, value in options.items())
