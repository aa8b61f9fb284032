"""Numbers as text: one place decides units, digits, intervals and how a missing value looks, for
every format.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hpml_bench.records.run import Metric
from hpml_bench.statistics import Interval
from hpml_bench.system.text import count_of

MISSING = "–"
MINUS = "−"
_FORMAT = re.compile(r",?(?:\.(\d{1,2}))?([%gfde])")
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_LARGE = {
    "s": (600.0, 60.0, "min"),
    "MB": (10_000.0, 1000.0, "GB"),
}  # least value, size and name of the larger unit

Shown = tuple[str, float | str | None]  # text, and the value behind it; None where there is none
Cell = (
    str | int | Shown | None
)  # text alone, a count, a number as shown, or None for a value that is missing


def number(value: float | None, spec: str = ".3g") -> str:
    """Return a number as text: thousands separated, significant digits without an exponent.

    `spec` is a metric's format; one that isn't understood counts as `.3g`. Percent signs belong to
    the header.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    value = float(f"{value:.12g}")  # one rounding for numbers that differ in their last bits alone
    match = _FORMAT.fullmatch(spec)
    given, kind = match.groups() if match else (None, "g")
    digits = 0 if kind == "d" else int(given or {"e": 2, "g": 3}.get(kind, 1))
    if kind == "g":
        if not value:
            return "0"
        power, digits = math.floor(math.log10(abs(value))), max(1, digits) - 1
        kind, digits = ("e", digits) if power < -4 else ("f", max(0, digits - power))
    text = f"{value:.{digits}e}" if kind == "e" else f"{value:,.{digits}f}"
    if not text.strip("-0.,"):  # a negative number that rounds to zero
        return text.removeprefix("-")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def cell(value: float | None, spec: str = ".3g") -> Shown:
    """Return a number as text with the value behind it; none where it isn't finite."""
    return number(value, spec), None if value is None or not math.isfinite(value) else float(value)


def beside(value: float, mean: float, spec: str = ".3g") -> str:
    """Return an interval's end, or a deviation, in the decimals of its mean, and one digit of
    what isn't 0.
    """
    shown = number(mean, spec)
    if "e" in shown:
        return number(value, spec)
    places = len(shown.partition(".")[2])
    return number(
        value, f".{places if not value or round(value, places) else decimals(abs(value), 1)}f"
    )


def in_bytes(value: float) -> str:
    """Return a size in the unit that suits it: `467 kB`."""
    size, unit = next(((s, u) for s, u in _BYTES if value >= s), _BYTES[-1])
    return f"{number(value / size, 'd' if unit == 'B' else '.3g')} {unit}"


def with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text


def titled(title: str, unit: str) -> str:
    """Return `Training time (s)`."""
    return f"{title} ({unit})" if unit else title


def fact(key: str, value: str) -> str:
    """Return `key: value` of a run's notes, with percent signs set as elsewhere in a report."""
    return f"{key}: {re.sub(r'(?<=[0-9])%', ' %', value)}"


def p_value(p: float | None) -> str:
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_cell(p: float | None) -> Shown:
    return p_value(p), p


def limits(low: float | None, high: float | None, spec: str) -> str:
    return (
        MISSING if low is None or high is None else f"[{number(low, spec)}, {number(high, spec)}]"
    )


def rank(interval: tuple[int, int] | None) -> str:
    """Return a rank interval: `1`, or `2–4`."""
    if interval is None:
        return MISSING
    low, high = interval
    return str(low) if low == high else f"{low}–{high}"


