"""One rank and three: the same training and evaluation, also where rows have unlike numbers of
targets.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import tiny
from helpers.loops import Recorder, over_ranks
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer

TASKS = registry.names("tasks")
WORLDS = (1, 3)


def do_all(group: Group, runs: list[tuple[RunSpec, Prepared]], folder: Path) -> None:
    """Of each run evaluate the test rows, train, and on rank 0 save what came of it."""
    for spec, prepared in runs:
        recorder = Recorder()
        trainer = Trainer(assemble(spec, prepared, group), [recorder])
        before = trainer.evaluate(trainer.assembly.test, "test", 0)
        trainer.train()
        if group.main:
            weights = {name: weight.detach() for name, weight in trainer.model.named_parameters()}
            kept = {
                "losses": recorder.values("loss"),
                "weights": weights,
                "predictions": before.predictions,
            }
            kept |= {"targets": trainer.train_rows.targets, "metrics": dict(before.metrics)}
            torch.save(kept, folder / f"{spec.settings.task.name}-{group.world}.pt")


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every task came to on each number of ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    for world in WORLDS:
        asked = [tiny.task_settings(folder, task, world_size=world) for task in TASKS]
        specs = [
            tiny.spec("full", lr=1e-3).model_copy(update={"settings": settings})
            for settings in asked
        ]
        over_ranks(world, do_all, [(spec, prepare(spec.settings)) for spec in specs], folder)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_losses_weights_and_evaluation_are_those_of_one_rank(ranks_folder: Path, task: str) -> None:
    """Every step's loss, every weight after the last one, every test row once and in order, and
    metrics, to rounding.

    Ranks have unlike numbers of targets: rows of words to tag have 3 to 10, so that a mean of means
    would differ.
    """
    one, other = (
        torch.load(ranks_folder / f"{task}-{world}.pt", weights_only=False) for world in WORLDS
    )
    assert task != "token_classification" or {*one["targets"].tolist()} == {*range(3, 11)}
    assert len(one["losses"]) == 6
    assert other["losses"] == pytest.approx(one["losses"], rel=1e-5)
    torch.testing.assert_close(other["weights"], one["weights"], rtol=1e-3, atol=2e-5)
    assert one["predictions"].index.tolist() == list(range(25))
    for part in ("reference", "prediction", "loss"):
        for found, expected in zip(
            getattr(other["predictions"], part), getattr(one["predictions"], part), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
