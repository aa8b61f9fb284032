"""Gantt chart of a sweep's jobs: one row per job, with its waiting time, its runs by method, and idle time."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.picture import Axis, Picture, Segment
from hpml_bench.report.jobs import JobTimes, SweepTimes
from hpml_bench.report.pictures.axes import axis, rows
from hpml_bench.report.pictures.charts import MARGINS, styles
from hpml_bench.report.results import Results
from hpml_bench.report.tables import number
from hpml_bench.system.text import sanitize

UNITS = ((2 * 3600.0, 3600.0, "h"), (180.0, 60.0, "min"), (0.0, 1.0, "s"))
"""Least makespan, seconds and name of a unit of time."""
LABELLED = 30
"""Number of rows up to which each has its job's name."""
ROW, TALLEST = 24.0, 600.0
"""Height of a row, and the largest of all rows together, in pixels."""
OTHER = "methods not compared"


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


def gantt(results: Results, times: SweepTimes) -> Picture:
    """Return the jobs, the first to begin at the top."""
    size, unit = unit_of(times.makespan)
    order = ["queued", "preparing", "idle", *(sanitize(method, 30) for method in results.methods), OTHER]
    count = len(times.jobs)
    row = min(ROW, TALLEST / count)
    found = [bar for at, job in enumerate(times.jobs) for bar in _bars(results, times, job, at, row, size)]
    failed = not all(span.well for job in times.jobs for span in job.runs)
    named = rows([job.name for job in times.jobs])
    return Picture(
        name="jobs",
        caption="Jobs in time: hatched they wait, coloured they do a run, thin they do none."
        + (" Pale runs did not end well." if failed else ""),
        alt=f"Gantt chart of the jobs. {in_words(times)}.",
        x=axis(
            f"time since the first job was submitted ({unit})", [0.0, times.makespan / size or 1.0], share=0, grid=True
        ),
        y=named if count <= LABELLED else Axis(named.low, named.high, f"{count} jobs", turned=True),
        height=MARGINS + row * count,
        segments=tuple(sorted(found, key=lambda bar: order.index(bar.label))),
    )


def _bars(results: Results, times: SweepTimes, job: JobTimes, at: int, row: float, size: float) -> Iterator[Segment]:
    """Yield the parts of a job's row: waiting, its whole time, and its runs before that."""

    def ends(begin: float, end: float) -> tuple[tuple[float, float], tuple[float, float]]:
        return ((begin - times.first) / size, float(at)), ((end - times.first) / size, float(at))

    yield Segment(*ends(job.queued, job.began), "ink", 0.7 * row, "queued", 0.5, "hatched")
    thick = bool(job.preparing)
    yield Segment(
        *ends(job.began, job.ended), "ink", (0.7 if thick else 0.22) * row, "preparing" if thick else "idle", 0.5
    )
    style = styles(results.methods)
    for span in job.runs:
        method = results.labels.get(span.run_id, span.method)
        tone, label = (style[method].tone, sanitize(method, 30)) if method in style else ("m7", OTHER)
        yield Segment(*ends(span.begin, span.end), tone, 0.7 * row, label, 1.0 if span.well else 0.4)
