"""The picture of an answer: score against each cost as inline SVG, a band behind every pair that can't be told apart.

Up is better and left is cheaper. Colours come from the page's style sheet by class; nothing in the drawing carries a
style attribute. The same answer gives the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import Answer, Axis, Key
from hpml_bench.report.tables import capitalized, number

LOG_FROM: Final = 25.0
"""Largest cost over least from which an axis is logarithmic."""
MANY: Final = 7
"""Methods over which marks are smaller."""
SIZES: Final = (((456, 340), (358, 250)), ((456, 330), (358, 250)))
"""Width and height on wide and narrow screens, of few methods and of many."""
BAND: Final = 18
"""Width of a band, in pixels."""
LINE: Final = 14
"""Height of a label."""
CELL: Final = 3
"""Pixels per cell of the map of bands."""


class Picture(NamedTuple):
    """Score against one cost, in two sizes."""

    key: Key
    title: str
    alt: str
    """All values in words."""
    wide: str
    """SVG for screens of 760 px and more."""
    narrow: str
    """SVG for phones, with text of the same size."""
    banded: Literal["", "top", "others"]
    """Which pairs can't be told apart: none, of the best methods only, or others too."""
    lost: tuple[str, ...]
    """Methods without the cost, which it doesn't show."""


@dataclass(frozen=True)
class _Frame:
    """Where values lie in a drawing, in pixels."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    log: bool
    x0: float
    x1: float
    y0: float
    y1: float
    sign: int
    """1 where a higher score is better, else -1."""

    def x(self, value: float) -> float:
        """Return where a cost lies."""
        at, low, high = (math.log(v) if self.log else v for v in (value, self.x0, self.x1))
        return self.left + (at - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return where a score lies; the better one higher up."""
        share = (value - self.y0) / (self.y1 - self.y0)
        return self.top + (1 - share if self.sign > 0 else share) * (self.bottom - self.top)

    @property
    def data(self) -> str:
        """The same for a script that draws limits."""
        at = (self.left, self.right, self.y0, self.y1, self.top, self.bottom)
        return " ".join(map(_short, (float(self.log), self.x0, self.x1, *at, self.sign)))


@dataclass(frozen=True)
class _Mark:
    """A method in a drawing."""

    name: str
    text: str
    x: float
    y: float
    top: bool


@dataclass(frozen=True)
class _Label:
    """Where a mark's label stands: point and anchor of its text, and the end of its leader if it has one."""

    x: float
    y: float
    anchor: str
    leader: tuple[float, float] | None


def pictures(answer: Answer) -> tuple[Picture, ...]:
    """Return a picture for each cost that some method with a score has."""
    names = [method.name for method in answer.methods if "score" in method.v]
    ties = [pair for pair in combinations(names, 2) if answer.relation("score", *pair) in ("open", "equal")]
    said = {name: _verdict(answer, name) for name in names}
    return tuple(picture for axis in answer.axes if (picture := _picture(answer, axis, ties, said)))


