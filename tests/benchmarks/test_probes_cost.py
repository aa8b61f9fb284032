"""What measures the probes' cost: the bound covers, and over a block each part of a training has the probes on once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from speed import probes

from helpers import tiny
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe, Step
from hpml_bench.training.trainer import Trainer


def blocks(n: int, seed: int, true: float, outliers: float) -> np.ndarray:
    """Return seconds [n, 2, 20] of noisy pieces without probes and with them; a share of pieces takes five times."""
    generator = np.random.default_rng(seed)
    noise = generator.lognormal(0, 0.1, (n, 2, 20)) * np.where(generator.random((n, 2, 20)) < outliers, 5, 1)
    return np.array([1.0, 1.0 + true])[:, None] * noise


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_the_bound_covers(outliers: float) -> None:
    """At least 95 % of the bounds lie at or above the true overhead, also where a tenth of the pieces is disturbed."""
    found = [probes.bound(blocks(20, seed, 0.01, outliers), resamples=400) for seed in range(400)]
    assert np.mean([upper >= 0.01 for _, upper in found]) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean([estimate for estimate, _ in found]) == pytest.approx(0.01, abs=0.002)


def test_a_cost_of_one_piece_counts_by_its_share() -> None:
    """Ten per cent more in one of twenty equal pieces is half a per cent of the whole."""
    quiet = np.ones((8, 2, 20))
    quiet[:, 1, 3] = 1.1
    assert probes.bound(quiet) == pytest.approx((0.005, 0.005))
    quiet[3:] = 1.0  # in three blocks of eight, more than the quarter that is cut off
    assert probes.bound(quiet)[0] == pytest.approx(0.005 / 4)


class Noting(Probe):
    """Notes the steps and validations it is told of, and whether the probes were on at each."""

    def __init__(self, switched: probes.Switched) -> None:
        self.switched = switched
        self.seen: list[tuple[str, int]] = []

    def _note(self, verb: str, index: int) -> None:
        assert self.switched.on
        self.seen.append((verb, index))

    def before_step(self, index: int) -> None:
        self._note("before_step", index)

    def after_steps(self, window: list[Step]) -> list:
        for step in window:
            self._note("after_steps", step.index)
        return []

    def after_eval(self, evaluation: Evaluation) -> list:
        self._note("after_eval", evaluation.step)
        return []


def test_a_block_has_the_probes_on_once_everywhere(group: Group, tmp_path: Path) -> None:
    """Of two trainings that begin the one with probes, the other without, each step and validation has them once."""
    prepared, spec = tiny.prepared(tmp_path), tiny.spec(world_size=1, steps=7, eval_every=2, log_every=3)
    seen, batches, with_probes = [], [], []
    for first in (True, False):
        switched = probes.Switched()
        switched.append(Noting(switched))
        block = probes.Alternating.build(spec, prepared, group, switched)
        batches.append([batch.tolist() for batch in Trainer.order(block)])
        block.turns = probes.Turns(switched, first)
        pieces = probes.train_in_turns(block)
        assert min(seconds for _, seconds in pieces) > 0
        with_probes.append([on for on, _ in pieces])
        seen += list.__getitem__(switched, 0).seen
    assert batches[0] == batches[1]
    assert with_probes == [
        [True, True, False, True, False, False, True],
        [False, False, True, False, True, True, False],
    ]
    steps = [(verb, index) for verb in ("before_step", "after_steps") for index in range(1, 8)]
    assert sorted(seen) == sorted([*steps, *(("after_eval", index) for index in (2, 4, 6, 7))])
