"""Target: one line of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """A figure, what it should be, and the measurements behind it."""

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
        """Return it as JSON."""
        return {**asdict(self), "met": self.met}


HEADER = "| measured | figure (spread) | target | |\n|---|---|---|---|"
