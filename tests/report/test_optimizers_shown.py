"""Optimizers in reports: among what is common, or among what differs where a method has its own."""

from __future__ import annotations

from pathlib import Path

from report_sections import tables

from helpers import made_records
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec

LORA_PLUS = OptimizerSpec(name="lora_plus", options={"ratio": 4.0, "embedding_lr": 1e-6})


def load(folder: Path, *optimizers: OptimizerSpec | None) -> Results:
    """Write two seeds of `full`, and of `lora` with each of some optimizers, and read them back."""
    records = made_records.sweep(("full",), 2)
    for optimizer in optimizers:
        spec = MethodSpec(
            name="lora", method="lora", options=made_records.OPTIONS["lora"], lr=3e-3, optimizer=optimizer
        )
        records += [made_records.record("lora", seed, method_spec=spec) for seed in range(2)]
    return Results.load(made_records.write(folder, records))


def test_an_optimizer_is_a_setting_or_of_methods(tmp_path: Path) -> None:
    """The suite's stands among the settings; where a method has its own, with its options, among what differs."""
    common, own = load(tmp_path / "common", None), load(tmp_path / "own", LORA_PLUS)
    assert {row[0]: row[1] for row in tables("protocol", common)["settings"].rows}["optimizer.name"] == "adamw"
    assert "Optimizer" not in tables("methods", common)["methods"].columns
    shown = tables("methods", own)["methods"]
    assert {row[0]: row[shown.columns.index("Optimizer")] for row in shown.rows} == {
        "lora": "lora_plus, ratio = 4.0, embedding_lr = 1e-06", "full": "adamw",
    }  # fmt: skip
    assert not any(row[0].startswith("optimizer") for row in tables("protocol", own)["settings"].rows)


def test_methods_of_one_name_are_told_apart_by_their_optimizers(tmp_path: Path) -> None:
    """By its name, and by the options in which two of a name differ."""
    other = OptimizerSpec(name="lora_plus", options={"ratio": 16.0, "embedding_lr": 1e-6})
    results = load(tmp_path, None, LORA_PLUS, other)
    assert set(results.methods) == {
        "full",
        "lora (optimizer=the suite's)",
        "lora (optimizer=lora_plus, ratio=4.0)",
        "lora (optimizer=lora_plus, ratio=16.0)",
    }


def test_a_record_without_the_choice_is_read(tmp_path: Path) -> None:
    """As it was written before there was one: `optimizer` a name, and no such key of the method."""
    content = made_records.record("lora", 0).model_dump(mode="json")
    content["spec"]["settings"]["optimizer"] = "adamw"
    del content["spec"]["settings"]["lr_decay"]
    assert "optimizer" not in content["spec"]["method"]
    assert RunRecord.model_validate(content) == made_records.record("lora", 0)
