"""The only training loop, and exact evaluation. It knows no method and no probe by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from hpml_bench.config.settings import MethodSpec, Settings
from hpml_bench.data.rows import Rows, global_batches, share
from hpml_bench.errors import Diverged
from hpml_bench.records.run import Consumed, Point
from hpml_bench.system import heartbeat
from hpml_bench.training.borders import Borders
from hpml_bench.training.clock import Clock, clock, second_clock, settle
from hpml_bench.training.distributed import Group
from hpml_bench.training.kernels import store_frozen_as_bf16
from hpml_bench.training.model import Classifier
from hpml_bench.training.probe import Evaluation, Probe, Step

Write = Callable[[list[Point]], None]


def total_steps(settings: Settings, rows: int) -> int:
    """Return the number of optimizer steps: `steps`, or whole global batches x epochs."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None  # noqa: S101 - Settings has exactly one of the two
    return settings.epochs * (rows // settings.global_batch)


def autocast(settings: Settings) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bf16 autocast, or nothing."""
    if settings.precision != "bf16":
        return nullcontext()
    return torch.autocast(settings.device, dtype=torch.bfloat16)


def make_optimizer(classifier: Classifier, method: MethodSpec, settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW over the method's trainable parameters at its learning rate and the head at the suite's."""
    encoder = [parameter for parameter in classifier.encoder.parameters() if parameter.requires_grad]
    groups = [
        {"params": encoder, "lr": method.lr},
        {"params": list(classifier.head.parameters()), "lr": settings.head_lr},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def lr_factor(step: int, steps: int, settings: Settings) -> float:
    """Return what the learning rates are multiplied by in step `step` (from 0): linear warm-up, then the schedule."""
    warmup = math.ceil(settings.lr_warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if settings.schedule == "constant" else (steps - step) / max(1, steps - warmup)


def step_seconds(ranks: np.ndarray) -> np.ndarray:
    """Return the seconds of a window's steps, [steps], from those of each rank, [world, steps].

    A step ends when the slowest rank has ended it, counted from the window's border; its seconds are the difference to
    the step before. So they add up to the slowest rank's time of the window, whichever rank was slow in which step.
    """
    seconds: np.ndarray = np.diff(ranks.cumsum(axis=1).max(axis=0), prepend=0.0)
    return seconds


@dataclass
class Ledger:
    """What this rank did since the last look; read and reduced outside the timed part."""

    group: Group
    clock: Clock
    samples: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    steps: int = 0
    _rows: list[tuple[torch.Tensor, torch.Tensor, float, int, int, int, int]] = field(default_factory=list)
    _began: float = field(default_factory=second_clock)
    """Of the window, by the second clock."""

    def border(self) -> None:
        """Begin a window: all ranks and their devices wait for each other, then their clocks start."""
        self.group.barrier()
        settle(self.group.device)
        self._began = second_clock()
        self.clock.start()

    def add(self, loss: torch.Tensor, norm: torch.Tensor, lr: float, counts: tuple[int, int, int, int]) -> None:
        """Note one step, and that it ends here; the tensors stay on their device, so that nothing waits."""
        self._rows.append((loss, norm, lr, *counts))
        self.clock.lap()

    def reduce(self) -> list[Step]:
        """Return the steps since the last call, reduced over ranks by one gather: the same on all ranks."""
        settle(self.group.device)
        window = second_clock() - self._began
        rows, self._rows = self._rows, []
        losses = torch.stack([row[0].detach().double() for row in rows]).cpu()
        norms = torch.stack([row[1].detach().double() for row in rows]).cpu()
        rest = torch.tensor([[*row[2:], window] for row in rows], dtype=torch.float64)
        seconds = torch.tensor(self.clock.take(), dtype=torch.float64)
        local = torch.cat([losses[:, None], norms[:, None], seconds[:, None], rest], dim=1)
        everyone = self.group.gather(local.to(self.group.device)).numpy()  # [world, steps, 9]
        slowest = step_seconds(everyone[:, :, 2])
        found = [self._step(everyone[:, row], float(slowest[row])) for row in range(len(rows))]
        found[-1] = replace(found[-1], second_clock=float(everyone[:, -1, 8].max()))
        return found

    def _step(self, ranks: np.ndarray, seconds: float) -> Step:
        """Reduce one step, [world, 9]."""
        self.steps += 1
        samples, real, padded, virtual = (int(total) for total in ranks[:, 4:8].sum(axis=0))
        self.samples += samples
        self.real_tokens += real
        self.padded_tokens += padded
        return Step(
            index=self.steps,
            loss=float(ranks[:, 0].mean()),
            grad_norm=float(ranks[0, 1]),
            lr=float(ranks[0, 3]),
            seconds=seconds,
            rank_seconds=tuple(float(value) for value in ranks[:, 2]),
            samples=samples,
            real_tokens=real,
            padded_tokens=padded,
            virtual_tokens=virtual,
        )


@dataclass(frozen=True)
class Training:
    """All the loop needs."""

    classifier: Classifier
    method: MethodSpec
    module: ModuleType
    """The method's file, for its optional verbs."""
    settings: Settings
    seed: int
    group: Group
    train: Rows
    validation: Rows
    probes: Sequence[Probe]
    write: Write

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return total_steps(self.settings, len(self.train))

    def order(self) -> Iterator[np.ndarray]:
        """Yield the global batches' row indices."""
        return global_batches(self.train.lengths, self.settings.global_batch, self.steps, self.seed)


@dataclass(frozen=True)
class Trained:
    """What a training used and reached."""

    consumed: Consumed
    optimized: int
    """Parameters that the optimizer has."""
    reached: int
    """Parameters that got a gradient, and so have a state in the optimizer."""


class Stepper:
    """Takes the optimizer steps of a training: its model under DDP, optimizer, schedule and ledger."""

    def __init__(self, job: Training) -> None:
        group, steps = job.group, job.steps
        self.job = job
        reads = getattr(job.module, "reads_frozen_weights", None)
        if job.settings.precision == "bf16" and not (reads and reads(job.method.options)):
            store_frozen_as_bf16(job.classifier.encoder)
        self.ddp = DistributedDataParallel(
            job.classifier,
            device_ids=[group.device.index] if group.device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
        self.optimizer = make_optimizer(job.classifier, job.method, job.settings)
        self.parameters = [parameter for part in self.optimizer.param_groups for parameter in part["params"]]
        self.penalty, self.after_step = (getattr(job.module, verb, None) for verb in ("penalty", "after_step"))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: lr_factor(step, steps, job.settings)
        )
        self.ledger = Ledger(group, clock(group.device))
        for probe in job.probes:
            probe.wrapped(self.ddp)

    def step(self, index: int, indices: np.ndarray) -> None:
        """Take step `index` on this rank's share of a global batch; it counts from the end of the step before."""
        job, optimizer, ledger = self.job, self.optimizer, self.ledger
        encoder, group, penalty = job.classifier.encoder, job.group, self.penalty
        heartbeat.beat(f"training step {index}")
        for probe in job.probes:
            probe.before_step(index)
        lr = float(optimizer.param_groups[0]["lr"])
        batch = job.train.batch(share(indices, group.rank, group.world)).to(group.device)
        with autocast(job.settings):
            logits = self.ddp(batch.input_ids, batch.attention_mask)
            loss = cross_entropy(logits.float(), batch.labels)
            extra = penalty(encoder) if penalty else None
        (loss if extra is None else loss + extra).backward()
        for probe in job.probes:
            probe.after_backward(index)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, job.settings.clip_norm or math.inf)
        optimizer.step()
        self.schedule.step()
        if self.after_step:
            self.after_step(encoder, index)
        optimizer.zero_grad(set_to_none=True)
        size = len(batch.labels)
        counts = (size, batch.real_tokens, batch.padded_tokens, size * job.classifier.virtual_tokens)
        ledger.add(loss, norm, lr, counts)


def train(job: Training) -> Trained:
    """Train and evaluate on the validation rows along the way.

    The gradient of a global batch is the mean of the ranks' means over equal shares, so that one rank and several
    follow the same path.

    Raises:
        Diverged: a loss or gradient norm is NaN or infinite; on all ranks alike.

    """
    settings, group, steps = job.settings, job.group, job.steps
    stepper = Stepper(job)
    ledger, optimizer = stepper.ledger, stepper.optimizer
    order = hashlib.sha256()
    borders = Borders(settings, steps)
    job.classifier.train()
    for probe in job.probes:
        probe.before_training()

    ledger.border()
    for index, indices in enumerate(job.order(), start=1):
        order.update(job.train.numbers(indices).astype("<i8").tobytes())
        stepper.step(index, indices)
        if not borders.ends_window(index):
            continue
        _write_steps(job, ledger)
        if borders.evaluates(index):
            evaluate(job.classifier, job.validation, settings, group, job.probes, job.write, "validation", index)
        ledger.border()
    for probe in job.probes:
        probe.after_training()
    consumed = Consumed(
        steps=ledger.steps,
        samples=ledger.samples,
        real_tokens=ledger.real_tokens,
        padded_tokens=ledger.padded_tokens,
        order=order.hexdigest()[:16],
    )
    return Trained(
        consumed,
        optimized=sum(p.numel() for group in optimizer.param_groups for p in group["params"]),
        reached=sum(p.numel() for p in optimizer.state),
    )


def _write_steps(job: Training, ledger: Ledger) -> None:
    """Reduce the steps since the last call and give them to the probes.

    Raises:
        Diverged: a loss or gradient norm is NaN or infinite; all ranks see the same numbers, and stop together.

    """
    window = ledger.reduce()
    finite = [step for step in window if math.isfinite(step.loss + step.grad_norm)]
    job.write([point for probe in job.probes for point in probe.after_steps(finite)])
    for step in window:
        if step not in finite:
            raise Diverged(f"the loss is {step.loss:g} and the gradient norm {step.grad_norm:g} at step {step.index}")


def evaluate(
    classifier: Classifier,
    rows: Rows,
    settings: Settings,
    group: Group,
    probes: Sequence[Probe],
    write: Write,
    phase: str,
    step: int,
) -> Evaluation:
    """Evaluate every row exactly once, whatever the number of ranks, and give the result to the probes."""
    for probe in probes:
        probe.before_eval(phase)
    classifier.eval()
    group.barrier()
    watch = clock(group.device)
    watch.start()
    local = _predict(classifier, rows, settings, group)
    watch.lap()
    seconds = group.gather(torch.tensor(watch.take(), dtype=torch.float64)).max().item()
    classifier.train()
    everyone = group.gather(local).flatten(0, 1).numpy()  # [world * share, 3]
    everyone = everyone[everyone[:, 0] >= 0]
    everyone = everyone[np.argsort(everyone[:, 0], kind="stable")]
    if not np.array_equal(everyone[:, 0], np.arange(len(rows))):
        raise RuntimeError(f"the {phase} rows were not evaluated exactly once each")
    evaluation = Evaluation(
        phase=phase,
        step=step,
        labels=rows.labels,
        predictions=everyone[:, 1].astype(np.int64),
        losses=everyone[:, 2],
        seconds=seconds,
    )
    write([point for probe in probes for point in probe.after_eval(evaluation)])
    group.barrier()
    return evaluation


@torch.no_grad()
def _predict(classifier: Classifier, rows: Rows, settings: Settings, group: Group) -> torch.Tensor:
    """Return (row index, prediction, loss) of this rank's rows, [ceil(n / world), 3] float64; index -1 fills up."""
    mine = np.arange(group.rank, len(rows), group.world)
    mine = mine[np.argsort(rows.lengths[mine], kind="stable")]  # like lengths together: little padding
    local = torch.full((math.ceil(len(rows) / group.world), 3), -1.0, dtype=torch.float64, device=group.device)
    with autocast(settings):  # one for all batches: it keeps the casts of trained weights, for all methods alike
        for start in range(0, len(mine), settings.eval_batch):
            heartbeat.beat(f"evaluation, batch {start // settings.eval_batch + 1}")
            part = mine[start : start + settings.eval_batch]
            batch = rows.batch(part).to(group.device)
            logits = classifier(batch.input_ids, batch.attention_mask).float()
            where = slice(start, start + len(part))
            local[where, 0] = torch.from_numpy(part).to(local)
            local[where, 1] = logits.argmax(dim=-1).to(local)
            local[where, 2] = cross_entropy(logits, batch.labels, reduction="none").to(local)
    return local
