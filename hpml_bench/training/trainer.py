"""Trainer: assembles model, method, task and rows of a run, and has the only training loop; names no plug-in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from hpml_bench.config.settings import RunSpec, Settings
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.rows import Batch, Rows, global_batches, shard, training_rows
from hpml_bench.errors import Diverged
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.probe import Evaluation, Probe, Write
from hpml_bench.plugins.task import RETENTION, Task, make_task
from hpml_bench.records.run import Consumed
from hpml_bench.system import heartbeat
from hpml_bench.training.clock import clock
from hpml_bench.training.distributed import Group
from hpml_bench.training.evaluation import base_loss, evaluate
from hpml_bench.training.generation import Generator, make_generator
from hpml_bench.training.kernels import speed_up, store_frozen_as_bf16
from hpml_bench.training.model import TaskModel, build_model, is_large
from hpml_bench.training.optimization import lr_factor, make_optimizer, total_steps
from hpml_bench.training.precision import autocast, keep_trained_as_float32, make_scaler, set_float32_products
from hpml_bench.training.random_numbers import kept_generators
from hpml_bench.training.step_log import Entry, StepLog
from hpml_bench.training.windows import Windows

MOST_SKIPPED = 30
"""Steps in a row whose gradient may overflow in fp16: the scale of the loss, halved each time, begins at 2^16."""


@dataclass(frozen=True)
class Trained:
    """What a training used and reached."""

    consumed: Consumed
    optimized: int
    """Parameters that the optimizer has."""
    reached: int
    """Parameters that got a gradient, and so have a state in the optimizer."""


def _nowhere(_: object) -> None:
    """Write no points."""


class Trainer:
    """A run inside one rank: model, method, task and rows, and after `wrap` DDP, optimizer, schedule and log."""

    def __init__(
        self,
        spec: RunSpec,
        model: TaskModel,
        method: Method,
        task: Task,
        group: Group,
        train: Rows,
        validation: Rows,
        probes: Sequence[Probe] = (),
        write: Write = _nowhere,
    ) -> None:
        """Put the parts together; `Trainer.build` makes them."""
        self.generator: Generator | None = None
        self.retention: Rows | None = None
        self.base_loss: float | None = None
        self.spec, self.model, self.method, self.task, self.group = spec, model, method, task, group
        self.train_rows, self.validation, self.probes, self.write = train, validation, probes, write
        self.steps = total_steps(spec.settings, len(train))

    @classmethod
    def build(
        cls,
        spec: RunSpec,
        prepared: Prepared,
        group: Group,
        probes: Sequence[Probe] = (),
        write: Write = _nowhere,
    ) -> Self:
        """Assemble a run: open the rows, build the model, let the method initialise it from data.

        Args:
            spec: what to run.
            prepared: model and data on disk.
            group: this rank's place.
            probes: what is measured; they are started by whoever built the trainer.
            write: takes the points of each window.

        Raises:
            Unsupported: the method can't run with this backbone.
            UserError: the backbone can't be loaded, is too short for `max_length`, or an option is wrong.

        """
        settings = spec.settings
        train = training_rows(prepared, settings, spec.seed)
        validation = Rows(Path(prepared.data) / "validation", prepared.pad_id)
        method = make_method(spec.method)
        task = make_task(settings.task, prepared.label_names, prepared.facts)
        retention = Path(prepared.data) / RETENTION
        general = Rows(retention, prepared.pad_id) if task.retention else None
        before: list[float] = []

        def look(base: PreTrainedModel) -> None:
            if general is not None:
                speed_up(base, settings.device)  # as the model after it: the difference must not be of kernels
                before.append(base_loss(base, task, general, settings, group))

        set_float32_products(settings)
        folder = Path(prepared.backbone)
        loading = group.in_turn() if is_large(folder) else nullcontext()
        model = build_model(folder, spec, method, task, look, group.device, loading).to(group.device)
        torch.manual_seed(spec.seed * 1000 + group.rank)  # dropout differs between ranks, as it must
        trainer = cls(spec, model, method, task, group, train, validation, probes, write)
        trainer.generator = make_generator(task, prepared, settings, spec.seed)
        trainer.retention, trainer.base_loss = general, before[0] if before else None
        if not method.trains:
            return trainer
        batches = (train.batch(indices).to(group.device) for indices in trainer.order())
        with autocast(settings):
            method.before_train(model.encoder, batches, trainer.steps)
        keep_trained_as_float32(model)  # what was made anew from the data
        return trainer

    @property
    def settings(self) -> Settings:
        """The suite's settings."""
        return self.spec.settings

    def order(self) -> Iterator[np.ndarray]:
        """Yield the global batches' row indices."""
        return global_batches(self.train_rows.lengths, self.settings.global_batch, self.steps, self.spec.seed)

    def wrap(self) -> None:
        """Put the model under DDP, and make optimizer, schedule and log."""
        device = self.group.device
        if self.settings.precision == "bf16" and not self.method.reads_frozen_weights:
            store_frozen_as_bf16(self.model.encoder)
        self.ddp = DistributedDataParallel(
            self.model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
        self.optimizer = make_optimizer(self.model.encoder, self.model.head, self.spec.method, self.settings)
        self.parameters = [parameter for part in self.optimizer.param_groups for parameter in part["params"]]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: lr_factor(step, self.steps, self.settings)
        )
        self.scaler = make_scaler(self.settings)
        self._skipped = self._taken = 0
        self.log = StepLog(self.group, clock(device))
        for probe in self.probes:
            probe.wrapped(self.ddp)

    def step(self, index: int, indices: np.ndarray) -> None:
        """Take step `index` on this rank's shard of a global batch; it counts from the end of the step before.

        The gradient is that of the loss summed over the targets of the global batch, divided by their number, so that
        one rank and several, one micro-batch and several follow the same path. DDP takes the mean over ranks, for which
        the number is a rank's.
        """
        group, encoder = self.group, self.model.encoder
        heartbeat.beat(f"training step {index}")
        for probe in self.probes:
            probe.before_step(index)
        lr = float(self.optimizer.param_groups[0]["lr"])
        mine = shard(indices, group.rank, group.world)
        targets = max(1, int(self.train_rows.targets[indices].sum())) / group.world
        loss, real_tokens, padded_tokens = self._accumulate(mine, targets)
        self.scaler.unscale_(self.optimizer)
        for probe in self.probes:
            probe.after_backward(index)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if not self.scaler.is_enabled() or bool(norm.isfinite()):  # in fp16 a step may have been skipped
            self.method.after_step(encoder, index)
            self._taken += 1
        self.optimizer.zero_grad(set_to_none=True)
        virtual = len(mine) * self.model.virtual_tokens
        self.log.add(Entry(loss, norm, lr, len(mine), real_tokens, padded_tokens, virtual, targets))

    def _accumulate(self, mine: np.ndarray, targets: float) -> tuple[torch.Tensor, int, int]:
        """Add up the gradients of this rank's micro-batches; ranks exchange them with the last one.

        Returns the summed loss, and how many tokens there were, real and padded ones.
        """
        size = self._micro_batch(len(mine))
        total: torch.Tensor | None = None
        real_tokens = padded_tokens = 0
        for start in range(0, len(mine), size):
            last = start + size >= len(mine)
            batch = self.train_rows.batch(mine[start : start + size]).to(self.group.device)
            with nullcontext() if last else self.ddp.no_sync():
                loss = self._backward(batch, targets, with_auxiliary=last)
            total = loss if total is None else total + loss.detach()
            real_tokens += batch.real_tokens
            padded_tokens += batch.padded_tokens
        assert total is not None  # noqa: S101 - a shard has a row
        return total, real_tokens, padded_tokens

    def _backward(self, batch: Batch, targets: float, *, with_auxiliary: bool) -> torch.Tensor:
        """Add the gradient of a batch to those there are, and return its summed loss.

        What a method adds to the loss depends on its parameters alone, so it counts once a step.
        """
        with autocast(self.settings):
            outputs = self.ddp(batch.input_ids, batch.attention_mask, batch.labels, batch.learnt)
            loss = self.task.loss(outputs.float(), batch.labels)
            auxiliary = self.method.auxiliary_loss(self.model.encoder) if with_auxiliary else None
        # 1 / targets is where the gradient begins: a division of the loss would be two more operators in every step
        roots, begin = [loss], [self.scaler.scale(torch.full_like(loss, 1 / targets))]
        if auxiliary is not None:
            roots, begin = [*roots, auxiliary], [*begin, self.scaler.scale(torch.ones_like(auxiliary))]
        torch.autograd.backward(roots, begin)
        return loss

    def _micro_batch(self, share: int) -> int:
        """Return the samples of a forward pass; under torchrun nothing is tried out, so that `auto` is the share."""
        asked = self.settings.micro_batch
        return asked if isinstance(asked, int) else share

    def _first_epoch(self) -> Iterator[np.ndarray]:
        """Yield the global batches of the first epoch: later ones hold the same rows."""
        batches = Trainer.order(self)  # not that of a subclass, which may act along the way
        return islice(batches, max(1, len(self.train_rows) // self.settings.global_batch))

    def try_out(self) -> None:
        """Take two steps on the longest global batch: in the second the optimizer has its state.

        For a run that only shows whether it fits.
        """
        if not self.method.trains:
            return
        self.wrap()
        self.model.train()
        longest = max(self._first_epoch(), key=lambda indices: int(self.train_rows.lengths[indices].max()))
        for index in (1, 2):
            self.step(index, longest)

    def rehearse(self) -> None:
        """Run the longest batch of the first epoch forward and backward, without a step.

        What doesn't fit shows now, and the allocator and first uses are done before the first step. The model, its
        gradients and the random generators are left as they were.
        """
        size = self._micro_batch(self.settings.global_batch // self.group.world)
        shards = (shard(indices, self.group.rank, self.group.world) for indices in self._first_epoch())
        parts = (mine[start : start + size] for mine in shards for start in range(0, len(mine), size))
        longest = max(parts, key=lambda part: int(self.train_rows.lengths[part].max()))
        heartbeat.beat("rehearsing the longest batch")
        with kept_generators(), self.ddp.no_sync():
            self._backward(self.train_rows.batch(longest).to(self.group.device), 1.0, with_auxiliary=True)
        self.optimizer.zero_grad(set_to_none=True)

    def train(self) -> Trained:
        """Train, and evaluate on the validation rows along the way.

        Raises:
            Diverged: a loss or gradient norm is NaN or infinite; on all ranks alike.

        """
        if not self.method.trains:
            return self._as_it_is()
        self.wrap()
        order = hashlib.sha256()
        windows = Windows(self.settings, self.steps)
        self.model.train()
        self.rehearse()
        for probe in self.probes:
            probe.before_training()

        self.log.begin_window()
        for index, indices in enumerate(self.order(), start=1):
            order.update(self.train_rows.numbers(indices).astype("<i8").tobytes())
            self.step(index, indices)
            if not windows.ends_window(index):
                continue
            self._write_steps()
            if windows.evaluates(index):
                self.evaluate(self.validation, "validation", index)
            self.log.begin_window()
        if not self._taken:
            raise Diverged(f"the gradient overflowed in fp16 in each of the {self.log.steps} steps; none was taken")
        for probe in self.probes:
            probe.after_training()
        consumed = Consumed(
            steps=self.log.steps,
            samples=self.log.samples,
            real_tokens=self.log.real_tokens,
            padded_tokens=self.log.padded_tokens,
            order=order.hexdigest()[:16],
        )
        return Trained(
            consumed,
            optimized=sum(p.numel() for p in self.parameters),
            reached=sum(p.numel() for p in self.optimizer.state),
        )

    def _as_it_is(self) -> Trained:
        """Train nothing, and evaluate the validation rows once, as after a last step."""
        for probe in self.probes:
            probe.before_training()
        self.evaluate(self.validation, "validation", self.steps)
        for probe in self.probes:
            probe.after_training()
        consumed = Consumed(steps=0, samples=0, real_tokens=0, padded_tokens=0, order=hashlib.sha256().hexdigest()[:16])
        return Trained(consumed, optimized=0, reached=0)

    def _write_steps(self) -> None:
        """Reduce the steps since the last call and give them to the probes.

        Raises:
            Diverged: a loss or gradient norm is NaN or infinite; all ranks see the same numbers, and stop together.

        """
        window = self.log.reduce()
        scaled = self.scaler.is_enabled()
        good = [step for step in window if math.isfinite(step.loss) and (scaled or not step.overflowed)]
        self.write([point for probe in self.probes for point in probe.after_steps(good)])
        for step in window:
            if step not in good:
                raise Diverged(
                    f"the loss is {step.loss:g} and the gradient norm {step.grad_norm:g} at step {step.index}"
                )
            self._skipped = self._skipped + 1 if step.overflowed else 0
            if self._skipped > MOST_SKIPPED:
                raise Diverged(
                    f"the gradient overflows in fp16 whatever the loss is scaled by: {self._skipped} steps in a row "
                    f"were skipped up to step {step.index}"
                )

    def evaluate(self, rows: Rows, phase: str, step: int) -> Evaluation:
        """Evaluate every row exactly once and give the result to the probes."""
        for probe in self.probes:
            probe.before_eval(phase)
        scored = phase != "validation" or step == self.steps or self.settings.eval_every is not None
        generator = self.generator if scored else None
        evaluation = evaluate(self.model, self.task, rows, self.settings, self.group, phase, step, generator)
        self.write([point for probe in self.probes for point in probe.after_eval(evaluation)])
        self.group.barrier()
        return evaluation
