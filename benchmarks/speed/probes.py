"""Cost of the probes: the training loop with all probes and with none, in turns within one process.

A turn is the loop from one writing of points to the next, ten steps at most, with a validation
where there is one: a quarter of a second of the quickstart's LoRA on one rank (what probes do at a
step is the same for all methods). A block is two trainings on the same batches: the turns that have
probes in one have none in the other, and which begins with them is random. So every part of the
work is done once with and once without, and a drift of the machine's speed cancels. What is done
once after the last step is in the last turn. Set-up and the evaluation of the test rows are left
out; DDP's timing of every tenth step, a few readings of the clock, runs in both. What a probe
leaves for the next turn, such as memory to be allocated again, counts as that turn's.

Of each step, with what follows it until the next, the difference with probes and without is taken
within a block, and its interquartile mean over blocks counts: a shared machine is slow for seconds
at a time, which a trimmed mean does not see and a plain one does. (A cost that falls on fewer than
a quarter of the blocks is not seen either: the plain ratio of all seconds, kept beside it, has it.)
The overhead is the sum of these differences over the steps' time without. The one-sided 95 % bound
is a percentile bootstrap's over blocks (Efron and Tibshirani, An Introduction to the Bootstrap,
chapter 13). Measured on the CPU only, also where there is a GPU.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hpml_bench.plugins.probe import Probe
from hpml_bench.training.trainer import Trainer
from speed import RANK, Process, Target

STEPS, METHOD = 100, "lora"
BLOCKS, TRAININGS = 20, 3
"""Of a comparison that is held to its target: pairs of trainings that are timed, and whose peak
memory is compared.
"""
LIMIT, MEMORY_LIMIT = (
    1.0,
    5.0,
)  # largest share of the loop's time and of the peak memory, in per cent


class Switched(list[Probe]):
    """Probes that can be switched off while the loop runs: it then finds none."""

    on = True

    def __iter__(self) -> Iterator[Probe]:
        return super().__iter__() if self.on else iter(())


class Alternating(Trainer):
    """A training whose probes are switched each time that points were written."""

    probes: Switched

    def take_turns(self, first: bool) -> list[tuple[bool, float]]:
        """Train; return of each step, with what is done until the next, whether it had probes,
        and its seconds.
        """
        self._first, self._began, self._pieces = first, 0.0, list[tuple[bool, float]]()
        self.train()
        self._end(switch=False)
        return self._pieces

    def _end(self, switch: bool) -> None:
        """End a piece, if one runs, and begin the next, the other way if asked."""
        now = time.perf_counter()
        if not self._began:
            self.probes.on = self._first
        else:
            self._pieces.append((self.probes.on, now - self._began))
            self.probes.on ^= switch
        self._began = time.perf_counter()

    def order(self) -> Iterator[np.ndarray]:
        """Yield the batches; the loop asks for the next once all that follows a step is over."""
        every = self.settings.log_every, self.settings.eval_every or self.steps
        for index, indices in enumerate(super().order()):
            self._end(switch=any(index % steps == 0 for steps in every))
            yield indices


@contextmanager
def _trainings() -> Iterator[Any]:
    """Yield what trains the quickstart in turns, given whether there are probes, and which turns
    begin with them.
    """
    from hpml_bench.data.prepare import prepare
    from hpml_bench.records.points import PointWriter
    from hpml_bench.suite import registry
    from hpml_bench.suite.suite import load_suite
    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.distributed import process_group

    os.environ.update(RANK)
    suite = load_suite("quickstart", world_size=1, threads=1, steps=STEPS)
    (spec,) = suite.runs([METHOD], [0])
    prepared = prepare(spec.settings)
    with process_group(spec.settings) as group, tempfile.TemporaryDirectory() as name:

        def training(has_probes: bool, first: bool) -> list[tuple[bool, float]]:
            names = registry.names("probes") if has_probes else ()
            probes = Switched(registry.plugin("probes", one)() for one in names)
            run = replace(
                assemble(spec, prepared, group), folder=Path(name), began=time.monotonic()
            )
            for probe in probes:
                probe.start(run)
            return Alternating(run, probes, PointWriter(Path(name)).write).take_turns(first)

        yield training


def step_seconds(job: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of each step, [block][without, with probes][step]."""
    from hpml_bench.builtin.probes.memory import trim_heap

    found = []
    with _trainings() as training:
        for block in range(job["blocks"] + 1):
            first = bool(random.Random(block).getrandbits(1))  # noqa: S311 - an order
            times = [[0.0] * STEPS, [0.0] * STEPS]
            for beginning in (first, not first):
                # each begins as a new process would, not with what the one before it gave up
                trim_heap()
                for step, (on, seconds) in enumerate(training(True, beginning)):
                    times[on][step] = round(seconds, 6)
            found.append(times)
    return {"step_seconds": found[1:]}  # the first warms up


def train_once(job: dict[str, Any]) -> dict[str, Any]:
    """Train once with all probes or with none, for the process's peak memory."""
    with _trainings() as training:
        training(job["probes"], True)
    return {}


JOBS = {"step_seconds": step_seconds, "train_once": train_once}


def measure(blocks: int, trainings: int) -> list[Target]:
    peaks = {True: [0.0] * trainings, False: [0.0] * trainings}
    for number in range(trainings):
        for probes, found in peaks.items():
            with Process("train_once", ours=True, threads=1) as process:
                found[number] = process.do(probes=probes)["peak_mb"]
    memory = [100 * (with_all / none - 1) for with_all, none in zip(*peaks.values(), strict=True)]
    with Process("step_seconds", ours=True, threads=1) as process:
        seconds = np.array(process.do(blocks=blocks)["step_seconds"])
    estimate, upper = bound(seconds)
    raw = {
        "overhead": estimate,
        "of_all_seconds": float(seconds[:, 1].sum() / seconds[:, 0].sum()) - 1,
        "step_seconds": seconds.tolist(),
    }
    title, spread = (
        "all probes, share of the loop's time, upper 95 % bound",
        (min(memory), max(memory)),
    )
    return [
        Target(title, 100 * upper, "%", LIMIT if blocks >= BLOCKS else None, "at most", raw),
        Target(
            "all probes, share of peak memory",
            median(memory),
            "%",
            MEMORY_LIMIT,
            "at most",
            {"memory": memory},
            spread,
        ),
    ]


def bound(seconds: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """Return the overhead and its one-sided upper 95 % bound, as shares, of seconds [block,
    without or with, step].
    """
    drawn = np.random.default_rng(0).integers(len(seconds), size=(resamples, len(seconds)))
    return _overhead(seconds), float(
        np.quantile([_overhead(seconds[rows]) for rows in drawn], 0.95)
    )


def _overhead(values: np.ndarray) -> float:
    extra = np.sort(values[:, 1] - values[:, 0], axis=0)  # [block, step]
    cut = len(extra) // 4
    return float(
        extra[cut : len(extra) - cut].mean(axis=0).sum() / np.median(values[:, 0], axis=0).sum()
    )
