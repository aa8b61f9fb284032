"""Rehearsal of the largest evaluation batches before training, so that lack of memory shows at once."""

from __future__ import annotations

from typing import cast

import torch

from hpml_bench.data.prepared import MemoryNeed, largest
from hpml_bench.system import heartbeat
from hpml_bench.training.assembly import Assembly
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.evaluation import batches, losses_and_answers, most_targets
from hpml_bench.training.generation import rehearse_answers, rehearse_choices
from hpml_bench.training.kernels import autocast


@torch.no_grad()
def rehearse_losses(run: Assembly) -> None:
    """Run the largest batches of this rank's share of all evaluations to come, so that lack of memory shows now.

    Of the retention text only losses are computed, of validation and test rows choices are compared too. The model is
    in training mode, and returns to it.
    """
    model, settings, group, answered = run.model, run.settings, run.group, (run.validation, run.test)
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
            rehearse_choices(model, run.task, rows, settings, group, most_targets(model))
    model.train()


@torch.no_grad()
def rehearse_generation(run: Assembly) -> None:
    """Generate the last token of each split's largest batch of answers, likewise; nothing where none are generated."""
    if run.generator is None:
        return
    run.model.eval()
    with autocast(run.settings):
        for rows in (run.validation, run.test):
            rehearse_answers(cast(LanguageModel, run.model), rows, run.generator, run.group)
    run.model.train()
