"""Charts that sections share: lines over steps, values of every seed, bars, and cost against quality."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from hpml_bench.plugins.picture import Axis, Marker, Picture, Segment, Series, Tone
from hpml_bench.report.pictures.axes import axis, ends_of, rows
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity
from hpml_bench.statistics import Interval
from hpml_bench.system.text import sanitize

ROW = 26.0
"""Height of a row of a chart of rows."""
MARGINS = 50.0
"""Height of what a chart of rows has besides them."""
_MOST = 20
"""Methods that a chart without a row for each shows: more can't be told apart in it."""
_MAX_POINTS, _ALL_POINTS = 200, 1_600
"""Points of a line, and of all lines of a chart."""
_BANDED = 8
"""Lines over which bands hide more than they show."""
_MARKS = 6
"""Marks of a line that has none at its points: lines of one colour differ by them."""
_TONES: tuple[Tone, ...] = tuple(tone for tone in get_args(Tone) if tone[1:].isdigit())
_MARKERS: tuple[Marker, ...] = ("o", "s", "D", "^", "v", "P", "X")


class Style(NamedTuple):
    """Colour and marker of a method, the same in all charts, by their numbers in the style sheet."""

    hue: int
    shape: int

    @property
    def tone(self) -> Tone:
        return _TONES[self.hue - 1]

    @property
    def marker(self) -> Marker:
        return _MARKERS[self.shape]


def styles(methods: Collection[str]) -> dict[str, Style]:
    """Return each method's colour and marker, unlike for 56 methods."""
    return {method: Style(1 + at % len(_TONES), at % len(_MARKERS)) for at, method in enumerate(methods)}


