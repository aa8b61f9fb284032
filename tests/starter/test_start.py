"""`hpml-bench init`: from a model and rows of each kind to a suite that runs unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers import starters
from hpml_bench.cli import main
from hpml_bench.records.listing import load_records
from hpml_bench.suite.suite import Suite, load_suite

KINDS: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], Path]]] = {
    "sequence_classification": (starters.bert, "rows.csv", starters.classes),
    "regression": (starters.bert, "rows.csv", starters.numbers),
    "token_classification": (starters.bert, "rows.jsonl", starters.tags),
    "causal_lm": (starters.llama, "rows.jsonl", starters.messages),
}
"""Task -> the model, the name of the file, and the function that writes its rows."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two models."""
    folder = tmp_path_factory.mktemp("models")
    return {"bert": starters.bert(folder / "bert"), "llama": starters.llama(folder / "llama")}


def init(model: Path | str, *data: Path | str, out: Path | None = None) -> Result:
    """Call the command."""
    words = ["init", "--model", str(model), "--data", *map(str, data), *([] if out is None else ["--out", str(out)])]
    return CliRunner().invoke(main, words)


def suite(result: Result, file: Path) -> Suite:
    """Return the suite that was written, after checking that it was."""
    assert result.exit_code == 0, result.output
    return load_suite(str(file))


@pytest.mark.parametrize("task", KINDS)
def test_a_suite_runs_as_it_was_written(task: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Of each kind of work: the task is found, paths are absolute, and `run-all` trains with it."""
    make_model, name, write = KINDS[task]
    rows = write(tmp_path / name)
    file = tmp_path / "made.yaml"
    found = suite(init(models["llama" if make_model is starters.llama else "bert"], rows, out=file), file)
    assert found.settings.task.name == task
    assert found.settings.dataset.options["train"] == f"path:{rows}"
    budget = ["--set", "steps=2", "--set", "latency_samples=0", "--seeds", "1", "--nproc", "1", "--device", "cpu"]
    done = CliRunner().invoke(main, ["run-all", str(file), "--out", str(tmp_path / "out"), "--wandb", "off", *budget])
    assert done.exit_code == 0, done.output
    records = load_records(tmp_path / "out" / "made").records
    assert {record.spec.method.name: record.status for record in records} == dict.fromkeys(found.methods, "ok")