def standalone(picture: Picture) -> str:
    """Return the picture as a file of its own, in fixed mid-tones that are readable on light and dark."""
    svg = re.sub(r'<a class="(pt[ a-z]*)" href="[^"]*"', r'<g class="\1" role="img"', picture.wide)
    svg = svg.replace("</a>", "</g>").replace('class="hit"', 'class="hit" fill="none"')
    svg = re.sub(
        r'^<svg (class="plot" viewBox="0 0 (\d+) (\d+)"[^>]*)>',
        rf'<svg xmlns="http://www.w3.org/2000/svg" width="\2" height="\3" \1><style>{_MID_TONES}</style>',
        svg,
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'


_MID_TONES: Final = (
    "text{font:12px system-ui,sans-serif;fill:#808488}.axt{font-weight:600}"
    ".grid{stroke:#80848840}.ax,.tk{stroke:#808488}.bands{stroke:#808488;opacity:.3}.bands.top{stroke:#3d84dd}"
    ".hole{fill:none}.lead{stroke:#808488}.dot{fill:#808488}.top .dot{fill:#3d84dd}.lab{font-size:12.5px}"
    ".top .lab{fill:#3d84dd;font-weight:700}"
)


def _verdict(answer: Answer, name: str) -> str:
    verdict = words.verdict(answer, name)
    return "; ".join(text for text in (verdict.chip, verdict.text) if text)


def _picture(answer: Answer, axis: Axis, pairs: Sequence[tuple[str, str]], said: Mapping[str, str]) -> Picture | None:
    names = [name for name in said if axis.id in answer.by_name[name].v]
    if not names:
        return None
    ties = [pair for pair in pairs if {*pair} <= {*names}]
    tied = {name for pair in ties for name in pair}
    values = {name: _values(answer, axis, name) for name in names}
    alt = f"{capitalized(answer.score.title)} against {axis.title.lower()}. "
    alt += f"{'; '.join(f'{name}: {text}' for name, text in values.items())}."
    number_of = {name: f"{answer.number[name]} " if answer.numbered else "" for name in names}
    spoken = {name: f"{number_of[name]}{name}: {text}. {said[name]}".strip() for name, text in values.items()}
    wide, narrow = (_draw(answer, axis, ties, alt, spoken, *size) for size in SIZES[len(answer.methods) > MANY])
    return Picture(
        key=axis.key,
        title=axis.title,
        alt=alt,
        wide=wide,
        narrow=narrow,
        banded="" if not ties else "top" if tied <= {*answer.top} else "others",
        lost=tuple(method.name for method in answer.methods if method.name not in names),
    )


def _draw(
    answer: Answer,
    axis: Axis,
    ties: Sequence[tuple[str, str]],
    alt: str,
    spoken: dict[str, str],
    width: int,
    height: int,
) -> str:
    xs, ys = ([answer.by_name[name].v[of].m for name in spoken] for of in (axis.id, "score"))
    log = min(xs) > 0 and max(xs) / min(xs) >= LOG_FROM
    low, high = _range(ys, 0.1)
    up = _ticks(low, high, 4 if height < 330 else 5)
    left = 14 + 6.6 * max(len(text) for _, text in up)
    frame = _Frame(
        width, height, max(left, 40.0), width - 22.0, 34.0, height - 42.0, log, *_costs(xs, log), low, high,
        1 if answer.score.better == "higher" else -1,
    )  # fmt: skip
    top = frozenset(answer.top)
    marks = {
        name: _Mark(name, str(answer.number[name]) if answer.numbered else name, frame.x(x), frame.y(y), name in top)
        for name, x, y in zip(spoken, xs, ys, strict=True)
    }
    band = BAND if len(answer.methods) <= MANY else BAND - 4
    radius = 5.5 if len(answer.methods) <= MANY else 4.0
    labels = _labels(frame, marks, ties, band, radius)
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="group" aria-label="{escape(alt)}" '
        f'data-axis="{axis.key}" data-s="{frame.data}">',
        *_axes(answer, axis, frame, up),
        '<g class="limits" aria-hidden="true"></g>',
        *_bands(marks, ties, band, radius),
        *(_mark(answer.number[name], marks[name], labels[name], spoken[name], radius) for name in reversed(spoken)),
        "</svg>",
    ]
    return "".join(parts)


# Scales


