"""Drawing of charts: inline SVG, one style per method, readable on light and dark, the same bytes every time."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpml_bench.plugins.blocks import Figure
from hpml_bench.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7d7d7d", "#8c6d31")
"""Okabe and Ito 2008, distinguishable with any colour vision; a page may redefine them as --m1 to --m8."""
MARKERS = "osD^vPX*<>"
INK, GRID, PAPER = "#454647", "#c8c9ca", "#fdfefe"
FONT = "system-ui, sans-serif"
SIZE = (4.7, 3.1)
_ROWS, _ROW = 7, 0.19
"""Rows of a legend that a chart has room for, and the inches of each further one."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hpml-bench",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Style:
    """Colour and marker of a method, the same in all charts."""

    color: str
    marker: str

    @property
    def hue(self) -> int:
        """Number of the colour, as in --m1."""
        return COLORS.index(self.color) + 1

    @property
    def shape(self) -> int:
        """Number of the marker."""
        return MARKERS.index(self.marker)


def styles(results: Results) -> dict[str, Style]:
    """Return each method's colour and marker; with more methods than colours the markers differ."""
    return {
        method: Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i, method in enumerate(results.methods)
    }


@contextmanager
def drawing(height: float = SIZE[1]) -> Iterator[tuple[Any, Axes]]:
    """Yield a figure and its axes in our style; pyplot with its global state stays out."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(SIZE[0], height), layout="constrained")
        yield canvas, canvas.subplots()


def finish(canvas: Any, name: str, caption: str, alt: str) -> Figure:
    """Return the drawing as an inline SVG with its caption and text alternative."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(name=name, caption=caption, svg=_inline(buffer.getvalue(), name), alt=alt)


def _inline(svg: str, name: str) -> str:
    """Return matplotlib's file as an element: no prolog, ids of its own, the page's colours and font.

    Styles become attributes, which a page shows whose policy allows no styles but its sheets.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>\s*", "", svg)
    svg = _small(_own_ids(svg, f"f{zlib.crc32(name.encode()):x}"))
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r'\sstyle="([^"]*)"', _attributes, tag[0]), svg)
    inherited = f'stroke-linejoin="round" stroke-linecap="butt" font-family="{FONT}"'
    svg = svg.replace("<svg ", f"<svg {inherited} ", 1)
    for index, color in enumerate(COLORS, 1):
        svg = svg.replace(color, f"var(--m{index}, {color})")
    svg = svg.replace(INK, "currentColor").replace(GRID, f"var(--grid, {GRID})")
    return svg.replace(PAPER, f"var(--paper, {PAPER})").strip()


def _own_ids(svg: str, prefix: str) -> str:
    """Return a drawing with the ids that it refers to as numbers behind a prefix, and no others."""
    short = {old: f"{prefix}-{n}" for n, old in enumerate(dict.fromkeys(re.findall(r'(?:href="|url\()#(\w+)', svg)))}

    def named(tag: re.Match[str]) -> str:
        own = re.sub(r' id="([^"]*)"', lambda old: f' id="{short[old[1]]}"' if old[1] in short else "", tag[0])
        return re.sub(r'(href="|url\()#(\w+)', lambda old: f"{old[1]}#{short[old[2]]}", own)

    return re.sub(r"<[^>]*>", named, svg)


def _small(svg: str) -> str:
    """Return a drawing without what shows nothing: groups without attributes, a third decimal, white space."""
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", _rounded, tag[0]), svg)
    svg = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)))
    while (flat := re.sub(r"<g>((?:(?!</?g\b).)*|<g [^>]*>(?:(?!</?g\b).)*</g>)</g>", r"\1", svg)) != svg:
        svg = flat
    return re.sub(r"<g( [^>]*)>((?:<use [^>]*/>)+)</g>", _shared, svg)


def _shared(group: re.Match[str]) -> str:
    """Return a group of marks with their style as its own, where all have the same."""
    styles = set(re.findall(r' style="[^"]*"', group[2]))
    marks = len(re.findall(r"<use ", group[2]))
    if len(styles) != 1 or group[2].count(style := styles.pop()) < marks or " style=" in group[1]:
        return group[0]
    return f"<g{group[1]}{style}>{group[2].replace(style, '')}</g>"


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _attributes(style: re.Match[str]) -> str:
    """Return a style as presentation attributes: ` fill="none" stroke="#000000"`; the font is the drawing's."""
    found: dict[str, str] = {}
    for declaration in filter(str.strip, style[1].split(";")):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        found |= {"font-size": value.split()[0]} if name == "font" else {name: value}
    found.pop("font-family", None)
    return "".join(f' {name}="{value}"' for name, value in found.items())


def standalone(figure: Figure) -> str:
    """Return a figure as a file of its own, in fixed mid-tones that are readable on light and dark."""
    svg = re.sub(r"var\(--\w+, (#[0-9a-f]{6})\)", r"\1", figure.svg)
    svg = svg.replace("currentColor", "#808488").replace(GRID, "#80848850").replace(PAPER, "#ffffff")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg + "\n"


def legend(canvas: Any, axes: Axes) -> None:
    """Put the legend beneath the axes, in as many columns as its labels leave room for, and make room for it."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 3 if max(map(len, labels), default=0) <= 18 else 1
    rows = -(-len(labels) // columns)
    canvas.set_figheight(canvas.get_figheight() + _ROW * max(0, rows - _ROWS))
    canvas.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, max(1, len(labels))), handlelength=1.6
    )
