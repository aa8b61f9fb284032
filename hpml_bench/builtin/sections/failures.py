"""Failures, and runs that can't be compared: status, reason, and log."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, section_of, table
from hpml_bench.system.text import sanitize

order = 25
question = "wrong"
about = "runs that did not end well, or are not compared"
folded = False
MEANING = {
    "failed": "ended with an error",
    "unsupported": "the method can't run with this model",
    "invalid": "an arithmetic self-check failed",
    "diverged": "the loss became NaN or infinite",
    "timeout": "ran into a time limit",
    "killed": "ended by a signal",
    "interrupted": "stopped by the user",
    "oom_host": "ran out of the machine's memory",
    "oom_cuda": "ran out of the GPU's memory",
}
TRACEBACKS = 5
"""Number of different tracebacks that are shown."""
TRACEBACK_LINES = 20
TRACEBACK_WIDTH = 300


def section(results: Results) -> Section | None:
    """Return runs not ok, tried again or set apart, and unreadable records; nothing where there are none."""
    problems = results.left_out.problems
    return section_of(
        "failures",
        "Failures and runs set apart",
        _not_ok(results),
        *_tracebacks(results),
        _again(results),
        _excluded(results),
        Text(sentences=problems) if problems else None,
    )


def _all(results: Results) -> list[RunRecord]:
    """Return every record that can be read, oldest first."""
    left = results.left_out
    excluded = (record for group in left.excluded for record in group.records)
    return sorted((*results.compared, *left.unfinished, *excluded), key=lambda record: (record.started, record.run_id))


def _label(results: Results, record: RunRecord) -> str:
    return results.labels.get(record.run_id, record.spec.method.name)


def _not_ok(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [_label(results, r), r.spec.seed, r.status, MEANING.get(r.status, ""), _reason(r), _log(r)]
        for r in results.left_out.unfinished
    ]
    columns = ("method", "Seed", "Status", "Meaning", "Reason", "Log")
    return table("failures", "Runs that did not end well; they enter no mean", columns, rows)


def _again(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [_label(results, r), r.spec.seed, len(earlier) + 1, r.status, "; ".join(map(_short, earlier))]
        for r in _all(results)
        if (earlier := r.earlier_attempts)
    ]
    columns = ("method", "Seed", "Attempts", "Status", "Earlier attempts")
    return table("retries", "Runs that were tried again, as `--retries` asked; the last attempt counts", columns, rows)


def _short(text: str) -> str:
    return text if len(text) <= 400 else text[:399] + "…"


def _reason(record: RunRecord) -> str:
    failed = [f"{check.name}: {check.detail}" for check in record.checks if not check.passed]
    if record.error is None:
        return "; ".join(failed) or MISSING
    rank = "" if record.error.rank is None else f" (rank {record.error.rank})"
    return f"{record.error.kind}: {_short(record.error.message)}{rank}"


def _tracebacks(results: Results) -> list[Text]:
    """Return a list of lines for each different traceback, under the runs that ended with it."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for record in results.left_out.unfinished:
        if lines := _raising_lines(record):
            runs.setdefault(lines, []).append(f"{_label(results, record)}, seed {record.spec.seed}")
    shown = [Text(sentences=(_short(f"Raised in {'; '.join(who)}:"), *lines)) for lines, who in runs.items()]
    more = len(shown) - TRACEBACKS
    rest = [Text(sentences=(f"Other tracebacks that are in run.json alone: {more}.",))] if more > 0 else []
    return shown[:TRACEBACKS] + rest


def _raising_lines(record: RunRecord) -> tuple[str, ...]:
    """Return the end of a rank's traceback: the last calls, the line that raised, and the exception's first line."""
    traceback = record.error.traceback if record.error else None
    if not traceback or record.status == "timeout":  # which has the stacks of all ranks: too long for a page
        return ()
    lines = [line for line in traceback.splitlines() if line.strip(" ^~")]
    calls = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    raised = calls[-1] + 2 if calls else 0  # a message of many lines must not push out the line that raised
    chosen = [sanitize(line, TRACEBACK_WIDTH) for line in lines[: raised + 1][-TRACEBACK_LINES:]]
    return tuple(line for line in chosen if line)


def _log(record: RunRecord) -> str:
    rank = record.error.rank if record.error and record.error.rank is not None else 0
    return MISSING if record.status == "unsupported" else f"{record.run_id}/rank{rank}.log"


def _excluded(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for group in results.left_out.excluded:
        methods = ", ".join(dict.fromkeys(record.spec.method.name for record in group.records))
        seeds = ", ".join(map(str, sorted({record.spec.seed for record in group.records})))
        protocol = group.records[0].protocol_id or MISSING
        rows.append([methods, seeds, len(group.records), protocol, group.reason])
    columns = ("method", "Seeds", "Runs", "Protocol", "Why it is not compared")
    return table("apart", "Runs set apart: they enter no mean", columns, rows)
