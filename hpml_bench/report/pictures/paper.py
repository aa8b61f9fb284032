"""PDF and PNG of a picture for papers, by matplotlib: a column (3.3 inches) wide, text at 8 points, fonts embedded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hpml_bench.plugins.picture import Picture, Tone
from hpml_bench.report.pictures.layout import DASHES, EM, NARROW, Area, Circle, Group, Polyline, Shape, Words, layout
from hpml_bench.report.pictures.svg import MID_TONES

POINTS = 8.0 / EM
"""Points of print per pixel of a layout: text of 12 pixels is 8 points high, and 356 pixels are 3.3 inches."""
DPI = 600
INKS: dict[str, str] = {
    **MID_TONES, "ink": "#14181f", "soft": "#40474f", "mark": "#6b7580", "grid": "#e2e6ea", "paper": "#ffffff",
    "blue": "#0b57b7",
}  # fmt: skip
_STYLE: Any = {"pdf.fonttype": 42, "text.parse_math": False, "lines.scale_dashes": False, "path.snap": False}


def paper(picture: Picture, kind: Literal["pdf", "png"]) -> bytes:
    """Return the picture as a file; the same picture gives the same bytes by one version of matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawing = layout(picture, NARROW)
    size = (NARROW * POINTS / 72, drawing.height * POINTS / 72)
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a letter that the font lacks it draws a box
        canvas = Figure(figsize=size, dpi=DPI)
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, NARROW), ylim=(drawing.height, 0))
        axes.set_axis_off()
        for order, shape in enumerate(_flat(drawing.shapes)):
            _draw(axes, shape, order)
        unset = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
        canvas.savefig(buffer, format=kind, metadata=unset[kind])
    return buffer.getvalue()


def _flat(shapes: Sequence[Shape]) -> Iterator[Shape]:
    for shape in shapes:
        yield from _flat(shape.shapes) if isinstance(shape, Group) else (shape,)


def _ink(tone: Tone | None) -> str:
    return INKS[tone] if tone else "none"


def _draw(axes: Any, shape: Shape, order: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle as Round
    from matplotlib.patches import Polygon

    match shape:
        case Polyline(points, tone, width, opacity, dash):
            style: Any = (0, tuple(POINTS * length for length in DASHES[dash])) if dash else "-"
            axes.add_line(
                Line2D(*zip(*points, strict=True), color=INKS[tone], linewidth=width * POINTS, alpha=opacity,
                       linestyle=style, solid_capstyle="butt", dash_capstyle="butt", zorder=order)
            )  # fmt: skip
        case Area(points, tone, opacity):
            axes.add_patch(Polygon(points, facecolor=INKS[tone], alpha=opacity, linewidth=0, zorder=order))
        case Circle(at, radius, fill, stroke, width, opacity):
            axes.add_patch(
                Round(at, radius, facecolor=_ink(fill), edgecolor=_ink(stroke), linewidth=width * POINTS, alpha=opacity,
                      zorder=order)
            )  # fmt: skip
        case Words((x, y), text, anchor, tone, bold):
            place = {"start": "left", "middle": "center", "end": "right"}[anchor]
            axes.text(x, y, text, ha=place, va="baseline", fontsize=8, color=INKS[tone], zorder=order,
                      fontweight="bold" if bold else "normal")  # fmt: skip
