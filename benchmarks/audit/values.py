"""Figures within texts, and what was found to disagree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Json = dict[str, Any]
NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[−+-]?\d+)?"
Said = str | tuple[str, Sequence[float]]
"""A text, or its pattern and the numbers that its groups must be."""


def says(text: str, pattern: str, values: Sequence[float]) -> bool:
    """Whether a text fits a pattern and shows these numbers, each to half a unit of its last digit."""
    found = re.fullmatch(pattern, text)
    return found is not None and all(map(_shows, found.groups(), values))


def _shows(text: str, value: float) -> bool:
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").partition("e")
    power = int(exponent or 0)
    unit = 10.0 ** (power - len(mantissa.partition(".")[2]))
    return abs(float(f"{mantissa}e{power}") - value) <= 0.51 * unit + 1e-9 * abs(value)


@dataclass
class Audit:
    """Number of figures that were checked, and a line for each that disagrees."""

    checked: int = 0
    problems: list[str] = field(default_factory=list)
