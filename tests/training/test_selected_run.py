"""Whole runs whose step was selected: they are, to the bit, runs that ended there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import tiny
from hpml_bench.data.prepare import prepare
from hpml_bench.launch import launcher
from hpml_bench.plugins.task import Task
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.training import worker
from hpml_bench.training.request import RunRequest


def found(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return what a run's model was: its predictions, what was measured of it at the end, and its saved files."""
    assert record.status == "ok", record.error
    predictions = read_predictions(folder)
    assert predictions is not None
    at_end = [m.name for m in record.definitions if m.group in {"quality", "language", "forgetting", "merging"}]
    files = {path.name: path.read_bytes() for path in (folder / "saved").iterdir() if path.suffix == ".safetensors"}
    metrics = {name: record.metrics[name] for name in at_end if name in record.metrics and "seconds" not in name}
    return {"losses": predictions.loss.tolist(), "files": files} | metrics | {"train_loss": None}


def executed(request: RunRequest) -> RunRecord:
    """Do a run in this process alone, where `best_step` may be another."""
    RunFolder(request.folder).begin()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
            patch.setenv(name, value)
        patch.setattr(Task, "best_step", lambda _, scores: min(scores, key=lambda step: abs(step - 8)))
        outcome = worker.execute(request)
    return RunFolder(request.folder).commit(launcher.record_of(request, outcome, "", 0.0))


@pytest.mark.parametrize(
    ("select", "method", "world"), [({"select": "best"}, "full", 1), ({"select": "early", "patience": 3}, "lora", 2)]
)
def test_the_run_is_one_that_ended_there(select: dict[str, Any], method: str, world: int, tmp_path: Path) -> None:
    """Test rows, forgetting, merging and files are, to the bit, of a run with as many steps at the same rates."""
    (tmp_path / "general.txt").write_text("\n".join(f"w{i} w{i + 7} w{3 * i}" for i in range(20)) + "\n")
    options = {"scorer": "exact", "max_new_tokens": 2, "retention": f"path:{tmp_path / 'general.txt'}"}
    steady = {"world_size": world, "schedule": "constant", "lr_warmup": 0.0, "eval_every": 4, "dropout": 0.1}

    def run(name: str, **changes: Any) -> tuple[RunRecord, dict[str, Any]]:
        settings = tiny.task_settings(tmp_path, "causal_lm", **steady | changes)
        settings = settings.model_copy(update={"task": TaskSpec(name="causal_lm", options=options)})
        spec = tiny.spec(method, lr=2e-2).model_copy(update={"settings": settings})
        folder = tmp_path / name
        if world > 1:
            record = tiny.run(spec, prepare(settings), folder, save_to=folder / "saved")
        else:
            record = executed(tiny.request(spec, prepare(settings), folder, save_to=folder / "saved"))
        return record, found(folder, record)

    chosen, own = run("chosen", steps=40, **select)
    assert chosen.consumed is not None
    step = int(chosen.metrics["selected_step"] or 0)
    assert step < chosen.consumed.steps  # so that something was left behind
    assert (chosen.consumed.steps < 40, chosen.consumed.planned) == ((True, 40) if world > 1 else (False, None))
    assert all(check.passed for check in chosen.checks)
    _, other = run("other", steps=step)
    assert own == other
    assert own["forgetting"] != 0
