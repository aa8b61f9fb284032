"""Drawings of a report's blocks and bounds as inline SVG, so that a person sees the evidence for a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from hpml_bench.gate.decide.sentences import interval, percent, rate
from hpml_bench.gate.decide.verdicts import log_ratio, pair_effects, run_effects
from hpml_bench.gate.records import Block, CheckReport, Status, Verdict
from hpml_bench.gate.render import tables
from hpml_bench.plugins.blocks import Figure
from hpml_bench.report.drawing import COLORS, drawing, finish, legend
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, AMBER, GREEN, RED = COLORS[:4]
GREY = COLORS[6]
STATUS_COLORS: dict[Status, str] = {"PASS": GREEN, "FAIL": RED, "INCONCLUSIVE": AMBER, "INCOMPARABLE": AMBER}
_MOST_METHODS = 40
"""Methods drawn; a page of more would be too heavy to open."""


def bounds(report: CheckReport) -> Figure | None:
    """Draw one row per method: estimate and bounds against the slowdown let through and that which must not pass."""
    judged = [v for v in tables.of_step_time(report) if v.estimate is not None][:_MOST_METHODS]
    if not judged:
        return None
    ends = [100 * end for v in judged for end in (v.lower, v.upper, v.estimate) if end is not None]
    left, right = min(*ends, 0.0), max(*ends, 100 * report.rules.target)
    margin = 0.08 * (right - left)
    with drawing(0.85 + 0.4 * len(judged)) as (canvas, axes):
        for row, verdict in enumerate(judged):
            _bar(axes, row, verdict, left - margin, right + margin)
        _limits(axes, report, [sanitize(verdict.method, 24) for verdict in judged])
        axes.set_xlim(left - margin, right + margin)
        legend(canvas, axes)
        described = [f"{sanitize(v.method, 40)} {percent(v.estimate)} {interval(v)} {v.status}" for v in judged]
        caption = (
            "Estimate and bounds of each method's step time: FAIL lies right of the first limit, PASS left of the "
            "second. The tick is the least slowdown that was detectable."
        )
        return finish(canvas, "bounds", caption, f"Interval plot of the change of step time: {'; '.join(described)}.")


def blocks(report: CheckReport) -> tuple[Figure, ...]:
    """Draw one chart per method: all blocks' ratios by process pair, the pairs' values, the estimate and the limits."""
    effects = pair_effects(report.blocks)
    return tuple(
        _blocks_of(report, verdict, effects[verdict.method], f"blocks_{index}")
        for index, verdict in enumerate(tables.of_step_time(report)[:_MOST_METHODS])
        if verdict.method in effects
    )


def _blocks_of(report: CheckReport, verdict: Verdict, effects: Sequence[float], name: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    own = [block for block in report.blocks if block.method == verdict.method]
    kept = [block for block in own if block.disturbed is None]
    disturbed = [block for block in own if block.disturbed is not None]
    whole = sorted({block.pair for block in kept})
    color = STATUS_COLORS[verdict.status]
    with drawing(2.9) as (canvas, axes):

        def points(shown: Sequence[Block], marker: str, **style: Any) -> None:
            ratios = [_change(log_ratio(block)) for block in shown]
            axes.plot([block.pair + 1 for block in shown], ratios, marker, **style)

        for order, marker in (("ABBA", "o"), ("BAAB", "D")):
            points([block for block in kept if block.order == order], marker,
                   color=BLUE, markersize=3.6, alpha=0.6, markeredgewidth=0, label=f"block {order}")  # fmt: skip
        if disturbed:
            points(disturbed, "x", color=GREY, markersize=4.5, label="disturbed")
        axes.plot([pair + 1 for pair in whole], [_change(effect) for effect in effects], "_",
                  color=color, markersize=9, markeredgewidth=2, label="pair's value")  # fmt: skip
        if verdict.estimate is not None:
            axes.axhline(100 * verdict.estimate, color=color, linewidth=1.1, label="estimate")
        _limits(axes, report)
        axes.set_xlabel("process pair")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        alt = (
            f"Scatter of {len(kept)} blocks of {sanitize(verdict.method, 40)} in {len(whole)} pairs, "
            f"{len(disturbed)} disturbed ones set apart"
        )
        return _finished(canvas, axes, name, verdict, alt)


def runs(report: CheckReport) -> tuple[Figure, ...]:
    """Draw one chart per method against a baseline: every stored run and every run now, against the stored median."""
    drawn = []
    judged = tables.of_step_time(report)[:_MOST_METHODS] if report.runs else ()
    for index, verdict in enumerate(judged):
        groups = [run_effects(side, [verdict.method])[verdict.method] for side in (report.reference_runs, report.runs)]
        if not all(groups):  # every run of a side was disturbed
            continue
        middle = median(groups[0])
        with drawing(1.9) as (canvas, axes):
            for row, (values, color) in enumerate(zip(groups, (GREY, STATUS_COLORS[verdict.status]), strict=True)):
                axes.plot([_change(value - middle) for value in values], [row] * len(values), "o", color=color,
                          markersize=4.5, alpha=0.7, markeredgewidth=0)  # fmt: skip
            _limits(axes, report, ("stored", "now"))
            stored, now = map(len, groups)
            alt = f"Dot plot of {stored} stored runs and {now} of now of {sanitize(verdict.method, 40)}"
            drawn.append(_finished(canvas, axes, f"runs_{index}", verdict, alt))
    return tuple(drawn)


def _finished(canvas: Any, axes: Axes, name: str, verdict: Verdict, alt: str) -> Figure:
    """Return a method's chart, with its verdict in words."""
    legend(canvas, axes)
    caption = f"{sanitize(verdict.method, 40)}: {verdict.status}; {sanitize(verdict.detail, 300)}."
    return finish(canvas, name, caption, f"{alt}: {percent(verdict.estimate)}, bounds {interval(verdict)}.")


def _change(ratio: float) -> float:
    """Return a log ratio as a change in percent."""
    return 100 * math.expm1(ratio)


def _bar(axes: Axes, row: int, verdict: Verdict, left: float, right: float) -> None:
    """Draw one method's bounds; a bound that too few pairs don't give reaches to the edge."""
    color = STATUS_COLORS[verdict.status]
    low = left if verdict.lower is None else 100 * verdict.lower
    high = right if verdict.upper is None else 100 * verdict.upper
    axes.plot([low, high], [row, row], color=color, linewidth=7, alpha=0.3, solid_capstyle="butt")
    axes.plot([100 * (verdict.estimate or 0.0)], [row], "o", color=color, markersize=5)
    if verdict.mde is not None and 100 * verdict.mde <= right:
        axes.plot([100 * verdict.mde], [row], "|", color=GREY, markersize=9, markeredgewidth=1.6)


def _limits(axes: Axes, report: CheckReport, rows: Sequence[str] = ()) -> None:
    """Draw the limits on the axis of the change: x where there are named rows, else y."""
    if rows:
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    line, name = (axes.axvline, axes.set_xlabel) if rows else (axes.axhline, axes.set_ylabel)
    rules = report.rules
    line(0.0, color=GREY, linewidth=0.7)
    line(100 * rules.null, color=AMBER, linewidth=1, linestyle=":", label=f"{rate(rules.null)}: let through")
    line(100 * rules.target, color=RED, linewidth=1, linestyle="--", label=f"{rate(rules.target)}: must not pass")
    name("change of step time (%)")
