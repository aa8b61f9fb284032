"""Every table: which check it has, and that its rows are all there."""

from __future__ import annotations

import re
from collections.abc import Callable

from audit.copied import answered, defined, differing, leaves_of, method, published, published_rows, tried_again
from audit.jobs import by_hardware, hardware_rows, placed, placed_rows
from audit.page import Audit, Table
from audit.protocol import apart, each_run, failed, passed, tuned, used
from audit.runs import BESIDE
from audit.scores import beyond, intervals, means, one_seed, one_seed_pairs, pairs, these_rows
from audit.screen import answered_first, cost_cells, matrix_cells, matrix_rows, screen_rows, words_of
from audit.study import Study
from audit.times import checkpointing, marks, scaling, targets, time_budget, timed_runs, too_short, until
from audit.values import MARKS, whole
from audit.words import Cells, Row


def method_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of a table of all methods."""
    return list(study.methods)


def pair_rows(study: Study, table: Table) -> list[str]:
    """Return the rows of a table of all pairs that share a seed."""
    metric = table.name.removeprefix("pairs_")
    metric = metric if metric in study.metrics else study.score
    sign = "against" if table.name in ONE_SEED else "−" if metric == study.score else "/"
    return [f"{pair.first} {sign} {pair.second}" for pair in study.pairs.values() if pair.metric == metric and pair.n]


def timed_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of the time budget."""
    return [*(name for name, runs in study.methods.items() if set(runs) & set(timed_runs(study))), "all"]


def run_rows(study: Study, _: Table) -> list[str]:
    """Return the first cells of the table of all runs."""
    return [name for name, runs in study.methods.items() for _ in runs]


def beyond_rows(study: Study, _: Table) -> list[str]:
    """Return the methods with an interval: of two seeds or more."""
    return [name for name, runs in study.methods.items() if len(runs) > 1]


RowCheck = Callable[[Study, Table, Row], Cells]
Rows = Callable[[Study, Table], list[str]]
ONE_SEED = ("mcnemar", "one_seed_pairs")
TABLES: dict[str, tuple[RowCheck, Rows | None]] = {
    "summary|pareto": (means, method_rows),
    "throughput|steady_state|memory|inference|parameters|language|forgetting|merging": (means, None),
    "document": (published, published_rows),
    "intervals": (intervals, method_rows),
    "pairs_on_these_rows": (these_rows, pair_rows),
    "pairs_.*": (pairs, pair_rows),
    "crossed": (beyond, beyond_rows),
    "binomial|one_seed": (one_seed, method_rows),
    "|".join(ONE_SEED): (one_seed_pairs, pair_rows),
    "(seconds|samples)_to_.*": (until, None),
    "time_budget": (time_budget, timed_rows),
    "scaling": (scaling, None),
    "checkpointing": (checkpointing, None),
    "costs_by_hardware": (by_hardware, hardware_rows),
    "places": (placed, placed_rows),
    "consumption": (used, method_rows),
    "checks": (passed, method_rows),
    "runs": (each_run, run_rows),
    "apart": (apart, None),
    "failures": (failed, None),
    "retries": (tried_again, None),
    "tuning": (tuned, None),
    "methods": (method, method_rows),
    "answers": (answered, None),
    "glossary": (defined, None),
    "settings|digests|environment": (leaves_of, None),
    "environments": (differing, None),
    "answer": (answered_first, screen_rows),
    "costs": (cost_cells, screen_rows),
    "matrix_.*": (matrix_cells, matrix_rows),
    "definitions": (words_of, None),
}
"""Pattern of a table's name -> what its cells must be, and its rows where all must be there."""
MARKED = {"Throughput (samples/s)", "Timed steps"}
"""Columns in which tables of throughput mark what speaks against a steady state."""


def check_table(audit: Audit, table: Table, study: Study) -> None:
    """Check a table's cells by its name, and that its rows are all there; a figure without a rule is a problem."""
    known = (both for pattern, both in TABLES.items() if re.fullmatch(pattern, table.name))
    # a group of measurements without a section of its own is one of means
    check, rows = next(known, (means if table.header[0] == "method" else None, None))
    part = f"tables/{table.name}.csv"
    if check is until:
        audit.check(part, "targets", str(table.header[1:]), str(list(targets(study))))
    if rows:
        there = sorted(row[0].rstrip(MARKS) for row in table.rows)
        audit.check(part, "rows", str(there), str(sorted(rows(study, table))))
    for cells in table.rows:
        row = dict(zip(table.header, [cells[0].rstrip(MARKS), *cells[1:]], strict=True))
        try:
            expected = check(study, table, row) if check else {}
        except (LookupError, StopIteration, ValueError) as error:
            audit.check(part, cells[0], cells[0], f"no such row ({error!r})")
            continue
        for header in MARKED & set(row) if table.name in {"throughput", "steady_state"} else ():
            here = [run for run in study.methods[row["method"]] if run in study.home]
            kept = {mark for run in here for mark in marks(run)} | ({"§"} if too_short(here) else set())
            shown, wanted = ("".join(mark for mark in "†§¶" if mark in where) for where in (row[header], kept))
            audit.check(part, f"{row['method']} | marks", shown, wanted)
        for header in table.header[check is not None :]:
            if header in expected:
                audit.check(part, f"{cells[0]} | {header}", row[header], expected[header])
            elif re.search(r"\d", row[header]):
                audit.uncovered(part, f"{cells[0]} | {header}", row[header])


def check_tables(audit: Audit, tables: list[Table], study: Study) -> None:
    """Check that no table is missing that must be there, and that all other runs are listed."""
    there = {table.name: table for table in tables}
    several = len(study.compared) > len(study.methods)
    wanted = {f"pairs_{m}": several and any(p.n for p in study.pairs.values() if p.metric == m) for m in study.metrics}
    for name, must in (wanted | {"summary": bool(study.compared), "runs": bool(study.compared)}).items():
        audit.check("tables", name, str(name in there), str(must))
    rows = {name: there[name].rows if name in there else [] for name in ("apart", "failures")}
    listed = sum(whole(cells[2]) for cells in rows["apart"])
    audit.check("tables", "runs set apart", str(listed), sum(why not in BESIDE for why in study.apart.values()))
    bad = sum(run.record["status"] != "ok" for run in study.runs)
    audit.check("tables", "runs not ok", str(len(rows["failures"])), bad)
