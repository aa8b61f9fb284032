"""Exact evaluation: every row once, whatever the number of ranks; and a rehearsal of its largest
batches.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpml_bench.data.prepared import MemoryNeed, largest, pieces
from hpml_bench.plugins.dataset import GROUP
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.probe import Evaluation, Run
from hpml_bench.plugins.rows import Rows
from hpml_bench.records.predictions import Predictions, TextAnswers, answers_changed
from hpml_bench.system import heartbeat
from hpml_bench.training import generation
from hpml_bench.training.clock import one_at_a_time
from hpml_bench.training.kernels import autocast

OUTPUTS = 2**28
"""Most outputs of an evaluation batch, unless one row has more: with their losses' softmax 2.1
GB in float32. A language model has as many outputs per target as its vocabulary has tokens,
50,000 to 250,000.
"""


@contextmanager
def evaluating(run: Run, *, cached: bool | None = None) -> Iterator[None]:
    """Let a run's model compute without gradients in the body, in evaluation mode and in the
    run's precision.
    """
    mode = run.model.training
    run.model.eval()
    # one autocast for all batches: it caches the casts of trained weights, for all methods alike
    with torch.no_grad(), autocast(run.settings, cached=cached):
        yield
    run.model.train(mode)


def evaluate(run: Run, rows: Rows, phase: str, step: int) -> Evaluation:
    """Evaluate every row exactly once, and with a generator answer every prompt; the same on all
    ranks.
    """
    task = run.task
    with evaluating(run):
        gathered, seconds = _evaluate_rows(run, rows, phase)
        began = time.monotonic()
        found, generating = dict[str, Any](), None
        if run.generator:
            found, generating = generation.answer_all(run, rows, phase)
        elif task.compares_choices:
            losses = losses_of_rows(run, generation.choice_rows(rows))
            found = generation.chosen(rows.column("choices"), losses)
        answering = generation.seconds_since(began, run.group) if found else None
    texts = None
    if rows.has("expected"):
        question, expected = (tuple(rows.column(name)) for name in ("question", "expected"))
        texts = TextAnswers(question, expected, np.asarray(rows.column("bytes")), **found)
    predictions = Predictions(
        index=np.arange(len(rows)),
        reference=rows.references,
        prediction=rows.answers(gathered[:, 2:]),
        probabilities=gathered[:, 3:].astype(np.float32) if task.probable_classes else None,
        loss=gathered[:, 1],
        texts=texts,
        group=np.asarray(rows.column(GROUP)) if rows.has(GROUP) else None,
    )
    return Evaluation(
        phase, step, predictions, task.evaluate(predictions), seconds, generating, answering
    )


def _evaluate_rows(
    run: Run, rows: Rows, phase: str, *, answers: bool = True
) -> tuple[np.ndarray, float]:
    """Return row index, loss and answers of all rows, [n, 2 + width], on all ranks; and the
    slowest rank's seconds.
    """
    run.group.barrier()
    began = time.monotonic()
    local = _answer(run, rows, answers=answers)
    seconds = generation.seconds_since(began, run.group)
    return run.group.gather_rows(local, len(rows), f"{phase} rows were not evaluated"), seconds


def losses_of_rows(run: Run, rows: Rows) -> np.ndarray:
    """Return the loss of each row, summed over its targets, [n] in nats, the same on all ranks."""
    with evaluating(run):
        return _evaluate_rows(run, rows, "further", answers=False)[0][:, 1]


def evaluate_merged(
    run: Run, model: TaskModel, before: Evaluation, prefix: str
) -> dict[str, float]:
    """Return metrics of a merged model on the test rows; of its answers, which share differs
    from those before.
    """
    after = evaluate(replace(run, model=model), run.test, "test", before.step)
    seconds = after.seconds + (after.answer_seconds or 0.0)
    values = {f"{prefix}_test_loss": after.metrics["loss"], f"{prefix}_evaluation_seconds": seconds}
    changed = answers_changed(before.predictions, after.predictions)
    if changed is not None:
        values |= {
            f"{prefix}_test_score": after.metrics["score"],
            f"{prefix}_answers_changed": changed,
        }
    return values


def time_single_rows(
    run: Run, model: TaskModel, calls: Iterable[Callable[[], object]]
) -> list[float]:
    """Return the seconds of calls at batch 1 on `Run.timed_rows`, of each row's second call."""
    # on a GPU the first pass of a length selects kernels; in one autocast casts of weights are
    # cached, as in a server
    with evaluating(replace(run, model=model), cached=True):
        return one_at_a_time(calls, run.group.device)[len(run.timed_rows) // 2 :]


def _answer(run: Run, rows: Rows, *, answers: bool = True) -> torch.Tensor:
    """Return row index, loss and answers of this rank's rows, [ceil(n / world), 2 + width] float64.

    The width is that of the longest row where each token has an answer, else 1 and the classes
    whose probabilities follow the answer; without answers 0. Unused rows have the index -1.
    """
    width = (
        (int(rows.lengths.max()) if rows.token_labels else 1 + run.task.probable_classes)
        if answers
        else 0
    )
    mine = generation.own_rows(rows.lengths, run.group)
    shape = (math.ceil(len(rows) / run.group.world), 2 + width)
    local = torch.full(shape, -1.0, dtype=torch.float64, device=run.group.device)
    local[: len(mine), 0] = torch.from_numpy(mine).to(
        local
    )  # not in the loop: it waits for the device
    start = 0
    for number, part in enumerate(batches(run, rows), start=1):
        heartbeat.beat(f"evaluation, batch {number}")
        losses, found = losses_and_answers(run, rows, part)
        where = slice(start, start + len(part))
        local[where, 1] = losses.to(local)
        if answers:
            local[where, 2 : 2 + found.shape[1]] = found.to(local)
        start += len(part)
    return local


def losses_and_answers(run: Run, rows: Rows, part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    batch, task = rows.batch(part).to(run.group.device), run.task
    outputs = run.model(
        batch.input_ids, batch.attention_mask, batch.labels, batch.learnt, **batch.more
    ).float()
    answers = task.predict(outputs, batch.labels).reshape(len(part), -1)
    if task.probable_classes:
        answers = torch.cat([answers.to(outputs), outputs.softmax(dim=-1)], dim=1)
    return task.row_losses(outputs, batch.labels), answers


def batches(run: Run, rows: Rows) -> Iterator[np.ndarray]:
    # for models with few outputs it is no real limit of targets
    most = OUTPUTS // int(getattr(run.model, "width", 1))
    return pieces(
        generation.own_rows(rows.lengths, run.group), rows.targets, run.settings.eval_batch, most
    )


def rehearse_losses(run: Run, validation: Rows) -> None:
    """Run this rank's largest batches of all evaluations to come, so that lack of memory shows."""
    answered = (validation, run.test)
    choices = map(generation.choice_rows, answered if run.task.compares_choices else ())
    passes = (
        (
            MemoryNeed(len(part) * int(rows.lengths[part].max()), int(rows.targets[part].sum())),
            (rows, part),
        )
        for rows in (*answered, *choices, *([] if run.retention is None else [run.retention]))
        for part in batches(run, rows)
    )
    with evaluating(run):
        for rows, part in largest(passes):
            heartbeat.beat("rehearsing the largest evaluation batch")
            losses_and_answers(run, rows, part)


def rehearse_generation(run: Run, validation: Rows) -> None:
    """Generate the last token of each split's largest batch of answers, likewise; nothing where
    none are generated.
    """
    with evaluating(run):
        for rows in (validation, run.test) if run.generator else ():
            generation.rehearse_answers(run, rows)
