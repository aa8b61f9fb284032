"""Speed of matrix products of fp32 and bf16 on this CPU, to choose `precision: auto`: CPU flags
don't show it.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings

FASTER = 1.15  # least speedup over fp32 for which bf16 is taken
SECONDS = 0.25  # total duration of the timing
LEAST = 3  # least number of products timed in each type
ROWS, WORK = 512, 1e9
"""Most rows of a product, and most multiplications, so that it takes milliseconds. Columns are
left out rather than rows: with few rows, reading the weights would take most of the time.
"""


class Products(Frozen):
    """Median seconds of a matrix product in both types."""

    shape: tuple[int, int, int]
    """Rows, inner size, columns."""
    threads: int
    fp32_seconds: float
    bf16_seconds: float

    @property
    def precision(self) -> str:
        return "bf16" if self.fp32_seconds >= FASTER * self.bf16_seconds else "fp32"

    def __str__(self) -> str:
        rows, inner, columns = self.shape
        return (
            f"{self.precision}, as a product of {rows} x {inner} x {columns} took "
            f"{1e3 * self.fp32_seconds:.3g} ms in fp32 and {1e3 * self.bf16_seconds:.3g} ms in "
            f"bf16 (threads: {self.threads}; bf16 is taken where it is {FASTER:g} times as fast)"
        )


def shape_of(config: Mapping[str, Any], tokens: int) -> tuple[int, int, int]:
    """Return the shape of a feed-forward layer's product, from a model's config.json and the
    tokens of a batch.
    """
    text = config.get("text_config") or config

    def size(*names: str) -> int | None:  # models of stages have a list of sizes
        return next(
            (of for name in names if isinstance(of := text.get(name), int) and of > 0), None
        )

    hidden = size("hidden_size", "n_embd", "dim", "d_model") or 768
    columns = size("intermediate_size", "n_inner", "hidden_dim") or 4 * hidden
    rows = max(1, min(tokens, ROWS))
    return rows, hidden, max(1, min(columns, int(WORK / (rows * hidden))))


def thread_rates(shape: tuple[int, int, int]) -> tuple[float, float]:
    """Return the operations per second of CPU time of one thread's products in fp32 and bf16."""
    rows, inner, columns = shape
    found = measure(
        shape, 1, time.thread_time
    )  # without what other processes take: what a free machine can do
    fp32, bf16 = (
        2 * rows * inner * columns / each for each in (found.fp32_seconds, found.bf16_seconds)
    )
    return fp32, bf16


def measure_for(settings: Settings, backbone: Path, threads: int) -> Products:
    """Time products of a rank's batch and the feed-forward layers of a backbone's folder."""
    config = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    tokens = settings.max_length * settings.global_batch // (settings.world_size or 1)
    return measure(shape_of(config, tokens), threads)


def measure(
    shape: tuple[int, int, int], threads: int, now: Callable[[], float] = time.perf_counter
) -> Products:
    """Time products of both types alternately."""
    import torch

    rows, inner, columns = shape
    types = (torch.float32, torch.bfloat16)
    factors = {
        kind: (torch.rand(rows, inner).to(kind), torch.rand(inner, columns).to(kind))
        for kind in types
    }
    seconds: dict[torch.dtype, list[float]] = {kind: [] for kind in types}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for left, right in factors.values():
        left @ right  # the first sets up the kernel
    until = now() + SECONDS
    while now() < until or len(seconds[torch.bfloat16]) < LEAST:
        for kind, (left, right) in factors.items():
            began = now()
            left @ right
            seconds[kind].append(now() - began)
    torch.set_num_threads(before)
    fp32, bf16 = (statistics.median(seconds[kind]) for kind in types)
    return Products(shape=shape, threads=threads, fp32_seconds=fp32, bf16_seconds=bf16)
