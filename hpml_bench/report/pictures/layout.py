"""Layout of a picture at a width: the lines, areas, circles and texts that its writers draw, in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpml_bench.plugins.picture import Axis, Dash, Mark, Picture, Point, Segment, Series, Tie, Tone
from hpml_bench.report.pictures.labels import Place, places
from hpml_bench.system.text import sanitize

WIDE, NARROW = 456.0, 356.0
"""Widths of a picture on a page, and on a phone or in a column of a paper."""
EM, CHARACTER, ROW = 12.0, 6.9, 17.0
"""Size of text, width of a character on average, and height of a row of the legend."""
BESIDE = 9.0
"""Distance between lines of ties."""
MANY: Final = 7
"""Methods over which marks are smaller."""
DASHES: dict[Dash, tuple[float, float]] = {"dotted": (1.0, 2.5), "dashed": (5.0, 3.0), "hatched": (1.2, 2.4)}
_PLUS = ((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35), (0.35, 1), (-0.35, 1),
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


class Polyline(NamedTuple):
    """A line through points."""

    points: tuple[Point, ...]
    tone: Tone
    width: float
    opacity: float = 1.0
    dash: Dash = ""
    css: str = ""


class Area(NamedTuple):
    """A filled polygon."""

    points: tuple[Point, ...]
    tone: Tone
    opacity: float = 1.0


class Circle(NamedTuple):
    """A circle, filled, drawn as a ring, or, without either, only felt by a pointer."""

    at: Point
    radius: float
    fill: Tone | None
    stroke: Tone | None = None
    width: float = 0.0
    opacity: float = 1.0
    css: str = ""


class Words(NamedTuple):
    """A line of text on a baseline."""

    at: Point
    text: str
    anchor: str = "start"
    tone: Tone = "soft"
    bold: bool = False
    css: str = ""


class Group(NamedTuple):
    """Shapes that a page's script or style sheet knows as one: a mark, a tie, the place of limits."""

    css: str
    shapes: tuple[Shape, ...] = ()
    mark: Mark | None = None


Shape = Polyline | Area | Circle | Words | Group


class Drawing(NamedTuple):
    """A picture laid out."""

    frame: Frame
    height: float
    """Of the frame and the legend."""
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Frame:
    """Where values lie in a drawing, in pixels."""

    axes: tuple[Axis, Axis]
    width: float
    height: float
    edge: float
    """Left end of the grid, from which lines of ties stand."""
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def of(cls, picture: Picture, width: float) -> Frame:
        """Return the frame of a picture; one without titles and ticks has no margins but for its marks."""
        x, y = picture.x, picture.y
        named = bool(y.title or y.good)
        widest = max((len(text) for _, text in y.ticks), default=0)
        edge = min(max(14 + CHARACTER * widest, 40.0), 0.42 * width) if y.ticks or named else 6.0
        ends = [14 + CHARACTER * len(segment.text) for segment in picture.segments if segment.text]
        height = picture.height * (min(1.0, 0.25 + 0.75 * width / WIDE) if y.grid else 1.0)
        below = 42.0 if x.title else 22.0 if x.ticks else 0.0
        left, right = edge + BESIDE * len(picture.ties), width - max(min(edge, 22.0), *ends, 0.0)
        top = 34.0 if named else 8.0 if below else 0.0
        return cls((x, y), width, height, edge, left, right, top, height - below)

    def at(self, point: Point) -> Point:
        """Return where a point lies; beyond an axis, at its end."""
        (x, y), (low, high) = self.axes, (self.left, self.right)
        return _along(x, point[0], low, high), _along(y, point[1], self.bottom, self.top)

    @property
    def scale(self) -> str:
        """The axes in numbers, for a script that draws limits."""
        x, y = self.axes
        found = (float(x.log), x.low, x.high, self.left, self.right, y.low, y.high, self.top, self.bottom)
        return " ".join(f"{value:.8g}" for value in (*found, -1.0 if y.turned else 1.0))


