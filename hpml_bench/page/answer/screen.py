"""The first screen of a page: what its template shows of an answer, decided here, with its
pictures.

Of pictures there are the score against each cost, and a bar of each difference to the best mean. Up
is better, left is cheaper. Who can't be told apart is in the table beside: lines here read as error
bars, or as a curve of score over cost. A bar has the one interval that decides.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from hpml_bench.judge.summary import Axis as Cost
from hpml_bench.judge.summary import Method, PageSummary
from hpml_bench.page.answer import words
from hpml_bench.page.answer.facts import OF_SUITES, facts
from hpml_bench.page.pictures import charts
from hpml_bench.page.pictures.drawn import small, svg
from hpml_bench.page.pictures.layout import MANY, NARROW, Shape
from hpml_bench.page.tables import TITLES
from hpml_bench.plugins.picture import Axis, Mark, Picture, Point, Tone
from hpml_bench.records.numbers import MISSING, capitalized, sentence_list, titled

BROKEN_FROM = 18  # characters from which a name may break after its underscores
ONE_COST = 760  # pixels of a screen up to which answer.css shows one cost
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
LOG_FROM: Final = 25.0  # largest cost over least from which an axis is logarithmic
CROWDED: Final = (
    0.2  # part of a linear axis in which half of many costs crowd, so that it is logarithmic too
)


def context(answer: PageSummary) -> dict[str, object]:
    of = bars(answer, 84 if answer.numbered else 96)
    chips = {words.verdict(answer, name).chip for name in answer.top}
    # The page's script reads report.json, with the pairs' relations in place of their numbers: for
    # the score and each cost a text per method of their first letters. 45 methods have 3,000 pairs,
    # which would be half of the page.
    names = [method.name for method in answer.methods]
    relations = {
        by: ["".join(answer.relation(by, one, other)[0] for other in names) for one in names]
        for by in ("score", *(axis.key for axis in answer.axes))
    }
    data = answer.model_dump(mode="json", exclude={"pairs"}) | {"relations": relations}
    return {
        "banner": words.banner(answer),
        "headline": words.headline(answer),
        "setup": words.setup_line(answer),
        # anchors to which it may link; a page without some of these parts names its own
        "places": TITLES.keys(),
        "answer_facts": facts(answer),
        "answer": answer,
        "names": names,
        "many": len(names) > MANY,
        "pictures": [_picture(answer, drawn) for drawn in pictures(answer)],
        "blue": (chips.pop() if len(chips) == 1 else "may be best")
        if chips
        else "",  # what a blue mark means
        "score": capitalized(answer.score.title),
        "axes": [(axis, "" if axis.own_units else axis.unit) for axis in answer.axes],
        "best": words.label(answer, answer.methods[0].name) if answer.methods else "",
        "bars": of,
        "bar_caption": _caption(answer),
        "rows": [_row(answer, of, method) for method in answer.methods],
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED),
    }


def sheets(answer: PageSummary) -> list[str]:
    """Return the rules by which a page shows the chosen one of costs that answer.css doesn't
    know; none without one.
    """
    keys = [axis.key for axis in answer.axes if axis.key not in OF_SUITES]
    if not keys:
        return []
    pictures = ", ".join(f".pic:has(#x-{key}:checked) .p-{key}" for key in keys)
    columns = ", ".join(f"#best:has(#x-{key}:checked) .main .c-{key}" for key in keys)
    narrow = (
        f"@media screen and (max-width: {ONE_COST}px) {{ {columns} {{ display: table-cell; }} }}"
    )
    return [f"{pictures} {{ display: block; }}\n{narrow}\n"]


def _caption(answer: PageSummary) -> tuple[str, ...]:
    if len(answer.methods) < 2:
        return ()
    best = words.label(answer, answer.methods[0].name)
    if not answer.tested_by_score:
        return (f"Hollow dot: difference to {best}, not tested.",)
    drawn = any(pair.decided_low is not None for pair in answer.pairs["score"])
    shared = (
        ("Differences are over the seeds that each pair shares.",)
        if answer.shared is not None
        else ()
    )
    return (
        f"Bar: difference to {best}.",
        *(["Its interval is at the level of its test, and so wider than 95 %."] if drawn else []),
        "Hollow: not shown to differ.",
        *shared,
    )


def _picture(answer: PageSummary, drawn: Picture) -> dict[str, object]:
    cost = answer.axis(drawn.x.key)
    lost = [
        method
        for method in answer.methods
        if "score" in method.values and cost and cost.id not in method.values
    ]
    named = ""
    if lost:
        why = "not trained" if all(method.base for method in lost) else "not measured"
        named = (
            f"Not drawn: {sentence_list([words.label(answer, method.name) for method in lost])} "
            f"({why})."
        )
    return {
        "cost": cost,
        "drawn": drawn,
        "wide": svg(drawn),
        "narrow": svg(drawn, NARROW),
        "lost": named,
    }


def _row(answer: PageSummary, of: "Bars", method: Method) -> dict[str, object]:
    """Return a method's row; `pieces` are its name, cut where it may break."""
    name, score = method.name, answer.value(method.name, "score")
    shown = words.row_name(answer, name)
    costs = [(axis, answer.value(name, axis.id)) for axis in answer.axes]
    return {
        "at": answer.number[name],
        "name": name,
        "top": name in answer.top,
        "pieces": re.findall(r"[^_]*_+|[^_]+$", shown) if len(shown) >= BROKEN_FROM else (shown,),
        "score": MISSING if score is None else answer.score.text(score, unit=False),
        "value": score,
        "difference": of.value.get(name),
        "bar": of.svg.get(name, ""),
        "said": of.said.get(name, ""),
        "costs": [
            (axis.key, MISSING if v is None else axis.text(v, unit=False), v) for axis, v in costs
        ],
        "verdict": words.verdict(answer, name),
    }


