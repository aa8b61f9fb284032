"""Overhead of the probes: the training loop with all probes and with none, in turns within one process.

    python benchmarks/overhead.py [--blocks 32]

A turn is the loop from one writing of points to the next, ten steps at most, with a validation where there is one: a
quarter of a second of the quickstart's LoRA on one rank (`--method` for another; what probes do at a step is the same
for all). A block is two trainings on the same batches: the turns that have probes in one have none in the other, and
which begins with them is random. So every part of the work is done once with and once without, and a drift of the
machine's speed cancels. What is done once after the last step is in the last turn. Set-up and the evaluation of the
test rows are left out; DDP's timing of every tenth step, a few readings of the clock, runs in both. What a probe leaves
for the next turn, such as memory to be allocated again, counts as that turn's.

Of each step, with what follows it until the next, the difference with probes and without is taken within a block, and
its interquartile mean over blocks counts: a shared machine is slow for seconds at a time, which a trimmed mean does not
see and a plain one does. (A cost that falls on fewer than a quarter of the blocks is not seen either: the plain ratio
of all seconds, printed beside it, has it.) The overhead is the sum of these differences over the steps' time without.
The one-sided 95 % bound is a percentile bootstrap's over blocks. Exit status 1 if it is over 1 %, or if the probes take
over 5 % of the peak memory.

Measured on the CPU only, also where there is a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from hpml_bench.system.environment import describe, set_process_environment

LIMIT, MEMORY_LIMIT = 0.01, 0.05
RANK = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}


def measure(blocks: int, steps: int, method: str = "lora", *, only: bool | None = None) -> list[list[list[float]]]:
    """Return the seconds of each step, [block][without, with probes][step]; with `only`, train once that way."""
    from speed.turns import Alternating, Switched, Turns, train_in_turns

    from hpml_bench.builtin.probes.memory import trim_heap
    from hpml_bench.data.prepare import prepare
    from hpml_bench.records.points import PointWriter
    from hpml_bench.suite import registry
    from hpml_bench.suite.suite import load_suite
    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.distributed import process_group

    suite = load_suite("quickstart", world_size=1, threads=1, steps=steps)
    (spec,) = suite.runs([method], [0])
    prepared = prepare(spec.settings)

    def training(folder: Path, names: Sequence[str]) -> tuple[Alternating, Switched]:
        probes = Switched(registry.plugin("probes", name)() for name in names)
        run = assemble(spec, prepared, group)
        seen = run.for_probes(folder, time.monotonic())
        for probe in probes:
            probe.start(seen)
        return Alternating(run, probes, PointWriter(folder).write), probes

    everything, found = registry.names("probes"), []
    with process_group(spec.settings) as group, tempfile.TemporaryDirectory() as name:
        if only is not None:
            trainer, probes = training(Path(name), everything if only else ())
            trainer.turns = Turns(probes, first=True)
            trainer.train()
            return []
        for block in range(blocks + 1):
            first = bool(random.Random(block).getrandbits(1))  # noqa: S311 - an order
            times = [[0.0] * steps, [0.0] * steps]
            for beginning in (first, not first):
                trim_heap()  # each begins as a new process would, not with what the one before it gave up
                trainer, probes = training(Path(name), everything)
                trainer.turns = Turns(probes, beginning)
                for step, (on, seconds) in enumerate(train_in_turns(trainer)):
                    times[on][step] = seconds
            if block:  # the first warms up
                found.append(times)
    return found


def peaks_mb(steps: int) -> tuple[float, float]:
    """Return the peak memory of processes of their own that train once with all probes and with none.

    Both run at the same time, since nothing is timed.

    Raises:
        RuntimeError: one of them failed.

    """
    command = [sys.executable, __file__, "--steps", str(steps), "--only"]
    both = [subprocess.Popen([*command, which], stdout=subprocess.PIPE, text=True) for which in ("probes", "none")]
    said = [process.communicate()[0] for process in both]
    if any(process.returncode for process in both):
        raise RuntimeError("a training whose peak memory was to be read failed")
    probes, none = (float(output.split()[-1]) for output in said)
    return probes, none


def bound(seconds: Any, resamples: int = 2000) -> tuple[float, float]:
    """Return the overhead and its one-sided upper 95 % bound, as fractions, of seconds [block, without or with, step].

    The bound is the 95 % point of a percentile bootstrap over blocks (Efron and Tibshirani, An Introduction to the
    Bootstrap, chapter 13).
    """
    import numpy as np

    values = np.asarray(seconds)
    drawn = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    ratios = [_overhead(values[rows]) for rows in drawn]
    return _overhead(values), float(np.quantile(ratios, 0.95))


def _overhead(values: Any) -> float:
    import numpy as np

    extra = np.sort(values[:, 1] - values[:, 0], axis=0)  # [block, step]
    cut = len(extra) // 4
    return float(extra[cut : len(extra) - cut].mean(axis=0).sum() / np.median(values[:, 0], axis=0).sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--trainings", type=int, default=5, help="pairs of processes whose peak memory is compared")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--method", default="lora", help="a method of the quickstart")
    parser.add_argument("--json", type=Path, help="also write the record here")
    parser.add_argument("--only", choices=["probes", "none"], help="train once and print the peak memory in MB")
    options = parser.parse_args()
    if "MALLOC_TOP_PAD_" not in os.environ:  # glibc reads these when a process starts
        set_process_environment()
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
    os.environ.update(RANK)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if options.only:
        measure(0, options.steps, options.method, only=options.only == "probes")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        return 0
    # Before this process grows: a child's peak begins with the size of the process that started it.
    memory = [probes / none - 1 for probes, none in (peaks_mb(options.steps) for _ in range(options.trainings))]
    seconds = measure(options.blocks, options.steps, options.method)
    estimate, upper = bound(seconds)
    without, probes = (sum(sum(block[way]) for block in seconds) for way in (0, 1))
    met = "met" if upper <= LIMIT else "not met"
    print(f"all probes take {median(memory):+.2%} of the process's peak memory (at most {MEMORY_LIMIT:.0%})")
    print(f"all probes cost {estimate:+.2%} of the loop's time, upper 95 % bound {upper:+.2%} ({LIMIT:.0%}: {met})")
    print(f"all seconds with probes over all without: {probes / without - 1:+.2%}")
    if options.json:
        record = {
            "method": options.method,
            "memory": memory,
            "overhead": estimate,
            "upper_95": upper,
            "of_all_seconds": probes / without - 1,
            "step_seconds": [[[round(s, 6) for s in way] for way in block] for block in seconds],
            "environment": describe(),
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if upper <= LIMIT and median(memory) <= MEMORY_LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
