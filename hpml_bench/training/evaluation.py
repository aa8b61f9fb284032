"""Exact evaluation: every row once, whatever the number of ranks; and a rehearsal of its largest batches."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from hpml_bench.data.prepared import MemoryNeed, largest, pieces
from hpml_bench.plugins.dataset import GROUP
from hpml_bench.plugins.decoding import Generator
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.probe import Evaluation, Run
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import Task
from hpml_bench.records.predictions import Predictions, TextAnswers, answers_changed
from hpml_bench.suite.settings import Settings
from hpml_bench.system import heartbeat
from hpml_bench.training import generation
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.clock import clock, one_at_a_time
from hpml_bench.training.kernels import autocast


def evaluate(
    model: TaskModel, task: Task, rows: Rows, settings: Settings, group: Group, phase: str, step: int,
    generator: Generator | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate every row exactly once, and with a generator answer every prompt; the same on all ranks."""
    model.eval()
    gathered, seconds = _evaluate_rows(model, task, rows, settings, group, phase)
    began = time.monotonic()
    with autocast(settings), torch.no_grad():
        found, generating = dict[str, Any](), None
        if generator:
            found, generating = generation.answer_all(cast(LanguageModel, model), rows, generator, group, phase)
        elif task.compares_choices:
            found = generation.choose(model, task, rows, settings, group)
    answering = generation.seconds_since(began, group) if found else None
    model.train()
    texts = None
    if rows.has("expected"):
        question, expected = (tuple(rows.column(name)) for name in ("question", "expected"))
        texts = TextAnswers(question, expected, np.asarray(rows.column("bytes")), **found)
    predictions = Predictions(
        index=np.arange(len(rows)), reference=rows.references, prediction=rows.answers(gathered[:, 2:]),
        probabilities=gathered[:, 3:].astype(np.float32) if task.probable_classes else None,
        loss=gathered[:, 1], texts=texts, group=np.asarray(rows.column(GROUP)) if rows.has(GROUP) else None,
    )  # fmt: skip
    return Evaluation(phase, step, predictions, task.evaluate(predictions), seconds, generating, answering)


def _evaluate_rows(
    model: TaskModel, task: Task, rows: Rows, settings: Settings, group: Group, phase: str
) -> tuple[np.ndarray, float]:
    """Return row index, loss and answers of all rows, [n, 2 + width], on all ranks; and the slowest rank's seconds."""
    group.barrier()
    watch = clock(group.device)
    watch.start()
    local = _answer(model, task, rows, settings, group)
    watch.lap()
    seconds = group.gather(torch.tensor(watch.take(), dtype=torch.float64)).max().item()
    return group.gather_rows(local, len(rows), f"{phase} rows were not evaluated"), seconds


def losses_of_rows(model: TaskModel, task: Task, rows: Rows, settings: Settings, group: Group) -> np.ndarray:
    """Return the loss of each row, summed over its targets, [n] in nats, the same on all ranks."""
    mode = model.training
    model.eval()
    gathered, _ = _evaluate_rows(model, task, rows, settings, group, "retention")
    model.train(mode)
    return gathered[:, 1]


def base_losses(base: PreTrainedModel, task: Task, rows: Rows, settings: Settings, group: Group) -> np.ndarray:
    """Return `losses_of_rows` of a language model as it was loaded."""
    model = LanguageModel(base).eval()  # as it was loaded
    found = losses_of_rows(cast(TaskModel, model), task, rows, settings, group)
    model.release()
    return found


def evaluate_merged(run: Run, model: TaskModel, before: Evaluation, prefix: str) -> dict[str, float]:
    """Return metrics of a merged model on the test rows; of its answers, which share differs from those before."""
    after = evaluate(model, run.task, run.test, run.settings, run.group, "test", before.step, run.generator)
    seconds = after.seconds + (after.answer_seconds or 0.0)
    values = {f"{prefix}_test_loss": after.metrics["loss"], f"{prefix}_evaluation_seconds": seconds}
    changed = answers_changed(before.predictions, after.predictions)
    if changed is not None:
        values |= {f"{prefix}_test_score": after.metrics["score"], f"{prefix}_answers_changed": changed}
    return values


