"""Gantt chart of a sweep's jobs: one row per job, with its waiting time, its runs by method, and idle time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpml_bench.plugins.blocks import Figure
from hpml_bench.report.drawing import COLORS, INK, drawing, finish, legend, styles
from hpml_bench.report.jobs import JobTimes, SweepTimes
from hpml_bench.report.results import Results
from hpml_bench.report.tables import number
from hpml_bench.system.text import sanitize

UNITS = ((2 * 3600.0, 3600.0, "h"), (180.0, 60.0, "min"), (0.0, 1.0, "s"))
"""Least makespan, seconds and name of a unit of time."""
LABELLED = 30
"""Number of rows up to which each has its job's name."""
ROW, TALLEST, MARGINS = 0.26, 8.0, 1.5
"""Height of a row, the largest of all rows together, and of axis and legend, in inches."""
WAITING: dict[str, Any] = {"height": 0.7, "facecolor": "none", "edgecolor": INK, "hatch": "////", "linewidth": 0.4}
NO_RUN: dict[str, Any] = {"color": INK, "linewidth": 0}
OTHER = "methods not compared"


@dataclass(frozen=True)
class Bar:
    """A part of a job's row, in seconds since 1970."""

    label: str
    row: int
    begin: float
    end: float
    how: dict[str, Any]


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit of time for a duration: its seconds and its name."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def in_words(times: SweepTimes) -> str:
    """Return the sums of the jobs' states in words."""
    size, unit = unit_of(times.makespan)
    parts = [f"{number(seconds / size, '.1f')} {unit} {what}" for what, seconds in times.sums.items()]
    count = f"{len(times.jobs)} jobs, summed" if len(times.jobs) > 1 else "1 job"
    return (
        f"{count}: {', '.join(parts)}; {number(times.makespan / size, '.1f')} {unit} from first submission to last end"
    )


def gantt(results: Results, times: SweepTimes) -> Figure:
    """Draw the jobs, the first to begin at the top."""
    size, unit = unit_of(times.makespan)
    order = ["queued", "preparing", "idle", *(sanitize(method, 30) for method in results.methods), OTHER]
    bars = [bar for row, job in enumerate(times.jobs) for bar in _bars(results, row, job)]
    rows, seen = len(times.jobs), set()
    with drawing(MARGINS + min(TALLEST, ROW * rows)) as (canvas, axes):
        for bar in sorted(bars, key=lambda bar: order.index(bar.label)):
            shown = "" if bar.label in seen else bar.label
            seen.add(bar.label)
            axes.barh(
                bar.row, (bar.end - bar.begin) / size, left=(bar.begin - times.first) / size, label=shown, **bar.how
            )
        if rows <= LABELLED:
            axes.set_yticks(range(rows), [job.name for job in times.jobs])
        else:
            axes.set_yticks([])
            axes.set_ylabel(f"{rows} jobs")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, times.makespan / size or 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"time since the first job was submitted ({unit})")
        legend(canvas, axes)
        failed = not all(span.well for job in times.jobs for span in job.runs)
        pale = " Pale runs did not end well." if failed else ""
        caption = f"Jobs in time: hatched they wait, coloured they do a run, thin they do none.{pale}"
        return finish(canvas, "jobs", caption, f"Gantt chart of the jobs. {in_words(times)}.")


def _bars(results: Results, row: int, job: JobTimes) -> Iterator[Bar]:
    yield Bar("queued", row, job.queued, job.began, {**WAITING, "alpha": 0.5})
    thick = bool(job.preparing)
    how = {**NO_RUN, "height": 0.7 if thick else 0.22, "alpha": 0.5}
    yield Bar("preparing" if thick else "idle", row, job.began, job.ended, how)
    style = styles(results)
    for span in job.runs:
        method = results.labels.get(span.run_id, span.method)
        color = style[method].color if method in style else COLORS[6]
        how = {"height": 0.7, "color": color, "alpha": 1.0 if span.well else 0.4, "linewidth": 0}
        yield Bar(sanitize(method, 30) if method in style else OTHER, row, span.begin, span.end, how)
