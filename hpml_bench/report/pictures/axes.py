"""Axes of pictures: ends around the values, and round ticks between them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from hpml_bench.plugins.picture import Axis
from hpml_bench.report.numbers import capitalized, number


def axis(
    title: str,
    values: Sequence[float],
    *,
    share: float = 0.05,
    log: bool = False,
    within: Sequence[float] = (),
    text: Callable[[float], str] | None = None,
    **more: Any,
) -> Axis:
    """Return an axis with some room at each end (a share of the values' range) around values, and about five ticks.

    It is logarithmic with `log`, of the values above 0, if they span a factor of 5. No end passes a value of `within`
    where all values lie on one side of it, as of 0 and 100 of per cent. `more` are other fields of the axis.
    """
    title = capitalized(title)
    above = [value for value in values if value > 0]
    if log and max(above) >= 5 * min(above):  # a smaller span has too few round values
        low, high = map(math.exp, _range(list(map(math.log, above)), share))
        decades, text = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1), text or "{:g}".format
        for round_ones in ((1,), (1, 3), (1, 2, 5)):
            marked = [k * 10.0**decade for decade in decades for k in round_ones if low < k * 10.0**decade < high]
            if len(marked) >= 3:
                break
    else:
        low, high = _range(values, share)
        low = max([low, *(end for end in within if end <= min(values) and (end < max(values) or end == within[0]))])
        high = min([high, *(end for end in within if end >= max(values) and end > low)])
        for count in range(5, 40):  # until there are three ticks or more
            raw = (high - low) / count
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw * (1 - 1e-9))
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first >= 2:
                break
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        spec = f".{digits}f" if digits < 6 and max(abs(low), abs(high)) < 1e7 else ".4g"
        log, text = False, text or (lambda value: number(value, spec))
        marked = [k * step for k in range(first, last + 1)]
    return Axis(low, high, title, tuple((value, text(value)) for value in marked), log, **more)


def ends_of(unit: str) -> Sequence[float]:
    """Return the least and largest value of a share in this unit; nothing for other units."""
    return (0.0, 100.0) if unit == "%" else ()


def rows(names: Sequence[str]) -> Axis:
    """Return an axis of named rows, the first at the top."""
    return Axis(-0.6, len(names) - 0.4, "", tuple((float(at), name) for at, name in enumerate(names)), turned=True)


def _range(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):
        spread, share = abs(high) or 1.0, max(share, 0.05)
    return low - share * spread, high + share * spread
