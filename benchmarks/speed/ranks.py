"""Two ranks against one on the same global batch, as the report's section on scaling has it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hpml_bench.report.results import Results
from hpml_bench.sections import scaling
from speed.sweep import run_all
from speed.target import Target


def measure(seeds: int) -> list[Target]:
    """Return efficiency and all-reduce share of LoRA and full fine-tuning on the quickstart."""
    with tempfile.TemporaryDirectory() as name:
        for ranks in ("1", "2"):
            run_all(Path(name), "--seeds", str(seeds), "--methods", "lora,full", "--nproc", ranks)
        section = scaling.section(Results.load(Path(name) / "quickstart"))
    if section is None:
        raise RuntimeError("no method ran on one rank and on two")
    (table,) = section.blocks
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.values or ()]  # type: ignore[union-attr]
    return [
        Target(f"{row['method']}: {title}, 2 ranks against 1", float(row[column]), "%", None, "at least", row)
        for row in rows
        if row["ranks"] == 2
        for title, column in (("scaling efficiency", "efficiency (%)"), ("all-reduce share", "all-reduce share (%)"))
    ]
