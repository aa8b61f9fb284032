"""What measures the probes' cost: the bound covers, and over a block each part of a training has the probes on once."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_loop import job
from torch.distributed import HashStore, destroy_process_group, init_process_group

from hpml_bench.distributed import Group
from hpml_bench.probes import Evaluation, Probe, Step

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
overhead = importlib.import_module("overhead")
turns = importlib.import_module("speed.turns")


@pytest.mark.parametrize("n", [8, 40])
def test_the_bound_covers(n: int) -> None:
    """At least 95 % of the bounds lie at or above the true overhead, normal log ratios of 8 and of 40 blocks."""
    repetitions, true = 2000, 0.004
    ratios = np.random.default_rng(n).normal(true, 0.01, (repetitions, n))
    covered = np.mean([overhead.bound(list(sample))[1] >= math.expm1(true) for sample in ratios])
    assert covered >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)


def test_the_bound_of_eight_blocks_covers_exactly() -> None:
    """Over all 256 patterns of signs, which symmetric noise makes equally likely, 95 % cover: no luck of a draw."""
    sizes = 0.01 * np.sqrt(np.arange(2, 10))
    bounds = [overhead.bound(list(sizes * signs))[1] for signs in itertools.product((-1, 1), repeat=8)]
    assert np.mean(np.array(bounds) >= 0) >= 0.95


def test_the_estimate_is_the_centre() -> None:
    """Ratios that are symmetric about a value give it, and no block far off moves it by much."""
    ratios = [0.01 + step / 1000 for step in range(-10, 11)]
    assert overhead.bound(ratios)[0] == pytest.approx(math.expm1(0.01))
    assert overhead.bound([*ratios, 5.0])[0] == pytest.approx(math.expm1(0.01), abs=0.001)


class Counting(Probe):
    """Counts the steps and validations it is told of, and notes whether the probes were on at every call."""

    def __init__(self, switched: list[Probe], counts: Counter[tuple[str, int]]) -> None:
        self.switched, self.counts = switched, counts
        self.on: list[bool] = []

    def _called(self, verb: str, index: int) -> None:
        self.on.append(self.switched.on)  # type: ignore[attr-defined]
        self.counts[verb, index] += 1

    def before_step(self, index: int) -> None:
        """Count the step."""
        self._called("before_step", index)

    def after_backward(self, index: int) -> None:
        """Count the step."""
        self._called("after_backward", index)

    def after_steps(self, window: list[Step]) -> list:
        """Count each step of the window."""
        for step in window:
            self._called("after_steps", step.index)
        return []

    def before_eval(self, phase: str) -> None:
        """Count the validation."""
        self._called("before_eval", 0)

    def after_eval(self, evaluation: Evaluation) -> list:
        """Count the validation by its step."""
        self._called("after_eval", evaluation.step)
        return []

    def after_training(self) -> None:
        """Count the end."""
        self._called("after_training", 0)


@pytest.fixture
def group() -> Iterator[Group]:
    """A process group of this process alone."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield Group(0, 1, torch.device("cpu"))
    destroy_process_group()


def test_a_block_has_the_probes_on_once_everywhere(group: Group, tmp_path: Path) -> None:
    """Of two trainings that begin the one with probes, the other without, each step and validation has them once."""
    prepared, spec = tiny.prepared(tmp_path), tiny.spec(world_size=1, steps=7, eval_every=2, log_every=3)
    counts: Counter[tuple[str, int]] = Counter()
    seen, batches = [], []
    for first in (True, False):
        switched = turns.Switched()
        probe = Counting(switched, counts)
        switched.append(probe)
        training, _ = job(spec, prepared, group, switched)
        block = turns.Alternating(**vars(training), turns=turns.Turns(switched, first))
        before = counts.copy()
        seconds = turns.train_in_turns(block)
        assert all(probe.on)
        assert min(seconds.values()) > 0
        seen.append([index for verb, index in counts - before if verb == "before_step"])
        batches.append([batch.tolist() for batch in training.order()])
    assert seen == [[1, 2, 5, 6], [3, 4, 7]]
    assert batches[0] == batches[1]
    by_step = {(verb, index) for verb in ("before_step", "after_backward", "after_steps") for index in range(1, 8)}
    ends = {("after_eval", index) for index in (2, 4, 6, 7)} | {("after_training", 0)}
    assert counts == Counter([*by_step, *ends, *[("before_eval", 0)] * 4])
