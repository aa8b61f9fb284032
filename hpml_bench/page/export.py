"""A table as Markdown, CSV or LaTeX, whose own control characters are escaped; records as a
frame of pandas.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.plugins.blocks import Table
from hpml_bench.records.load import load_records
from hpml_bench.records.numbers import MISSING
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

_MARKDOWN = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
_SPREAD = re.compile(r"[^±]*\d ± ([\d.,e-]*\d)(?:,? (\D.*))?")
"""A mean with its standard deviation, and what may follow: marks of notes, or seeds without a
value.
"""
_MARKED = re.compile(r"[^†§¶]*\d ([†§¶ ]+)")
_FORMULA = frozenset("=+@-＝＋＠－")  # characters that begin a formula in a spreadsheet
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
}
RUN_COLUMNS = (
    "run_id",
    "suite",
    "method",
    "seed",
    "status",
    "protocol_id",
    "order",
    "started",
    "seconds",
)


def markdown_text(text: object) -> str:
    """Escape one line of text for GitHub's Markdown; an underscore within a word needs nothing.

    Addresses get a space of no width, or GitHub would make links of them.
    """
    escaped = _MARKDOWN.sub(lambda found: "\\" + found[0], sanitize(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", escaped).replace("://", ":&#8203;//")
    return re.sub(
        r"(www)(?=\.)|@(?=\S)", lambda found: f"{found[0]}&#8203;", escaped, flags=re.IGNORECASE
    )


def markdown_table(table: Table) -> str:
    head = "| " + " | ".join(markdown_text(column) or " " for column in table.columns) + " |"
    rule = (
        "| " + " | ".join("---:" if numeric else "---" for numeric in numeric_columns(table)) + " |"
    )
    rows = ["| " + " | ".join(markdown_text(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join([head, rule, *rows])


def numeric_columns(table: Table) -> tuple[bool, ...]:
    """Return for each column whether all its known values are numbers."""
    columns = zip(*table.values, strict=True) if table.values else ((),) * len(table.columns)
    known = [[value for value in column if value is not None] for column in columns]
    return tuple(bool(of) and all(isinstance(value, int | float) for value in of) for of in known)


def csv_text(table: Table) -> str:
    """Return the values behind a table at full precision (RFC 4180); what would be a formula gets
    an apostrophe.

    Beside a column stand, where it has any, its standard deviations as shown ("sd") and the rest of
    its cells' text ("note"): marks, or "never (2 of 5)".
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    values = table.rows if table.values is None else table.values
    columns: list[list[float | str | None]] = []
    for at, name in enumerate(table.columns):
        parts = [_parts(shown[at], row[at]) for shown, row in zip(table.rows, values, strict=True)]
        columns.append([name, *(value for value, *_ in parts)])
        for kind, place in (("sd", 1), ("note", 2)):
            if any(of[place] for of in parts):
                columns.append([f"{name} {kind}", *(of[place] for of in parts)])
    for row in zip(*columns, strict=True):
        writer.writerow(
            f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA else cell for cell in row
        )
    return buffer.getvalue()


def _parts(shown: str, value: float | str | None) -> tuple[float | str | None, str, str]:
    """Return a cell's value, its standard deviation as shown, and the rest of its text; the last
    two may be empty.
    """
    if isinstance(value, str):
        return value, "", ""
    if found := _SPREAD.fullmatch(shown):
        return value, found[1].replace(",", ""), found[2] or ""
    if value is None:
        return value, "", "" if shown == MISSING else shown
    return value, "", found[1] if (found := _MARKED.fullmatch(shown)) else ""


def latex_table(table: Table) -> str:
    r"""Return a `table` float for `\usepackage{booktabs}`, its text escaped."""
    align = "".join("r" if numeric else "l" for numeric in numeric_columns(table))
    notes = [rf"\par\smallskip\footnotesize {latex_text(note)}" for note in table.notes]
    lines = (
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        _latex_row(table.columns),
        r"\midrule",
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
        "",
    )
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(latex_text, cells))
    # At the start of a row, [ or * would be an argument of the end of the row before.
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\"


def latex_text(text: object) -> str:
    return "".join(_LATEX.get(character, character) for character in sanitize(text))


def load_results(folder: Path | str) -> pd.DataFrame:
    """Return the runs recorded under a suite's results folder: one row per run, oldest first.

    Columns: run_id, suite, method, seed, status, protocol_id, order, started (UTC timestamp),
    seconds, and one per metric (NaN where a run didn't measure it). Units and definitions are in
    run.json and in the report's glossary.

    Raises:
        UserError: there is no such folder.

    """
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder} is not a folder of results; give the folder that run-all wrote, such as "
            f"reports/quickstart"
        )
    import pandas as pd

    records = load_records(Path(folder)).records
    metrics = list(
        dict.fromkeys(
            name for record in records for name in record.metrics if name not in RUN_COLUMNS
        )
    )
    specs = [
        {"suite": run.spec.suite, "method": run.spec.method.name, "seed": run.spec.seed}
        for run in records
    ]
    rows = [
        run.metrics | spec | {name: getattr(run, name) for name in RUN_COLUMNS if name not in spec}
        for run, spec in zip(records, specs, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=[*RUN_COLUMNS, *metrics])
    frame[metrics] = frame[metrics].astype("float64")
    frame["started"] = pd.to_datetime(frame["started"], utc=True, errors="coerce", format="ISO8601")
    return frame