def _range(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the ends of an axis around some values; of one value, around a tenth of it."""
    low, high = min(values), max(values)
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):
        spread = abs(high) or 1.0
    return low - share * spread, high + share * spread


def _costs(values: Sequence[float], log: bool) -> tuple[float, float]:
    if log:
        low, high = _range([math.log(v) for v in values], 0.12)
        return math.exp(low), math.exp(high)
    low, high = _range(values, 0.14)
    return (max(low, 0.0) if min(values) > 0 else low), high


def _ticks(low: float, high: float, wanted: int) -> list[tuple[float, str]]:
    """Return round values between two ends, at least three, with their text."""
    for count in range(wanted, 40):
        step = _step((high - low) / count)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first >= 2:
            break
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(at * step, number(at * step, f".{digits}f")) for at in range(first, last + 1)]


def _step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))


def _powers(answer: Answer, axis: Axis, frame: _Frame) -> list[tuple[float, str]]:
    """Return the ticks of a logarithmic axis: powers of ten, and between them where those are few; none too close."""
    decades = range(math.floor(math.log10(frame.x0)), math.ceil(math.log10(frame.x1)) + 1)
    for within in ((1,), (1, 3), (1, 2, 5)):
        at = [k * 10.0**decade for decade in decades for k in within if frame.x0 < k * 10.0**decade < frame.x1]
        if len(at) >= 3:
            break
    room = max(1, int((frame.right - frame.left) // 48))
    return [(value, _round(terms.cost_text(answer, axis.id, value))) for value in at[:: -(-len(at) // room)]]


def _round(text: str) -> str:
    """Return the text of a round value without decimals that are zeros."""
    return re.sub(r"(\d)\.0+(?=\D|$)", r"\1", text)


def _axes(answer: Answer, axis: Axis, frame: _Frame, up: Sequence[tuple[float, str]]) -> list[str]:
    bottom, left, right = _short(frame.bottom), _short(frame.left), _short(frame.right)
    parts = []
    for value, text in up:
        y = frame.y(value)
        if frame.bottom - y >= 3:
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{frame.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    across = _powers(answer, axis, frame) if frame.log else _ticks(frame.x0, frame.x1, 4 if frame.width < 420 else 6)
    for value, text in across:
        x = f"{frame.x(value):.1f}"
        parts.append(
            f'<line class="tk" x1="{x}" x2="{x}" y1="{bottom}" y2="{frame.bottom + 4:.1f}"/>'
            f'<text class="tick" x="{x}" y="{frame.bottom + 17:.1f}" text-anchor="middle">{escape(text)}</text>'
        )
    score = answer.score
    title = capitalized(score.title) + (f" ({score.unit})" if score.unit else "")
    title += "" if frame.sign > 0 else ", low is good"
    cost = axis.title if frame.log or not axis.unit else f"{axis.title} ({axis.unit})"
    parts.append(
        f'<line class="ax" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="axt" x="0" y="14">{escape(title)}</text>'
        f'<text class="good" x="{right}" y="14" text-anchor="end">↑ better</text>'
        f'<text class="good" x="{left}" y="{frame.height - 6}">← cheaper</text>'
        f'<text class="axt" x="{right}" y="{frame.height - 6}" text-anchor="end">{escape(cost)}</text>'
    )
    return parts


# Bands and marks


def _bands(marks: dict[str, _Mark], ties: Sequence[tuple[str, str]], band: int, radius: float) -> list[str]:
    """Return a band behind each pair that can't be told apart, and a gap around marks that bands only pass beneath."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for one, other in ties:
        p, q = marks[one], marks[other]
        lines[p.top and q.top].append(f'<line x1="{p.x:.1f}" y1="{p.y:.1f}" x2="{q.x:.1f}" y2="{q.y:.1f}"/>')
    parts = [
        f'<g class="bands{" top" if top else ""}" stroke-width="{band}" stroke-linecap="round" aria-hidden="true">'
        f"{''.join(of)}</g>"
        for top, of in lines.items()
        if of
    ]
    tied = {name for pair in ties for name in pair}
    apart = [mark for name, mark in marks.items() if ties and name not in tied]
    return parts + [f'<circle class="hole" cx="{m.x:.1f}" cy="{m.y:.1f}" r="{radius + 4:g}"/>' for m in apart]


def _mark(at: int, mark: _Mark, label: _Label, spoken: str, radius: float) -> str:
    x, y = f"{mark.x:.1f}", f"{mark.y:.1f}"
    lead = f'<line class="lead" x1="{x}" y1="{y}" x2="{label.leader[0]:.1f}" y2="{label.leader[1]:.1f}"/>' if (
        label.leader
    ) else ""  # fmt: skip
    return (
        f'<a class="pt{" top" if mark.top else ""}" href="#m-{at}" data-m="{at}" aria-label="{escape(spoken)}">{lead}'
        f'<circle class="hit" cx="{x}" cy="{y}" r="{radius + 8:g}"/>'
        f'<circle class="dot" cx="{x}" cy="{y}" r="{radius:g}"/>'
        f'<text class="lab" x="{label.x:.1f}" y="{label.y:.1f}" text-anchor="{label.anchor}">{escape(mark.text)}</text>'
        "</a>"
    )


def _values(answer: Answer, axis: Axis, name: str) -> str:
    v = answer.by_name[name].v
    score, cost = terms.score_text(answer, v["score"].m), terms.cost_text(answer, axis.id, v[axis.id].m)
    return f"{answer.score.title} {score}, {axis.title.lower()} {cost}"


# Labels


_Boxes = np.ndarray[Any, np.dtype[np.float64]]
"""Rows of left, top, right, bottom."""
_FAR, _UX, _UY = np.array([
    (more, math.cos(k * math.pi / 8), -math.sin(k * math.pi / 8))
    for more in (0, 4, 10, 18, 28, 40, 54, 70)
    for k in range(0, 16, 2 if more < 10 else 1)
]).T  # fmt: skip
"""Places around a mark: distance beyond the nearest, and direction; near by eight directions do."""


def _labels(
    frame: _Frame, marks: dict[str, _Mark], ties: Sequence[tuple[str, str]], band: int, radius: float
) -> dict[str, _Label]:
    """Return a place for each label, clear of marks, bands and one another as far as there is room.

    Each takes the cheapest of some places around its mark, the best methods first; then each looks once more.
    """
    tied = {name for pair in ties for name in pair}
    dots = np.array([(m.x - radius - 2, m.y - radius - 2, m.x + radius + 2, m.y + radius + 2) for m in marks.values()])
    lies = _map_of_bands(frame, marks, ties, band)
    order = sorted(marks.values(), key=lambda mark: not mark.top)
    places = {mark.name: _places(mark, (band / 2 if mark.name in tied else radius) + 3) for mark in order}
    fixed = {name: _cost(frame, *at, marks[name], dots, lies) for name, at in places.items()}
    chosen: dict[str, int] = {}
    for mark in order * 2:
        boxes = places[mark.name][0]
        others = [places[name][0][at] for name, at in chosen.items() if name != mark.name]
        cost = fixed[mark.name] + (3 * _overlap(boxes, np.array(others)) if others else 0.0)
        chosen[mark.name] = int(np.argmin(cost))
    return {name: _label(marks[name], places[name][0][at], float(_FAR[at])) for name, at in chosen.items()}


def _places(mark: _Mark, near: float) -> tuple[_Boxes, _Boxes]:
    """Return the boxes where a label may stand, and the corner or side of each that faces the mark."""
    width = 7.3 * len(mark.text) + 2
    x, y = mark.x + _UX * (near + _FAR), mark.y + _UY * (near + _FAR)
    left = x - width * np.select([_UX > 0.1, _UX < -0.1], [0.0, 1.0], 0.5)
    top = y - LINE * np.select([_UY > 0.1, _UY < -0.1], [0.0, 1.0], 0.5)
    return np.stack([left, top, left + width, top + LINE], axis=1), np.stack([x, y], axis=1)


def _cost(frame: _Frame, boxes: _Boxes, ends: _Boxes, mark: _Mark, dots: _Boxes, lies: _Boxes) -> _Boxes:
    """Return what each place costs: what it covers, how far it is, whether it leaves the drawing."""
    inside = (boxes[:, 0] >= frame.left + 2) & (boxes[:, 2] <= frame.width - 1)
    inside &= (boxes[:, 1] >= frame.top - 14) & (boxes[:, 3] <= frame.bottom - 1)
    share = np.linspace(0.5, 1.0, 4)[:, None, None]
    leader = (np.array((mark.x, mark.y)) * (1 - share) + ends * share).reshape(-1, 2)
    crossed = _overlap(np.hstack([leader - 1, leader + 1]), dots).reshape(4, -1).sum(axis=0) * (_FAR > 8)
    cost: _Boxes = 3 * _overlap(boxes, dots) + 1.5 * _covered(boxes, lies) + 1.2 * _FAR + 500 * ~inside + 4 * crossed
    return cost


def _overlap(boxes: _Boxes, others: _Boxes) -> _Boxes:
    """Return the area of each box that others cover."""
    across = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(boxes[:, None, 0], others[None, :, 0])
    down = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(boxes[:, None, 1], others[None, :, 1])
    area: _Boxes = (np.clip(across, 0, None) * np.clip(down, 0, None)).sum(axis=1)
    return area


def _map_of_bands(frame: _Frame, marks: dict[str, _Mark], ties: Sequence[tuple[str, str]], band: int) -> _Boxes:
    """Return the area that bands cover above and left of each cell, so that a box costs four look-ups."""
    wide, high = frame.width // CELL + 2, frame.height // CELL + 2
    cells = np.zeros((high, wide), dtype=bool)
    if ties:
        ends = np.array([(marks[a].x, marks[a].y, marks[b].x, marks[b].y) for a, b in ties]) / CELL
        share = np.linspace(0, 1, int(max(np.abs(ends[:, 2:] - ends[:, :2]).sum(axis=1))) + 2)[:, None, None]
        points = (ends[:, :2] * (1 - share) + ends[:, 2:] * share).reshape(-1, 2).astype(int)
        thin = np.zeros_like(cells)
        thin[points[:, 1].clip(0, high - 1), points[:, 0].clip(0, wide - 1)] = True
        reach = math.ceil(band / 2 / CELL)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                if dx * dx + dy * dy <= reach * reach:
                    cells |= np.roll(thin, (dy, dx), axis=(0, 1))
    area: _Boxes = np.pad(cells.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0))).astype(float) * CELL * CELL
    return area


def _covered(boxes: _Boxes, area: _Boxes) -> _Boxes:
    at = (boxes / CELL).round().astype(int)
    x0, x1 = at[:, 0].clip(0, area.shape[1] - 1), at[:, 2].clip(0, area.shape[1] - 1)
    y0, y1 = at[:, 1].clip(0, area.shape[0] - 1), at[:, 3].clip(0, area.shape[0] - 1)
    covered: _Boxes = area[y1, x1] - area[y0, x1] - area[y1, x0] + area[y0, x0]
    return covered


def _label(mark: _Mark, box: _Boxes, far: float) -> _Label:
    left, top, right, bottom = map(float, box)
    beside = "start" if left > mark.x else "end" if right < mark.x else "middle"
    x = {"start": left, "end": right, "middle": (left + right) / 2}[beside]
    nearest = (min(max(mark.x, left), right), min(max(mark.y, top), bottom))
    return _Label(x, top + 11, beside, nearest if far > 8 else None)


def _short(value: float) -> str:
    return f"{value:.8g}"
