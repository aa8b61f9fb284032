"""SVG of a picture: inline in a page, in whose colours it stands, or a file of its own; the same bytes every time.

Nothing carries a style attribute, which a page's policy refuses, and all texts are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from hpml_bench.plugins.picture import Picture
from hpml_bench.report.pictures.layout import DASHES, WIDE, Shape, layout

MID_TONES = {"grid": "#80848850", "paper": "none", "blue": "#3d84dd", "m1": "#0072b2", "m2": "#e69f00", "m3": "#009e73",
             "m4": "#d55e00", "m5": "#cc79a7", "m6": "#56b4e9", "m7": "#7d7d7d", "m8": "#8c6d31"}  # fmt: skip
"""Colours that are readable on light and dark; the others are grey. m1 to m8 are Okabe and Ito's (2008)."""


def svg(picture: Picture, width: float = WIDE) -> str:
    """Return the picture as an element of a page; with marks it has their names, else its place has to have `alt`."""
    drawing = layout(picture, width)
    size = f'viewBox="0 0 {_n(width)} {_n(drawing.height)}"'
    if picture.marks:
        size += f' role="group" aria-label="{escape(picture.alt)}" data-axis="{escape(picture.x.key)}"'
        size += f' data-s="{drawing.frame.scale}"'
    return f'<svg class="plot" {size} font-size="12">{_elements(drawing.shapes)}</svg>'


def small(shapes: Iterable[Shape], width: int, height: int, css: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{css}" {size} font-size="11" aria-hidden="true">{_elements(shapes)}</svg>'


def standalone(picture: Picture) -> str:
    text = re.sub(r'<a class="(pt[ a-z]*)" href="[^"]*"', r'<g class="\1" role="img"', svg(picture))
    text = re.sub(r"var\(--(\w+)\)", lambda tone: MID_TONES.get(tone[1], "#808488"), text.replace("</a>", "</g>"))
    own = r'<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" width="\2" height="\3" \1'
    return '<?xml version="1.0" encoding="utf-8"?>\n' + re.sub(
        r'^<svg (class="plot" viewBox="0 0 (\S+) ([^"]+)")', own, text
    ) + "\n"  # fmt: skip


def _elements(shapes: Iterable[Shape]) -> str:
    return "".join(map(_element, shapes))


def _element(of: Shape) -> str:
    if of.kind == "g":
        return f'<g class="{of.css}" aria-hidden="true">{_elements(of.inner)}</g>'
    if of.mark is not None:
        link = f'href="#m-{of.mark.number}" data-m="{of.mark.number}" aria-label="{escape(of.mark.spoken)}"'
        return f'<a class="{of.css}" {link}>{_elements(of.inner)}</a>'
    (x, y), (x2, y2) = ((_n(x), _n(y)) for x, y in (of.points[0], of.points[-1]))
    where = {
        "line": {"x1": x, "x2": x2, "y1": y, "y2": y2},
        "circle": {"cx": x, "cy": y, "r": _n(of.radius)},
        "text": {"x": x, "y": y, "text-anchor": of.anchor, "font-weight": "600" if of.bold else ""},
    }.get(of.kind) or {"points": " ".join(f"{_n(x)},{_n(y)}" for x, y in of.points)}
    how = {
        "fill": f"var(--{of.fill})" if of.fill else "none" if of.kind in {"polyline", "circle"} else "",
        "stroke": f"var(--{of.stroke})" if of.stroke else "",
        "stroke-width": _n(of.width),
        "stroke-dasharray": " ".join(map(_n, DASHES[of.dash])) if of.dash else "",
        "opacity": f"{of.opacity:g}",
        "pointer-events": "" if of.fill or of.stroke else "all",
    }
    own = {key: value for key, value in ({"class": of.css} | where | how).items() if value != _DEFAULTS.get(key, "")}
    text = "".join(f' {key}="{value}"' for key, value in own.items())
    return f"<text{text}>{escape(of.text)}</text>" if of.kind == "text" else f"<{of.kind}{text}/>"


_DEFAULTS = {"stroke-width": "1", "opacity": "1", "text-anchor": "start"}


def _n(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
