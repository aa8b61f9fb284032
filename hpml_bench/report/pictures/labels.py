"""Places of labels beside marks, clear of marks and other labels as far as there is room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from hpml_bench.plugins.picture import Point

LINE: Final = 14
"""Height of a label."""
_Boxes = np.ndarray[Any, np.dtype[np.float64]]
"""Rows of left, top, right, bottom."""
_FAR, _UX, _UY = np.array([
    (more, math.cos(k * math.pi / 8), -math.sin(k * math.pi / 8))
    for more in (0, 4, 10, 18, 28, 40, 54, 70)
    for k in range(0, 16, 2 if more < 10 else 1)
]).T  # fmt: skip
"""Places around a mark: distance beyond the nearest, and direction; near by eight directions do."""


class Place(NamedTuple):
    """Where a mark's label stands: point and anchor of its text, and the end of its leader if it has one."""

    at: Point
    anchor: str
    leader: Point | None


def places(
    at: Sequence[Point], texts: Sequence[str], later: Sequence[bool], bounds: tuple[float, ...], radius: float
) -> list[Place]:
    """Return a place for each label within bounds (left, top, right, bottom); those that are not `later` choose first.

    Each takes the cheapest of some places around its mark; then each looks once more.
    """
    dots = np.array([(x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2) for x, y in at])
    order = sorted(range(len(at)), key=lambda n: later[n])
    around = [_around(point, text, radius + 3) for point, text in zip(at, texts, strict=True)]
    fixed = [_cost(*of, point, dots, bounds) for of, point in zip(around, at, strict=True)]
    chosen: dict[int, int] = {}
    for n in order * 2:
        others = [around[other][0][place] for other, place in chosen.items() if other != n]
        cost = fixed[n] + (3 * _overlap(around[n][0], np.array(others)) if others else 0.0)
        chosen[n] = int(np.argmin(cost.round(6)))  # processors differ in last digits
    return [_place(at[n], around[n][0][chosen[n]], float(_FAR[chosen[n]])) for n in range(len(at))]


def _around(at: Point, text: str, near: float) -> tuple[_Boxes, _Boxes]:
    """Return the boxes where a label may stand, and the corner or side of each that faces the mark."""
    width = 7.3 * len(text) + 2
    x, y = at[0] + _UX * (near + _FAR), at[1] + _UY * (near + _FAR)
    left = x - width * np.select([_UX > 0.1, _UX < -0.1], [0.0, 1.0], 0.5)
    top = y - LINE * np.select([_UY > 0.1, _UY < -0.1], [0.0, 1.0], 0.5)
    return np.stack([left, top, left + width, top + LINE], axis=1), np.stack([x, y], axis=1)


def _cost(boxes: _Boxes, ends: _Boxes, at: Point, dots: _Boxes, bounds: tuple[float, ...]) -> _Boxes:
    """Return what each place costs: what it covers, how far it is, whether it leaves the drawing."""
    inside = (boxes[:, 0] >= bounds[0]) & (boxes[:, 2] <= bounds[2])
    inside &= (boxes[:, 1] >= bounds[1]) & (boxes[:, 3] <= bounds[3])
    share = np.linspace(0.5, 1.0, 4)[:, None, None]
    leader = (np.array(at) * (1 - share) + ends * share).reshape(-1, 2)
    crossed = _overlap(np.hstack([leader - 1, leader + 1]), dots).reshape(4, -1).sum(axis=0) * (_FAR > 8)
    cost: _Boxes = 3 * _overlap(boxes, dots) + 1.2 * _FAR + 500 * ~inside + 4 * crossed
    return cost


def _overlap(boxes: _Boxes, others: _Boxes) -> _Boxes:
    """Return the area of each box that others cover."""
    across = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(boxes[:, None, 0], others[None, :, 0])
    down = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(boxes[:, None, 1], others[None, :, 1])
    area: _Boxes = (np.clip(across, 0, None) * np.clip(down, 0, None)).sum(axis=1)
    return area


def _place(mark: Point, box: _Boxes, far: float) -> Place:
    left, top, right, bottom = map(float, box)
    beside = "start" if left > mark[0] else "end" if right < mark[0] else "middle"
    x = {"start": left, "end": right, "middle": (left + right) / 2}[beside]
    nearest = (min(max(mark[0], left), right), min(max(mark[1], top), bottom))
    return Place((x, top + 11), beside, nearest if far > 8 else None)
