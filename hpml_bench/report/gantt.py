"""Gantt chart of a sweep's jobs: a row a job, with the time it waited, its runs by method, and none between."""

from __future__ import annotations

from typing import Any

from hpml_bench.report.blocks import Figure
from hpml_bench.report.drawing import COLORS, GRID, INK, drawing, finish, legend, styles
from hpml_bench.report.jobs import SweepTimes
from hpml_bench.report.results import Results
from hpml_bench.report.tables import number
from hpml_bench.system.text import sanitize

UNITS = ((2 * 3600.0, 3600.0, "h"), (180.0, 60.0, "min"), (0.0, 1.0, "s"))
"""Least makespan, seconds and name of a unit of time."""
LABELLED = 30
"""Rows up to which each has its job's name."""
ROW, TALLEST = 0.26, 8.0
"""Height of a row, and the largest of all, in inches."""
OTHER = "methods not compared"


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit for so long a time: its seconds and its name."""
    return next((size, name) for least, size, name in UNITS if seconds >= least)


def told(times: SweepTimes) -> str:
    """Return the sums of the jobs' states in words."""
    size, unit = unit_of(times.makespan)
    parts = [f"{number(seconds / size, '.1f')} {unit} {what}" for what, seconds in times.sums.items()]
    count = f"{len(times.jobs)} job{'s' if len(times.jobs) > 1 else ''}"
    return f"{count}: {', '.join(parts)}; {number(times.makespan / size, '.1f')} {unit} from first to last"


def gantt(results: Results, times: SweepTimes) -> Figure:
    """Draw the jobs, the first to begin at the top."""
    size, unit = unit_of(times.makespan)
    style, rows = styles(results), len(times.jobs)
    seen: set[str] = set()
    with drawing(0.9 + min(TALLEST, ROW * rows)) as (canvas, axes):

        def bar(row: int, begin: float, end: float, label: str, height: float, **how: Any) -> None:
            """Draw one; the first of a label stands in the legend."""
            shown = "" if label in seen else label
            seen.add(label)
            axes.barh(row, (end - begin) / size, height, left=(begin - times.first) / size, label=shown, **how)

        for row, job in enumerate(times.jobs):
            waiting = {"facecolor": "none", "edgecolor": GRID, "hatch": "////", "linewidth": 0.5}
            bar(row, job.queued, job.began, "queued", 0.7, **waiting)
            if job.preparing:
                bar(row, job.began, job.ended, "preparing", 0.7, color=INK, alpha=0.5, linewidth=0)
            else:
                bar(row, job.began, job.ended, "idle", 0.25, color=INK, alpha=0.5, linewidth=0)
            for span in job.runs:
                method = results.labels.get(span.record.run_id, span.record.spec.method.name)
                color = style[method].color if method in style else COLORS[6]
                label = sanitize(method, 30) if method in style else OTHER
                alpha = 0.9 if span.record.status == "ok" else 0.45
                bar(row, span.begin, span.end, label, 0.7, color=color, alpha=alpha, linewidth=0)
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
        failed = any(span.record.status != "ok" for job in times.jobs for span in job.runs)
        pale = " Pale runs did not end well." if failed else ""
        caption = f"Jobs in time: hatched they wait, coloured they do a run, thin they do none.{pale}"
        return finish(canvas, "jobs", caption, f"Gantt chart of the jobs. {told(times)}.")
