"""What the probes cost: the training loop with all probes and with none, taking turns within one process.

    python benchmarks/overhead.py [--pairs 40] [--steps 60]

Each pair is two trainings of the quickstart's LoRA, in random order; the figure is the ratio of their times: its mean
over pairs and a one-sided 95 % bound (Student's t on the log ratios). Exit status 1 if the bound is over 1 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from hpml_bench.environment import describe, set_process_environment

LIMIT = 0.01
RANK = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29544"}


def measure(pairs: int, steps: int) -> list[float]:
    """Return the log ratio, with probes over without, of each pair's times."""
    from hpml_bench import registry
    from hpml_bench.data import Rows
    from hpml_bench.distributed import process_group
    from hpml_bench.loop import Training, train
    from hpml_bench.models import build_classifier
    from hpml_bench.prepare import prepare
    from hpml_bench.probes import Probe, Run
    from hpml_bench.store import PointWriter
    from hpml_bench.suite import load_suite

    suite = load_suite("quickstart", world_size=1, threads=1, steps=steps, eval_every=steps, validation_samples=32)
    (spec,) = suite.runs(["lora"], [0])
    prepared = prepare(spec.settings)
    rows = {split: Rows(Path(prepared.data) / split, prepared.pad_id) for split in ("train", "validation", "test")}
    module = registry.get("methods", spec.method.method)

    def seconds(folder: Path, with_probes: bool) -> float:
        names = registry.names("probes") if with_probes else ()
        probes: list[Probe] = [registry.get("probes", name).Measure() for name in names]
        classifier = build_classifier(Path(prepared.backbone), spec.settings, spec.method, len(prepared.label_names), 0)
        run = Run(spec.settings, group, classifier, module, rows["test"], folder, time.monotonic())
        writer = PointWriter(folder)
        job = Training(
            classifier, spec.method, module, spec.settings, 0, group, rows["train"], rows["validation"], probes,
            writer.write,
        )  # fmt: skip
        for probe in probes:
            probe.start(run)
        began = time.perf_counter()
        train(job)
        took = time.perf_counter() - began
        writer.close()
        return took

    ratios = []
    with process_group(spec.settings) as group, tempfile.TemporaryDirectory() as name:
        for turn in range(pairs + 1):
            order = [True, False]
            random.Random(turn).shuffle(order)  # noqa: S311 - an order
            times = {with_probes: seconds(Path(name), with_probes) for with_probes in order}
            if turn:  # the first pair warms up
                ratios.append(math.log(times[True] / times[False]))
    return ratios


def bound(ratios: list[float]) -> tuple[float, float]:
    """Return the mean overhead and its one-sided upper 95 % bound, as fractions."""
    import numpy as np
    from scipy import stats

    mean, error = float(np.mean(ratios)), float(stats.sem(ratios))
    return math.expm1(mean), math.expm1(mean + float(stats.t.ppf(0.95, len(ratios) - 1)) * error)


def main() -> int:
    """Measure, print one line and a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the record here")
    options = parser.parse_args()
    if "MALLOC_TOP_PAD_" not in os.environ:  # glibc reads these when a process starts
        set_process_environment()
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
    os.environ.update(RANK)
    ratios = measure(options.pairs, options.steps)
    mean, upper = bound(ratios)
    met = "met" if upper <= LIMIT else "not met"
    print(f"all probes cost {mean:+.2%} of training time, upper 95 % bound {upper:+.2%} (at most {LIMIT:.0%}: {met})")
    if options.json:
        record = {"overhead": mean, "upper_95": upper, "log_ratios": ratios, "environment": describe()}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if upper <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
