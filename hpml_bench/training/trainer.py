"""Trainer: the only training loop; names no plug-in."""

import gc
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from hpml_bench.data.prepared import MemoryNeed, largest, shard
from hpml_bench.plugins.group import settle
from hpml_bench.plugins.method import Method
from hpml_bench.plugins.probe import Evaluation, Probe, Step, Write
from hpml_bench.plugins.rows import Batch, Rows
from hpml_bench.records.run import Consumed
from hpml_bench.suite.schedule import Windows, lr_factor
from hpml_bench.system import heartbeat
from hpml_bench.system.errors import Diverged
from hpml_bench.training import checkpoint, distributed
from hpml_bench.training.assembly import Assembly, Selection
from hpml_bench.training.checkpoint import Checkpoints
from hpml_bench.training.clock import StepEntry, StepLog, clock
from hpml_bench.training.evaluation import evaluate, rehearse_generation, rehearse_losses
from hpml_bench.training.kernels import Casts, autocast, make_scaler
from hpml_bench.training.optimization import make_optimizer, parameters_in
from hpml_bench.training.trial import kept_generators

MARGIN = 0.05
"""Share of a GPU's memory that a try-out must leave: fragmentation differs between runs, and
shapes between steps.
"""
LOOKED_AT = (
    10_000  # most global batches that are searched for the largest ones before the first step
)
MOST_SKIPPED = 30
"""Most consecutive steps whose gradient may overflow in fp16: the loss scale, halved each time,
begins at 2^16.
"""


@dataclass(frozen=True)
class Trained:
    """Samples and tokens that a training consumed, and parameters that it reached."""

    consumed: Consumed
    optimized: int  # number of parameters in the optimizer
    reached: int  # number of parameters that got a gradient, and so have a state in the optimizer
    steps: Sequence[Step]


@contextmanager
def collected_by_hand() -> Iterator[None]:
    """Let nothing collect Python's garbage in the body but its own calls, so that no step waits
    for it.
    """
    gc.disable()
    gc.freeze()  # models and libraries, which a collection would look through each time
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@contextmanager
def explain_out_of_memory(batch: str, setting: str) -> Iterator[None]:
    """Note in an error for lack of memory which batch it was, and the setting that makes it
    smaller.
    """
    try:
        yield
    except Exception as error:
        if distributed.lacked_memory(error):
            error.add_note(f"no step was taken: it is the largest {batch}; lower {setting}")
        raise


class Evaluator:
    """An assembled run whose evaluations its probes get; it trains nothing by itself."""

    def __init__(
        self, run: Assembly, probes: Sequence[Probe] = (), write: Write = lambda _: None
    ) -> None:
        """Keep the run, and its probes, which have been started; `write` takes the points of
        each window.
        """
        self.assembly, self.probes, self.write = run, probes, write
        self.spec, self.model, self.method, self.task, self.group = (
            run.spec,
            run.model,
            run.method,
            run.task,
            run.group,
        )
        self.train_rows, self.validation = run.train_rows, run.validation
        self.settings, self.steps = run.settings, run.steps

    def evaluate(self, rows: Rows, phase: str, step: int) -> Evaluation:
        for probe in self.probes:
            probe.before_eval(phase)
        scored = phase != "validation" or step == self.steps or self.settings.eval_every is not None
        generator = self.assembly.generator if scored else None
        with distributed.unequal_passes(self.model, self.group) as group:
            evaluation = evaluate(
                replace(self.assembly, group=group, generator=generator), rows, phase, step
            )
        self.write([point for probe in self.probes for point in probe.after_eval(evaluation)])
        self.group.barrier()
        return evaluation

    def train(self) -> Trained:
        """Evaluate the validation rows once, as after a last step."""
        for probe in self.probes:
            probe.before_training()
        self.evaluate(self.validation, "validation", self.steps)
        for probe in self.probes:
            probe.after_training()
        consumed = Consumed(
            steps=0,
            samples=0,
            real_tokens=0,
            padded_tokens=0,
            order=hashlib.sha256().hexdigest()[:16],
        )
        return Trained(consumed, optimized=0, reached=0, steps=())


