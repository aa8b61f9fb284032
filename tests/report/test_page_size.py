"""Behaviour: a page of many methods stays small enough to send and to open at once."""

from __future__ import annotations

from pathlib import Path

from helpers.made_records import sweep, write
from hpml_bench.report.render import write_report

METHODS, SEEDS = 26, 3
LARGEST = 900_000
"""Bytes of the page."""


def test_many_methods_make_a_small_page(tmp_path: Path) -> None:
    """The page has every method's row and numbers, and is under the limit; tables of pairs stand beside it."""
    kinds = ["lora", "full", "adapter", "prompt_tuning", "head"]
    records = []
    for i in range(METHODS):
        for record in sweep([kinds[i % 5]], SEEDS):
            named = record.spec.method.model_copy(update={"name": f"{kinds[i % 5]}_variant_{i:02d}_of_a_long_name"})
            spec = record.spec.model_copy(update={"method": named})
            metrics = dict(record.metrics)
            metrics["train_seconds"] *= 1 + 0.03 * i
            metrics["saved_bytes"] = 2000.0 * (i + 1) ** 3
            records.append(record.model_copy(update={"spec": spec, "run_id": spec.run_id, "metrics": metrics}))
    write(tmp_path, records)
    page, *rest = write_report(tmp_path, formats=("html",))
    text = page.read_text()
    assert all(f'id="m-{n}"' in text for n in range(1, METHODS + 1))
    assert f"Of {METHODS} methods the 20 with the best mean score" in text
    assert "pairs_test_accuracy.csv" in {path.name for path in rest}
    assert page.stat().st_size < LARGEST, page.stat().st_size
