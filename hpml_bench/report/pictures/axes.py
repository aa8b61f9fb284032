"""Axes of pictures: ends around the values, and round ticks between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hpml_bench.plugins.picture import Axis
from hpml_bench.report.tables import capitalized, number


def axis(
    title: str,
    values: Sequence[float],
    *,
    share: float = 0.05,
    log: bool = False,
    from_zero: bool = False,
    wanted: int = 5,
    text: Callable[[float], str] | None = None,
) -> Axis:
    """Return an axis with some room (a share of the values' range) around values, and about `wanted` ticks.

    `log` needs values above 0, and ignores others. `from_zero`: no end beyond 0 where all values lie on one side of it.
    """
    title = capitalized(title)
    if log:
        low, high = map(math.exp, _range([math.log(value) for value in values if value > 0], share))
        return Axis(low, high, title, tuple((at, (text or "{:g}".format)(at)) for at in _powers(low, high)), log=True)
    low, high = _range(values, share)
    if from_zero:
        low = 0.0 if low < 0 <= min(values) else low
        high = 0.0 if high > 0 >= max(values) > min(values) else high
    step, at = _steps(low, high, wanted)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    spec = f".{digits}f" if digits < 6 and max(abs(low), abs(high)) < 1e7 else ".4g"
    return Axis(low, high, title, tuple((k * step, (text or (lambda v: number(v, spec)))(k * step)) for k in at))


def rows(names: Sequence[str], title: str = "") -> Axis:
    """Return an axis of named rows, the first at the top."""
    return Axis(-0.6, len(names) - 0.4, title, tuple((float(at), name) for at, name in enumerate(names)), turned=True)


def _range(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the ends of an axis around some values; of one value, around a tenth of it."""
    low, high = min(values), max(values)
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):
        spread = abs(high) or 1.0
    return low - share * spread, high + share * spread


def _steps(low: float, high: float, wanted: int) -> tuple[float, range]:
    """Return the round distance of ticks and their multiples of it, at least three."""
    for count in range(wanted, 40):
        raw = (high - low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw * (1 - 1e-9))
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first >= 2:
            break
    return step, range(first, last + 1)


def _powers(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: powers of ten, and values between them where those are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for within in ((1,), (1, 3), (1, 2, 5)):
        at = [k * 10.0**decade for decade in decades for k in within if low < k * 10.0**decade < high]
        if len(at) >= 3:
            break
    return at
