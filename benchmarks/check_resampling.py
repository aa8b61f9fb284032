"""Resampling of recorded A/A pairs: the verdicts of trials drawn from them, with a slowdown added."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import check_simulation as simulation
import numpy as np
from numpy.typing import NDArray

from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.decide.rank_tests import Floats
from hpml_bench.gate.decide.sentences import rate
from hpml_bench.gate.records import CheckTrial, Rules
from hpml_bench.plugins.blocks import Table
from hpml_bench.report.tables import Cell, table

RESAMPLED = 10_000
"""Trials drawn for each row of the study."""
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05)
SPIKES = 0.1
"""Share of timed pieces that a made-up spike hits."""
LARGEST_SPIKE = 0.5
"""A spike makes a piece up to this much longer."""
RUN = 6
"""Consecutive pairs of a trial that are drawn together, so that what lasts longer than a pair stays in."""


@dataclass(frozen=True)
class Pairs:
    """The A/A pairs that can be resampled."""

    ratios: Floats
    """Log ratios, [pairs, methods, blocks], a trial's pairs in their order."""
    starts: NDArray[np.int64]
    """Places from which `RUN` pairs are of one trial."""
    left_out: int
    """Pairs in which some method lacks blocks, having been disturbed."""


def pairs_of(trials: Iterable[CheckTrial]) -> Pairs:
    """Return all whole A/A pairs: those in which every method has as many undisturbed blocks as is usual."""
    rows: list[tuple[int, list[list[float]]]] = []
    for index, trial in enumerate(trials):
        if trial.slowdown:
            continue
        for pair in range(trial.report.pairs):
            ratios: dict[str, list[float]] = {method: [] for method in trial.report.methods}
            for block in trial.report.blocks:
                if block.pair == pair and block.disturbed is None:
                    ratios[block.method].append(verdicts.log_ratio(block))
            rows.append((index, [*ratios.values()]))
    usual = statistics.mode(len(values) for _, row in rows for values in row) if rows else 0
    whole = [(index, row) for index, row in rows if usual and all(len(values) == usual for values in row)]
    of = [index for index, _ in whole]
    starts = [start for start in range(len(of) - RUN + 1) if of[start] == of[start + RUN - 1]]
    kept = np.array([row for _, row in whole]) if whole else np.empty((0, 1, 1))
    return Pairs(kept, np.array(starts, dtype=np.int64), len(rows) - len(whole))


def middle(ratios: Floats) -> Floats:
    """Return what `verdicts.middle` does, over the last axis."""
    cut = ratios.shape[-1] // 4
    kept: Floats = np.sort(ratios, axis=-1)[..., cut : ratios.shape[-1] - cut].mean(axis=-1)
    return kept


def resampling(pairs: Pairs, effect: float, spikes: float = 0.0, one: bool = False) -> simulation.Draw:
    """Return a drawing of trials from recorded pairs, `RUN` consecutive ones at a time, with replacement.

    Args:
        pairs: what is drawn from, all methods of a pair together.
        effect: slowdown that is added.
        spikes: chance of each of a block's four pieces to be made longer, by up to `LARGEST_SPIKE`: what other work
            does that goes unnoticed.
        one: to one method of each trial only, drawn by lot; else to all.

    """

    def draw(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        trials, methods, count = shape
        starts = generator.choice(pairs.starts, (trials, math.ceil(count / RUN)))
        places = (starts[..., None] + np.arange(RUN)).reshape(trials, -1)[:, :count]
        chosen = pairs.ratios[places]  # [trials, pairs, methods, blocks]
        if spikes:
            for side in (1, -1, 1, -1):
                hit = generator.random(chosen.shape) < spikes
                chosen = chosen + side / 2 * hit * np.log1p(generator.uniform(0, LARGEST_SPIKE, chosen.shape))
        slowed = generator.integers(0, methods, (trials, 1)) == np.arange(methods) if one else np.ones((1, methods))
        return np.swapaxes(middle(chosen), 1, 2) + (slowed * math.log1p(effect))[..., None]

    return draw


def study(named: dict[str, tuple[Pairs, float]], rules: Sequence[Rules]) -> Table:
    """Return how resampled trials end, a row for each noise, rule and slowdown."""
    rows: list[list[Cell]] = []
    for rule in rules:
        for noise, (pairs, spikes) in named.items():
            methods = pairs.ratios.shape[1]
            for slowdown in SLOWDOWNS:
                everywhere, once = (
                    simulation.simulate(resampling(pairs, slowdown, spikes, one), rule, methods, RESAMPLED)
                    for one in (False, True)
                )
                shares = [everywhere.failed, once.failed, everywhere.passed]
                shown = [f"{share / RESAMPLED:.2%}".replace("%", " %") for share in shares]
                limits = f"{rate(rule.null)} / {rate(rule.target)}"
                rows.append([limits, noise, rate(slowdown), *shown, f"{everywhere.pairs:.1f}"])
    columns = (
        "let through / must not pass", "noise", "slowdown", "FAIL, all methods slowed", "FAIL, one slowed", "PASS",
        "pairs needed",
    )  # fmt: skip
    return table("resampled", "Resampled trials", columns, rows)
