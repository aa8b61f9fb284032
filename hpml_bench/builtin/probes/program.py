"""Costs of a method's own program, measured from outside, and the tokens that it says it
consumed.
"""

from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric

_cost = partial(Metric.define, over_ranks="rank0", phase="train", depends_on_machine=True)


class ProgramProbe(Probe):
    """Reports what the method measured before the model was loaded."""

    metrics = (
        _cost(
            "program_seconds",
            "program's time",
            "s",
            "lower",
            ".2f",
            "Wall time of the method's own program: imports, loading, training and saving.",
            group="time",
        ),
        _cost(
            "program_memory_mb",
            "program's memory",
            "MB",
            "lower",
            ",.0f",
            "Peak resident memory of the program's processes together, looked at every second, or "
            "of the largest one by the kernel's count; pages that processes share count for each. "
            "1 MB = 10^6 bytes.",
            group="memory",
        ),
        _cost(
            "program_gpu_mb",
            "program's GPU memory",
            "MB",
            "lower",
            ",.0f",
            "Memory in use on the fullest GPU as NVML says, looked at every second while the "
            "program ran; other processes included.",
            group="memory",
        ),
        _cost(
            "program_joules",
            "program's energy",
            "J",
            "lower",
            ",.0f",
            (
                "Energy while the program ran, by the counters of the GPUs (NVML), or of the CPU "
                "packages (RAPL)."
            ),
            group="energy",
        ),
        Metric.define(
            "program_tokens",
            "program's tokens",
            "",
            "neither",
            ",.0f",
            "Tokens that the program itself says it was trained on (consumed.json); not checked.",
            over_ranks="rank0",
            phase="train",
            group="throughput",
            noisy=False,
        ),
    )

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.run.method.command else ()

    def stop(self) -> dict[str, Any]:
        return dict(self.run.method.measured)