def ordinal(n: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `11th`."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def set_apart(n: int) -> str:
    return f"{count_of(n, 'run')} {'is' if n == 1 else 'are'} set apart and not compared"


def slug(text: str, between: str = "-") -> str:
    return re.sub(r"[^a-z0-9]+", between, text.lower()).strip(between)


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


NAMED = 3  # systems that a sentence names; of more it says how many


def sentence_list(items: Sequence[str], last: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def option_list(options: Mapping[str, Any]) -> str:
    """Return options as `rank = 8, alpha = 16`; empty without any."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(str, value))}]"
        return "none" if value is None else str(value)

    return ", ".join(f"{key} = {text(value)}" for key, value in options.items())


# Digits and units of a column


def decimals(value: float, significant: int) -> int:
    """Return the decimals that show so many digits of a value above 0, at most six."""
    return max(0, min(6, significant - 1 - math.floor(math.log10(value))))


def resolving(difference: float, low: float | None, high: float | None, digits: int) -> int:
    """Return `digits`, or decimals that show a difference, and its interval's end nearer to 0,
    which else print as 0.

    Two digits of the difference, and one of the end. An interval that includes 0 may end about
    there: its ends get none more where they are under a tenth of the difference.
    """
    gap = abs(difference)
    ends = [abs(end) for end in (low, high) if end]
    excludes_zero = low is not None and high is not None and low * high > 0
    least = 0.0 if excludes_zero else 0.1 * gap
    needed = [decimals(end, 1) for end in ends if end > least and not round(end, digits)]
    needed += [decimals(gap, 2)] if gap and not round(gap, digits) else []
    return max([digits, *needed])


def larger_unit(unit: str, largest: float) -> tuple[float, str]:
    """Return the factor and the unit in which values up to the largest are shown: long times in
    minutes.
    """
    least, size, larger = _LARGE.get(unit, (math.inf, 1.0, unit))
    return (1 / size, larger) if largest >= least else (1.0, unit)


@dataclass(frozen=True)
class Quantity:
    """A metric as a report shows it: title, unit, scale, and its digits."""

    metric: Metric
    scale: float
    unit: str
    spec: str  # format of a value in this unit
    spreads: bool = False  # whether a mean's standard deviation is shown

    @classmethod
    def of(cls, metric: Metric, intervals: Sequence[Interval] = ()) -> "Quantity":
        """Return a metric in digits that suit the spread of all methods, and in its own format
        where none is known.
        """
        greatest = max((abs(interval.mean) for interval in intervals), default=0.0)
        if metric.format.endswith("%"):
            scale, unit = 100.0, "%"
        elif metric.unit.lower() in {"b", "byte", "bytes"}:
            size, unit = next(((s, u) for s, u in _BYTES if greatest >= s), _BYTES[-1])
            scale = 1 / size
        else:
            scale, unit = larger_unit(metric.unit, greatest)
        spreads = [interval.sd * scale for interval in intervals if interval.sd]
        if not spreads:  # a format is made for its own unit
            return cls(metric, scale, unit, metric.format if scale in {1.0, 100.0} else ".3g")
        means = sorted(abs(interval.mean) * scale for interval in intervals)
        # one that is out of all proportion, as the perplexity of an untrained model, must not take
        # the others' digits
        largest = max(
            (mean for mean in means if mean <= 1000 * means[len(means) // 2]), default=0.0
        )
        return cls(metric, scale, unit, f".{_places(median(spreads), largest)}f", spreads=True)

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
        return titled(self.heading, self.unit)

    def text(self, value: float | None, *, unit: bool = False) -> str:
        if value is None or not math.isfinite(value):
            return MISSING
        return with_unit(number(value * self.scale, self.spec), self.unit if unit else "")

    def cell(self, value: float | None) -> Shown:
        return self.text(value), None if value is None or not math.isfinite(
            value
        ) else value * self.scale

    def spread(self, interval: Interval | None) -> Shown:
        if interval is None:
            return MISSING, None
        text, mean = self.cell(interval.mean)
        if interval.sd is not None and self.spreads:
            text += f" ± {self._beside(interval.sd, interval)}"
        return text, mean

    def between(self, interval: Interval | None) -> str:
        if interval is None or interval.low is None or interval.high is None:
            return MISSING
        return f"[{self._beside(interval.low, interval)}, {self._beside(interval.high, interval)}]"

    def _beside(self, value: float, interval: Interval) -> str:
        return beside(value * self.scale, interval.mean * self.scale, self.spec)


def _places(sd: float, largest: float) -> int:
    """Return decimals for one digit of the spread, two where it begins with 1 to 3 (Particle
    Data Group's rule).
    """
    magnitude = math.floor(math.log10(sd))
    wanted = (1 if sd < 3.55 * 10.0**magnitude else 0) - magnitude
    room = 3 - math.floor(math.log10(largest)) if largest > 0 else wanted
    return max(0, min(wanted, room, 8))