class Trainer(Evaluator):
    """A run with its model wrapped for several processes, optimizer, schedule and log."""

    def __init__(
        self,
        run: Assembly,
        probes: Sequence[Probe] = (),
        write: Write = lambda _: None,
        wrap: Callable[..., Any] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        super().__init__(run, probes, write)
        self.checkpoints = checkpoints
        self.seen: list[Step] = []  # all steps so far, those before a checkpoint too
        model, spec, settings = self.model, self.spec, self.settings
        self.wrapped = (
            wrap(model, self.group)
            if wrap
            else distributed.wrapped(model, self.group, settings.sharding)
        )
        self.optimizer = make_optimizer(model.encoder, model.head, spec.method, settings, spec.seed)
        own = parameters_in(self.optimizer.param_groups)
        self.parameters: list[torch.nn.Parameter] = getattr(self.optimizer, "weights", own)
        self.schedule = LambdaLR(self.optimizer, lambda step: lr_factor(step, self.steps, settings))
        self.scaler = make_scaler(settings)
        self.selection = Selection(run)
        self.cast = Casts(model.encoder, settings)
        self._may_skip = (
            self.scaler.is_enabled() and type(self.method).after_step is not Method.after_step
        )
        self._skipped = 0
        self.log = StepLog(self.group, clock(self.group.device))
        names = ("optimizer", "schedule", "scaler", "selection")
        self.stateful: dict[str, Any] = {name: getattr(self, name) for name in names}
        if isinstance(self.wrapped, DistributedDataParallel):
            for probe in self.probes:
                probe.wrapped(self.wrapped)

    def order(self) -> Iterator[np.ndarray]:
        return self.assembly.order()

    def step(self, index: int, indices: np.ndarray) -> None:
        """Take step `index` on this rank's shard of a global batch, timed from the end of the
        step before.
        """
        group = self.group
        heartbeat.beat(f"training step {index}")
        for probe in self.probes:
            probe.before_step(index)
        lr = float(self.optimizer.param_groups[0]["lr"])
        mine = shard(indices, group.rank, group.world)
        # the gradient is that of the mean over the global batch's targets; DDP takes the mean over
        # ranks
        targets = self.task.divisor(self.train_rows, indices) / group.world
        loss, real_tokens, padded_tokens = self._accumulate(mine, targets, f"training step {index}")
        self.scaler.unscale_(self.optimizer)
        for probe in self.probes:
            probe.after_backward(index)
        norm = distributed.clip_grad_norm(self.parameters, self.settings.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if not self._may_skip or bool(
            norm.isfinite()
        ):  # waits for the device, only where a method must know
            self.method.after_step(self.model.encoder, index)
        self._clear_gradients()
        virtual = len(mine) * self.model.virtual_tokens
        self.log.add(
            StepEntry(loss, norm, lr, len(mine), real_tokens, padded_tokens, virtual, targets)
        )

    def _accumulate(
        self, mine: np.ndarray, targets: float, progress: str
    ) -> tuple[torch.Tensor, int, int]:
        """Add up gradients of micro-batches, exchanged with the last one; return loss, real and
        padded tokens.
        """
        size = self._micro_batch(len(mine))
        total: torch.Tensor | None = None
        real_tokens = padded_tokens = 0
        for start in range(0, len(mine), size):
            if start:
                heartbeat.beat(progress)
            last = start + size >= len(mine)
            batch = self.train_rows.batch(mine[start : start + size]).to(self.group.device)
            no_sync = nullcontext if last else getattr(self.wrapped, "no_sync", nullcontext)
            with no_sync(), self.cast():
                loss = self._backward(batch, targets, with_auxiliary=last)
            total = loss if total is None else total + loss.detach()
            real_tokens += batch.real_tokens
            padded_tokens += batch.padded_tokens
        assert total is not None  # noqa: S101 - a shard has a row
        return total, real_tokens, padded_tokens

    def _backward(self, batch: Batch, targets: float, *, with_auxiliary: bool) -> torch.Tensor:
        """Add the gradient of a batch to those of earlier ones, and return its summed loss."""
        with autocast(self.settings):
            outputs = self.wrapped(
                batch.input_ids, batch.attention_mask, batch.labels, batch.learnt, **batch.more
            )
            loss = self.task.loss(outputs.float(), batch.labels)
            del outputs  # half-precision logits beside those in float32, through the backward pass
            terms = [(loss, 1 / targets)]
            if (
                with_auxiliary
                and (term := self.method.auxiliary_loss(self.model.encoder)) is not None
            ):
                terms.append((term, 1.0))  # of the method's parameters: once per step
            if (term := self.model.auxiliary) is not None:  # a mean over the batch
                terms.append(
                    (term, len(batch.labels) * self.group.world / self.settings.global_batch)
                )
        # gradients begin with the factors: multiplying the losses would be two more operators in
        # every step
        begin = [self.scaler.scale(torch.full_like(term, factor)) for term, factor in terms]
        torch.autograd.backward([term for term, _ in terms], begin)
        return loss

    def _micro_batch(self, share: int) -> int:
        """Return the samples per forward pass; under torchrun nothing is tried out, so that
        `auto` is the share.
        """
        setting = self.settings.micro_batch
        return setting if isinstance(setting, int) else share

    def _clear_gradients(self) -> None:
        """Set gradients to 0, in DDP's buckets, if micro-batches follow; else to none, which
        saves a pass over them.
        """
        share = self.settings.global_batch // self.group.world
        self.optimizer.zero_grad(set_to_none=self._micro_batch(share) == share)

    def largest(self) -> list[np.ndarray]:
        """Return the global batches with the micro-batches that need most memory on a rank; the
        same on all ranks.
        """
        rows, world = self.train_rows, self.group.world
        size = self._micro_batch(self.settings.global_batch // world)

        def need(indices: np.ndarray) -> MemoryNeed:
            parts = indices.reshape(-1, world).T.reshape(-1, size)  # those of all ranks
            return MemoryNeed(
                size * int(rows.lengths[parts].max()), int(rows.targets[parts].sum(1).max())
            )

        return largest(
            (need(indices), indices) for indices in islice(self.assembly.order(), LOOKED_AT)
        )

    def rehearse(self) -> None:
        """Run the largest batches with the optimizer's state, so that lack of memory shows; it
        changes no step.
        """
        group, batches = self.group, self.largest()
        with kept_generators(), self.stepped_nowhere(batches[0][: group.world]):
            with distributed.unequal_passes(self.model, group):
                self._rehearse_evaluations()
            distributed.release(group.device)  # training reserves memory by its own needs
            progress = "rehearsing the largest batch"
            for indices in batches:
                heartbeat.beat(progress)
                with explain_out_of_memory("training batch", "micro_batch"):
                    self._accumulate(shard(indices, group.rank, group.world), 1.0, progress)
                self._clear_gradients()
        if distributed.is_sharded(self.settings):  # as after training
            self.optimizer.zero_grad()
            with kept_generators(), distributed.whole(self.model):
                self._rehearse_evaluations()
            distributed.release(group.device)
        settle(
            group.device
        )  # readings before the first step, such as energy, must not contain this

    def _rehearse_evaluations(self) -> None:
        with explain_out_of_memory("evaluation batch", "eval_batch"):
            rehearse_losses(self.assembly, self.assembly.validation)
            rehearse_generation(self.assembly, self.assembly.validation)

    @contextmanager
    def stepped_nowhere(self, indices: np.ndarray) -> Iterator[None]:
        """Create the optimizer's state for the body, by a step at rate 0 with gradients of 0."""
        # `indices` has a row for each rank: their gradients use DDP's buckets, so that none take
        # memory beside them
        self._accumulate(shard(indices, self.group.rank, self.group.world), 1.0, "rehearsing a row")
        self.optimizer.zero_grad(set_to_none=False)
        kept = [
            {key: value for key, value in part.items() if key != "params"}
            for part in self.optimizer.param_groups
        ]
        for part in self.optimizer.param_groups:
            part["lr"] = 0.0
        self.optimizer.step()
        for part, values in zip(self.optimizer.param_groups, kept, strict=True):
            part.update(values)
        self._clear_gradients()
        yield
        self.optimizer.state.clear()

    def train(self) -> Trained:
        order = hashlib.sha256()
        windows = Windows(self.settings, self.steps)
        self.model.train()
        self.rehearse()
        for probe in self.probes:
            probe.before_training()
        self._go_on()
        with collected_by_hand():
            self._take_steps(order, windows, len(self.seen))
        if all(step.overflowed for step in self.seen):
            raise Diverged(
                f"the gradient overflowed in fp16 in each of the {len(self.seen)} steps; none was "
                f"taken"
            )
        self.selection.restore()  # before what probes measure after it, such as forgetting
        own = parameters_in(self.optimizer.param_groups)
        pairs = zip(self.parameters, own, strict=True)
        reached = sum(
            weight.numel() for weight, parameter in pairs if parameter in self.optimizer.state
        )
        if distributed.is_sharded(self.settings):
            # beside whole weights there may be no room for it, and for gradients
            self.optimizer.state.clear()
            self.optimizer.zero_grad()
            distributed.end_sharding(self.model)
        for probe in self.probes:
            probe.after_training()
        consumed = Consumed(
            steps=len(self.seen),
            samples=sum(step.samples for step in self.seen),
            real_tokens=sum(step.real_tokens for step in self.seen),
            padded_tokens=sum(step.padded_tokens for step in self.seen),
            order=order.hexdigest()[:16],
            planned=self.steps if self.settings.select == "early" else None,
        )
        return Trained(
            consumed,
            optimized=sum(p.numel() for p in self.parameters),
            reached=reached,
            steps=self.seen,
        )

    def _take_steps(self, order: "hashlib._Hash", windows: Windows, begun: int) -> None:
        """Take the steps after those of a checkpoint; garbage is collected between windows,
        which is not timed.
        """
        self.log.begin_window()
        for index, indices in enumerate(self.order(), start=1):
            order.update(self.train_rows.numbers[indices].astype("<i8").tobytes())
            if index <= begun or self.selection.ended:
                continue
            self.step(index, indices)
            if not windows.ends_window(index):
                continue
            self._write_steps()
            if windows.evaluates(index):
                self.selection.see(self.evaluate(self.validation, "validation", index))
            if self.checkpoints is not None:
                self.checkpoints.end_window(self.seen, partial(checkpoint.state_of, self))
            gc.collect()
            self.log.begin_window()

    def _write_steps(self) -> None:
        """Give the probes the steps since the last call; where one diverged, all ranks see it
        and stop together.
        """
        window = self.log.reduce()
        if self.checkpoints is not None and self.checkpoints.begun:
            warm = self.checkpoints.begun + self.settings.warmup_steps
            window = [replace(step, again=step.index <= warm) for step in window]
        scaled = self.scaler.is_enabled()
        good = [
            step for step in window if math.isfinite(step.loss) and (scaled or not step.overflowed)
        ]
        self.write([point for probe in self.probes for point in probe.after_steps(good)])
        for step in window:
            if step not in good:
                raise Diverged(
                    f"the loss is {step.loss:g} and the gradient norm {step.grad_norm:g} at step "
                    f"{step.index}"
                )
            self._count(step)
            if self._skipped > MOST_SKIPPED:
                raise Diverged(
                    "the gradient overflows in fp16 whatever the loss is scaled by: "
                    f"{self._skipped} steps in a row were skipped up to step {step.index}"
                )

    def _count(self, step: Step) -> None:
        self.seen.append(step)
        self.log.steps = step.index
        self._skipped = self._skipped + 1 if step.overflowed else 0

    def _go_on(self) -> None:
        """Go on from the newest checkpoint, if there is one; its state is in memory no longer
        than that takes.
        """
        state = None if self.checkpoints is None else self.checkpoints.newest()
        for step in () if state is None else checkpoint.load(self, state):
            self._count(step)


def make_trainer(
    run: Assembly, probes: Sequence[Probe], write: Write, checkpoints: Checkpoints | None = None
) -> Evaluator:
    return (
        Trainer(run, probes, write, None, checkpoints)
        if run.method.trains
        else Evaluator(run, probes, write)
    )


def trial_steps(run: Assembly) -> None:
    """Rehearse and take two steps with a margin of the GPU's memory left free, to test whether
    the run fits.
    """
    if not run.method.trains:
        return
    distributed.leave_free(MARGIN, run.group.device)
    trainer = Trainer(run)
    trainer.model.train()
    trainer.rehearse()
    for index in (1, 2):
        trainer.step(index, trainer.largest()[0])