def _along(axis: Axis, value: float, start: float, end: float) -> float:
    value = min(max(value, axis.low), axis.high)
    at, low, high = (math.log(v) if axis.log else v for v in (value, axis.low, axis.high))
    share = (at - low) / ((high - low) or 1.0)
    return start + (1 - share if axis.turned else share) * (end - start)


def layout(picture: Picture, width: float = WIDE) -> Drawing:
    """Return the shapes of a picture, those behind first."""
    frame = Frame.of(picture, width)
    top, shapes = frame.height + 12, [*_axes(frame)]
    shapes += [Group("limits")] if picture.marks else []
    shapes += [_tie(frame, tie, frame.edge + BESIDE * (at + 0.5)) for at, tie in enumerate(picture.ties)]
    shapes += [shape for segment in picture.segments for shape in _segment(frame, segment)]
    shapes += [shape for series in picture.series for shape in _series(frame, series)]
    shapes += _marks(frame, picture.marks)
    x = 0.0
    entries: dict[str, Series | Segment] = {}
    named: tuple[Series | Segment, ...] = (*picture.series, *picture.segments)
    for of in named:
        entries.setdefault(of.label, of)
    entries.pop("", None)
    for label, of in entries.items():
        text = _fitting(label, width - 24)
        own = 40 + CHARACTER * len(text)
        x, top = (0.0, top + ROW) if x and x + own - 16 > width else (x, top)
        shapes += [*_swatch(of, (x, top)), Words((x + 24, top + 4), text)]
        x += own
    return Drawing(frame, top + 8 if entries else frame.height, tuple(shapes))


def _fitting(text: str, width: float) -> str:
    """Return a text, cut where it is wider than its place."""
    most, text = max(1, int(width / CHARACTER)), sanitize(text, 200)
    return text if len(text) <= most else text[: most - 1] + "…"


def _axes(frame: Frame) -> Iterator[Shape]:
    x, y = frame.axes
    for value, text in _spaced(y, [frame.at((x.low, value))[1] for value, _ in y.ticks], [13.0] * len(y.ticks)):
        at = frame.at((x.low, value))[1]
        if y.grid and frame.bottom - at >= 3:
            yield Polyline(((frame.edge, at), (frame.right, at)), "grid", 1, css="grid")
        yield Words((frame.edge - 8, at + 4), _fitting(text, frame.edge - 8), "end", css="tick")
    widths = [CHARACTER * len(text) + 8 for _, text in x.ticks]
    for value, text in _spaced(x, [frame.at((value, y.low))[0] for value, _ in x.ticks], widths):
        at = frame.at((value, y.low))[0]
        if x.grid:
            yield Polyline(((at, frame.top), (at, frame.bottom)), "grid", 1, css="grid")
        yield Polyline(((at, frame.bottom), (at, frame.bottom + 4)), "mark", 1, 0.6)
        yield Words((at, frame.bottom + 17), text, "middle", css="tick")
    if x.ticks or x.title:
        yield Polyline(((frame.edge, frame.bottom), (frame.right, frame.bottom)), "mark", 1, 0.6)
    room = CHARACTER * len(y.good)
    yield from (Words((0, 14), _fitting(y.title, frame.right - room), tone="ink", bold=True),) if y.title else ()
    yield from (Words((frame.right, 14), y.good, "end"),) if y.good else ()
    foot, room = frame.height - 6, CHARACTER * len(x.good)
    yield from (Words((frame.edge, foot), x.good),) if x.good else ()
    title = _fitting(x.title, frame.width - room)
    end = max(frame.right, min(CHARACTER * len(title), frame.width))
    yield from (Words((end, foot), title, "end", tone="ink", bold=True),) if x.title else ()


def _spaced(axis: Axis, at: Sequence[float], sizes: Sequence[float]) -> Sequence[tuple[float, str]]:
    """Return the ticks whose texts have room: all, or every second or third and so on."""
    for every in range(1, len(at)):
        ends = zip(at[::every], at[every::every], sizes[::every], sizes[every::every], strict=False)
        if all(abs(b - a) >= (p + q) / 2 for a, b, p, q in ends):
            return axis.ticks[::every]
    return axis.ticks[:1]


