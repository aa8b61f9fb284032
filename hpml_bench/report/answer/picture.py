"""The picture of an answer: score against each cost as inline SVG, with a line beside the axis for each group of ties.

The lines are those of a critical-difference diagram (Demsar 2006, Statistical Comparisons of Classifiers over Multiple
Data Sets, figure 1), upright because the score is. Lines from point to point look like a curve of score over cost.

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
BESIDE, LINES = 9.0, 8
"""Pixels between two lines of ties, and the most lines: more would be a smear."""
LINE: Final = 14
"""Height of a label."""


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
    tied: Literal["", "top", "others"]
    """Which methods are not told apart: none, the best only, or others too."""
    more: int
    """Groups of such methods without a line."""
    lost: tuple[str, ...]
    """Methods without the cost, which it doesn't show."""


@dataclass(frozen=True)
class _Frame:
    """Where values lie in a drawing, in pixels."""

    width: int
    height: int
    edge: float
    """Left end of the grid, from which lines of ties stand."""
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
    said = {name: _verdict(answer, name) for name in names}
    return tuple(picture for axis in answer.axes if (picture := _picture(answer, axis, said)))


def groups(answer: Answer, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of which no two members can be told apart; each tied pair of the names is in one, few groups do.

    Greedy: the first pair in no group yet starts one, which takes each further name that is tied with all of it.
    """
    tied = {frozenset(p) for p in combinations(names, 2) if answer.relation("score", *p) in ("open", "equal")}
    found: list[tuple[str, ...]] = []
    for pair in combinations(names, 2):
        if frozenset(pair) in tied and not any({*pair} <= {*group} for group in found):
            group = list(pair)
            for name in names:
                if name not in group and all(frozenset((name, of)) in tied for of in group):
                    group.append(name)
            found.append(tuple(name for name in names if name in group))
    return found


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
    ".grid{stroke:#80848840}.ax,.tk,.tie{stroke:#808488}.tie{stroke-width:2}.tie.top{stroke:#3d84dd}"
    ".tie .at{fill:#808488}.tie.top .at{fill:#3d84dd}"
    ".lead{stroke:#808488}.dot{fill:#808488}.top .dot{fill:#3d84dd}.lab{font-size:12.5px}"
    ".top .lab{fill:#3d84dd;font-weight:700}"
)


def _verdict(answer: Answer, name: str) -> str:
    verdict = words.verdict(answer, name)
    return "; ".join(text for text in (verdict.chip, verdict.text) if text)


def _picture(answer: Answer, axis: Axis, said: Mapping[str, str]) -> Picture | None:
    names = [name for name in said if axis.id in answer.by_name[name].v]
    if not names:
        return None
    ties, further = (found := groups(answer, names))[:LINES], found[LINES:]
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
        more=len(further),
        tied="" if not ties else "top" if {name for group in ties for name in group} <= {*answer.top} else "others",
        lost=tuple(method.name for method in answer.methods if method.name not in names),
    )


def _draw(
    answer: Answer,
    axis: Axis,
    ties: Sequence[tuple[str, ...]],
    alt: str,
    spoken: dict[str, str],
    width: int,
    height: int,
) -> str:
    xs, ys = ([answer.by_name[name].v[of].m for name in spoken] for of in (axis.id, "score"))
    log = min(xs) > 0 and max(xs) / min(xs) >= LOG_FROM
    low, high = _range(ys, 0.1)
    up = _ticks(low, high, 4 if height < 330 else 5)
    edge = max(14 + 6.6 * max(len(text) for _, text in up), 40.0)
    frame = _Frame(
        width, height, edge, edge + BESIDE * len(ties), width - 22.0, 34.0, height - 42.0,
        log, *_costs(xs, log), low, high, 1 if answer.score.better == "higher" else -1,
    )  # fmt: skip
    top = frozenset(answer.top)
    marks = {
        name: _Mark(name, str(answer.number[name]) if answer.numbered else name, frame.x(x), frame.y(y), name in top)
        for name, x, y in zip(spoken, xs, ys, strict=True)
    }
    radius = 5.5 if len(answer.methods) <= MANY else 4.0
    labels = _labels(frame, marks, radius)
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="group" aria-label="{escape(alt)}" '
        f'data-axis="{axis.key}" data-s="{frame.data}">',
        *_axes(answer, axis, frame, up),
        '<g class="limits" aria-hidden="true"></g>',
        *(_tie([marks[name] for name in group], edge + BESIDE * (at + 0.5)) for at, group in enumerate(ties)),
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
    bottom, left, right = _short(frame.bottom), _short(frame.edge), _short(frame.right)
    parts = []
    for value, text in up:
        y = frame.y(value)
        if frame.bottom - y >= 3:
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{frame.edge - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
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


# Ties and marks


def _tie(members: Sequence[_Mark], x: float) -> str:
    """Return an upright line over the heights of methods that can't be told apart, with a dot at each."""
    top, bottom = min(mark.y for mark in members), max(mark.y for mark in members)
    dots = "".join(f'<circle class="at" cx="{x:.1f}" cy="{mark.y:.1f}" r="2.5"/>' for mark in members)
    return (
        f'<g class="tie{" top" if all(mark.top for mark in members) else ""}" aria-hidden="true">'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>{dots}</g>'
    )


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


def _labels(frame: _Frame, marks: dict[str, _Mark], radius: float) -> dict[str, _Label]:
    """Return a place for each label, clear of marks and other labels as far as there is room.

    Each takes the cheapest of some places around its mark, the best methods first; then each looks once more.
    """
    dots = np.array([(m.x - radius - 2, m.y - radius - 2, m.x + radius + 2, m.y + radius + 2) for m in marks.values()])
    order = sorted(marks.values(), key=lambda mark: not mark.top)
    places = {mark.name: _places(mark, radius + 3) for mark in order}
    fixed = {name: _cost(frame, *at, marks[name], dots) for name, at in places.items()}
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


def _cost(frame: _Frame, boxes: _Boxes, ends: _Boxes, mark: _Mark, dots: _Boxes) -> _Boxes:
    """Return what each place costs: what it covers, how far it is, whether it leaves the drawing."""
    inside = (boxes[:, 0] >= frame.left + 2) & (boxes[:, 2] <= frame.width - 1)
    inside &= (boxes[:, 1] >= frame.top - 14) & (boxes[:, 3] <= frame.bottom - 1)
    share = np.linspace(0.5, 1.0, 4)[:, None, None]
    leader = (np.array((mark.x, mark.y)) * (1 - share) + ends * share).reshape(-1, 2)
    crossed = _overlap(np.hstack([leader - 1, leader + 1]), dots).reshape(4, -1).sum(axis=0) * (_FAR > 8)
    cost: _Boxes = 3 * _overlap(boxes, dots) + 1.2 * _FAR + 500 * ~inside + 4 * crossed
    return cost


def _overlap(boxes: _Boxes, others: _Boxes) -> _Boxes:
    """Return the area of each box that others cover."""
    across = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(boxes[:, None, 0], others[None, :, 0])
    down = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(boxes[:, None, 1], others[None, :, 1])
    area: _Boxes = (np.clip(across, 0, None) * np.clip(down, 0, None)).sum(axis=1)
    return area


def _label(mark: _Mark, box: _Boxes, far: float) -> _Label:
    left, top, right, bottom = map(float, box)
    beside = "start" if left > mark.x else "end" if right < mark.x else "middle"
    x = {"start": left, "end": right, "middle": (left + right) / 2}[beside]
    nearest = (min(max(mark.x, left), right), min(max(mark.y, top), bottom))
    return _Label(x, top + 11, beside, nearest if far > 8 else None)


def _short(value: float) -> str:
    return f"{value:.8g}"
