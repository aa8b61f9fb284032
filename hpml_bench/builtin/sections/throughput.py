"""Throughput: samples, real and padded tokens per second, and evidence of a steady state."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.metric_groups import OVER_SEEDS, TABLES, added_to, bar_charts
from hpml_bench.report.results import Results
from hpml_bench.report.steady import LONGEST_PAUSE, MOST_DRIFT, TELLING, Flag, unsteady
from hpml_bench.report.tables import by_method, section_of

order = 60
question = "cost"
about = "samples, tokens, step times, drift"
MARKS: dict[Flag, str] = {"drifts": "†", "too short to tell": "§", "paused": "¶"}
MEANING: dict[Flag, str] = {
    "drifts": f"Not a steady state: the 95 % interval of the drift lies beyond {100 * MOST_DRIFT:.0f} %",
    "too short to tell": "Too short to tell whether it was a steady state: the 95 % interval of the mean drift over "
    f"the runs reaches beyond {100 * TELLING:.0f} %",
    "paused": f"One step took over {100 * LONGEST_PAUSE:.0f} % of the time (CV / √n > {LONGEST_PAUSE:g})",
}
MOST_NAMED = 5
"""Flagged runs of a method that the note names one by one."""


def section(results: Results) -> Section | None:
    """Return the throughput table, the steady-state table and a chart."""
    from hpml_bench.report.pictures.charts import strip

    notes = [
        "Throughput is what all ranks consumed in the timed steps, divided by the slowest rank's wall time between "
        "synchronised borders; warm-up steps, evaluation and the writing of records lie outside it. Virtual tokens a "
        "method adds are not counted as tokens."
    ]
    notes += _frozen(results)
    flagged = {flag: found for flag in MARKS if (found := unsteady(results, flag))}
    groups, metrics = TABLES["throughput"]
    added = added_to(results, groups)
    speed = by_method(results, "throughput", f"Training speed, {OVER_SEEDS}", (*metrics, *added), notes)
    if speed is None:
        return None
    steady = by_method(results, "steady_state", f"The timed windows, {OVER_SEEDS}", TABLES["steady_state"].metrics)
    figure = strip(results, "samples_per_second") if results.measured("samples_per_second") else None
    why = [_why(flag, found) for flag, found in flagged.items()]
    again = [f"{', '.join(MARKS[flag] for flag in flagged)} As under the table of training speed."] if flagged else []
    steady = _marked(steady, flagged, again) if steady else None
    more = bar_charts(results, "throughput", added)
    return section_of("throughput", "Throughput", _marked(speed, flagged, why), steady, figure, *more)


def _frozen(results: Results) -> list[str]:
    """Return a note on methods with frozen weights in float32 where others have bf16: it costs time and memory."""
    shares = {method: max(of.values()) for method, of in results.values("frozen_bf16_percent").items()}
    without = [method for method, share in shares.items() if not share]
    if not without or len(without) == len(shares):
        return []
    return [
        f"Frozen weights are kept in bf16, but those of {', '.join(without)} in float32, with which it computes "
        "outside the layers' own passes: they are cast at every step, and take twice the memory."
    ]


def _why(flag: Flag, flagged: dict[str, tuple[str, ...]]) -> str:
    named = "; ".join(f"{method} ({_clauses(clauses)})" for method, clauses in flagged.items())
    return f"{MARKS[flag]} {MEANING[flag]}: {named}."


def _clauses(clauses: tuple[str, ...]) -> str:
    more = len(clauses) - MOST_NAMED
    return "; ".join(clauses[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _marked(table: Table, flagged: dict[Flag, dict[str, tuple[str, ...]]], notes: list[str]) -> Table:
    """Return the table with the marks at the first figure of every flagged method, and the notes."""

    def marks(method: str) -> str:
        return "".join(f" {MARKS[flag]}" for flag, methods in flagged.items() if method in methods)

    rows = tuple((row[0], f"{row[1]}{marks(row[0])}", *row[2:]) for row in table.rows)
    return table.model_copy(update={"rows": rows, "notes": (*table.notes, *notes)})