def _tie(frame: Frame, tie: Tie, x: float) -> Group:
    ys = [frame.at((frame.axes[0].low, height))[1] for height in tie.heights]
    tone: Tone = "blue" if tie.top else "mark"
    line = Polyline(((x, min(ys)), (x, max(ys))), tone, 2)
    return Group("tie top" if tie.top else "tie", (line, *(Circle((x, y), 2.5, tone, css="at") for y in ys)))


def _segment(frame: Frame, of: Segment) -> Iterator[Shape]:
    start, end = frame.at(of.start), frame.at(of.end)
    yield Polyline((start, end), of.tone, of.width, of.opacity, of.dash)
    if of.text:
        yield Words((max(start[0], end[0]) + 5, end[1] + 4), sanitize(of.text, 60))


def _series(frame: Frame, of: Series) -> Iterator[Shape]:
    points = tuple(map(frame.at, of.points))
    if of.band:
        pairs = list(zip(of.points, of.band, strict=True))
        lower, upper = ([frame.at((x, end[at])) for (x, _), end in pairs] for at in (0, 1))
        yield Area((*lower, *reversed(upper)), of.tone, 0.16)
    if of.line and len(points) > 1:
        yield Polyline(points, of.tone, of.line, of.opacity)
    for at in points[:: of.every] if of.marker else ():
        yield from _marker(of, at)


def _marker(of: Series, at: Point) -> Iterator[Shape]:
    radius = of.size / 2

    def moved(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((at[0] + radius * x, at[1] + radius * y) for x, y in points)

    if of.marker == "O":
        yield Circle(at, radius, None, of.tone, of.line or 1.0, of.opacity)
    elif of.marker in _POLYGONS:
        yield Area(moved(_POLYGONS[of.marker]), of.tone, of.opacity)
    elif of.marker in _STROKES:
        yield from (Polyline(moved(stroke), of.tone, 1.8, of.opacity) for stroke in _STROKES[of.marker])
    else:
        yield Circle(at, radius, of.tone, opacity=of.opacity)


def _swatch(of: Series | Segment, at: Point) -> Iterator[Shape]:
    """Return a legend's sample, 18 pixels wide."""
    if isinstance(of, Segment) or of.line:
        width = min(of.width, 8.0) if isinstance(of, Segment) else of.line
        dash: Dash = of.dash if isinstance(of, Segment) else ""
        yield Polyline((at, (at[0] + 18, at[1])), of.tone, width, of.opacity, dash)
    if isinstance(of, Series) and of.marker:
        yield from _marker(of, (at[0] + 9, at[1]))


def _marks(frame: Frame, marks: Sequence[Mark]) -> Iterator[Group]:
    """Yield the marks with their labels, the best on top of the others."""
    radius = 5.5 if len(marks) <= MANY else 4.0
    at = [frame.at(mark.at) for mark in marks]
    bounds = (frame.left + 2, frame.top - 14, frame.width - 1, frame.bottom - 1)
    found = places(at, [mark.text for mark in marks], [not mark.top for mark in marks], bounds, radius)
    for mark, point, place in reversed(list(zip(marks, at, found, strict=True))):
        yield Group("pt top" if mark.top else "pt", tuple(_mark(mark, point, place, radius)), mark)


def _mark(mark: Mark, at: Point, place: Place, radius: float) -> Iterator[Shape]:
    tone: Tone = "blue" if mark.top else "mark"
    if place.leader:
        yield Polyline((at, place.leader), "mark", 1, 0.7, css="lead")
    yield Circle(at, radius + 8, None, css="hit")
    yield Circle(at, radius, tone, "paper", 1.5, css="dot")
    yield Words(place.at, mark.text, place.anchor, "blue" if mark.top else "ink", mark.top, "lab")
