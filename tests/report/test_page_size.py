"""Behaviour: a page of many methods stays small enough to send and to open at once."""

from __future__ import annotations

from pathlib import Path

from helpers.made_records import sweep, write
from hpml_bench.report.render import write_report

LARGEST = 1_500_000
"""Bytes of the page of 45 methods and 10 seeds."""


def test_forty_five_methods_and_ten_seeds(tmp_path: Path) -> None:
    """The page has every method's row and numbers, and is under 1.5 MB; tables of pairs stand beside it."""
    kinds = ["lora", "full", "adapter", "prompt_tuning", "head"]
    records = []
    for i in range(45):
        for record in sweep([kinds[i % 5]], 10):
            named = record.spec.method.model_copy(update={"name": f"{kinds[i % 5]}_variant_{i:02d}_of_a_long_name"})
            spec = record.spec.model_copy(update={"method": named})
            metrics = dict(record.metrics)
            metrics["train_seconds"] *= 1 + 0.03 * i
            metrics["saved_bytes"] = 2000.0 * (i + 1) ** 3
            records.append(record.model_copy(update={"spec": spec, "run_id": spec.run_id, "metrics": metrics}))
    write(tmp_path, records)
    page, *rest = write_report(tmp_path, formats=("html",))
    text = page.read_text()
    assert all(f'id="m-{n}"' in text for n in range(1, 46))
    assert "Of 45 methods the 20 with the best mean score" in text
    assert "pairs_test_accuracy.csv" in {path.name for path in rest}
    assert page.stat().st_size < LARGEST