# Score against each cost


def pictures(answer: PageSummary) -> tuple[Picture, ...]:
    names = [method.name for method in answer.methods if "score" in method.values]
    verdicts = {name: words.verdict(answer, name) for name in names}
    said = {name: "; ".join(filter(None, (of.chip, of.text))) for name, of in verdicts.items()}
    return tuple(picture for axis in answer.axes if (picture := _against(answer, axis, said)))


def _against(answer: PageSummary, cost: Cost, said: Mapping[str, str]) -> Picture | None:
    v = {
        name: answer.by_name[name].values for name in said if cost.id in answer.by_name[name].values
    }
    if not v:
        return None
    at = {name: (of[cost.id].mean, of["score"].mean) for name, of in v.items()}
    score, number, top, turned = (
        answer.score,
        answer.number,
        {*answer.top},
        answer.score.better == "lower",
    )
    scored = {name: f"{score.title} {score.text(y)}" for name, (_, y) in at.items()}
    values = {
        name: f"{scored[name]}, {cost.title.lower()} {cost.text(x)}" for name, (x, _) in at.items()
    }
    title = titled(capitalized(score.title), score.unit) + (", low is good" if turned else "")
    return Picture(
        name=f"answer_{cost.key}",
        caption="",
        alt=f"{capitalized(score.title)} against {cost.title.lower()}. "
        f"{'; '.join(f'{name}: {text}' for name, text in values.items())}.",
        x=_costs(cost, [x for x, _ in at.values()]),
        y=charts.axis(
            title,
            [y for _, y in at.values()],
            share=0.1,
            within=charts.ends_of(score.unit),
            grid=True,
            turned=turned,
            good="↑ better",
        ),
        height=340 if len(answer.methods) <= MANY else 330,
        marks=tuple(
            Mark(
                at[name],
                str(number[name]) if answer.numbered else name,
                number[name],
                f"{f'{number[name]} ' if answer.numbered else ''}{name}: {text}. "
                f"{said[name]}".strip(),
                name in top,
            )
            for name, text in values.items()
        ),
    )


