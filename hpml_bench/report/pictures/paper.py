"""PDF and PNG of a picture for papers, by matplotlib: a column (3.3 inches) wide, text at 8 points, fonts embedded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hpml_bench.plugins.picture import Picture
from hpml_bench.report.pictures.layout import DASHES, EM, NARROW, Shape, layout
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
        for order, shape in enumerate(flat(drawing.shapes)):
            _draw(axes, shape, order)
        unset = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
        canvas.savefig(buffer, format=kind, metadata=unset[kind])
    return buffer.getvalue()


def flat(shapes: Sequence[Shape]) -> Iterator[Shape]:
    for shape in shapes:
        yield from flat(shape.inner) if shape.kind in {"g", "a"} else (shape,)


def _draw(axes: Any, of: Shape, order: int) -> None:
    from matplotlib import patches

    how: Any
    fill, stroke = (INKS[tone] if tone else "none" for tone in (of.fill, of.stroke))
    if of.kind == "text":
        place = {"start": "left", "middle": "center", "end": "right"}[of.anchor]
        how = {"ha": place, "weight": "bold" if of.bold else "normal", "color": fill, "zorder": order}
        axes.text(*of.points[0], of.text, va="baseline", size=8, **how)
        return
    how = {
        "facecolor": fill, "edgecolor": stroke, "linewidth": of.width * POINTS if of.stroke else 0, "alpha": of.opacity,
        "linestyle": (0, [POINTS * length for length in DASHES[of.dash]]) if of.dash else "-", "zorder": order,
    }  # fmt: skip
    axes.add_patch(
        patches.Circle(of.points[0], of.radius, **how) if of.kind == "circle"
        else patches.Polygon(of.points, closed=of.kind == "polygon", capstyle="butt", joinstyle="round", **how)
    )  # fmt: skip
