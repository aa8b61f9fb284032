"""Exact evaluation: every row once, whatever the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hpml_bench.config.settings import Settings
from hpml_bench.data.rows import Rows
from hpml_bench.plugins.probe import Evaluation, Probe, Write
from hpml_bench.plugins.task import Task
from hpml_bench.records.predictions import Predictions
from hpml_bench.system import heartbeat
from hpml_bench.training.clock import clock
from hpml_bench.training.distributed import Group
from hpml_bench.training.model import TaskModel
from hpml_bench.training.precision import autocast


def evaluate(
    model: TaskModel,
    task: Task,
    rows: Rows,
    settings: Settings,
    group: Group,
    probes: Sequence[Probe],
    write: Write,
    phase: str,
    step: int,
) -> Evaluation:
    """Evaluate every row exactly once and give the result to the probes; the same on all ranks."""
    for probe in probes:
        probe.before_eval(phase)
    model.eval()
    group.barrier()
    watch = clock(group.device)
    watch.start()
    local = _answer(model, task, rows, settings, group)
    watch.lap()
    seconds = group.gather(torch.tensor(watch.take(), dtype=torch.float64)).max().item()
    model.train()
    everyone = group.gather(local).flatten(0, 1).numpy()  # [world * share, 2 + width]
    everyone = everyone[everyone[:, 0] >= 0]
    everyone = everyone[np.argsort(everyone[:, 0], kind="stable")]
    if not np.array_equal(everyone[:, 0], np.arange(len(rows))):
        raise RuntimeError(f"the {phase} rows were not evaluated exactly once each")
    predictions = Predictions(
        index=np.arange(len(rows)),
        reference=rows.references,
        prediction=rows.answers(everyone[:, 2:]),
        loss=everyone[:, 1],
    )
    evaluation = Evaluation(phase, step, predictions, task.evaluate(predictions), seconds)
    write([point for probe in probes for point in probe.after_eval(evaluation)])
    group.barrier()
    return evaluation


@torch.no_grad()
def _answer(model: TaskModel, task: Task, rows: Rows, settings: Settings, group: Group) -> torch.Tensor:
    """Return row index, loss and answers of this rank's rows, [ceil(n / world), 2 + width] float64.

    The width is that of the longest row where each token has an answer, else 1. Unused rows have the index -1.
    """
    width = int(rows.lengths.max()) if rows.token_labels else 1
    mine = np.arange(group.rank, len(rows), group.world)
    mine = mine[np.argsort(rows.lengths[mine], kind="stable")]  # similar lengths together: little padding
    shape = (math.ceil(len(rows) / group.world), 2 + width)
    local = torch.full(shape, -1.0, dtype=torch.float64, device=group.device)
    with autocast(settings):  # one for all batches: it keeps the casts of trained weights, for all methods alike
        for start in range(0, len(mine), settings.eval_batch):
            heartbeat.beat(f"evaluation, batch {start // settings.eval_batch + 1}")
            part = mine[start : start + settings.eval_batch]
            batch = rows.batch(part).to(group.device)
            outputs = model(batch.input_ids, batch.attention_mask).float()
            where = slice(start, start + len(part))
            answers = task.predict(outputs).reshape(len(part), -1)
            local[where, 0] = torch.from_numpy(part).to(local)
            local[where, 1] = task.row_losses(outputs, batch.labels).to(local)
            local[where, 2 : 2 + answers.shape[1]] = answers.to(local)
    return local
