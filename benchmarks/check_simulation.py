"""Simulation of the rule of `verdicts.look` over many trials at once: its error rates in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpml_bench.gate.decide import spending
from hpml_bench.gate.decide.rank_tests import Floats, signed_rank_tail
from hpml_bench.gate.records import Rules

UNDECIDED, PASS, FAIL = 0, 1, 2
CHUNK = 4096
"""Trials held in memory at once."""

Draw = Callable[[np.random.Generator, tuple[int, int, int]], Floats]
"""Effects as log ratios, [trials, methods, pairs]."""


@dataclass(frozen=True)
class Rates:
    """What came of simulated trials."""

    trials: int
    failed: int
    """Trials in which at least one method FAILed."""
    passed: int
    """Trials in which every method PASSed."""
    slipped: int
    """Trials in which at least one method PASSed."""
    pairs: float
    """Process pairs until a trial was settled, on average."""


def decide(effects: Floats, rules: Rules) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return each trial's and method's status, [trials, methods], and the pairs after which the trial was settled.

    Args:
        effects: log ratios, [trials, methods, pairs], with at least `rules.looks[-1]` pairs.
        rules: the rule.

    """
    trials, methods, _ = effects.shape
    status = np.zeros((trials, methods), dtype=np.int8)
    pairs = np.full(trials, rules.looks[-1], dtype=np.int64)
    open_ = np.ones(trials, dtype=bool)
    spent = zip(rules.looks, spending.alphas(rules, methods), spending.betas(rules), strict=True)
    for size, alpha, beta in spent:
        seen, tail = effects[..., :size], signed_rank_tail(size)
        p_above = tail[_above(seen - math.log1p(rules.null))]
        p_below = tail[_above(math.log1p(rules.target) - seen)]
        now = np.where(_holm(p_above) <= alpha, FAIL, np.where(p_below <= beta, PASS, UNDECIDED))
        status = np.where(open_[:, None] & (status == UNDECIDED), now, status).astype(np.int8)
        closing = open_ & ((status == FAIL).any(axis=1) | (status != UNDECIDED).all(axis=1))
        pairs[closing] = size
        open_ &= ~closing
    return status, pairs


def simulate(draw: Draw, rules: Rules, methods: int, trials: int, seed: int = 0) -> Rates:
    """Return the rates at which trials drawn by `draw` end in each way."""
    generator = np.random.default_rng(seed)
    failed = passed = slipped = seen = 0
    for start in range(0, trials, CHUNK):
        size = min(CHUNK, trials - start)
        status, pairs = decide(draw(generator, (size, methods, rules.looks[-1])), rules)
        failed += int((status == FAIL).any(axis=1).sum())
        passed += int((status == PASS).all(axis=1).sum())
        slipped += int((status == PASS).any(axis=1).sum())
        seen += int(pairs.sum())
    return Rates(trials, failed, passed, slipped, seen / trials)


def _above(values: Floats) -> NDArray[np.int64]:
    """Return the signed-rank statistic: the sum of the ranks of |x| where x is positive, over the last axis."""
    ranks = np.abs(values).argsort(axis=-1).argsort(axis=-1) + 1
    total: NDArray[np.int64] = (ranks * (values > 0)).sum(axis=-1)
    return total


def _holm(p: Floats) -> Floats:
    """Return Holm's adjusted p values over the last axis (Holm 1979)."""
    order = p.argsort(axis=-1)
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0), axis=-1)
    return adjusted