def time_single_rows(run: Run, model: TaskModel, calls: Iterable[Callable[[], object]]) -> list[float]:
    """Return the seconds of calls at batch 1 on `Run.timed_rows`, of each row's second call."""
    # on a GPU the first pass of a length selects kernels; in one autocast casts of weights are cached, as in a server
    model.eval()
    with torch.no_grad(), autocast(run.settings, cached=True):
        return one_at_a_time(calls, run.group.device)[len(run.timed_rows) // 2 :]


@torch.no_grad()
def _answer(model: TaskModel, task: Task, rows: Rows, settings: Settings, group: Group) -> torch.Tensor:
    """Return row index, loss and answers of this rank's rows, [ceil(n / world), 2 + width] float64.

    The width is that of the longest row where each token has an answer, else 1 and the classes whose probabilities
    follow the answer. Unused rows have the index -1.
    """
    width = int(rows.lengths.max()) if rows.token_labels else 1 + task.probable_classes
    mine = generation.own_rows(rows.lengths, group)
    shape = (math.ceil(len(rows) / group.world), 2 + width)
    local = torch.full(shape, -1.0, dtype=torch.float64, device=group.device)
    local[: len(mine), 0] = torch.from_numpy(mine).to(local)  # not in the loop: it waits for the device
    start = 0
    with autocast(settings):  # one for all batches: it caches the casts of trained weights, for all methods alike
        for number, part in enumerate(batches(model, rows, settings, group), start=1):
            heartbeat.beat(f"evaluation, batch {number}")
            losses, answers = losses_and_answers(model, task, rows, part, group)
            where = slice(start, start + len(part))
            local[where, 1] = losses.to(local)
            local[where, 2 : 2 + answers.shape[1]] = answers.to(local)
            start += len(part)
    return local


def losses_and_answers(
    model: TaskModel, task: Task, rows: Rows, part: np.ndarray, group: Group
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = rows.batch(part).to(group.device)
    outputs = model(batch.input_ids, batch.attention_mask, batch.labels, batch.learnt, **batch.more).float()
    answers = task.predict(outputs, batch.labels).reshape(len(part), -1)
    if task.probable_classes:
        answers = torch.cat([answers.to(outputs), outputs.softmax(dim=-1)], dim=1)
    return task.row_losses(outputs, batch.labels), answers


def batches(model: TaskModel, rows: Rows, settings: Settings, group: Group) -> Iterator[np.ndarray]:
    mine = generation.own_rows(rows.lengths, group)
    return pieces(mine, rows.targets, settings.eval_batch, generation.most_targets(model))


@torch.no_grad()
def rehearse_losses(run: Run, validation: Rows) -> None:
    """Run this rank's largest batches of all evaluations to come, so that lack of memory shows; trains afterwards."""
    model, settings, group, answered = run.model, run.settings, run.group, (validation, run.test)
    model.eval()
    passes = (
        (MemoryNeed(len(part) * int(rows.lengths[part].max()), int(rows.targets[part].sum())), (rows, part))
        for rows in (*answered, *([] if run.retention is None else [run.retention]))
        for part in batches(model, rows, settings, group)
    )
    with autocast(settings):
        for rows, part in largest(passes):
            heartbeat.beat("rehearsing the largest evaluation batch")
            losses_and_answers(model, run.task, rows, part, group)
        for rows in answered if run.task.compares_choices else ():
            generation.rehearse_choices(model, run.task, rows, settings, group)
    model.train()


@torch.no_grad()
def rehearse_generation(run: Run, validation: Rows) -> None:
    """Generate the last token of each split's largest batch of answers, likewise; nothing where none are generated."""
    if run.generator is None:
        return
    run.model.eval()
    with autocast(run.settings):
        for rows in (validation, run.test):
            generation.rehearse_answers(cast(LanguageModel, run.model), rows, run.generator, run.group)
    run.model.train()
