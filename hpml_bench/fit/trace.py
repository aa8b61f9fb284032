"""Trace of a run: its own build, rehearsal and training step on fake tensors, and the memory
they take.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpml_bench.data.prepared import Prepared
from hpml_bench.fit import depth
from hpml_bench.fit.depth import Few
from hpml_bench.fit.fake import MadeUp, describe, silent_ranks, stand_ins
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import make_method, quantization_of
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.settings import RunSpec
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.distributed import is_sharded, local, unequal_passes, whole
from hpml_bench.training.evaluation import rehearse_generation, rehearse_losses
from hpml_bench.training.model import CPU
from hpml_bench.training.trainer import Trainer

CUDA_BLOCK = 512
"""Bytes to whose multiples torch's allocator for CUDA rounds the sizes of tensors
(c10/cuda/CUDACachingAllocator).
"""
SCRATCH = 0.03
"""Share of a phase's memory above what is held, added for scratch memory of kernels, so that
packaged suites' methods are never below real steps on a CPU (benchmarks/fit_ratios.py);
docs/memory.md names PEFT's types that need more.
"""
# phase in which a sharded model is whole, whose peak grows with the depth by its own rule
AFTER = "after training"


class Live(NamedTuple):
    """Bytes alive at a moment, and how many of them are of logits."""

    bytes: int = 0
    logits: int = 0


class Peak(dict[Hashable, Live]):
    """Most bytes alive at a time in a phase, by what took the last of them: an operator, and its
    result's shape.
    """

    def reach(self, place: Hashable, live: Live) -> None:
        if live.bytes > self.get(place, Live()).bytes:
            self[place] = live

    @property
    def most(self) -> Live:
        return max(self.values(), default=Live())

    def grown(self, more: Peak, times: int) -> Peak:
        """Return the peak of a deeper model, by places that both have and by the largest
        (`Traced.grown`).
        """
        pairs = [(live, more[place]) for place, live in self.items() if place in more]
        pairs += [(self.most, more.most)] if self else []
        return Peak(
            {index: Live(*map(_further, *pair, repeat(times))) for index, pair in enumerate(pairs)}
        )


@dataclass
class Size:
    """Bytes of a storage, and how many of them are of logits: all or none."""

    bytes: int
    logits: int


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages, each once, from the operator that returns it first until nothing refers
    to it.
    """

    def __init__(
        self, block: int = 1
    ) -> None:  # the allocator's unit, to which sizes are rounded up
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.logits = 0
        self._operator: Any = None
        self._block, self._logit_elements = block, 0
        self._sizes: weakref.WeakKeyDictionary[Any, Size] = weakref.WeakKeyDictionary()
        self._peaks: list[Peak] = []

    @contextmanager
    def phase(self) -> Iterator[Peak]:
        peak = Peak({None: Live(self.live, self.logits)})
        self._peaks.append(peak)
        try:
            yield peak
        finally:
            self._peaks.remove(peak)

    def mark_logits(self, outputs: Tensor) -> None:
        """Count a model's outputs, and what is computed of their size from now on, as logits;
        but for losses [N].
        """
        if outputs.dim() == 1:
            return
        size = self._hold(outputs)
        self._logit_elements = outputs.numel()
        self.logits += size.bytes - size.logits
        size.logits = size.bytes

    @contextmanager
    def resizes(self) -> Iterator[None]:
        """Follow storages that are freed and allocated again in place, as FSDP's of whole
        weights.
        """
        own = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> None:
            own(storage, size)
            if (known := self._sizes.get(storage)) is not None:
                self.live += size - known.bytes
                known.bytes = size
                for peak in self._peaks:
                    peak.reach((resize, size), Live(self.live, self.logits))

        with mock.patch.object(torch.UntypedStorage, "resize_", resize):
            yield

    def _hold(self, tensor: Tensor) -> Size:
        storage = tensor.untyped_storage()
        if (known := self._sizes.get(storage)) is not None:
            return known
        taken = -(-storage.nbytes() // self._block) * self._block
        size = self._sizes[storage] = Size(
            taken, taken if tensor.numel() == self._logit_elements else 0
        )
        self.live += size.bytes
        self.logits += size.logits
        for peak in (
            self._peaks
        ):  # lists of a number per block, stacked, differ in their first dimension with the depth
            peak.reach((self._operator, tensor.shape[1:]), Live(self.live, self.logits))
        weakref.finalize(storage, self._release, size)
        return size

    def _release(self, size: Size) -> None:
        self.live -= size.bytes
        self.logits -= size.logits

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if DTensor in types:  # which calls operators on its part
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        self._operator = func
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not leaf.is_meta:
                self._hold(leaf)
        return result


@dataclass(frozen=True)
class OneRank(Group):
    """The first of the ranks of a process group that doesn't exist."""

    def barrier(self) -> None: ...


class Buckets(nn.Module):
    """DDP's memory: gradients are views of a buffer, copied to it when the backward pass has
    them.
    """

    def __init__(self, module: TaskModel) -> None:
        super().__init__()
        self.module = module
        self._trained = [weight for weight in module.parameters() if weight.requires_grad]
        self._exchanges = self._again = True
        self._exchanged = False
        self._views = self._buffer()
        for weight in self._trained:
            weight.register_post_accumulate_grad_hook(self._exchange)  # type: ignore[no-untyped-call]

    def _buffer(self) -> dict[Tensor, Tensor]:
        views: dict[Tensor, Tensor] = {}
        for kind in {weight.dtype: None for weight in self._trained}:  # a buffer has one type
            own = [weight for weight in self._trained if weight.dtype == kind]
            sizes = [weight.numel() for weight in own]
            views |= zip(own, torch.split(torch.empty(sum(sizes), dtype=kind), sizes), strict=True)
        return views

    def forward(self, *inputs: Any, **more: Any) -> Tensor:
        # DDP makes the buffer anew before the second pass that exchanges gradients, in the order in
        # which they came, and moves them there (torch/csrc/distributed/c10d/reducer.cpp:
        # `rebuild_buckets`, `initialize_bucket_views`)
        if self._exchanged and self._again and torch.is_grad_enabled():
            self._again = False
            self._views = {}
            self._views = self._buffer()
            for weight in self._trained:
                if weight.grad is not None:
                    self._move(weight)
        return cast(Tensor, self.module(*inputs, **more))

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self._exchanges = False
        yield
        self._exchanges = True

    def _exchange(self, weight: Tensor) -> None:
        if self._exchanges:
            self._exchanged = True
            self._move(weight)

    def _move(self, weight: Tensor) -> None:
        view, gradient = self._views[weight].view_as(weight), cast(Tensor, weight.grad)
        if gradient.untyped_storage() is not view.untyped_storage():
            view.copy_(gradient)
            weight.grad = view


@dataclass(frozen=True)
class Footprint:
    """Bytes of tensors of a run on one rank."""

    weights: int  # parameters and buffers, as they are stored while training
    gradients: int  # gradients of all trained parameters, which are in DDP's buckets
    optimizer: int
    # second gradients while DDP makes buckets anew between micro-batches, before there are
    # activations
    buckets: int
    logits: int  # logits with all that is computed of their size, at the step's peak
    # peak of a training step: weights, gradients, optimizer, logits, activations; 0: nothing is
    # trained
    step: int
    loading: int  # peak of loading: until weights have the types that they have in training
    # peak of an evaluation batch while training; of a sharded model, also when it is whole after it
    evaluation: int
    generation: int  # peak of a batch of answers while training; 0 where none are generated

    @property
    def held(self) -> int:
        return self.weights + self.gradients + self.optimizer

    @property
    def least(self) -> int:
        """Bytes that no smaller batch saves."""
        return max(self.held, self.loading)

    @property
    def activations(self) -> int:
        return max(0, self.step - self.held - self.logits)

    @property
    def peak(self) -> int:
        return max(self.loading, self.step, self.evaluation, self.generation)


class Traced(NamedTuple):
    """Bytes of a traced run: what it holds throughout, and its phases' peaks."""

    sizes: dict[str, int]  # weights, gradients, optimizer, buckets: as of `Footprint`
    peaks: dict[
        str, Peak
    ]  # loading, step, evaluation, generation: likewise; empty for a phase that there is not
    keeps_gradients: bool = True  # whether gradients stay between steps

    def footprint(self) -> Footprint:
        parts = ("weights", "optimizer", *(["gradients"] if self.keeps_gradients else []))
        held = sum(self.sizes[name] for name in parts)
        logits = (self.peaks["step"] or self.peaks["evaluation"]).most.logits
        peaks = {name: peak.most.bytes for name, peak in self.peaks.items()}
        loading = peaks.pop("loading")
        phases = {
            name: peak and peak + round(SCRATCH * (peak - held)) for name, peak in peaks.items()
        }
        phases["evaluation"] = max(phases["evaluation"], phases.pop(AFTER, 0))
        return Footprint(**self.sizes, **phases, logits=logits, loading=loading)

    def grown(self, more: Traced, times: int) -> Traced:
        """Return the bytes that are `times` as far beyond those of `more` as these are beyond
        these here.
        """
        sizes = {name: _further(size, more.sizes[name], times) for name, size in self.sizes.items()}
        peaks = {name: peak.grown(more.peaks[name], times) for name, peak in self.peaks.items()}
        return Traced(sizes, peaks, self.keeps_gradients)


def _further(one: int, other: int, times: int) -> int:
    return other + times * (other - one)


def trace(spec: RunSpec, prepared: Prepared, few: Few | None = None) -> Footprint:
    """Return the memory of a run of resolved settings on prepared rows, without weights; of `few`
    blocks, None: all.

    Raises Unsupported: it can't run with this backbone; UserError: config.json can't be read, an
    option is wrong.
    """
    if few is None:
        return _traced(spec, prepared, None).footprint()
    least, more = (_traced(spec, prepared, blocks) for blocks in few[:2])
    return least.grown(more, few.repetitions).footprint()


def blocks_that_tell(spec: RunSpec, prepared: Prepared) -> Few | None:
    """Return how many of the blocks that a method makes of a backbone's tell of all; None where
    only all do.
    """
    method = make_method(spec.method)
    settings = _on_cpu(spec).settings.model_copy(
        update={"quantization": quantization_of(method, spec.settings)}
    )
    with stand_ins("cpu"), FakeTensorMode(allow_non_fake_inputs=True), MadeUp("cpu"):
        kind = make_task(settings.task, prepared.label_names, prepared.facts).model_kind
        backbone = describe(Path(prepared.backbone), settings, kind, CPU)
        at_least = depth.WHOLE if is_sharded(settings) else 2
        return depth.few(depth.kinds(backbone.config, method.build(backbone)), at_least)


def _traced(spec: RunSpec, prepared: Prepared, blocks: int | None) -> Traced:
    device = spec.settings.device
    tracker = Tracker(1 if device == "cpu" else CUDA_BLOCK)
    with (
        stand_ins(device),
        silent_ranks(spec.settings),
        FakeTensorMode(allow_non_fake_inputs=True),
        tracker,
        tracker.resizes(),
        MadeUp(device),
    ):
        with tracker.phase() as loading:
            load = partial(describe, blocks=blocks, on_cpu=device == "cpu")
            run = assemble(
                _on_cpu(spec), prepared, OneRank(0, spec.settings.world_size or 1, CPU), load=load
            )
        run.model.register_forward_hook(
            lambda _model, _inputs, outputs: tracker.mark_logits(outputs)
        )
        if run.method.trains:
            found = trace_training(run, tracker)
        else:
            sizes = {"weights": tracker.live, "gradients": 0, "optimizer": 0, "buckets": 0}
            found = Traced(sizes, _evaluated(run, tracker))
        return found._replace(peaks=found.peaks | {"loading": loading})


def _on_cpu(spec: RunSpec) -> RunSpec:
    """Return a run with tensors of the same sizes on a CPU: fake ones on a GPU have no backward
    pass without driver.
    """
    settings = spec.settings
    same = {
        "device": "cpu",
        "precision": "fp32" if settings.precision == "tf32" else settings.precision,
    }
    return spec.model_copy(update={"settings": settings.model_copy(update=same)})


def trace_training(run: Assembly, tracker: Tracker) -> Traced:
    one = run.group.world == 1 or is_sharded(run.settings)
    trainer = Trainer(run, wrap=None if one else lambda model, _: Buckets(model))
    trainer.model.train()
    gradients = sum(local(weight).nbytes for weight in trainer.parameters)
    several = isinstance(trainer.wrapped, Buckets)
    weights = tracker.live - (gradients if several else 0)
    batches: list[np.ndarray] = trainer.largest()
    with trainer.stepped_nowhere(batches[0][: run.group.world]):
        held = several or any(weight.grad is not None for weight in trainer.parameters)
        optimizer = tracker.live - weights - (gradients if held else 0)
        with unequal_passes(run.model, run.group):
            peaks = _evaluated(run, tracker)
        with tracker.phase() as peaks["step"]:
            for batch in batches:
                trainer.step(1, batch)
    if is_sharded(
        run.settings
    ):  # test rows are evaluated with whole weights, without gradients and optimizer
        trainer.optimizer.zero_grad()
        with tracker.phase() as peaks[AFTER], whole(run.model):
            _evaluated(run, tracker)
    share = run.settings.global_batch // run.group.world
    buckets = gradients if several and run.settings.micro_batch not in {None, share} else 0
    sizes = {"weights": weights, "gradients": gradients, "optimizer": optimizer, "buckets": buckets}
    return Traced(sizes, peaks, held)


def _evaluated(run: Assembly, tracker: Tracker) -> dict[str, Peak]:
    """Return the peaks of all phases, of which those of an evaluation and of answers are there
    now.
    """
    peaks = {phase: Peak() for phase in ("step", "evaluation", "generation")}
    with tracker.phase() as peaks["evaluation"]:
        rehearse_losses(run, run.validation)
    if run.generator is not None:
        with tracker.phase() as peaks["generation"]:
            rehearse_generation(run, run.validation)
    return peaks
