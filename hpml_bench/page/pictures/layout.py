"""Layout of a picture at a width: the lines, areas, circles and texts that its writers draw, in
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from hpml_bench.plugins.picture import Axis, Dash, Mark, Picture, Point, Segment, Series, Tone
from hpml_bench.system.text import sanitize

WIDE, NARROW = (
    456.0,
    356.0,
)  # widths of a picture on a page, and on a phone or in a column of a paper
EM, CHARACTER, ROW = (
    12.0,
    6.9,
    17.0,
)  # size of text, width of a character on average, and height of a row of the legend
MANY: Final = 7  # methods over which marks are smaller
DASHES: dict[Dash, tuple[float, float]] = {
    "dotted": (2.0, 2.5),
    "dashed": (5.0, 3.0),
    "hatched": (1.2, 2.4),
}
_PLUS = ((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
         (0.35, 1), (-0.35, 1),
         (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35))  # fmt: skip
_POLYGONS: dict[str, tuple[Point, ...]] = {
    "s": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "D": ((0, -1.15), (1.15, 0), (0, 1.15), (-1.15, 0)),
    "^": ((0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
    "v": ((0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
    "P": _PLUS,
    "X": tuple((0.75 * (x - y), 0.75 * (x + y)) for x, y in _PLUS),
}
_STROKES: dict[str, tuple[tuple[Point, Point], ...]] = {
    "|": (((0, -1), (0, 1)),),
    "_": (((-1, 0), (1, 0)),),
    "x": (((-0.7, -0.7), (0.7, 0.7)), ((-0.7, 0.7), (0.7, -0.7))),
}


@dataclass(frozen=True)
class Shape:
    """A shape by the name of its SVG element, in pixels; a `g` or `a` holds others that a page
    knows as one.
    """

    kind: Literal["line", "polyline", "polygon", "circle", "text", "g", "a"]
    points: tuple[Point, ...] = ()  # of a circle the centre, of a text a point on its baseline
    stroke: Tone | None = None
    fill: Tone | None = None
    width: float = 1.0
    opacity: float = 1.0
    dash: Dash = ""
    radius: float = 0.0
    text: str = ""
    anchor: str = "start"
    bold: bool = False
    css: str = ""
    inner: tuple[Shape, ...] = ()
    mark: Mark | None = None  # the method to which an `a` leads


class Drawing(NamedTuple):
    """A picture laid out."""

    frame: Frame
    height: float  # of the frame and the legend
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Frame:
    """Positions of values in a drawing, in pixels."""

    axes: tuple[Axis, Axis]
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def of(cls, picture: Picture, width: float) -> Frame:
        """Return the frame of a picture; one without titles and ticks has no margins but for its
        marks.
        """
        x, y = picture.x, picture.y
        named = bool(y.title or y.good)
        widest = max((len(text) for _, text in y.ticks), default=0)
        edge = min(max(14 + CHARACTER * widest, 40.0), 0.42 * width) if y.ticks or named else 6.0
        ends = [14 + CHARACTER * len(segment.text) for segment in picture.segments if segment.text]
        height = picture.height * (min(1.0, 0.25 + 0.75 * width / WIDE) if y.grid else 1.0)
        below = 42.0 if x.title else 22.0 if x.ticks else 0.0
        right = width - max(min(edge, 22.0), *ends, 0.0)
        top = 34.0 if named else 8.0 if below else 0.0
        return cls((x, y), width, height, edge, right, top, height - below)

    def at(self, point: Point) -> Point:
        """Return where a point lies; beyond an axis, at its end."""
        (x, y), (low, high) = self.axes, (self.left, self.right)
        return _along(x, point[0], low, high), _along(y, point[1], self.bottom, self.top)

    @property
    def scale(self) -> str:
        """The axes in numbers, for a script that draws limits."""
        x, y = self.axes
        found = (
            float(x.log),
            x.low,
            x.high,
            self.left,
            self.right,
            y.low,
            y.high,
            self.top,
            self.bottom,
        )
        return " ".join(f"{value:.8g}" for value in (*found, -1.0 if y.turned else 1.0))


def _along(axis: Axis, value: float, start: float, end: float) -> float:
    value = min(max(value, axis.low), axis.high)
    at, low, high = (math.log(v) if axis.log else v for v in (value, axis.low, axis.high))
    share = (at - low) / ((high - low) or 1.0)
    return start + (1 - share if axis.turned else share) * (end - start)


def layout(picture: Picture, width: float = WIDE) -> Drawing:
    frame = Frame.of(picture, width)
    shapes = [*_axes(frame), *([Shape("g", css="limits")] if picture.marks else ())]
    for of in picture.segments:
        start, end = frame.at(of.start), frame.at(of.end)
        shapes.append(_line(start, end, of.tone, of.width, opacity=of.opacity, dash=of.dash))
        if of.text:
            shapes.append(_words((max(start[0], end[0]) + 5, end[1] + 4), sanitize(of.text, 60)))
    for series in picture.series:
        points = tuple(map(frame.at, series.points))
        if series.band:
            pairs = list(zip(series.points, series.band, strict=True))
            lower, upper = ([frame.at((x, end[at])) for (x, _), end in pairs] for at in (0, 1))
            shapes.append(
                Shape("polygon", (*lower, *reversed(upper)), fill=series.tone, opacity=0.16)
            )
        if series.line and len(points) > 1:
            shapes.append(
                Shape(
                    "polyline",
                    points,
                    stroke=series.tone,
                    width=series.line,
                    opacity=series.opacity,
                )
            )
        shapes += [
            shape
            for at in points[:: series.every]
            if series.marker
            for shape in _marker(series, at)
        ]
    shapes += _marks(frame, picture.marks)
    named: tuple[Series | Segment, ...] = (*picture.series, *picture.segments)
    legend = {of.label: of for of in reversed(named) if of.label}
    x, y = 0.0, frame.height + 12
    for label in dict.fromkeys(of.label for of in named if of.label):
        text = _fitting(label, width - 24)
        x, y = (0.0, y + ROW) if x and x + 24 + CHARACTER * len(text) > width else (x, y)
        sample, end = legend[label], (x + 18, y)
        if isinstance(sample, Segment):
            thick = min(sample.width, 8.0)
            shapes.append(
                _line((x, y), end, sample.tone, thick, opacity=sample.opacity, dash=sample.dash)
            )
        elif sample.line:
            shapes.append(_line((x, y), end, sample.tone, sample.line, opacity=sample.opacity))
        if isinstance(sample, Series) and sample.marker:
            shapes += _marker(sample, (x + 9, y))
        shapes.append(_words((x + 24, y + 4), text))
        x += 40 + CHARACTER * len(text)
    return Drawing(frame, y + 8 if legend else frame.height, tuple(shapes))


def _line(start: Point, end: Point, tone: Tone, width: float = 1.0, **how: Any) -> Shape:
    return Shape("line", (start, end), stroke=tone, width=width, **how)


def _words(at: Point, text: str, anchor: str = "start", tone: Tone = "soft", **how: Any) -> Shape:
    return Shape("text", (at,), fill=tone, text=text, anchor=anchor, **how)


def _fitting(text: str, width: float) -> str:
    """Return a text, cut where it is wider than its place."""
    most, text = max(1, int(width / CHARACTER)), sanitize(text, 200)
    return text if len(text) <= most else text[: most - 1] + "…"


def _axes(frame: Frame) -> Iterator[Shape]:
    x, y = frame.axes
    edge, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    for at, text in _spaced(
        [(frame.at((x.low, value))[1], text) for value, text in y.ticks], lambda _: 13.0
    ):
        if y.grid and bottom - at >= 3:
            yield _line((edge, at), (right, at), "grid", css="grid")
        yield _words((edge - 8, at + 4), _fitting(text, edge - 8), "end", css="tick")
    for at, text in _spaced(
        [(frame.at((value, y.low))[0], text) for value, text in x.ticks], _wide
    ):
        if x.grid:
            yield _line((at, top), (at, bottom), "grid", css="grid")
        yield _line((at, bottom), (at, bottom + 4), "mark", opacity=0.6)
        yield _words((at, bottom + 17), text, "middle", css="tick")
    if x.ticks or x.title:
        yield _line((edge, bottom), (right, bottom), "mark", opacity=0.6)
    foot, title = frame.height - 6, _fitting(x.title, frame.width - _wide(x.good))
    end = max(right, min(CHARACTER * len(title), frame.width))
    texts = (
        _words((0, 14), _fitting(y.title, right - _wide(y.good)), tone="ink", bold=True),
        _words((right, 14), y.good, "end"),
        _words((edge, foot), x.good),
        _words((end, foot), title, "end", "ink", bold=True),
    )
    yield from (text for text in texts if text.text)


def _wide(text: str) -> float:
    return CHARACTER * len(text) + 8


def _spaced(
    ticks: Sequence[tuple[float, str]], size: Callable[[str], float]
) -> Sequence[tuple[float, str]]:
    for every in range(1, len(ticks)):
        shown = ticks[::every]
        if all(
            abs(b - a) >= (size(one) + size(other)) / 2 for (a, one), (b, other) in pairwise(shown)
        ):
            return shown
    return ticks[:1]


def _marker(of: Series, at: Point) -> Iterator[Shape]:
    def moved(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((at[0] + of.size / 2 * x, at[1] + of.size / 2 * y) for x, y in points)

    if of.marker in _POLYGONS:
        yield Shape("polygon", moved(_POLYGONS[of.marker]), fill=of.tone, opacity=of.opacity)
    elif of.marker in _STROKES:
        for stroke in _STROKES[of.marker]:
            yield Shape("polyline", moved(stroke), stroke=of.tone, width=1.8, opacity=of.opacity)
    elif of.marker == "O":
        yield Shape(
            "circle",
            (at,),
            stroke=of.tone,
            width=of.line or 1.0,
            opacity=of.opacity,
            radius=of.size / 2,
        )
    else:
        yield Shape("circle", (at,), fill=of.tone, opacity=of.opacity, radius=of.size / 2)


def _marks(frame: Frame, marks: Sequence[Mark]) -> Iterator[Shape]:
    radius = 5.5 if len(marks) <= MANY else 4.0
    at = [frame.at(mark.at) for mark in marks]
    bounds = (frame.left + 2, frame.top - 14, frame.width - 1, frame.bottom - 1)
    found = places(
        at, [mark.text for mark in marks], [not mark.top for mark in marks], bounds, radius
    )
    for mark, point, place in reversed(list(zip(marks, at, found, strict=True))):
        tone: Tone = "blue" if mark.top else "mark"
        inner = (
            [_line(point, place.leader, "mark", opacity=0.7, css="lead")] if place.leader else []
        )
        inner += [
            Shape("circle", (point,), radius=radius + 8, css="hit"),
            Shape("circle", (point,), "paper", tone, 1.5, radius=radius, css="dot"),
            _words(
                place.at,
                mark.text,
                place.anchor,
                "blue" if mark.top else "ink",
                bold=mark.top,
                css="lab",
            ),
        ]
        yield Shape("a", css="pt top" if mark.top else "pt", inner=tuple(inner), mark=mark)


LINE: Final = 14  # height of a label
_Boxes = np.ndarray[Any, np.dtype[np.float64]]  # rows of left, top, right, bottom
_FAR, _UX, _UY = np.array(
    [
        (more, math.cos(k * math.pi / 8), -math.sin(k * math.pi / 8))
        for more in (0, 4, 10, 18, 28, 40, 54, 70)
        for k in range(0, 16, 2 if more < 10 else 1)
    ]
).T
"""Places around a mark: distance beyond the nearest, and direction; near by eight directions do."""


class Place(NamedTuple):
    """Position of a mark's label: point and anchor of its text, and the end of its leader if it
    has one.
    """

    at: Point
    anchor: str
    leader: Point | None


def places(
    at: Sequence[Point],
    texts: Sequence[str],
    later: Sequence[bool],
    bounds: tuple[float, ...],
    radius: float,
) -> list[Place]:
    """Return the cheapest place of each label within bounds (left, top, right, bottom); `later`
    ones choose last.
    """
    dots = np.array(
        [(x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2) for x, y in at]
    )
    order = sorted(range(len(at)), key=lambda n: later[n])
    around, fixed, share = list[_Boxes](), list[_Boxes](), np.linspace(0.5, 1.0, 4)[:, None, None]
    for point, text in zip(at, texts, strict=True):
        # the corner or side of each box that faces the mark
        facing = np.array(point) + np.stack([_UX, _UY], axis=1) * (radius + 3 + _FAR)[:, None]
        width = 7.3 * len(text) + 2
        west = facing[:, 0] - width * np.select([_UX > 0.1, _UX < -0.1], [0.0, 1.0], 0.5)
        north = facing[:, 1] - LINE * np.select([_UY > 0.1, _UY < -0.1], [0.0, 1.0], 0.5)
        boxes: _Boxes = np.stack([west, north, west + width, north + LINE], axis=1)
        inside = (boxes[:, 0] >= bounds[0]) & (boxes[:, 2] <= bounds[2])
        inside &= (boxes[:, 1] >= bounds[1]) & (boxes[:, 3] <= bounds[3])
        leader = (np.array(point) * (1 - share) + facing * share).reshape(-1, 2)
        crossed = _overlap(np.hstack([leader - 1, leader + 1]), dots).reshape(4, -1).sum(axis=0) * (
            _FAR > 8
        )
        around.append(boxes)
        # what it covers, how far it is, whether it leaves the drawing
        fixed.append(3 * _overlap(boxes, dots) + 1.2 * _FAR + 500 * ~inside + 4 * crossed)
    chosen: dict[int, int] = {}
    for n in order * 2:
        others = [around[other][place] for other, place in chosen.items() if other != n]
        cost = fixed[n] + (3 * _overlap(around[n], np.array(others)) if others else 0.0)
        chosen[n] = int(np.argmin(cost.round(6)))  # processors differ in last digits
    found = []
    for n, (x, y) in enumerate(at):
        left, top, right, bottom = map(float, around[n][chosen[n]])
        beside, start = (
            ("start", left)
            if left > x
            else ("end", right)
            if right < x
            else ("middle", (left + right) / 2)
        )
        nearest = (min(max(x, left), right), min(max(y, top), bottom))
        found.append(
            Place((start, top + 11), beside, nearest if float(_FAR[chosen[n]]) > 8 else None)
        )
    return found


def _overlap(boxes: _Boxes, others: _Boxes) -> _Boxes:
    across = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(
        boxes[:, None, 0], others[None, :, 0]
    )
    down = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(
        boxes[:, None, 1], others[None, :, 1]
    )
    area: _Boxes = (np.clip(across, 0, None) * np.clip(down, 0, None)).sum(axis=1)
    return area
