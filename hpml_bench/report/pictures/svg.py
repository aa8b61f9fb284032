"""SVG of a picture: inline in a page, in whose colours it stands, or a file of its own; the same bytes every time.

Nothing carries a style attribute, which a page's policy refuses, and all texts are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from hpml_bench.plugins.picture import Mark, Picture, Point
from hpml_bench.report.pictures.layout import DASHES, WIDE, Area, Circle, Group, Polyline, Shape, Words, layout

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
    """Return shapes within a row of a table, which has their numbers in words."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{css}" {size} font-size="11" aria-hidden="true">{_elements(shapes)}</svg>'


def standalone(picture: Picture) -> str:
    """Return the picture as a file of its own, in fixed mid-tones, without links."""
    text = re.sub(r'<a class="(pt[ a-z]*)" href="[^"]*"', r'<g class="\1" role="img"', svg(picture))
    text = re.sub(r"var\(--(\w+)\)", lambda tone: MID_TONES.get(tone[1], "#808488"), text.replace("</a>", "</g>"))
    own = r'<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" width="\2" height="\3" \1'
    return '<?xml version="1.0" encoding="utf-8"?>\n' + re.sub(
        r'^<svg (class="plot" viewBox="0 0 (\S+) ([^"]+)")', own, text
    ) + "\n"  # fmt: skip


def _elements(shapes: Iterable[Shape]) -> str:
    return "".join(map(_element, shapes))


def _element(shape: Shape) -> str:
    match shape:
        case Polyline(points, tone, width, opacity, dash):
            how = _own(stroke=f"var(--{tone})", stroke_width=_n(width), stroke_opacity=f"{opacity:g}")
            how += _own(stroke_dasharray=" ".join(map(_n, DASHES[dash])) if dash else "")
            (x1, y1), (x2, y2) = ((_n(x), _n(y)) for x, y in (points[0], points[-1]))
            if len(points) > 2:
                text = f'<polyline points="{_points(points)}" fill="none"{how} stroke-linejoin="round"/>'
            else:
                text = f'<line{_own(CLASS=shape.css)} x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"{how}/>'
        case Area(points, tone, opacity):
            text = f'<polygon points="{_points(points)}"{_own(fill=f"var(--{tone})", fill_opacity=f"{opacity:g}")}/>'
        case Circle((x, y), radius, fill, stroke, width, opacity, css):
            how = _own(fill=f"var(--{fill})" if fill else "none", opacity=f"{opacity:g}")
            how += _own(stroke=f"var(--{stroke})", stroke_width=_n(width)) if stroke else ""
            how += "" if fill or stroke else ' pointer-events="all"'
            text = f'<circle{_own(CLASS=css)} cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"{how}/>'
        case Words((x, y), content, anchor, tone, bold, css):
            how = _own(text_anchor=anchor, font_weight="600" if bold else "", fill=f"var(--{tone})")
            text = f'<text{_own(CLASS=css)} x="{_n(x)}" y="{_n(y)}"{how}>{escape(content)}</text>'
        case Group(css, shapes, None):
            text = f'<g class="{css}" aria-hidden="true">{_elements(shapes)}</g>'
        case Group(css, shapes, Mark(number=n, spoken=spoken)):
            link = f'class="{css}" href="#m-{n}" data-m="{n}" aria-label="{escape(spoken)}"'
            text = f"<a {link}>{_elements(shapes)}</a>"
    return text


def _own(**attributes: str) -> str:
    """Return the attributes that say more than their default."""
    named = {key.lower().replace("_", "-"): value for key, value in attributes.items()}
    return "".join(f' {key}="{value}"' for key, value in named.items() if value not in {"", _DEFAULTS.get(key)})


_DEFAULTS = {"stroke-width": "1", "stroke-opacity": "1", "fill-opacity": "1", "opacity": "1", "text-anchor": "start"}


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """Return a number of pixels with one decimal at most, and no negative zero."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
