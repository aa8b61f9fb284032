"""Every table: which check it has, and that its rows are all there."""

from __future__ import annotations

import re
from collections.abc import Callable

from audit.jobs import by_hardware, hardware_rows, placed, placed_rows
from audit.page import Audit, Table
from audit.protocol import apart, each_run, failed, passed, tuned, used
from audit.scores import beyond, intervals, means, one_seed, one_seed_pairs, pairs, these_rows
from audit.study import Study
from audit.times import checkpointing, marks, scaling, targets, time_budget, timed_runs, too_short, until
from audit.values import MARKS
from audit.words import Cells, Row, metric_in


def method_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of a table of all methods."""
    return list(study.methods)


def pair_rows(study: Study, table: Table) -> list[str]:
    """Return the rows of a table of all pairs that share a seed."""
    metric = metric_in(study, table.caption)
    sign = "against" if "one seed" in table.caption else "−" if metric == study.score else "/"
    return [f"{pair.first} {sign} {pair.second}" for pair in study.pairs.values() if pair.metric == metric and pair.n]


def timed_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of the time budget."""
    return [*(name for name, runs in study.methods.items() if set(runs) & set(timed_runs(study))), "all"]


def run_rows(study: Study, _: Table) -> list[str]:
    """Return the first cells of the table of all runs."""
    return [name for name, runs in study.methods.items() for _ in runs]


def beyond_rows(study: Study, _: Table) -> list[str]:
    """Return the methods and pairs with an interval: of two seeds or more."""
    named = [name for name, runs in study.methods.items() if len(runs) > 1]
    shared = [pair for pair in study.pairs.values() if pair.metric == study.score and pair.n > 1]
    return [*named, *(f"{pair.first} − {pair.second}" for pair in shared)]


RowCheck = Callable[[Study, Table, Row], Cells]
Rows = Callable[[Study, Table], list[str]]
TABLES: tuple[tuple[str, RowCheck, Rows | None], ...] = (
    ("Mean ± standard deviation over|One seed$|Pareto front over", means, method_rows),
    (
        "Training speed|The timed windows|Peak memory by phase|Inference|Parameters and|.*, mean ± standard",
        means,
        None,
    ),
    ("Published figures", means, None),
    ("Means with 95 % intervals", intervals, method_rows),
    ("Pairs by .*very test rows", these_rows, pair_rows),
    ("Pairs by", pairs, pair_rows),
    (".* beyond this test set", beyond, beyond_rows),
    (".* of one seed, test-set noise only", one_seed, method_rows),
    ("Pairs on one seed", one_seed_pairs, pair_rows),
    ("(Training seconds|Samples trained on) until", until, None),
    ("Where the time", time_budget, timed_rows),
    ("The same training on more ranks", scaling, None),
    ("Activations kept, or computed again in the backward pass", checkpointing, None),
    ("Costs by hardware", by_hardware, hardware_rows),
    ("Where the compared runs ran", placed, placed_rows),
    ("What the compared runs consumed", used, method_rows),
    ("Arithmetic self-checks", passed, method_rows),
    ("All compared runs", each_run, run_rows),
    ("Runs set apart", apart, None),
    ("Runs that did not end well", failed, None),
    ("Learning rates by tuning", tuned, None),
)
MARKED = {"Throughput (samples/s)", "Timed steps"}
"""Columns in which the section on throughput marks what speaks against a steady state."""
COPIED = (
    "Answers to test rows|Settings, ident|What the runs start|Environment of|What differs|Every metric|"
    "Published figures"
)
"""Tables, or rows of them, that only repeat what stands in a file, or that say how environments differ."""


def check_table(audit: Audit, table: Table, study: Study) -> None:
    """Check a table's cells by its caption, and that its rows are all there."""
    known = ((check, rows) for pattern, check, rows in TABLES if re.match(pattern, table.caption))
    check, rows = next(known, (None, None))
    if check is None or re.match(COPIED, table.caption):
        why = "repeats what stands in files" if re.match(COPIED, table.caption) else "no way to check this table"
        audit.unchecked[f"{table.section} | {table.caption}: {why}"] += 1
    if check is None:
        return
    if check is until:
        audit.check(
            table.section, table.caption, "header", ("targets", str(table.header[1:]), str(list(targets(study))))
        )
    if found := re.match(r"Mean ± .* (\d+) seeds$", table.caption):
        seeds = len({run.seed for run in study.compared})
        audit.check(table.section, table.caption, "caption", ("seeds", found[1], seeds))
    if rows:
        there = sorted(row[0].rstrip(MARKS) for row in table.rows)
        audit.check(table.section, table.caption, "rows", ("names", str(there), str(sorted(rows(study, table)))))
    for cells in table.rows:
        row = dict(zip(table.header, [cells[0].rstrip(MARKS), *cells[1:]], strict=True))
        if row.get("From") == "document":
            continue
        try:
            expected_cells = check(study, table, row)
        except (KeyError, StopIteration, ValueError) as error:
            audit.check(table.section, table.caption, cells[0], ("row", cells[0], f"no such row ({error!r})"))
            continue
        for header in MARKED & set(row) if table.section == "Throughput" else ():
            here = [run for run in study.methods[row["method"]] if run in study.home]
            kept = {mark for run in here for mark in marks(run)} | ({"§"} if too_short(here) else set())
            shown, wanted = ("".join(mark for mark in "†§¶" if mark in where) for where in (row[header], kept))
            audit.check(table.section, table.caption, row["method"], ("marks", shown, wanted))
        for header in table.header[1:]:
            if header in expected_cells:
                audit.check(table.section, table.caption, cells[0], (header, row[header], expected_cells[header]))
            else:
                audit.unchecked[f"{table.section} | {table.caption} | {header}: no way to check this column"] += 1