def line_chart(results: Results, metric: str, title: str, unit: str = "", scale: float = 1.0) -> Picture | None:
    """Return a metric against the optimizer step: the mean over seeds, and a band of one standard deviation."""
    import numpy as np

    curves_of = results.curves.get(metric, {})
    if not curves_of:
        return None
    by_method = {method: curves_of[method] for method in _best(results, list(curves_of))}
    style, few = styles(results.methods), len(by_method) <= _BANDED
    series, ends = [], []
    for method, curves in by_method.items():
        steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
        if not steps:
            continue
        at = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
        values = np.array([[by_step[step] for step in steps] for by_step in at]) * scale
        ends.append(f"{method} ends at {values.mean(axis=0)[-1]:.3g}{unit}")
        shown, values = _thin(np.array(steps), values, max(25, min(_MAX_POINTS, _ALL_POINTS // len(by_method))))
        mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1) if few and len(curves) > 1 else None
        series.append(Series(
            tuple(zip(shown.tolist(), mean.tolist(), strict=True)), style[method].tone, sanitize(method, 30), 1.6,
            "" if few and len(shown) > 25 else style[method].marker, every=1 if few else -(-len(shown) // _MARKS),
            band=() if sd is None else tuple(zip((mean - sd).tolist(), (mean + sd).tolist(), strict=True)),
        ))  # fmt: skip
    if not series:
        return None
    band = "; the band is one standard deviation" if few else ""
    heights = [y for of in series for y in (*(y for _, y in of.points), *(end for ends in of.band for end in ends))]
    return Picture(
        name=f"curve_{metric}",
        caption=f"{title} against optimizer step: mean over seeds{band}.{_of_many(by_method, curves_of)}",
        alt=f"Line chart of {title} against step. {'; '.join(ends)}.",
        x=axis("optimizer step", [x for of in series for x, _ in of.points], share=0.02, within=(0.0,)),
        y=axis(f"{title} ({unit.strip()})" if unit else title, heights, within=ends_of(unit.strip()), grid=True),
        series=tuple(series),
    )


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
    starts = np.arange(0, len(steps), block)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts, axis=1) / counts


def strip(results: Results, metric: str) -> Picture | None:
    """Return one row per method: every seed as a mark, the mean as a bar, the 95 % interval as a line."""
    if not results.values(metric):
        return None
    values, quantity, style = results.shown(metric), Quantity.of(results, metric), styles(results.methods)
    over = "seeds and test rows" if metric == results.quality and not results.uneven(metric) else "seeds"
    segments, series, said = [], [], []
    for row, (method, by_seed) in enumerate(values.items()):
        interval = (results.beyond(method) if over != "seeds" else None) or results.interval(method, metric)
        assert interval is not None  # noqa: S101 - there are values
        tone, mean = style[method].tone, interval.mean * quantity.scale
        segments += _interval(interval, quantity.scale, row, tone)
        segments.append(Segment((mean, row - 0.26), (mean, row + 0.26), tone, 2.2))
        points = tuple((value * quantity.scale, float(row)) for value in by_seed.values())
        series.append(Series(points, tone, marker=style[method].marker, size=5.5, opacity=0.85))
        said.append(f"{method} {quantity.text(interval.mean)} {quantity.between(interval)}")
    ends = [x for of in segments for x, _ in (of.start, of.end)] + [x for of in series for x, _ in of.points]
    return Picture(
        name=f"seeds_{metric}",
        caption=f"{quantity.heading}: a mark a seed, the mean, and its 95 % interval for other {over}.",
        alt=f"Dot plot of {quantity.header} by method, mean and 95 % interval for other {over}: {'; '.join(said)}.",
        x=axis(sanitize(quantity.header, 56), ends, within=quantity.ends, grid=True),
        y=rows([sanitize(method, 30) for method in values]),
        height=MARGINS + ROW * len(values),
        segments=tuple(segments),
        series=tuple(series),
    )


def _interval(of: Interval, scale: float, row: float, tone: Tone) -> list[Segment]:
    if of.low is None or of.high is None:
        return []
    return [Segment((of.low * scale, row), (of.high * scale, row), tone, 7, opacity=0.25)]


def bars(
    results: Results, groups: Mapping[str, str], name: str, caption: str, header: str, scale: float = 1.0
) -> Picture | None:
    """Return for every method a bar per metric of `groups` (metric -> label), means over seeds."""
    groups = {metric: label for metric, label in groups.items() if results.values(metric)}
    drawn = [
        (method, label, index / len(groups), interval.mean * scale)
        for method in results.methods
        for index, (metric, label) in enumerate(groups.items())
        if (interval := results.interval(method, metric)) is not None
    ]
    if not drawn:
        return None
    style, row, previous, segments = styles(results.methods), 0.0, drawn[0][0], []
    heights: dict[str, list[float]] = {}
    for method, label, lightness, value in drawn:
        row, previous = row + (1 if method == previous else 1.6), method
        heights.setdefault(method, []).append(row)
        text = f"{value:.3g}  {label}" if value < 100 else f"{value:,.0f}  {label}"
        segments.append(
            Segment((0.0, row), (value, row), style[method].tone, 14, opacity=0.9 - 0.6 * lightness, text=text.rstrip())
        )
    said = [" ".join(filter(None, (method, label, f"{value:.4g}"))) for method, label, _, value in drawn]
    centres = tuple((sum(own) / len(own), sanitize(method, 30)) for method, own in heights.items())
    return Picture(
        name=name,
        caption=caption,
        alt=f"Bar chart of {header} by method: {'; '.join(said)}.",
        x=axis(header, [0.0, *(value for *_, value in drawn)], within=(0.0,), grid=True),
        y=Axis(0.3, row + 0.7, ticks=centres, turned=True),
        height=MARGINS + 16.5 * (row + 0.4),
        segments=tuple(segments),
    )


def trade_off(results: Results, cost: str, gain: str, name: str, on: Sequence[str]) -> Picture | None:
    """Return gain against cost with 95 % intervals; the methods shown to be on the front are ringed."""
    found = {m: (results.interval(m, cost), results.interval(m, gain)) for m in results.methods}
    every = {m: (across, up) for m, (across, up) in found.items() if across and up}
    if not every:
        return None
    methods = _best(results, list(every))
    x, y, style = Quantity.of(results, cost), Quantity.of(results, gain), styles(results.methods)
    segments, series, rings, said = [], [], [], []
    for method in methods:
        (left, across, right), (low, up, high) = (
            tuple(of.scale * (of_one.mean if end is None else end) for end in (of_one.low, of_one.mean, of_one.high))
            for of, of_one in zip((x, y), every[method], strict=True)
        )
        tone = style[method].tone
        segments += [Segment((left, up), (right, up), tone, 1.2), Segment((across, low), (across, high), tone, 1.2)]
        series.append(Series(((across, up),), tone, sanitize(method, 30), marker=style[method].marker, size=8))
        rings += [(across, up)] if method in on else []
        said.append(f"{method} {x.text(every[method][0].mean)}, {y.text(every[method][1].mean)}")
    costs = [point[0] for of in series for point in of.points]
    log = min(costs) > 0 and max(costs) > 8 * min(costs)
    ends = [[end[at] for of in segments for end in (of.start, of.end)] for at in (0, 1)]
    real = any(c.differs for metric in (cost, gain) for c in results.comparisons(metric))
    lower = f" Of {y.title} lower is better." if y.metric.better == "lower" else ""
    ending = f"{_of_many(methods, every)}{lower}{_ending(on, real, len(methods))}"
    return Picture(
        name=name,
        caption=f"{y.heading} against {x.title}: means with 95 % intervals over seeds.{ending}",
        alt=f"Scatter of {y.header} against {x.header}: {'; '.join(said)}. On the front: {', '.join(on) or 'unknown'}.",
        x=axis(sanitize(x.header, 56), ends[0], share=0.1, log=log),
        y=axis(sanitize(y.header, 40), ends[1], share=0.1, within=y.ends, grid=True),
        segments=tuple(segments),
        series=(*series, Series(tuple(rings), "ink", marker="O", size=17)),
    )


def _ending(on: Sequence[str], real: bool, methods: int) -> str:
    """Return a caption's sentences on ringed methods and on differences; empty for a single method."""
    if methods < 2:
        return ""
    ringed = "Ringed: shown to be on the Pareto front of the two." if on else "None is shown to be on their front."
    ending = "The tables of pairs say which differences are real" if real else "None of these differences is shown"
    return f" {ringed} {ending}."
