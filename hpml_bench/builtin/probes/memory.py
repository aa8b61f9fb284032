"""Peak memory of each phase and rank: of the process on the CPU; allocated, reserved and used on
the GPU.
"""

import ctypes
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Finished, Probe, Run
from hpml_bench.records.run import Metric, Point
from hpml_bench.system.gpus import reading
from hpml_bench.system.processes import memory_mb

PHASES = ("setup", "train", "evaluation")
HUGE_PAGE_MB = 2.097152
"""2 MiB: the kernel gives a process memory in huge pages where it can, and the allocator asks
for them.
"""
CUDA_BLOCK_MB = (
    0.000512  # 512 bytes: torch's allocator rounds the sizes of tensors up to multiples of this
)
_KINDS: dict[str, tuple[str, float | None, str]] = {
    "host": (
        "host memory",
        HUGE_PAGE_MB,
        "Peak resident memory of a rank's process (VmHWM, reset between phases), libraries "
        "included; of training, a stretch after a validation that needed more counts if it reaches "
        "higher still; of evaluation, that of the test rows",
    ),
    "cuda_allocated": (
        "CUDA allocated",
        CUDA_BLOCK_MB,
        "Peak of memory held by tensors (torch.cuda.max_memory_allocated)",
    ),
    "cuda_reserved": (
        "CUDA reserved",
        HUGE_PAGE_MB,
        "Peak of memory held by PyTorch's allocator (torch.cuda.max_memory_reserved); what an "
        "earlier phase reserved stays with it",
    ),
    "nvml_used": (
        "GPU memory in use",
        None,
        "Memory in use on the rank's GPU as NVML says, the largest reading at the ends of the "
        "phase: contexts, caches and other processes included",
    ),
}
"""Title, granularity in MB and definition of each kind of memory; torch reserves small blocks 2
MiB at a time; the granularity of NVML is unknown.
"""


def _metric(name: str, title: str, definition: str, grid: float | None = HUGE_PAGE_MB) -> Metric:
    return Metric.define(
        name,
        title,
        "MB",
        "lower",
        ",.0f",
        f"{definition} The largest rank's; 1 MB = 10^6 bytes.",
        over_ranks="max",
        over_steps="max",
        phase="train",
        grid=grid,
        group="memory",
        depends_on_machine=True,
    )


METRICS = (
    _metric(
        "peak_memory_mb",
        "peak memory",
        "Peak of the training phase: on a GPU memory held by tensors "
        "(torch.cuda.max_memory_allocated), on a CPU "
        "resident memory of the process (VmHWM), libraries included.",
    ),
    _metric(
        "peak_memory_over_setup_mb",
        "peak memory over set-up",
        "Peak of the training phase less what the process held right before the first step: what "
        "training itself needs, such as activations, gradients and the optimizer's state, and "
        "whatever it touches for the first time. Weights, and libraries as far as they were "
        "loaded, are not in it. On a CPU only.",
    ),
    _metric(
        "host_before_training_mb",
        "host memory before training",
        "Resident memory of a rank's process (VmRSS) right before the first step, with model, "
        "optimizer and DDP ready and what was free given back to the kernel. On a CPU only.",
    ),
    *(
        _metric(f"{kind}_{phase}_mb", f"{title}, {phase}", f"{definition}; {phase} phase.", grid)
        for kind, (title, grid, definition) in _KINDS.items()
        for phase in PHASES
    ),
)


