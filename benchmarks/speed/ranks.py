"""Ranks: two against one on the same global batch, as in the report's section on scaling."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hpml_bench.builtin.sections import speed as sections
from hpml_bench.report.results import Results
from speed.sweep import run_all
from speed.target import Target

SHOWN = (
    ("scaling efficiency, 2 ranks against 1", "efficiency (%)", "%"),
    ("all-reduce share, 2 ranks", "all-reduce share (%)", "%"),
    ("bytes all-reduced a step, 2 ranks", "all-reduced (bytes/step)", "bytes"),
)


def measure(seeds: int) -> list[Target]:
    """Return efficiency, all-reduce share and bytes of LoRA and full fine-tuning on the quickstart.

    One rank and two take turns, seed by seed.
    """
    with tempfile.TemporaryDirectory() as name:
        for seed in range(seeds):  # what is there of earlier seeds is kept
            for ranks in ("1", "2") if seed % 2 == 0 else ("2", "1"):
                run_all(Path(name), "--seeds", str(seed + 1), "--methods", "lora,full", "--nproc", ranks)
        results = Results.load(Path(name) / "quickstart")
    section = next((made for made in sections.sections(results) if made and made.slug == "scaling"), None)
    if section is None:
        raise RuntimeError("no method ran on one rank and on two")
    (table,) = section.blocks
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.values or ()]  # type: ignore[union-attr]
    found = []
    for row in (row for row in rows if row["ranks"] == 2):
        rates = {
            ranks: [r.metrics["samples_per_second"] for r in results.scaled(str(row["method"]))[ranks, 1]]
            for ranks in (1, 2)
        }
        raw = {**row, "samples_per_second": rates}
        found += [
            Target(f"{row['method']}: {title}", float(row[column]), unit, None, "at least", raw)
            for title, column, unit in SHOWN
        ]
    return found
