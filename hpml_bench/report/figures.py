"""Charts that sections share: lines over steps, values of every seed, bars, and cost against quality."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Figure
from hpml_bench.report.drawing import INK, PAPER, drawing, finish, legend, styles
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity
from hpml_bench.system.text import sanitize

_MOST = 20
"""Methods that a chart without a row for each shows: more can't be told apart in it."""
_MAX_POINTS, _ALL_POINTS = 200, 1_600
"""Points of a line, and of all lines of a chart."""
_BANDED = 8
"""Lines over which bands hide more than they show."""
_MARKS = 6
"""Marks of a line that has none at its points: lines of one colour differ by them."""


def line_chart(results: Results, metric: str, title: str, unit: str = "", scale: float = 1.0) -> Figure | None:
    """Draw a metric against the optimizer step: the mean over seeds, and a band of one standard deviation."""
    import numpy as np

    curves_of = results.curves.get(metric, {})
    if not curves_of:
        return None
    by_method = {method: curves_of[method] for method in _best(results, list(curves_of))}
    style, few = styles(results), len(by_method) <= _BANDED
    ends = []
    with drawing() as (canvas, axes):
        for method, curves in by_method.items():
            steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
            if not steps:
                continue
            at = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
            values = np.array([[by_step[step] for step in steps] for by_step in at]) * scale
            ends.append(f"{method} ends at {values.mean(axis=0)[-1]:.3g}{unit}")
            shown, values = _thin(np.array(steps), values, max(25, min(_MAX_POINTS, _ALL_POINTS // len(by_method))))
            mean, every = values.mean(axis=0), 1 if few else -(-len(shown) // _MARKS)
            marked: Any = {} if few and len(shown) > 25 else {"marker": style[method].marker, "markersize": 4}
            axes.plot(shown, mean, color=style[method].color, label=sanitize(method, 30), markevery=every, **marked)
            if few and len(curves) > 1:
                sd = values.std(axis=0, ddof=1)
                axes.fill_between(shown, mean - sd, mean + sd, color=style[method].color, alpha=0.16, linewidth=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"{title} ({unit.strip()})" if unit else title)
        legend(canvas, axes)
        band = "; the band is one standard deviation" if few else ""
        caption = f"{title} against optimizer step: mean over seeds{band}.{_of_many(by_method, curves_of)}"
        return finish(canvas, f"curve_{metric}", caption, f"Line chart of {title} against step. {'; '.join(ends)}.")


def _best(results: Results, methods: Sequence[str]) -> list[str]:
    """Return the methods that a chart shows: all, or of too many the best by mean score, in the order given."""
    means, lower = results.means(results.quality), results.definitions[results.quality].better == "lower"
    ordered = sorted(methods, key=lambda m: math.inf if m not in means else means[m] if lower else -means[m])
    return [method for method in methods if method in ordered[:_MOST]]


def _of_many(shown: Collection[str], methods: Collection[str]) -> str:
    """Return the sentence on methods that a chart leaves out; empty where there are none."""
    return f" Of {len(methods)} methods the {len(shown)} with the best mean score." if len(shown) < len(methods) else ""


def _thin(steps: Any, values: Any, most: int) -> tuple[Any, Any]:
    """Average neighbouring points where there are more than a line shows; the last ones by themselves."""
    import numpy as np

    block = -(-len(steps) // most)
    if block == 1:
        return steps, values
    starts = np.arange(0, len(steps), block)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts, axis=1) / counts


def strip(results: Results, metric: str) -> Figure | None:
    """Draw one row per method: every seed as a dot, the mean as a bar, the 95 % interval as a line."""
    if not results.values(metric):
        return None
    values = results.shown(metric)
    quantity, style, said = Quantity.of(results, metric), styles(results), []
    over = "seeds and test rows" if metric == results.quality and not results.uneven(metric) else "seeds"
    with drawing(0.75 + 0.4 * len(values)) as (canvas, axes):
        for row, (method, by_seed) in enumerate(values.items()):
            interval = (results.beyond(method) if over != "seeds" else None) or results.interval(method, metric)
            assert interval is not None  # noqa: S101 - there are values
            color, marker = style[method].color, style[method].marker
            scaled = [value * quantity.scale for value in by_seed.values()]
            if interval.low is not None and interval.high is not None:
                ends = [interval.low * quantity.scale, interval.high * quantity.scale]
                axes.plot(ends, [row, row], color=color, linewidth=7, alpha=0.25, solid_capstyle="butt")
            axes.plot([interval.mean * quantity.scale] * 2, [row - 0.26, row + 0.26], color=color, linewidth=2.2)
            axes.plot(scaled, [row] * len(scaled), marker, color=color, markersize=4.5, alpha=0.85, markeredgewidth=0)
            said.append(f"{method} {quantity.text(interval.mean)} {quantity.between(interval)}")
        axes.set_yticks(range(len(values)), [sanitize(method, 30) for method in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(sanitize(quantity.header, 56))
        alt = f"Dot plot of {quantity.header} by method, mean and 95 % interval for other {over}: {'; '.join(said)}."
        caption = f"{quantity.heading}: a mark a seed, the mean, and its 95 % interval for other {over}."
        return finish(canvas, f"seeds_{metric}", caption, alt)


def bars(
    results: Results, groups: Mapping[str, str], name: str, caption: str, header: str, scale: float = 1.0
) -> Figure | None:
    """Draw for every method a bar per metric of `groups` (metric -> label), means over seeds."""
    groups = {metric: label for metric, label in groups.items() if results.values(metric)}
    methods = [method for method in results.methods if any(results.interval(method, metric) for metric in groups)]
    if not groups or not methods:
        return None
    drawn = [
        (method, label, index / len(groups), interval.mean * scale)
        for method in methods
        for index, (metric, label) in enumerate(groups.items())
        if (interval := results.interval(method, metric)) is not None
    ]
    style, row, previous = styles(results), 0.0, methods[0]
    rows: dict[str, list[float]] = {method: [] for method in methods}
    with drawing(0.6 + 0.17 * len(drawn) + 0.1 * len(methods)) as (canvas, axes):
        for method, label, lightness, value in drawn:
            row += 1 if method == previous else 1.6
            previous = method
            rows[method].append(row)
            axes.barh(row, value, 0.86, color=style[method].color, alpha=0.9 - 0.6 * lightness, linewidth=0)
            text = f"{value:.3g}  {label}" if value < 100 else f"{value:,.0f}  {label}"
            axes.annotate(text.rstrip(), (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks([sum(own) / len(own) for own in rows.values()], [sanitize(method, 30) for method in methods])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(row + 0.8, 0.2)
        low, high = (end(0.0, *(value for *_, value in drawn)) for end in (min, max))
        axes.set_xlim(1.3 * low, 1.3 * high or 1)
        axes.grid(visible=False, axis="y")
        said = [" ".join(filter(None, (method, label, f"{value:.4g}"))) for method, label, _, value in drawn]
        axes.set_xlabel(header)
        return finish(canvas, name, caption, f"Bar chart of {header} by method: {'; '.join(said)}.")


def trade_off(results: Results, cost: str, gain: str, name: str, on: Sequence[str]) -> Figure | None:
    """Draw gain against cost with 95 % intervals; the methods shown to be on the front are ringed."""
    every = [m for m in results.methods if results.interval(m, cost) and results.interval(m, gain)]
    if not every:
        return None
    methods = _best(results, every)
    x, y, style = Quantity.of(results, cost), Quantity.of(results, gain), styles(results)
    middle, said = {}, []
    with drawing(3.4) as (canvas, axes):
        for method in methods:
            across, up = results.interval(method, cost), results.interval(method, gain)
            assert across is not None  # noqa: S101 - chosen above
            assert up is not None  # noqa: S101
            middle[method] = (across.mean * x.scale, up.mean * y.scale)
            axes.errorbar(
                *middle[method],
                xerr=_arms(across, x.scale),
                yerr=_arms(up, y.scale),
                fmt=style[method].marker,
                color=style[method].color,
                label=sanitize(method, 30),
                markersize=7,
                elinewidth=1.2,
                capsize=2.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.6,
            )
            said.append(f"{method} {x.text(across.mean)}, {y.text(up.mean)}")
        front = sorted(middle[method] for method in methods if method in on)
        if front:
            axes.plot(
                *zip(*front, strict=True), "o", markersize=14, markerfacecolor="none", markeredgecolor=INK,
                markeredgewidth=0.8,
            )  # fmt: skip
        costs = [point[0] for point in middle.values()]
        if min(costs) > 0 and max(costs) > 8 * min(costs):
            axes.set_xscale("log")
        axes.margins(0.12)
        axes.set_xlabel(sanitize(x.header, 56))
        axes.set_ylabel(sanitize(y.header, 40))
        legend(canvas, axes)
        real = any(c.differs for metric in (cost, gain) for c in results.comparisons(metric))
        lower = f" Of {y.title} lower is better." if y.metric.better == "lower" else ""
        ending = f"{lower}{_ending(on, real, len(methods))}"
        many = _of_many(methods, every)
        caption = f"{y.heading} against {x.title}: means with 95 % intervals over seeds.{many}{ending}"
        alt = (
            f"Scatter of {y.header} against {x.header}: {'; '.join(said)}. On the front: {', '.join(on) or 'unknown'}."
        )
        return finish(canvas, name, caption, alt)


def _ending(on: Sequence[str], real: bool, methods: int) -> str:
    """Return a caption's sentences on ringed methods and on differences; empty for a single method."""
    if methods < 2:
        return ""
    ringed = "Ringed: shown to be on the Pareto front of the two." if on else "None is shown to be on their front."
    ending = "The tables of pairs say which differences are real" if real else "None of these differences is shown"
    return f" {ringed} {ending}."


def _arms(interval: statistics.Interval, scale: float) -> list[list[float]]:
    """Return an interval's lengths below and above the mean, unequal if it is cut at the end of a scale."""
    if interval.low is None or interval.high is None:
        return [[0.0], [0.0]]
    return [[max(0.0, interval.mean - interval.low) * scale], [max(0.0, interval.high - interval.mean) * scale]]
