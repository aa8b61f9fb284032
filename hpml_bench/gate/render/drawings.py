"""Drawings of a report's blocks and bounds as inline SVG, so that a person sees the evidence for a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

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
        _limits(axes, report, vertical=True)
        axes.set_yticks(range(len(judged)), [sanitize(verdict.method, 24) for verdict in judged])
        axes.set_ylim(len(judged) - 0.5, -0.5)
        axes.set_xlim(left - margin, right + margin)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("change of step time (%)")
        legend(canvas, axes)
        described = [f"{sanitize(v.method, 40)} {percent(v.estimate)} {interval(v)} {v.status}" for v in judged]
        caption = (
            "Estimate and bounds of each method's step time: FAIL lies right of the first limit, PASS left of the "
            "second. The tick is the least slowdown that was detectable."
        )
        return finish(canvas, "bounds", caption, f"Interval plot of the change of step time: {'; '.join(described)}.")


def blocks(report: CheckReport) -> tuple[Figure, ...]:
    """Draw one chart per method: all blocks' ratios by process pair, the pairs' values, the estimate and the limits."""
    drawn = []
    effects = pair_effects(report.blocks)
    for index, verdict in enumerate(tables.of_step_time(report)[:_MOST_METHODS]):
        own = [block for block in report.blocks if block.method == verdict.method]
        if own:
            drawn.append(_blocks_of(report, verdict, own, effects[verdict.method], f"blocks_{index}"))
    return tuple(drawn)


def _blocks_of(
    report: CheckReport, verdict: Verdict, own: Sequence[Block], effects: Sequence[float], name: str
) -> Figure:
    from matplotlib.ticker import MaxNLocator

    disturbed = [block for block in own if block.disturbed is not None]
    with drawing(2.9) as (canvas, axes):
        for order, marker in (("ABBA", "o"), ("BAAB", "D")):
            kept = [block for block in own if block.order == order and block.disturbed is None]
            axes.plot(
                [block.pair + 1 for block in kept], [_change(log_ratio(block)) for block in kept], marker,
                color=BLUE, markersize=3.6, alpha=0.6, markeredgewidth=0, label=f"block {order}",
            )  # fmt: skip
        if disturbed:
            axes.plot(
                [block.pair + 1 for block in disturbed], [_change(log_ratio(block)) for block in disturbed], "x",
                color=GREY, markersize=4.5, label="disturbed",
            )  # fmt: skip
        whole = sorted({block.pair for block in own if block.disturbed is None})
        axes.plot(
            [pair + 1 for pair in whole], [_change(effect) for effect in effects], "_",
            color=STATUS_COLORS[verdict.status], markersize=9, markeredgewidth=2, label="pair's value",
        )  # fmt: skip
        if verdict.estimate is not None:
            axes.axhline(100 * verdict.estimate, color=STATUS_COLORS[verdict.status], linewidth=1.1, label="estimate")
        _limits(axes, report, vertical=False)
        axes.set_xlabel("process pair")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("change of step time (%)")
        legend(canvas, axes)
        caption = f"{sanitize(verdict.method, 40)}: {verdict.status}; {sanitize(verdict.detail, 300)}."
        alt = (
            f"Scatter of {len(own) - len(disturbed)} blocks of {sanitize(verdict.method, 40)} in {len(whole)} pairs, "
            f"{len(disturbed)} disturbed ones set apart: {percent(verdict.estimate)}, bounds {interval(verdict)}."
        )
        return finish(canvas, name, caption, alt)


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
            _limits(axes, report, vertical=True)
            axes.set_yticks((0, 1), ("stored", "now"))
            axes.set_ylim(1.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel("change of step time (%)")
            legend(canvas, axes)
            caption = f"{sanitize(verdict.method, 40)}: {verdict.status}; {sanitize(verdict.detail, 300)}."
            alt = (
                f"Dot plot of {len(groups[0])} stored runs and {len(groups[1])} of now of "
                f"{sanitize(verdict.method, 40)}: {percent(verdict.estimate)}, bounds {interval(verdict)}."
            )
            drawn.append(finish(canvas, f"runs_{index}", caption, alt))
    return tuple(drawn)


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


def _limits(axes: Axes, report: CheckReport, *, vertical: bool) -> None:
    line = axes.axvline if vertical else axes.axhline
    rules = report.rules
    line(0.0, color=GREY, linewidth=0.7)
    line(100 * rules.null, color=AMBER, linewidth=1, linestyle=":", label=f"{rate(rules.null)}: let through")
    line(100 * rules.target, color=RED, linewidth=1, linestyle="--", label=f"{rate(rules.target)}: must not pass")
