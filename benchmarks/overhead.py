"""What the probes cost: the training loop with all probes and with none, taking turns within one process.

    python benchmarks/overhead.py [--blocks 40]

A turn is the loop from one validation to the next, that one with it: about a second of the quickstart's LoRA on one
rank (`--method` for another; what probes do at a step is the same for all). A block is two trainings on the same
batches: where the one has probes the other has none, and which begins with them is left to chance. So every part of the
work is done once either way, and a drift of the machine's speed cancels; the block's figure is the log ratio of the two
sums, of the whole loop with validations and the writing of points. What is done once after the last step is in the last
turn. Set-up and the test rows' evaluation are left out; DDP's timing of every tenth step, a few readings of the clock,
runs either way; and what a probe left behind for the next turn, such as memory to be had anew, would count as that
turn's. `--whole` compares whole trainings instead, which sees it, with more scatter.

Over blocks: the Hodges-Lehmann estimate and the one-sided 95 % bound that belongs to Wilcoxon's signed-rank test, which
a few disturbed blocks don't move. Exit status 1 if the bound is over 1 %, or if the probes take over 5 % of the peak
memory.
"""

from __future__ import annotations

import argparse
import json
import math
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

from hpml_bench.environment import describe, set_process_environment

LIMIT, MEMORY_LIMIT = 0.01, 0.05
RANK = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29544"}


def measure(
    blocks: int, steps: int, method: str = "lora", *, whole: bool = False, only: bool | None = None
) -> list[float]:
    """Return each block's log ratio of the time with probes to that without; with `only`, train once that way.

    With `whole`, a block is two whole trainings, one with probes and one without.
    """
    from speed.turns import Alternating, Switched, Turns, train_in_turns

    from hpml_bench import registry
    from hpml_bench.data import Rows
    from hpml_bench.distributed import process_group
    from hpml_bench.loop import Training, train
    from hpml_bench.models import build_classifier
    from hpml_bench.prepare import prepare
    from hpml_bench.probes import Run
    from hpml_bench.probes.memory import trim_heap
    from hpml_bench.store import PointWriter
    from hpml_bench.suite import load_suite

    suite = load_suite("quickstart", world_size=1, threads=1, steps=steps)
    (spec,) = suite.runs([method], [0])
    prepared = prepare(spec.settings)
    rows = {split: Rows(Path(prepared.data) / split, prepared.pad_id) for split in ("train", "validation", "test")}
    module = registry.get("methods", spec.method.method)

    def training(folder: Path, names: Sequence[str]) -> tuple[Training, Switched]:
        classifier = build_classifier(Path(prepared.backbone), spec.settings, spec.method, len(prepared.label_names), 0)
        probes = Switched(registry.get("probes", name).Measure() for name in names)
        run = Run(spec.settings, group, classifier, module, rows["test"], folder, time.monotonic())
        job = Training(
            classifier, spec.method, module, spec.settings, 0, group, rows["train"], rows["validation"], probes,
            PointWriter(folder).write,
        )  # fmt: skip
        for probe in probes:
            probe.start(run)
        return job, probes

    everything, ratios = registry.names("probes"), []
    with process_group(spec.settings) as group, tempfile.TemporaryDirectory() as name:
        if only is not None:
            train(training(Path(name), everything if only else ())[0])
            return []
        for block in range(blocks + 1):
            first = bool(random.Random(block).getrandbits(1))  # noqa: S311 - an order
            times: dict[bool, float] = {True: 0.0, False: 0.0}
            for beginning in (first, not first):
                trim_heap()  # each begins as a new process would, not with what the one before it gave up
                job, probes = training(Path(name), everything if beginning or not whole else ())
                turns = Turns(probes, beginning, switching=not whole)
                for way, seconds in train_in_turns(Alternating(**vars(job), turns=turns)).items():
                    times[way] += seconds
            if block:  # the first warms up
                ratios.append(math.log(times[True] / times[False]))
    return ratios


def peak_mb(steps: int, probes: bool) -> float:
    """Return the peak memory of a process of its own that trains once with all probes, or with none."""
    command = [sys.executable, __file__, "--steps", str(steps), "--only", "probes" if probes else "none"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def bound(ratios: list[float]) -> tuple[float, float]:
    """Return the overhead and its one-sided upper 95 % bound, as fractions.

    The estimate is the median of the Walsh averages (r_i + r_j) / 2, i <= j; the bound is the one of them above which
    as many lie as the signed-rank statistic's 5 % quantile, in its normal approximation with continuity correction
    (Hollander and Wolfe, Nonparametric Statistical Methods, 3.3).
    """
    import numpy as np
    from scipy import stats

    values, n = np.array(ratios), len(ratios)
    upper_triangle = np.triu_indices(n)
    walsh = np.sort(((values[:, None] + values) / 2)[upper_triangle])
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    outside = max(0, math.floor(n * (n + 1) / 4 - float(stats.norm.ppf(0.95)) * spread - 0.5))
    return math.expm1(float(np.median(walsh))), math.expm1(float(walsh[len(walsh) - 1 - outside]))


def main() -> int:
    """Measure, print one line and a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--method", default="lora", help="a method of the quickstart")
    parser.add_argument("--whole", action="store_true", help="compare whole trainings")
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
    memory = [peak_mb(options.steps, True) / peak_mb(options.steps, False) - 1 for _ in range(5)]
    ratios = measure(options.blocks, options.steps, options.method, whole=options.whole)
    mean, upper = bound(ratios)
    met = "met" if upper <= LIMIT else "not met"
    print(f"all probes take {median(memory):+.2%} of the process's peak memory (at most {MEMORY_LIMIT:.0%})")
    print(f"all probes cost {mean:+.2%} of the loop's time, upper 95 % bound {upper:+.2%} (at most {LIMIT:.0%}: {met})")
    if options.json:
        record = {
            "method": options.method,
            "whole_trainings": options.whole,
            "memory": memory,
            "overhead": mean,
            "upper_95": upper,
            "log_ratios": ratios,
            "environment": describe(),
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if upper <= LIMIT and median(memory) <= MEMORY_LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
