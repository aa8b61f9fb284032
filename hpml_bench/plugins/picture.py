"""Picture: the model of a chart, in the data's own numbers, which `page/pictures` draws for
pages and for papers.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hpml_bench.suite.base import Frozen, Line

Point = tuple[float, float]  # x and y of a point, in the numbers of its axes
Tone = Literal[
    "ink", "soft", "mark", "grid", "paper", "blue", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"
]
"""Colour by its name in the pages' style sheets; m1 to m8 tell methods apart."""
Marker = Literal["", "o", "s", "D", "^", "v", "P", "X", "O", "|", "_", "x"]
"""Shape of a mark, by matplotlib's letters; `O` is a ring."""
Dash = Literal["", "dotted", "dashed", "hatched"]


@dataclass(frozen=True)
class Axis:
    """A scale with its ticks: of numbers, or of rows with names."""

    low: float = 0.0
    high: float = 1.0
    title: str = ""
    ticks: tuple[tuple[float, str], ...] = ()
    """Values and their texts; where they have no room, every second, third, … of them is drawn."""
    log: bool = False
    turned: bool = False  # whether the largest value is at the bottom
    grid: bool = False
    good: str = ""  # which direction is good, in a word with an arrow
    key: str = ""  # name of the cost on this axis, for a page's script


@dataclass(frozen=True)
class Series:
    """Points of one colour: joined by a line, marked, or both."""

    points: tuple[Point, ...]
    tone: Tone
    label: str = ""  # name in the legend; those of one label share an entry
    line: float = 0.0  # width of the line, or of a ring's, in pixels; 0: the points are not joined
    marker: Marker = ""
    size: float = 4.5  # diameter of a mark in pixels
    every: int = 1  # distance of the points that are marked
    opacity: float = 1.0
    band: tuple[Point, ...] = ()  # lower and upper end of a band at each point


@dataclass(frozen=True)
class Segment:
    """A straight line: a limit, an interval, or, thick, a bar. An end at infinity lies at the
    edge of the picture.
    """

    start: Point
    end: Point
    tone: Tone
    width: float = 1.0  # pixels
    label: str = ""
    opacity: float = 1.0
    dash: Dash = ""
    text: str = ""  # text beside its right end


@dataclass(frozen=True)
class Mark:
    """A method's point with its name beside it, which a page links to the method."""

    at: Point
    text: str
    number: int  # number of the method in the page's table
    spoken: str  # its values and verdict
    top: bool


class Picture(Frozen):
    """A chart with its text alternative."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """Name of its files."""
    caption: Line
    alt: Line
    """Its numbers in words."""
    x: Axis
    y: Axis
    height: float = 300.0
    """Pixels without the legend; in narrow pictures of numbers less."""
    segments: tuple[Segment, ...] = ()
    series: tuple[Series, ...] = ()
    marks: tuple[Mark, ...] = ()
