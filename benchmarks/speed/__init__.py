"""Measurements of `benchmarks/performance.py`, a file for each kind, and the lines of the table that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

HEADER = "| measured | figure (spread) | target | |\n|---|---|---|---|"


@dataclass(frozen=True)
class Target:
    """A figure, what it should be, and the measurements behind it: a line of the table."""

    name: str
    """What was measured."""
    figure: float
    unit: str
    target: float | None
    """None: printed for comparison, nothing is asked of it."""
    direction: Literal["at least", "at most"]
    raw: dict[str, Any] = field(default_factory=dict)
    """The single measurements, in the order taken."""
    spread: tuple[float, float] | None = None
    """Smallest and largest."""

    @property
    def met(self) -> bool | None:
        """Whether the figure is what it should be; None where nothing is asked."""
        if self.target is None:
            return None
        return self.figure >= self.target if self.direction == "at least" else self.figure <= self.target

    def row(self) -> str:
        """Return the line: figure, spread, target, met or not."""
        spread = f" ({self.spread[0]:.3g} to {self.spread[1]:.3g})" if self.spread else ""
        asked = "" if self.target is None else f"{self.direction} {self.target:g}"
        verdict = {True: "met", False: "NOT MET", None: "for comparison"}[self.met]
        return f"| {self.name} | {self.figure:.3g}{spread} {self.unit} | {asked} | {verdict} |"

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def at_most(name: str, values: Sequence[float], unit: str, most: float | None, raw: dict[str, Any]) -> Target:
    """Return the median of values, which should be at most so much; of several with their spread."""
    return Target(name, median(values), unit, most, "at most", raw, (min(values), max(values)) if values[1:] else None)


def ratio(name: str, ratios: Sequence[float], asked: float | None, raw: dict[str, Any], unit: str = "x") -> Target:
    """Return the median of ratios, which should be at least so much, with their spread."""
    spread = min(ratios), max(ratios)
    return Target(name, median(ratios), unit, asked, "at least", {"ratios": [*ratios], **raw}, spread)