def _costs(cost: Cost, values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    crowded = len(values) > MANY and float(np.median(values)) - low < CROWDED * (high - low)
    log = low > 0 and (high / low >= LOG_FROM or crowded)

    def text(value: float) -> str:
        return re.sub(r"(\d)\.0+(?=\D|$)", r"\1", cost.text(value))

    return charts.axis(
        titled(cost.title, "" if log else cost.unit),
        values,
        share=0.12 if log else 0.14,
        log=log,
        within=(0.0,) if low > 0 else (),
        text=text if log else None,
        good="← cheaper",
        key=cost.key,
    )


# Bars of differences

HEIGHT = 20
Gap = tuple[
    float, float | None, float | None
]  # difference of a method's score to another's, its interval's ends
# pixels that an interval keeps from the line at zero where the verdict is that methods differ
CLEAR = 2.5


class Bars(NamedTuple):
    """Bars of all rows on one scale."""

    value: dict[str, float]  # the differences, of the best mean 0
    svg: dict[str, str]
    said: dict[str, str]  # the same in words, for who can't see the bars
    scale: str  # SVG of the scale, for the column's head
    key: str  # a small bar for the caption; empty where nothing was tested


def difference(answer: PageSummary, name: str, other: str) -> Gap | None:
    """Return the difference of a method's score to another's, in the score's unit; none where
    they share no seed.
    """
    pair = answer.pair("score", name, other)
    return pair.seen_from(name) if pair is not None and math.isfinite(pair.difference) else None


def bars(answer: PageSummary, width: int = 96) -> Bars:
    """Return the bars: worse lies left of the line at zero, whichever direction of the score is
    better.
    """
    names = [method.name for method in answer.methods]
    found = {name: of for name in names[1:] if (of := difference(answer, name, names[0]))}
    sign = 1 if answer.score.better == "higher" else -1
    ends = [sign * end for of in found.values() for end in of if end is not None]
    low, high = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    pixel = (high - low or 1.0) / (width - 12)
    shown: dict[str, Gap] = found | dict.fromkeys(names[:1], (0.0, None, None))
    svg, said = {}, dict.fromkeys(names[:1], "best mean")
    for name, (d, *interval) in shown.items():
        between = [end for end in interval if end is not None]
        zero, mark, *line = (6 + (sign * value - low) / pixel for value in (0.0, d, *between))
        differs = name not in found or answer.relation("score", name, names[0]) in {
            "better",
            "worse",
        }
        svg[name] = _bar(zero, mark, sorted(line), width, differs=differs, top=name in answer.top)
        texts = [answer.gap_text(end, unit=False) for end in between]
        text = f"{answer.gap_text(d)}{f', interval {texts[0]} to {texts[1]}' if texts else ''}"
        said.setdefault(name, text)
    ticks = [(0.0, "0")]
    if low < 0:  # and a round value left of it
        step = 10.0 ** math.floor(math.log10(-low))
        at = max(k * step for k in (1, 2, 5) if k * step <= -low * (1 + 1e-9))
        ticks += [(-at, f"{'−' if sign > 0 else '+'}{at:g}")] if at > 24 * pixel else []
    places = [(min(max(6 + (at - low) / pixel, 14), width - 4), text) for at, text in ticks]
    marks = (
        Shape("text", ((x, 10),), fill="soft", text=text, anchor="middle") for x, text in places
    )
    key = _bar(38, 18, [6, 31], 44, differs=True, top=False) if answer.tested_by_score else ""
    return Bars(
        {name: of[0] for name, of in shown.items()},
        svg,
        said,
        small(marks, width, 12, "scale"),
        key,
    )


def _bar(
    zero: float, mark: float, ends: Sequence[float], width: int, *, differs: bool, top: bool
) -> str:
    """Return interval and mark: hollow where the method can't be told from the best, clear of
    zero where it can.
    """
    radius = 3.5 if differs else 3.0
    if differs and ends and ends[1] - ends[0] < 4 * radius:
        radius = 2.0  # else the mark hides the interval

    def clear(at: float, by: float) -> Point:
        if differs and mark != zero:
            at = min(at, zero - by) if mark < zero else max(at, zero + by)
        return min(max(at, 6.0), width - 6.0), HEIGHT / 2

    tone: Tone = "blue" if top else "mark"
    centre = (clear(mark, CLEAR + radius),)
    interval = tuple(clear(end, CLEAR) for end in ends)
    shapes = (
        Shape("line", ((zero, HEIGHT), (zero, 0)), stroke="ink", opacity=0.55),
        *([Shape("line", interval, stroke=tone, width=3, opacity=0.6)] if interval else []),
        Shape("circle", centre, fill=tone if differs else "paper", radius=radius),
        *([] if differs else [Shape("circle", centre, stroke=tone, width=1.75, radius=radius)]),
    )
    return small(shapes, width, HEIGHT, "diff")
