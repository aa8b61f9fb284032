"""Loss curves of our loop against the HF Trainer's, paired over seeds: speed must not change the mathematics.

Both fine-tune the quickstart's backbone in bf16 autocast with dropout 0.1, at the suite's rates, on as many batches.
The Trainer's side is transformers' model as it comes and PEFT's LoRA, with batches in random order. Order and dropout's
random numbers differ, so that losses agree up to noise; what agrees digit by digit is in
`tests/training/test_kernels.py`. On the CPU only, also where there is a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.probe import Probe, Step
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import make_task
from hpml_bench.records.run import Point
from hpml_bench.suite.schedule import lr_factor
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.environment import cores
from hpml_bench.training.distributed import process_group
from hpml_bench.training.evaluation import evaluate
from hpml_bench.training.optimization import make_optimizer
from hpml_bench.training.trainer import Trainer as OurTrainer
from speed.contender import RANK
from speed.target import Target

METHODS = ("lora", "full")
SEEDS = 10
"""That the interval needs to be narrow enough; with fewer the figures are for comparison."""
CLOSE = 0.05
"""Nats: the 95 % interval of the mean difference must lie within this of zero (an equivalence test at 2.5 % a side)."""


class Losses(Probe):
    """Keeps each step's training loss."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Keep them."""
        self.found.extend(step.loss for step in window)
        return []


class Scored(nn.Module):
    """A classifier as the Trainer wants it: it returns its loss."""

    def __init__(self, classifier: TaskModel) -> None:
        super().__init__()
        self.classifier, self.found = classifier, list[float]()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.classifier(input_ids, attention_mask)
        loss = cross_entropy(logits, labels)
        self.found.append(loss.item())
        return {"loss": loss, "logits": logits}


def measure(seeds: int) -> list[Target]:
    """Return, for each method, how far the mean losses may lie apart: the farther end of the 95 % interval.

    Nothing is timed, so that each core has a seed of its own.
    """
    suite = load_suite("quickstart", world_size=1, threads=1, precision="bf16", dropout=0.1)
    prepare(suite.settings)
    specs = suite.runs(METHODS, list(range(seeds)))
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        results = list(zip(specs, pool.map(_pair, specs), strict=True))
    found = []
    for method in METHODS:
        pairs = [pair for spec, pair in results if spec.method.name == method]
        for index, title in enumerate(("training loss, second half of the steps", "validation loss at the end")):
            differences = [ours[index] - theirs[index] for ours, theirs in pairs]
            half = float(stats.sem(differences) * stats.t.ppf(0.975, seeds - 1))
            low, high = mean(differences) - half, mean(differences) + half
            raw = {"ours": [ours[index] for ours, _ in pairs], "trainer": [theirs[index] for _, theirs in pairs]}
            found.append(
                Target(
                    f"{method}: {title}, ours less the HF Trainer's, farther end of the 95 % interval",
                    max(abs(low), abs(high)), "nats", CLOSE if seeds >= SEEDS else None, "at most", raw, (low, high),
                )
            )  # fmt: skip
    return found


def _pair(spec: RunSpec) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (training loss, validation loss) of ours and of the Trainer's."""
    os.environ.update(RANK | {"OMP_NUM_THREADS": "1"})  # without the second, accelerate takes all cores
    torch.set_num_threads(1)
    prepared = prepare(spec.settings)
    with process_group(spec.settings) as group:
        losses = Losses()
        trainer = OurTrainer.build(spec, prepared, group, [losses])
        trainer.train()
        ours = _result(losses.found, trainer.model, trainer)
        scored = Scored(_plain(prepared, spec))
        _train_with_trainer(scored, trainer.train_rows, spec)
        theirs = _result(scored.found, scored.classifier, trainer)
    print(f"  {spec.method.name} seed {spec.seed}: ours {ours}, the Trainer's {theirs}", file=sys.stderr, flush=True)
    return ours, theirs


def _result(losses: list[float], model: TaskModel, ours: OurTrainer) -> tuple[float, float]:
    rows, settings = ours.validation, ours.settings
    last = evaluate(model, ours.task, rows, settings, ours.group, "validation", len(losses))
    return mean(losses[len(losses) // 2 :]), last.metrics["loss"]


def _plain(prepared: Prepared, spec: RunSpec) -> TaskModel:
    """Return transformers' model, PEFT's method and a linear head, with none of our speed-ups."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(spec.seed)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), spec.settings.dropout)
    encoder = AutoModel.from_pretrained(prepared.backbone, dtype=torch.float32, use_cache=False, **rates)
    size = encoder.config.hidden_size
    if spec.method.method == "lora":
        options = spec.method.options
        kind = {"r": options["r"], "lora_alpha": options["alpha"], "target_modules": "all-linear"}
        encoder = get_peft_model(encoder, LoraConfig(task_type="FEATURE_EXTRACTION", fan_in_fan_out=True, **kind))
    task = make_task(spec.settings.task, prepared.label_names, prepared.facts)
    return cast(TaskModel, task.build(encoder, size, 0, spec.seed))


def _train_with_trainer(scored: Scored, rows: Rows, spec: RunSpec) -> None:
    from transformers import Trainer, TrainingArguments

    settings, steps = spec.settings, spec.settings.steps or 1

    def collate(indices: list[int]) -> dict[str, Any]:
        batch = rows.batch(np.array(indices))
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

    optimizer = make_optimizer(scored.classifier.encoder, scored.classifier.head, spec.method, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps, settings))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=settings.global_batch, max_steps=steps, bf16=True,
            use_cpu=True, max_grad_norm=settings.clip_norm or 0.0, seed=spec.seed, data_seed=spec.seed,
            remove_unused_columns=False, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            scored, arguments, data_collator=collate, train_dataset=list(range(len(rows))),
            optimizers=(optimizer, schedule),
        )  # fmt: skip
        with redirect_stdout(sys.stderr):  # its summary
            trainer.train()
