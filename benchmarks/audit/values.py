"""Figures as text, and what they agree with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Json = dict[str, Any]


NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[−+-]?\d+)?"
INTERVAL = rf"\[({NUMBER}), ({NUMBER})\]"
MEAN = rf"({NUMBER})(?: ± ({NUMBER}))?"
MARKS = " †‡¶§*"


class Near(NamedTuple):
    """A number, and what drawing at random may add to it."""

    value: float
    noise: float = 0.0


Atom = str | int | float | Near | None


Cell = Atom | tuple[str, Sequence[Atom]]
"""What a cell must be, or a pattern and what its groups must be."""


def number(text: str) -> tuple[float, float]:
    """Return a number as shown and one unit of its last digit."""
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").partition("e")
    power = int(exponent or 0)
    return float(f"{mantissa}e{power}"), 10.0 ** (power - len(mantissa.partition(".")[2]))


def whole(text: str) -> int:
    """Return a count that CSV may write as a real number; -1 of a number with decimals."""
    value = number(text.strip(MARKS))[0]
    return int(value) if value.is_integer() else -1


def agree(shown: str | None, expected: Cell) -> bool:
    """Whether what is shown is what was recomputed."""
    if isinstance(expected, tuple) and not isinstance(expected, Near):
        found = re.fullmatch(expected[0], (shown or "").rstrip(MARKS))
        return found is not None and all(map(agree, found.groups(), expected[1]))
    if isinstance(expected, str):
        both = (shown or "", expected)
        numbers = [number(text)[0] for text in both if re.fullmatch(NUMBER, text)]
        return both[0] == both[1] or (len(numbers) == 2 and math.isclose(*numbers, rel_tol=1e-9))
    if isinstance(expected, int):
        return re.fullmatch(NUMBER, (shown or "").strip(MARKS)) is not None and whole(shown or "") == expected
    value, noise = expected if isinstance(expected, Near) else (expected, 0.0)
    if value is None or not math.isfinite(value):
        return shown in {None, "", "–", "none"}
    return value == 0 if shown is None else rounds_to(shown.strip("≈%" + MARKS), value, noise)


def rounds_to(text: str, value: float, noise: float) -> bool:
    """Whether a value is what is shown, to half a unit of the last digit."""
    there, unit = number(text) if re.fullmatch(NUMBER, text) else (math.nan, 0.0)
    return abs(there - value) <= 0.51 * unit + 1e-9 * abs(value) + noise


def mean_cell(values: Sequence[float]) -> Cell:
    """Return "mean ± standard deviation"; without the second the values must be one, or equal."""
    if not values:
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    return MEAN, [mean, 0.0 if spread and spread <= 1e-9 * abs(mean) else spread]


def interval_cell(bounds: tuple[float, float] | None) -> Cell:
    """Return "[low, high]"."""
    return (INTERVAL, sorted(bounds)) if bounds else None
