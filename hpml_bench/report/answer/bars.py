"""The difference of each method to the best mean: its numbers, and a bar of the one interval that decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from hpml_bench.report.answer import terms
from hpml_bench.report.answer.model import Answer, Relation

HEIGHT = 20
CLEAR = 2.5
"""Pixels that an interval keeps from the line at zero where the verdict is that methods differ."""


class Difference(NamedTuple):
    """Difference of a method to another, in units of the score: the first less the second."""

    d: float
    low: float | None
    high: float | None
    """Ends of the interval that decides; none where nothing was tested."""
    relation: Relation


class Bars(NamedTuple):
    """Bars of all rows on one scale."""

    value: dict[str, float]
    """The differences, of the best mean 0."""
    svg: dict[str, str]
    said: dict[str, str]
    """The same in words, for who can't see the bars."""
    scale: str
    """SVG of the scale, for the column's head."""
    key: str
    """A small bar for the caption; empty where nothing was tested."""


def difference(answer: Answer, name: str, other: str) -> Difference | None:
    """Return the difference of a method's score to another's; none where they share no seed."""
    pair = answer.pair("score", name, other)
    if pair is None or not math.isfinite(pair.d):
        return None
    return Difference(*terms.seen_from(pair, name), answer.relation("score", name, other))


def _turned(of: Difference) -> Difference:
    low, high = (None if end is None else -end for end in (of.high, of.low))
    return Difference(-of.d, low, high, of.relation)


def to_best(answer: Answer) -> dict[str, Difference]:
    """Return the differences to the best mean, of the methods that were compared with it."""
    best = answer.methods[0].name if answer.methods else ""
    others = [method.name for method in answer.methods[1:]]
    return {name: found for name in others if (found := difference(answer, name, best))}


def bars(answer: Answer, width: int = 96) -> Bars:
    """Return the bars: worse lies left of the line at zero, whichever direction of the score is better."""
    found = to_best(answer)
    facing = {name: of if answer.score.better == "higher" else _turned(of) for name, of in found.items()}
    ends = [value for of in facing.values() for value in (of.d, of.low, of.high) if value is not None]
    low, high = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 6 + (value - low) / span * (width - 12)

    best = answer.methods[0].name if answer.methods else ""
    top = frozenset(answer.top)
    svg = {name: _svg(_drawn(of, x(0), x), x(0), width, top=name in top) for name, of in facing.items()}
    if best:
        svg[best] = _svg(_dot(x(0), 3.5), x(0), width, top=best in top)
    said = {name: _said(answer, of) for name, of in found.items()} | ({best: "best mean"} if best else {})
    value = {name: of.d for name, of in found.items()} | ({best: 0.0} if best else {})
    key = _svg(f"{_line(3, 31)}{_dot(17, 3.5)}", 38, 44) if answer.tested_by_score else ""
    return Bars(value, svg, said, _scale(answer, low, x, width), key)


def _drawn(of: Difference, zero: float, x: Callable[[float], float]) -> str:
    """Return interval and mark: hollow where the method can't be told from the best, clear of zero where it can."""
    differs = of.relation in ("better", "worse")
    hollow, radius = ("", 3.5) if differs else (" open", 3.0)
    if differs and of.low is not None and of.high is not None and x(of.high) - x(of.low) < 4 * radius:
        radius = 2.0  # else the mark hides the interval
    side = (-1 if of.d < 0 else 1) if differs else 0

    def clear(at: float, by: float) -> float:
        return min(at, zero - by) if side < 0 else max(at, zero + by) if side > 0 else at

    line = "" if of.low is None or of.high is None else _line(clear(x(of.low), CLEAR), clear(x(of.high), CLEAR))
    return line + _dot(clear(x(of.d), CLEAR + radius), radius, hollow)


def _line(low: float, high: float) -> str:
    return f'<line class="ci" x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10"/>'


def _dot(at: float, radius: float, hollow: str = "") -> str:
    return f'<circle class="dot{hollow}" cx="{at:.1f}" cy="10" r="{radius:g}"/>'


def _svg(inside: str, zero: float, width: int, *, top: bool = False) -> str:
    return (
        f'<svg class="diff{" top" if top else ""}" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'aria-hidden="true"><line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{HEIGHT}"/>{inside}</svg>'
    )


def _scale(answer: Answer, low: float, x: Callable[[float], float], width: int) -> str:
    """Return the scale's text: zero, and a round value left of it."""
    texts = [(x(0), "0")]
    if low < 0:
        step = 10.0 ** math.floor(math.log10(-low))
        at = max(k * step for k in (1, 2, 5) if k * step <= -low * (1 + 1e-9))
        if x(0) - x(-at) > 24:
            sign = "−" if answer.score.better == "higher" else "+"
            texts.append((x(-at), f"{sign}{at:g}"))
    inside = "".join(
        f'<text x="{min(max(at, 14), width - 4):.1f}" y="10" text-anchor="middle">{text}</text>' for at, text in texts
    )
    return f'<svg class="scale" viewBox="0 0 {width} 12" width="{width}" height="12" aria-hidden="true">{inside}</svg>'


def _said(answer: Answer, of: Difference) -> str:
    mean = terms.gap_text(answer, of.d)
    if of.low is None or of.high is None:
        return mean
    low, high = (terms.gap_text(answer, value, unit=False) for value in (of.low, of.high))
    return f"{mean}, interval {low} to {high}"
