"""A picture drawn: SVG in a page, in whose colours it stands, or in a file; PDF and PNG for papers,
by matplotlib.

The same bytes every time. In SVG nothing carries a style attribute, which a page's policy refuses,
and all texts are escaped. For papers it is a column (3.3 inches) wide, with text at 8 points and
fonts embedded.
"""

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, Literal

from hpml_bench.page.pictures.layout import DASHES, EM, NARROW, WIDE, Shape, layout
from hpml_bench.plugins.picture import Picture

MID_TONES = {
    "grid": "#80848850",
    "paper": "none",
    "blue": "#3d84dd",
    "m1": "#0072b2",
    "m2": "#e69f00",
    "m3": "#009e73",
    "m4": "#d55e00",
    "m5": "#cc79a7",
    "m6": "#56b4e9",
    "m7": "#7d7d7d",
    "m8": "#8c6d31",
}
"""Colours that are readable on light and dark; the others are grey. m1 to m8 are Okabe and Ito's
(2008).
"""
POINTS = 8.0 / EM
"""Points of print per pixel of a layout: text of 12 pixels is 8 points high, and 356 pixels are
3.3 inches.
"""
DPI = 600
INKS: dict[str, str] = {
    **MID_TONES,
    "ink": "#14181f",
    "soft": "#40474f",
    "mark": "#6b7580",
    "grid": "#e2e6ea",
    "paper": "#ffffff",
    "blue": "#0b57b7",
}
_STYLE: Any = {
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "lines.scale_dashes": False,
    "path.snap": False,
}


def svg(picture: Picture, width: float = WIDE) -> str:
    """Return the picture as an element of a page; with marks it has their names, else its place
    has to have `alt`.
    """
    drawing = layout(picture, width)
    size = f'viewBox="0 0 {_n(width)} {_n(drawing.height)}"'
    if picture.marks:
        size += (
            f' role="group" aria-label="{escape(picture.alt)}" data-axis="{escape(picture.x.key)}"'
        )
        size += f' data-s="{drawing.frame.scale}"'
    return f'<svg class="plot" {size} font-size="12">{_elements(drawing.shapes)}</svg>'


def small(shapes: Iterable[Shape], width: int, height: int, css: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{css}" {size} font-size="11" aria-hidden="true">{_elements(shapes)}</svg>'


def standalone(picture: Picture) -> str:
    text = re.sub(r'<a class="(pt[ a-z]*)" href="[^"]*"', r'<g class="\1" role="img"', svg(picture))
    text = re.sub(
        r"var\(--(\w+)\)",
        lambda tone: MID_TONES.get(tone[1], "#808488"),
        text.replace("</a>", "</g>"),
    )
    own = (
        r'<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" width="\2" '
        r'height="\3" \1'
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + re.sub(r'^<svg (class="plot" viewBox="0 0 (\S+) ([^"]+)")', own, text)
        + "\n"
    )


def _elements(shapes: Iterable[Shape]) -> str:
    return "".join(map(_element, shapes))


def _element(of: Shape) -> str:
    if of.kind == "g":
        return f'<g class="{of.css}" aria-hidden="true">{_elements(of.inner)}</g>'
    if of.mark is not None:
        link = (
            f'href="#m-{of.mark.number}" data-m="{of.mark.number}" '
            f'aria-label="{escape(of.mark.spoken)}"'
        )
        return f'<a class="{of.css}" {link}>{_elements(of.inner)}</a>'
    (x, y), (x2, y2) = ((_n(x), _n(y)) for x, y in (of.points[0], of.points[-1]))
    where = {
        "line": {"x1": x, "x2": x2, "y1": y, "y2": y2},
        "circle": {"cx": x, "cy": y, "r": _n(of.radius)},
        "text": {"x": x, "y": y, "text-anchor": of.anchor, "font-weight": "600" if of.bold else ""},
    }.get(of.kind) or {"points": " ".join(f"{_n(x)},{_n(y)}" for x, y in of.points)}
    how = {
        "fill": f"var(--{of.fill})"
        if of.fill
        else "none"
        if of.kind in {"polyline", "circle"}
        else "",
        "stroke": f"var(--{of.stroke})" if of.stroke else "",
        "stroke-width": _n(of.width),
        "stroke-dasharray": " ".join(map(_n, DASHES[of.dash])) if of.dash else "",
        "opacity": f"{of.opacity:g}",
        "pointer-events": "" if of.fill or of.stroke else "all",
    }
    own = {
        key: value
        for key, value in ({"class": of.css} | where | how).items()
        if value != _DEFAULTS.get(key, "")
    }
    text = "".join(f' {key}="{value}"' for key, value in own.items())
    return f"<text{text}>{escape(of.text)}</text>" if of.kind == "text" else f"<{of.kind}{text}/>"


_DEFAULTS = {"stroke-width": "1", "opacity": "1", "text-anchor": "start"}


def _n(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


# For papers


def paper(picture: Picture, kind: Literal["pdf", "png"]) -> bytes:
    """Return the picture as a file; the same picture gives the same bytes by one version of
    matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawing = layout(picture, NARROW)
    size = (NARROW * POINTS / 72, drawing.height * POINTS / 72)
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph", UserWarning
        )  # of a letter that the font lacks it draws a box
        canvas = Figure(figsize=size, dpi=DPI)
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, NARROW), ylim=(drawing.height, 0))
        axes.set_axis_off()
        for order, shape in enumerate(flat(drawing.shapes)):
            _draw(axes, shape, order)
        unset = {
            "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
            "png": {"Software": None},
        }
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
        how = {
            "ha": place,
            "weight": "bold" if of.bold else "normal",
            "color": fill,
            "zorder": order,
        }
        axes.text(*of.points[0], of.text, va="baseline", size=8, **how)
        return
    how = {
        "facecolor": fill,
        "edgecolor": stroke,
        "linewidth": of.width * POINTS if of.stroke else 0,
        "alpha": of.opacity,
        "linestyle": (0, [POINTS * length for length in DASHES[of.dash]]) if of.dash else "-",
        "zorder": order,
    }
    axes.add_patch(
        patches.Circle(of.points[0], of.radius, **how)
        if of.kind == "circle"
        else patches.Polygon(
            of.points, closed=of.kind == "polygon", capstyle="butt", joinstyle="round", **how
        )
    )