class MemoryProbe(Probe):
    """Reads the peaks at the end of each phase, then resets them.

    On a CPU a phase starts with the memory that the allocator kept from the one before, unless that
    is given back to the kernel; then every page has to be allocated again, which costs more than
    all other probes together. So memory is given back outside the loop only, before the first step
    and around the test rows: the evaluation's peak is that of the test rows, and a stretch of
    training after a validation with a higher peak counts only if its own is higher.
    """

    metrics = METRICS

    def start(self, run: Run) -> None:
        super().start(run)
        self.device = run.group.device
        self.peaks: dict[str, float] = {}
        self._start_mb: float | None = None
        self._validation_peak = (
            0.0  # the highest peak of a validation, whose memory the allocator may have kept
        )
        self._saved = False  # whether a state was saved or loaded since the last step

    def before_training(self) -> None:
        was_reset = self._take("setup", trim=True)
        if self.device.type == "cpu" and was_reset:
            self._start_mb = memory_mb("self", "VmRSS") or math.nan

    def before_step(self, index: int) -> None:
        """Give back what saving or loading a state took, which is no need of the training."""
        if self._saved:
            self._take("between", trim=True)
            self._saved = False

    def before_eval(self, phase: str) -> None:
        """End of a stretch of training; before the test evaluation freed memory goes back to the
        kernel.
        """
        if phase == "validation":
            self._end_stretch()
        else:
            self._take("between", trim=True)

    def _end_stretch(self) -> None:
        reached = host_peak_mb()
        counts = (
            self._validation_peak <= self.peaks.get("host_train", 0.0)
            or reached > self._validation_peak
        )
        self._take("train", keep_host=counts)

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "validation":
            self._validation_peak = max(self._validation_peak, host_peak_mb())
            self._take("evaluation", keep_host=False)
        else:
            self._take("evaluation", trim=True)
        return []

    def state(self) -> dict[str, Any]:
        self._end_stretch()
        self._saved = True
        return {
            "peaks": self.peaks,
            "start_mb": self._start_mb,
            "validation_peak": self._validation_peak,
        }

    def load(self, state: dict[str, Any], step: int) -> None:
        """Take the larger peaks of both; what was held before training is the first start's."""
        self.peaks |= {
            key: max(value, self.peaks.get(key, 0.0)) for key, value in state["peaks"].items()
        }
        self._start_mb, self._validation_peak, self._saved = (
            state["start_mb"],
            state["validation_peak"],
            True,
        )

    def stop(self) -> dict[str, Any]:
        headline = "cuda_allocated" if self.device.type == "cuda" else "host"
        peak = self.peaks.get(f"{headline}_train")
        return {
            "peak_memory_mb": peak,
            "peak_memory_over_setup_mb": None
            if peak is None or self._start_mb is None
            else peak - self._start_mb,
            "host_before_training_mb": self._start_mb,
            **{
                f"{kind}_{phase}_mb": self.peaks.get(f"{kind}_{phase}")
                for kind in _KINDS
                for phase in PHASES
            },
        }

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        names = ("host_train_mb", "host_before_training_mb")
        peaks, held = (
            run.per_rank.get(name, (run.metrics.get(name),)) for name in names
        )  # one rank's are the run's
        over = [
            math.nan if a is None or b is None else a - b for a, b in zip(peaks, held, strict=False)
        ]
        headline = "cuda_allocated" if run.settings.device == "cuda" else "host"
        peak = run.value(f"{headline}_train_mb")
        return {"peak_memory_mb": peak, "peak_memory_over_setup_mb": max(over, default=math.nan)}

    def definitions(self) -> tuple[Metric, ...]:
        """Return the definitions; on a GPU the headline peak has the granularity of CUDA's
        allocator.
        """
        if self.device.type == "cpu":
            return self.metrics
        block = {"grid": CUDA_BLOCK_MB}
        return tuple(
            m.model_copy(update=block) if m.name == "peak_memory_mb" else m for m in self.metrics
        )

    def _take(self, phase: str, *, trim: bool = False, keep_host: bool = True) -> bool:
        """Add the peaks since the last call to a phase and reset them; return whether the host's
        could be reset.
        """
        readings = {"host": host_peak_mb()} if keep_host else {}
        if trim:
            trim_heap()
        was_reset = reset_host_peak()
        if self.device.type == "cuda":
            import torch

            from hpml_bench.training.distributed import uuid

            readings["cuda_allocated"] = torch.cuda.max_memory_allocated(self.device) / 1e6
            readings["cuda_reserved"] = torch.cuda.max_memory_reserved(self.device) / 1e6
            readings["nvml_used"] = nvml_used_mb(uuid(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        for kind, value in readings.items():
            key = f"{kind}_{phase}"
            self.peaks[key] = max(value, self.peaks.get(key, 0.0))
        return was_reset


def host_peak_mb() -> float:
    """Return the peak resident memory of this process since the last reset, in MB; NaN where
    /proc doesn't say.
    """
    return memory_mb("self", "VmHWM") or math.nan


def trim_heap() -> None:
    """Give freed memory back to the kernel; the allocator is set to keep it
    (environment.PROCESS_ENVIRONMENT).
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def reset_host_peak() -> bool:
    """Reset the peak to the present size; False where the kernel refuses, so that peaks count
    from the start.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def nvml_used_mb(uuid: str) -> float:
    """Return the memory in use, in MB, on the GPU of this UUID, or on its part in MIG mode; NaN
    if unknown.
    """
    return reading(uuid, lambda library, handle: library.nvmlDeviceGetMemoryInfo(handle).used / 1e6)
