"""Pictures of the first screen: score against each cost; up is better, left is cheaper.

Who can't be told apart is in the table beside: lines here read as error bars, or as a curve of score over cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from hpml_bench.plugins.picture import Axis as Scale
from hpml_bench.plugins.picture import Mark, Picture
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import Axis, Key, PageSummary
from hpml_bench.report.pictures import axes
from hpml_bench.report.pictures.layout import MANY, NARROW
from hpml_bench.report.pictures.svg import svg
from hpml_bench.report.tables import capitalized

LOG_FROM: Final = 25.0
"""Largest cost over least from which an axis is logarithmic."""
CROWDED: Final = 0.2
"""Part of a linear axis in which half of many costs crowd, so that it is logarithmic too."""


class CostPicture(NamedTuple):
    """Score against one cost."""

    key: Key
    title: str
    drawn: Picture
    lost: tuple[str, ...]
    """Methods without the cost, which it doesn't show."""

    @property
    def wide(self) -> str:
        """SVG for screens of 760 px and more."""
        return svg(self.drawn)

    @property
    def narrow(self) -> str:
        """SVG for phones, with text of the same size."""
        return svg(self.drawn, NARROW)


def pictures(answer: PageSummary) -> tuple[CostPicture, ...]:
    """Return a picture for each cost that some method with a score has."""
    names = [method.name for method in answer.methods if "score" in method.values]
    verdicts = {name: words.verdict(answer, name) for name in names}
    said = {name: "; ".join(filter(None, (of.chip, of.text))) for name, of in verdicts.items()}
    return tuple(picture for axis in answer.axes if (picture := _picture(answer, axis, said)))


def _picture(answer: PageSummary, cost: Axis, said: Mapping[str, str]) -> CostPicture | None:
    v = {name: answer.by_name[name].values for name in said if cost.id in answer.by_name[name].values}
    if not v:
        return None
    at = {name: (of[cost.id].mean, of["score"].mean) for name, of in v.items()}
    score, top, turned = answer.score, {*answer.top}, answer.score.better == "lower"
    values = {
        name: f"{score.title} {terms.score_text(answer, y)}, {cost.title.lower()} {terms.cost_text(answer, cost.id, x)}"
        for name, (x, y) in at.items()
    }
    title = capitalized(score.title) + (f" ({score.unit})" if score.unit else "") + (", low is good" if turned else "")
    drawn = Picture(
        name=f"answer_{cost.key}",
        caption="",
        alt=f"{capitalized(score.title)} against {cost.title.lower()}. "
        f"{'; '.join(f'{name}: {text}' for name, text in values.items())}.",
        x=_costs(answer, cost, [x for x, _ in at.values()]),
        y=axes.axis(title, [y for _, y in at.values()], share=0.1, within=axes.ends_of(score.unit), grid=True,
                    turned=turned, good="↑ better"),
        height=340 if len(answer.methods) <= MANY else 330,
        marks=tuple(
            Mark(at[name], _number(answer, name) or name, answer.number[name],
                 f"{_number(answer, name, ' ')}{name}: {text}. {said[name]}".strip(), name in top)
            for name, text in values.items()
        ),
    )  # fmt: skip
    lost = tuple(method.name for method in answer.methods if method.name not in v)
    return CostPicture(cost.key, cost.title, drawn, lost)


def _number(answer: PageSummary, name: str, end: str = "") -> str:
    return f"{answer.number[name]}{end}" if answer.numbered else ""


def _costs(answer: PageSummary, cost: Axis, values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    crowded = len(values) > MANY and float(np.median(values)) - low < CROWDED * (high - low)
    log = low > 0 and (high / low >= LOG_FROM or crowded)

    def text(value: float) -> str:
        """Return a round cost without decimals that are zeros."""
        return re.sub(r"(\d)\.0+(?=\D|$)", r"\1", terms.cost_text(answer, cost.id, value))

    title = cost.title if log or not cost.unit else f"{cost.title} ({cost.unit})"
    share, within = 0.12 if log else 0.14, (0.0,) if low > 0 else ()
    return axes.axis(
        title, values, share=share, log=log, within=within, text=text if log else None, good="← cheaper", key=cost.key
    )
