"""Pictures of a report's blocks and bounds, so that a person sees the evidence for a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from hpml_bench.gate.records import CheckReport, Status, Verdict
from hpml_bench.gate.verdicts import interval, log_ratio, of_step_time, pair_effects, percent, rate, run_effects
from hpml_bench.plugins.picture import Axis, Picture, Segment, Series, Tone
from hpml_bench.report.pictures.axes import axis, rows
from hpml_bench.report.pictures.charts import MARGINS, ROW
from hpml_bench.system.text import sanitize

BLUE: Tone = "m1"
AMBER: Tone = "m2"
GREEN: Tone = "m3"
RED: Tone = "m4"
GREY: Tone = "m7"
TONES: dict[Status, Tone] = {"PASS": GREEN, "FAIL": RED, "INCONCLUSIVE": AMBER, "INCOMPARABLE": AMBER}
CHANGE = "change of step time (%)"
_MOST_METHODS = 40  # methods drawn; a page of more would be too heavy to open


def bounds(report: CheckReport) -> Picture | None:
    """Return one row per method: estimate and bounds against the slowdown let through and that which must not pass."""
    # A bound that too few pairs don't give reaches to the edge.
    judged = [v for v in of_step_time(report) if v.estimate is not None][:_MOST_METHODS]
    if not judged:
        return None
    ends = [100 * end for v in judged for end in (v.lower, v.upper, v.estimate) if end is not None]
    change, segments, series = _change_axis(report, ends), [], []
    for row, verdict in enumerate(judged):
        tone, middle = TONES[verdict.status], 100 * (verdict.estimate or 0.0)
        low, high = (edge if end is None else 100 * end
                     for end, edge in ((verdict.lower, -math.inf), (verdict.upper, math.inf)))  # fmt: skip
        segments.append(Segment((low, row), (high, row), tone, 7, opacity=0.3))
        series.append(Series(((middle, row),), tone, marker="o", size=6))
        if verdict.mde is not None and 100 * verdict.mde <= change.high:
            series.append(Series(((100 * verdict.mde, row),), GREY, marker="|", size=11))
    described = [f"{sanitize(v.method, 40)} {percent(v.estimate)} {interval(v)} {v.status}" for v in judged]
    return Picture(
        name="bounds",
        caption="Estimate and bounds of each method's step time: FAIL lies right of the first limit, PASS left of the "
        "second. The tick is the least slowdown that was detectable.",
        alt=f"Interval plot of the change of step time: {'; '.join(described)}.",
        x=change,
        y=rows([sanitize(verdict.method, 24) for verdict in judged]),
        height=MARGINS + ROW * len(judged),
        segments=(*_limits(report, upright=True), *segments),
        series=tuple(series),
    )


def blocks(report: CheckReport) -> tuple[Picture, ...]:
    """Return one chart per method: all blocks' ratios by process pair, pairs' values, the estimate and the limits."""
    effects = pair_effects(report.blocks)
    return tuple(
        _blocks_of(report, verdict, effects[verdict.method], f"blocks_{index}")
        for index, verdict in enumerate(of_step_time(report)[:_MOST_METHODS])
        if verdict.method in effects
    )


def _blocks_of(report: CheckReport, verdict: Verdict, effects: Sequence[float], name: str) -> Picture:
    points: dict[str, list[tuple[float, float]]] = {"block ABBA": [], "block BAAB": [], "disturbed": []}
    own = [block for block in report.blocks if block.method == verdict.method]
    for block in own:
        label = "disturbed" if block.disturbed is not None else f"block {block.order}"
        points[label].append((block.pair + 1, _percent(log_ratio(block))))
    whole = sorted({block.pair + 1 for block in own if block.disturbed is None})
    tone, disturbed = TONES[verdict.status], len(points["disturbed"])
    values = tuple((float(pair), _percent(effect)) for pair, effect in zip(whole, effects, strict=True))
    series = [
        Series(tuple(points["block ABBA"]), BLUE, "block ABBA", marker="o", opacity=0.6),
        Series(tuple(points["block BAAB"]), BLUE, "block BAAB", marker="D", opacity=0.6),
        Series(tuple(points["disturbed"]), GREY, "disturbed", marker="x", size=6),
        Series(values, tone, "pair's value", marker="_", size=11),
    ]
    level = () if verdict.estimate is None else (_limit(verdict.estimate, tone, width=1.4, label="estimate"),)
    pairs = [x for of in points.values() for x, _ in of]
    change = _change_axis(report, [y for of in series for _, y in of.points])
    numbers = axis("process pair", [min(pairs) - 0.5, max(pairs) + 0.5], share=0)
    shown = f"{len(own) - disturbed} blocks of {{}} in {len(whole)} pairs, {disturbed} disturbed ones set apart"
    return Picture(
        name=name,
        **_told(verdict, f"Scatter of {shown}"),
        x=replace(numbers, ticks=tuple(tick for tick in numbers.ticks if tick[0] == int(tick[0]))),
        y=change,
        height=280,
        segments=(*_limits(report), *level),
        series=tuple(of for of in series if of.points),
    )


def runs(report: CheckReport) -> tuple[Picture, ...]:
    """Return one chart per method against a baseline: each stored run and each of now, against the stored median."""
    drawn = []
    judged = of_step_time(report)[:_MOST_METHODS] if report.runs else ()
    for index, verdict in enumerate(judged):
        groups = [run_effects(side, [verdict.method])[verdict.method] for side in (report.reference_runs, report.runs)]
        if not all(groups):  # every run of a side was disturbed
            continue
        middle, (stored, now) = median(groups[0]), map(len, groups)
        points = [[(_percent(value - middle), float(row)) for value in values] for row, values in enumerate(groups)]
        series = [Series(tuple(of), tone, marker="o", size=6, opacity=0.7)
                  for of, tone in zip(points, (GREY, TONES[verdict.status]), strict=True)]  # fmt: skip
        drawn.append(Picture(
            name=f"runs_{index}",
            **_told(verdict, f"Dot plot of {stored} stored runs and {now} of now of {{}}"),
            x=_change_axis(report, [x for of in series for x, _ in of.points]),
            y=rows(("stored", "now")),
            height=MARGINS + 2 * ROW,
            segments=_limits(report, upright=True),
            series=tuple(series),
        ))  # fmt: skip
    return tuple(drawn)


def _told(verdict: Verdict, shown: str) -> dict[str, Any]:
    name = sanitize(verdict.method, 40)
    return {
        "caption": f"{name}: {verdict.status}; {sanitize(verdict.detail, 300)}.",
        "alt": f"{shown.format(name)}: {percent(verdict.estimate)}, bounds {interval(verdict)}.",
    }


def _percent(ratio: float) -> float:
    return 100 * math.expm1(ratio)


def _change_axis(report: CheckReport, values: Iterable[float]) -> Axis:
    return axis(CHANGE, [*values, 0.0, 100 * report.rules.target], share=0.08, grid=True)


def _limits(report: CheckReport, *, upright: bool = False) -> tuple[Segment, ...]:
    rules = report.rules
    return (
        _limit(0.0, GREY, upright, width=0.7),
        _limit(rules.null, AMBER, upright, label=f"{rate(rules.null)}: let through", dash="dotted"),
        _limit(rules.target, RED, upright, label=f"{rate(rules.target)}: must not pass", dash="dashed"),
    )


def _limit(at: float, tone: Tone, upright: bool = False, **how: Any) -> Segment:
    """Return a line at a change of step time, whose axis is x where lines are upright, else y."""
    low, high = ((100 * at, end) if upright else (end, 100 * at) for end in (-math.inf, math.inf))
    return Segment(low, high, tone, **how)
