"""Charts that sections share: lines over steps, values of every seed, bars, cost against
quality, jobs in time.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np

from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import own_interval
from hpml_bench.page.tables import quantity_of
from hpml_bench.plugins.picture import Axis, Marker, Picture, Segment, Series, Tone
from hpml_bench.records.numbers import Quantity, capitalized, number, titled, with_unit
from hpml_bench.select.timeline import SweepTimes
from hpml_bench.statistics import share_interval
from hpml_bench.statistics.calibration import Reliability
from hpml_bench.system.text import sanitize


def axis(
    title: str,
    values: Sequence[float],
    *,
    share: float = 0.05,
    log: bool = False,
    within: Sequence[float] = (),
    text: Callable[[float], str] | None = None,
    **more: Any,
) -> Axis:
    """Return an axis with some room at each end (a share of the values' range) around values, and
    about five ticks.

    It is logarithmic with `log`, of the values above 0, if they span a factor of 5. No end passes a
    value of `within` where all values lie on one side of it, as of 0 and 100 of per cent. `more`
    are other fields of the axis.
    """
    title = capitalized(title)
    above = [value for value in values if value > 0]
    if log and max(above) >= 5 * min(above):  # a smaller span has too few round values
        low, high = map(math.exp, _range(list(map(math.log, above)), share))
        decades, text = (
            range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1),
            text or "{:g}".format,
        )
        for round_ones in ((1,), (1, 3), (1, 2, 5)):
            marked = [
                k * 10.0**decade
                for decade in decades
                for k in round_ones
                if low < k * 10.0**decade < high
            ]
            if len(marked) >= 3:
                break
    else:
        low, high = _range(values, share)
        low = max(
            [
                low,
                *(
                    end
                    for end in within
                    if end <= min(values) and (end < max(values) or end == within[0])
                ),
            ]
        )
        high = min([high, *(end for end in within if end >= max(values) and end > low)])
        for count in range(5, 40):  # until there are three ticks or more
            raw = (high - low) / count
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw * (1 - 1e-9))
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first >= 2:
                break
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        spec = f".{digits}f" if digits < 6 and max(abs(low), abs(high)) < 1e7 else ".4g"
        log, text = False, text or (lambda value: number(value, spec))
        marked = [k * step for k in range(first, last + 1)]
    return Axis(low, high, title, tuple((value, text(value)) for value in marked), log, **more)


def ends_of(unit: str) -> Sequence[float]:
    """Return the least and largest value of a share in this unit; nothing for other units."""
    return (0.0, 100.0) if unit == "%" else ()


def rows(names: Sequence[str]) -> Axis:
    return Axis(
        -0.6,
        len(names) - 0.4,
        "",
        tuple((float(at), name) for at, name in enumerate(names)),
        turned=True,
    )


def _range(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):
        spread, share = abs(high) or 1.0, max(share, 0.05)
    return low - share * spread, high + share * spread


ROW = 26.0  # height of a row of a chart of rows
MARGINS = 50.0  # height of what a chart of rows has besides them
_MOST = 20  # methods that a chart without a row for each shows: more can't be told apart in it
_MAX_POINTS, _ALL_POINTS = 200, 1_600  # points of a line, and of all lines of a chart
_BANDED = 8  # lines over which bands hide more than they show
_MARKS = 6  # marks of a line that has none at its points: lines of one colour differ by them
_TONES: tuple[Tone, ...] = tuple(tone for tone in get_args(Tone) if tone[1:].isdigit())
_MARKERS: tuple[Marker, ...] = ("o", "s", "D", "^", "v", "P", "X")


class Style(NamedTuple):
    """Colour and marker of a method, the same in all charts."""

    tone: Tone
    marker: Marker
    shape: int  # number of the marker in the style sheet


def styles(methods: Collection[str]) -> dict[str, Style]:
    """Return each method's colour and marker, unlike for 56 methods."""
    shapes = len(_MARKERS)
    return {
        method: Style(_TONES[at % len(_TONES)], _MARKERS[at % shapes], at % shapes)
        for at, method in enumerate(methods)
    }


def line_chart(
    results: Results, metric: str, title: str, quantity: Quantity | None = None
) -> Picture | None:
    """Return a metric against the optimizer step: the mean over seeds, and a band of one
    standard deviation.
    """
    curves_of = results.curves.get(metric, {})
    if not curves_of:
        return None
    unit, scale = (quantity.unit, quantity.scale) if quantity else ("", 1.0)
    by_method = {method: curves_of[method] for method in _best(results, list(curves_of))}
    style, few = styles(results.methods), len(by_method) <= _BANDED
    series, ends = [], []
    for method, curves in by_method.items():
        steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
        if not steps:
            continue
        at = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
        values = np.array([[by_step[step] for step in steps] for by_step in at]) * scale
        ends.append(f"{method} ends at {with_unit(f'{values.mean(axis=0)[-1]:.3g}', unit)}")
        shown, values = _thin(
            np.array(steps), values, max(25, min(_MAX_POINTS, _ALL_POINTS // len(by_method)))
        )
        mean, sd = (
            values.mean(axis=0),
            values.std(axis=0, ddof=1) if few and len(curves) > 1 else None,
        )
        series.append(
            Series(
                tuple(zip(shown.tolist(), mean.tolist(), strict=True)),
                style[method].tone,
                sanitize(method, 30),
                1.6,
                "" if few and len(shown) > 25 else style[method].marker,
                every=1 if few else -(-len(shown) // _MARKS),
                band=()
                if sd is None
                else tuple(zip((mean - sd).tolist(), (mean + sd).tolist(), strict=True)),
            )
        )
    if not series:
        return None
    band = "; the band is one standard deviation" if few else ""
    heights = [
        y
        for of in series
        for y in (*(y for _, y in of.points), *(end for ends in of.band for end in ends))
    ]
    return Picture(
        name=f"curve_{metric}",
        caption=(
            f"{title} against optimizer step: mean over "
            f"seeds{band}.{_of_many(by_method, curves_of)}"
        ),
        alt=f"Line chart of {title} against step. {'; '.join(ends)}.",
        x=axis(
            "optimizer step", [x for of in series for x, _ in of.points], share=0.02, within=(0.0,)
        ),
        y=axis(titled(title, unit), heights, within=ends_of(unit), grid=True),
        series=tuple(series),
    )


def _best(results: Results, methods: Sequence[str]) -> list[str]:
    """Return the methods that a chart shows: all, or of too many the best by mean score, in the
    order given.
    """
    means, lower = (
        results.means(results.quality),
        results.definitions[results.quality].better == "lower",
    )
    ordered = sorted(
        methods, key=lambda m: math.inf if m not in means else means[m] if lower else -means[m]
    )
    return [method for method in methods if method in ordered[:_MOST]]


def _of_many(shown: Collection[Any], methods: Collection[str]) -> str:
    return (
        f" Of {len(methods)} methods the {len(shown)} with the best mean score."
        if len(shown) < len(methods)
        else ""
    )


def _thin(steps: Any, values: Any, most: int) -> tuple[Any, Any]:
    """Average neighbouring points where there are more than a line shows; the last ones by
    themselves.
    """
    block = -(-len(steps) // most)
    starts = np.arange(0, len(steps), block)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts, axis=1) / counts


def strip(results: Results, metric: str) -> Picture | None:
    """Return one row per method: every seed as a mark, the mean as a bar, the 95 % interval as a
    line.
    """
    if not results.values(metric):
        return None
    values, quantity, style = (
        results.shown(metric),
        quantity_of(results, metric),
        styles(results.methods),
    )
    segments, series, said = [], [], []
    for row, (method, by_seed) in enumerate(values.items()):
        interval = results.interval(method, metric)
        assert interval is not None  # noqa: S101 - there are values
        if metric == results.quality:
            low, high = own_interval(results.verdicts, method)
            interval = replace(interval, low=low, high=high)
        tone, mean = style[method].tone, interval.mean * quantity.scale
        if interval.low is not None and interval.high is not None:
            low, high = interval.low * quantity.scale, interval.high * quantity.scale
            segments.append(Segment((low, row), (high, row), tone, 7, opacity=0.25))
        segments.append(Segment((mean, row - 0.26), (mean, row + 0.26), tone, 2.2))
        points = tuple((value * quantity.scale, float(row)) for value in by_seed.values())
        series.append(Series(points, tone, marker=style[method].marker, size=5.5, opacity=0.85))
        between = "" if interval.low is None else f" {quantity.between(interval)}"
        said.append(f"{method} {quantity.text(interval.mean)}{between}")
    ends = [x for of in segments for x, _ in (of.start, of.end)] + [
        x for of in series for x, _ in of.points
    ]
    holds = results.verdicts.holds_for if metric == results.quality else "other seeds"
    marks = "a mark a seed, the mean" if len(results.seeds) > 1 else "one seed"
    what = f"95 % interval for {holds}" if len(segments) > len(values) else ""
    return Picture(
        name=f"seeds_{metric}",
        caption=f"{quantity.heading}: {marks}{f', and its {what}' if what else ''}.",
        alt=(
            f"Dot plot of {quantity.header} by method, mean{f' and {what}' if what else ''}: "
            f"{'; '.join(said)}."
        ),
        x=axis(sanitize(quantity.header, 56), ends, within=quantity.ends, grid=True),
        y=rows([sanitize(method, 30) for method in values]),
        height=MARGINS + ROW * len(values),
        segments=tuple(segments),
        series=tuple(series),
    )


def reliability_chart(results: Results) -> Picture | None:
    """Return the share of right answers against their probability, in bins of as many rows, means
    over seeds.

    Wilson's intervals are of as many rows as a bin has in one seed, since seeds share the rows.
    """
    stored, style = results.stored, styles(results.methods)
    found = {
        m: [own for run in results.runs(m) if (own := stored[run.run_id].reliability)]
        for m in results.methods
    }
    methods = [method for method, bins in found.items() if bins]
    if not methods:
        return None
    series, segments, said = [], list[Segment](), []
    for method in _best(results, methods):
        bins, tone = found[method], style[method].tone
        at, right = (
            100 * np.mean([getattr(own, of) for own in bins], axis=0)
            for of in ("probability", "right")
        )
        points = tuple(zip(at.tolist(), right.tolist(), strict=True))
        label = f"{sanitize(method, 30)} ({_calibration_error(bins)})"
        series.append(Series(points, tone, label, 1.2, style[method].marker, 5.5))
        said.append(
            f"{label}: {right[0]:.0f} % right at {at[0]:.0f} %, {right[-1]:.0f} % at {at[-1]:.0f} %"
        )
        for x, share in points if len(methods) <= _BANDED else ():
            low, high = share_interval(
                share / 100, bins[0].rows
            )  # of one seed's rows: seeds share them
            segments.append(Segment((x, 100 * low), (x, 100 * high), tone, opacity=0.5))
    values = [value for of in series for point in of.points for value in point]
    scale = axis("probability of the answer (%)", values, within=(0.0, 100.0), grid=True)
    return Picture(
        name="reliability",
        caption=(
            "Right answers against their probability, in bins of as many rows: mean over seeds, "
            "95 % intervals of so many rows, and in brackets the expected calibration error in "
            "points, the bins' mean distance from the line on which answers are right as often as "
            "they claim, and what a perfectly calibrated model of so many rows would have by "
            f"chance, in 95 % of cases.{_of_many(series, methods)}"
        ),
        alt=f"Reliability diagram. {'; '.join(said)}.",
        x=scale,
        y=replace(scale, title="Right answers (%)"),
        segments=(
            Segment((scale.low, scale.low), (scale.high, scale.high), "ink", dash="dotted"),
            *segments,
        ),
        series=tuple(series),
    )


def _calibration_error(bins: Sequence[Reliability]) -> str:
    """Return the mean over seeds of the calibration error, with its range by chance, in points."""
    # Seeds share the rows, so their errors by chance may be as good as equal: the range of the mean
    # over seeds is no narrower than one seed's then, and is taken so, as the mean of the seeds' own
    # ends.
    low, high = 100 * np.mean([own.error_by_chance() for own in bins], axis=0)
    error = 100 * float(np.mean([own.error for own in bins]))
    return (
        f"{number(error, '.1f')}; by chance {number(float(low), '.1f')} to "
        f"{number(float(high), '.1f')}"
    )


def bars(
    results: Results, groups: Mapping[str, str], name: str, caption: str, title: str
) -> Picture | None:
    """Return for every method a bar per metric of `groups` (metric -> label), means over seeds
    in the largest unit.
    """
    groups = {metric: label for metric, label in groups.items() if results.values(metric)}
    units = (
        (quantity.scale, quantity.unit)
        for quantity in (quantity_of(results, metric) for metric in groups)
    )
    scale, unit = min(units, default=(1.0, ""))
    header = titled(title, unit)
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
        text, opacity = f"{number(value)}  {label}".rstrip(), 0.9 - 0.6 * lightness
        segments.append(
            Segment((0.0, row), (value, row), style[method].tone, 14, opacity=opacity, text=text)
        )
    said = [
        " ".join(filter(None, (method, label, number(value)))) for method, label, _, value in drawn
    ]
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


UNITS = (
    (7200.0, 3600.0, "h"),
    (180.0, 60.0, "min"),
    (0.0, 1.0, "s"),
)  # least makespan, seconds and name of a unit
LABELLED = 30  # number of rows up to which each has its job's name
JOB_ROW, TALLEST = (
    24.0,
    600.0,
)  # height of a job's row, and the largest of all rows together, in pixels
OTHER = "methods not compared"


def unit_of(seconds: float) -> tuple[float, str]:
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def in_words(times: SweepTimes) -> str:
    size, unit = unit_of(times.makespan)
    parts = [
        f"{number(seconds / size, '.1f')} {unit} {what}" for what, seconds in times.sums.items()
    ]
    count = f"{len(times.jobs)} jobs, summed" if len(times.jobs) > 1 else "1 job"
    whole = f"{number(times.makespan / size, '.1f')} {unit} from first submission to last end"
    return f"{count}: {', '.join(parts)}; {whole}"


def gantt(results: Results, times: SweepTimes) -> Picture:
    size, unit = unit_of(times.makespan)
    order = [
        "queued",
        "preparing",
        "idle",
        *(sanitize(method, 30) for method in results.methods),
        OTHER,
    ]
    count = len(times.jobs)
    row = min(JOB_ROW, TALLEST / count)
    style, found = styles(results.methods), list[Segment]()

    def draw(
        at: int, begin: float, end: float, tone: Tone, height: float, label: str, *how: Any
    ) -> None:
        start, stop = (((time - times.first) / size, float(at)) for time in (begin, end))
        found.append(Segment(start, stop, tone, height * row, label, *how))

    for at, job in enumerate(times.jobs):
        draw(at, job.queued, job.began, "ink", 0.7, "queued", 0.5, "hatched")
        height, label = (0.7, "preparing") if job.states["preparing"] else (0.22, "idle")
        draw(at, job.began, job.ended, "ink", height, label, 0.5)
        for begin, run in job.runs:
            method = results.labels.get(run.run_id, run.spec.method.name)
            tone, label = (
                (style[method].tone, sanitize(method, 30)) if method in style else ("m7", OTHER)
            )
            draw(
                at, begin, begin + run.seconds, tone, 0.7, label, 1.0 if run.status == "ok" else 0.4
            )
    failed = any(run.status != "ok" for job in times.jobs for _, run in job.runs)
    named, ends = rows([job.name for job in times.jobs]), [0.0, times.makespan / size or 1.0]
    return Picture(
        name="jobs",
        caption="Jobs in time: hatched they wait, coloured they do a run, thin they do none."
        + (" Pale runs did not end well." if failed else ""),
        alt=f"Gantt chart of the jobs. {in_words(times)}.",
        x=axis(f"time since the first job was submitted ({unit})", ends, share=0, grid=True),
        y=named if count <= LABELLED else Axis(named.low, named.high, f"{count} jobs", turned=True),
        height=MARGINS + row * count,
        segments=tuple(sorted(found, key=lambda bar: order.index(bar.label))),
    )
