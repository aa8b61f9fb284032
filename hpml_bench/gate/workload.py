"""Work of a resident: whole optimizer steps of the project's own training loop, timed and counted;
reference work.

Steps are taken on the same batches every time. Counts have no noise: they change only with the
code.
"""

import itertools
import os
import statistics
import sys
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared, global_batches
from hpml_bench.gate.machine import Stopwatch, seconds_of
from hpml_bench.plugins.group import Group, settle
from hpml_bench.plugins.probe import Step
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.system import environment
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import check_gpus, ddp, process_group
from hpml_bench.training.trainer import Trainer

BATCHES = 8  # number of batches, which are used again and again
# steps before those that count: the optimizer makes its state, DDP its buckets, the allocator its
# pools
WARM_UP = 3
SEED = 0
DELAY_REPEATS = 3  # timed passes over the batches; a delay is a share of a step's time in them
SYNCS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero")
"""Operators in which the host waits for a value; so it does in copies to it (`waits`)."""
CALIBRATIONS = 15  # repetitions of each kind of reference work, of which the median counts
MATRIX = 384  # rows of the square matrices multiplied as reference work
MEGABYTES = 16  # size of the copy; the all-reduce takes a quarter of it

os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # 0: any free one


class TimedMethod:
    """One method, ready to be trained."""

    def __init__(
        self, spec: MethodSpec, settings: Settings, prepared: Prepared, group: Group
    ) -> None:
        run = RunSpec(suite="check", settings=settings, method=spec, seed=SEED)
        assembly = assemble(run, prepared, group)
        rows, size = assembly.train_rows, settings.global_batch
        self.batches = list(
            global_batches(rows.lengths, size, min(BATCHES, len(rows) // size), SEED)
        )
        self.trainer = Trainer(
            assembly, wrap=ddp
        )  # one rank stands for several, whose gradients are exchanged
        self.trainer.model.train()
        self.taken: list[Step] = []  # the steps of the last run
        self._index = 0

    def run(self, steps: int, first: int = 0) -> tuple[float, float]:
        """Take optimizer steps from batch `first` on; return the seconds, and those in which
        others had the core.
        """
        # Time is measured as in a run: by the loop's own clock, from the start of the window to the
        # end of each step, summed. The stopwatch covers the same steps and gives only the time
        # waited, which the loop doesn't know.
        log = self.trainer.log
        log.begin_window()
        watch = Stopwatch()
        log.clock.start()  # once more, so that the watch's own reading isn't timed
        for indices in itertools.islice(itertools.cycle(self.batches), first, first + steps):
            self.step(indices)
        settle(self.trainer.group.device)
        _, waited = watch.read()
        self.taken = log.reduce()[-steps:]  # before them there may be untimed steps
        return sum(step.seconds for step in self.taken), waited

    def step(self, indices: np.ndarray) -> None:
        self._index += 1
        self.trainer.step(self._index, indices)

    def seconds(self, batch: int) -> float:
        """Take a step on a batch; return its time without waiting."""
        wall, waited = self.run(1, batch)
        return wall - waited

    def warm_up(self) -> float:
        """Take first steps; return the seconds that one takes then."""
        self.run(WARM_UP)
        return min(map(self.seconds, range(WARM_UP)))

    def usual(self) -> float:
        """Return the seconds that a step takes, on average over the batches; the median of
        several passes.
        """
        batches = range(len(self.batches))
        return statistics.median(
            statistics.fmean(map(self.seconds, batches)) for _ in range(DELAY_REPEATS)
        )

    def delay(self, seconds: float) -> None:
        """Follow each step by busy work of the processor that takes so long."""
        method = self.trainer.method
        after = type(method).after_step

        def after_step(encoder: Any, index: int) -> None:
            after(method, encoder, index)
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass

        method.after_step = after_step  # type: ignore[method-assign, assignment]


class Workload:
    """Requests that a resident answers; after `load`, about the methods of a comparison, in a
    group of one rank.
    """

    def describe(self) -> dict[str, Any]:
        return environment.describe()

    def prepare(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Prepare model and data with this side's own code; return a `Prepared`."""
        return prepare(Settings.model_validate(settings)).model_dump(mode="json")

    def load(
        self,
        settings: dict[str, Any],
        prepared: dict[str, Any],
        methods: list[dict[str, Any]],
        **_: object,
    ) -> None:
        """Build the methods; earlier versions of this protocol also send `delayable`."""
        chosen = Settings.model_validate(settings)
        if chosen.device == "cuda":
            check_gpus(1)
        torch.set_num_threads(chosen.threads or 1)
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        self._stay = ExitStack()  # in the process group: left with the process
        group = self._stay.enter_context(process_group(chosen))
        specs = [MethodSpec.model_validate(method) for method in methods]
        ready = Prepared.model_validate(prepared)
        self._jobs = {spec.name: TimedMethod(spec, chosen, ready, group) for spec in specs}

    def warm_up(self, core: int | None = None) -> dict[str, float]:
        """Stay on a core, where one is given, and take first steps; return each method's seconds
        per step.
        """
        if core is not None:
            for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names, not paths
                with suppress(OSError):  # it may have ended meanwhile
                    os.sched_setaffinity(int(thread), {core})
        return {name: job.warm_up() for name, job in self._jobs.items()}

    def delay(self, share: float, seconds: dict[str, float]) -> dict[str, float]:
        """Inject busy work into each method's steps (`selftest`): of these seconds, or a share of a
        step; return them.

        The reference takes no such request, so that it is left as it is.
        """
        taken = seconds or {name: share * job.usual() for name, job in self._jobs.items()}
        for name, job in self._jobs.items():
            job.delay(taken[name])
        return taken

    def run(self, method: str, steps: int, first: int = 0) -> tuple[float, float]:
        return self._jobs[method].run(steps, first)

    def counts(self, method: str) -> dict[str, Any]:
        """Return a method's quantities without noise, before any `run`: name -> {title, unit,
        value, tolerance, parts}.

        They are per step unless the unit says otherwise. `parts` is the same quantity, split by the
        names of its parts.
        """
        # Both sides count steps on the same first batches, each taken once.
        job = self._jobs[method]
        model = job.trainer.model
        job.run(WARM_UP)
        job.run(len(job.batches))
        padding = {
            f"batch {at}": step.padded_tokens - step.real_tokens
            for at, step in enumerate(job.taken)
        }
        share = sum(padding.values()) / sum(step.padded_tokens for step in job.taken)
        flops = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), flops:  # fused attention isn't counted on the CPU
            job.step(job.batches[0])
        by_operator = {
            str(operator): amount for operator, amount in flops.get_flop_counts()["Global"].items()
        }
        with _Operators() as operators:
            job.step(job.batches[0])
        parameters = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
        return {
            "trainable_parameters": _quantity("trainable parameters", "parameters", parameters),
            "flops_per_step": _quantity("floating-point operations", "FLOPs per step", by_operator),
            "operators_per_step": _quantity("operators", "calls per step", operators.calls),
            "host_syncs_per_step": _quantity(
                "waits of the host for a value", "per step", operators.syncs
            ),
            "collectives_per_step": _quantity(
                "collectives", "calls per step", operators.collectives
            ),
            "collective_bytes_per_step": _quantity(
                "bytes in collectives", "bytes per step", operators.bytes
            ),
            "padded_token_share": _quantity("padding", "of all tokens", padding, share),
            "tensor_memory": _memory(job, operators),
        }

    def calibrate(self) -> dict[str, float]:
        """Return the seconds of reference work, none of it ours: how fast the machine is; after
        `load`.
        """
        cuda = "nccl" in dist.get_backend()
        device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        matrix = torch.ones(MATRIX, MATRIX, device=device)
        memory = torch.ones(MEGABYTES << 18, device=device)
        target = torch.empty_like(memory)
        gradients = memory[: len(memory) // 4].clone()

        def median(work: Callable[[], object]) -> float:
            def once() -> None:
                work()
                settle(device)

            once()
            return statistics.median(seconds_of(once) for _ in range(CALIBRATIONS))

        return {
            "matrix_product": median(lambda: torch.mm(matrix, matrix)),
            "memory_copy": median(lambda: target.copy_(memory)),
            "all_reduce": median(lambda: dist.all_reduce(gradients)),
        }


def _quantity(
    title: str,
    unit: str,
    parts: Mapping[str, float],
    value: float | None = None,
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """Return a quantity; its value is the sum of its parts where none is given."""
    whole = float(sum(parts.values())) if value is None else value
    return {
        "title": title,
        "unit": unit,
        "value": whole,
        "tolerance": tolerance,
        "parts": dict(parts),
    }


def _memory(job: TimedMethod, operators: "_Operators") -> dict[str, Any]:
    """Return the peak of a step: of CUDA's allocator, or on a CPU of the tensors that operators
    return and keep.
    """
    device = job.trainer.group.device
    peak, tolerance = operators.peak, 0.0
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(device)
        job.step(job.batches[0])
        torch.cuda.synchronize()
        peak, tolerance = (
            torch.cuda.max_memory_allocated(device),
            0.01,
        )  # it rounds, and libraries keep workspaces
    return _quantity("peak memory of tensors", "bytes", operators.made, peak, tolerance)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, collectives and host syncs, and the memory that the tensors made by
    operators hold.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.syncs, self.collectives, self.bytes, self.made = (
            Counter[str]() for _ in range(5)
        )
        self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name
        where = f"{name} in {_caller()}"
        self.calls[where] += 1
        if name in SYNCS or waits(name, args, kwargs or {}):
            self.syncs[where] += 1
        if name.startswith(("c10d::", "_c10d_functional::")):
            self.collectives[where] += 1
            self.bytes[where] += sum(
                t.numel() * t.element_size() for t in tree_leaves(args) if torch.is_tensor(t)
            )
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and (storage := tensor.untyped_storage()) not in self._known:
                self._known.add(storage)
                size = storage.nbytes()
                self._grow(size)
                self.made[where] += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._grow, -size)
        return result

    def _grow(self, size: int) -> None:
        self.live += size


def waits(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator copies from a device to the host and waits for it."""
    # Copies to a device from memory that isn't pinned wait too, but their data is ready: not
    # counted.
    if name == "aten::_to_copy":
        source, target = args[0].device, torch.device(kwargs.get("device") or args[0].device)
        waited = not kwargs.get("non_blocking")
    elif name == "aten::copy_":
        target, source = args[0].device, args[1].device
        waited = not (kwargs.get("non_blocking") or args[2:] == (True,))
    else:
        return False
    return waited and source.type != "cpu" and target.type == "cpu"


def _caller() -> str:
    frame = sys._getframe(2)
    while frame.f_back and (
        "/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__
    ):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
