"""How fast training ran: samples, real and padded tokens a second, and the proof that it was a steady state."""

from __future__ import annotations

from hpml_bench.records import Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.steady import LEAST_SECONDS, LEAST_STEPS, LONGEST_PAUSE, MOST_DRIFT, throughput_flags
from hpml_bench.report.tables import by_method

order = 60
METRICS = (
    "samples_per_second", "tokens_per_second", "padded_tokens_per_second", "virtual_tokens",
    "step_ms_p50", "step_ms_p90", "step_ms_p99", "setup_seconds", "train_seconds", "total_seconds", "energy_joules",
)  # fmt: skip
STEADY = (
    "timed_steps", "timed_seconds", "step_time_cv", "step_time_drift", "step_time_outliers", "slowest_rank_share",
)  # fmt: skip
MARK = "†"
MOST_NAMED = 5
"""Flagged runs of a method that the note names one by one."""


def section(results: Results) -> Section | None:
    """Return the throughput table, the steady-state table and a chart."""
    from hpml_bench.report.figures import strip

    notes = [
        "Throughput counts what all ranks consumed in the timed window, divided by the slowest rank's time; warm-up "
        "steps, evaluation, logging and saving lie outside it. Virtual tokens a method adds are not counted as tokens."
    ]
    notes += _frozen(results)
    flags = throughput_flags(results)
    speed = by_method(results, "throughput", "Training speed, mean ± standard deviation over seeds", METRICS, notes)
    if speed is None:
        return None
    steady = by_method(results, "steady_state", "The timed windows, mean ± standard deviation over seeds", STEADY)
    figure = strip(results, "samples_per_second") if results.measured("samples_per_second") else None
    why = _why(flags)
    again = f"{MARK} As under the table of training speed."
    blocks = (_marked(speed, flags, why), _marked(steady, flags, again) if steady else None, figure)
    return Section(slug="throughput", title="Throughput", blocks=tuple(block for block in blocks if block is not None))


def _frozen(results: Results) -> list[str]:
    """Say which methods keep their frozen weights in float32 where others keep theirs in bf16: they pay for it."""
    shares = {method: max(of.values()) for method, of in results.values("frozen_bf16_percent").items()}
    without = [method for method, share in shares.items() if not share]
    if not without or len(without) == len(shares):
        return []
    return [
        f"Frozen weights are kept in bf16, but those of {', '.join(without)} in float32, with which it computes "
        "outside the layers' own passes: they are cast at every step, and take twice the memory."
    ]


def _why(flags: dict[str, tuple[str, ...]]) -> str:
    named = "; ".join(f"{method} ({_clauses(clauses)})" for method, clauses in flags.items())
    return (
        f"{MARK} Not shown to be a steady state: a timed window under {LEAST_STEPS} steps or {LEAST_SECONDS:.0f} s, "
        f"the median step time per padded token of its last third more than {100 * MOST_DRIFT:.0f} % off that of its "
        f"first, or a variation CV of its n step times as if one took over {100 * LONGEST_PAUSE:.0f} % of the time "
        f"(CV / √n > {LONGEST_PAUSE:g}): {named}."
    )


def _clauses(clauses: tuple[str, ...]) -> str:
    more = len(clauses) - MOST_NAMED
    return "; ".join(clauses[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _marked(table: Table, flags: dict[str, tuple[str, ...]], note: str) -> Table:
    """Return the table with a mark at the first figure of every flagged method, and the note."""
    if not flags:
        return table
    rows = tuple((row[0], f"{row[1]} {MARK}", *row[2:]) if row[0] in flags else row for row in table.rows)
    return table.model_copy(update={"rows": rows, "notes": (*table.notes, note)})
