"""How many seeds and hours it takes to find a difference of a given size, from the spread of a pilot's records."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from hpml_bench import statistics
from hpml_bench.errors import UserError
from hpml_bench.records import Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, Quantity, number, sentence_list, table

DETECT = re.compile(r"([^=]+)=\s*(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+)\s*(\S.*)?")


@dataclass(frozen=True)
class Pair:
    """A pair of methods in the pilot, and the seeds it needs."""

    a: str
    b: str
    n: int
    sd: float
    """Standard deviation of the differences within a seed, as the test takes it."""
    detectable: float
    """What the pilot's own seeds can find, at Holm's first step."""
    alone: int | None
    """Seeds for this pair tested alone; None above 10,000."""
    seeds: int | None
    """Seeds at Holm's first step over all pairs."""
    cautious: int | None
    """The same, were the true spread at its 80 % upper bound."""


@dataclass(frozen=True)
class Plan:
    """What a plan says."""

    table: Table
    sentences: tuple[str, ...]
    pairs: tuple[Pair, ...]
    """The noisiest first."""
    unknown: tuple[str, ...]
    """The other pairs, as `a − b`: all their differences are equal, which does not tell their spread."""
    seeds: int | None
    """Seeds that suffice for every pair of `pairs`; None above 10,000."""
    hours: float | None
    """Wall time of that many seeds of every method, one run after another, as the pilot's runs took; None where those
    ran on several machines."""


def plan(folder: Path, detect: str, power: float = statistics.POWER) -> Plan:
    """Return seeds and hours to find a difference with a chance of `power`, from the records in `folder`.

    The paired t test with noncentral t, at α = 5 % divided by the number of pairs (Holm's first step), for each pair's
    standard deviation of differences in the pilot.

    Args:
        folder: a suite's results.
        detect: `METRIC=SIZE`: `accuracy=0.5pp`, `samples_per_second=3%` (of the mean over methods), `train_seconds=2`.
        power: chance with which a difference of that size is to be found, between 0.05 and 1.

    Raises:
        UserError: there is no pilot, too little in it, an unknown metric, or a size that can't be read.

    """
    if not statistics.ALPHA < power < 1:
        raise UserError(f"--power {power:g}: give a probability above {statistics.ALPHA:g} and below 1, such as 0.8")
    if not any(folder.glob("*/run.json")):
        raise UserError(
            f"{folder}: no pilot here; run a few seeds first (hpml-bench run-all {folder.name} --seeds 5) "
            "or name another --out"
        )
    results = Results.load(folder)
    metric, size = _wanted(results, detect)
    if not results.rankable(metric):
        raise UserError(f"--detect {detect}: the pilot's runs come from different hardware or versions; plan from one")
    compared = results.comparisons(metric)
    tested = [c for c in compared if not c.exact and c.p is not None]
    if not tested:
        exact = any(c.exact for c in compared)
        reason = (
            "is the same in every seed: one seed tells it exactly" if exact else "needs at least 2 methods x 2 seeds"
        )
        raise UserError(f"--detect {detect}: {metric} {reason} in {folder}")
    level = statistics.ALPHA / len(tested)
    known = [_pair(c, c.sd, size, level, power) for c in tested if c.sd is not None]
    pairs = tuple(sorted(known, key=lambda p: -p.sd))
    unknown = tuple(f"{c.a} − {c.b}" for c in tested if c.sd is None)
    if not pairs:
        raise UserError(
            f"--detect {detect}: in {folder} no pair's difference in {metric} varies over the seeds, so that its "
            "spread is unknown; add seeds"
        )
    return _told(results, metric, size, power, pairs, unknown)


def _pair(c: statistics.Comparison, sd: float, size: float, level: float, power: float) -> Pair:
    n = c.difference.n
    cautious = statistics.sd_upper_bound(sd, n)
    return Pair(
        c.a,
        c.b,
        n,
        sd,
        detectable=statistics.detectable_difference(sd, n, level, power),
        alone=statistics.seeds_needed(size, sd, statistics.ALPHA, power),
        seeds=statistics.seeds_needed(size, sd, level, power),
        cautious=statistics.seeds_needed(size, cautious, level, power),
    )


def _wanted(results: Results, detect: str) -> tuple[str, float]:
    """Return the metric and the difference in its own unit."""
    match = DETECT.fullmatch(detect.strip())
    if not match or float(match[2]) <= 0:
        raise UserError(
            f"--detect {detect}: write METRIC=SIZE with a size above 0, as accuracy=0.5pp or step_ms_p50=3%"
        )
    asked, amount, unit = match[1].strip(), float(match[2]), (match[3] or "").strip()
    known = [name for name in sorted(results.definitions) if results.values(name)]
    metric = asked if asked in known else f"test_{asked}"
    if metric not in known:
        raise UserError(f"--detect {detect}: the pilot has no metric '{asked}'; it has {', '.join(known)}")
    definition = results.definitions[metric]
    share = definition.format.endswith("%")
    if unit == "pp" and share:
        return metric, amount / 100
    if unit == "%" and not share and definition.unit != "%":
        means = [i.mean for m in results.methods if (i := results.interval(m, metric))]
        return metric, amount / 100 * abs(math.fsum(means) / len(means))
    if unit in {"", definition.unit} and not (share and not unit):
        return metric, amount
    choice = "pp (percentage points)" if share else f"% (of the mean) or {definition.unit or 'no unit'}"
    raise UserError(f"--detect {detect}: a difference in {metric} is given in {choice}")


def _told(
    results: Results, metric: str, size: float, power: float, pairs: tuple[Pair, ...], unknown: tuple[str, ...]
) -> Plan:
    seeds = None if any(p.seeds is None for p in pairs) else max(p.seeds for p in pairs if p.seeds)
    quantity = Quantity.of(results, metric)
    unit = "pp" if quantity.unit == "%" and quantity.scale == 100 else quantity.unit
    scaled = f"{number(size * quantity.scale)} {unit}".strip()

    def cell(value: float) -> Cell:
        return number(value * quantity.scale), value * quantity.scale

    rows = [
        [f"{p.a} − {p.b}", _count(p.n), cell(p.sd), cell(p.detectable), _count(p.alone), _count(p.seeds),
         _count(p.cautious)]
        for p in pairs
    ]  # fmt: skip
    shown = f" ({unit})" if unit else ""
    columns = (
        "pair", "Pilot seeds", f"SD of differences{shown}", f"Detectable now{shown}", "Seeds, alone", "Seeds, Holm",
        "Seeds, cautious",
    )  # fmt: skip
    caption = f"Seeds to find {scaled} of {quantity.title} with a chance of {power:.0%}".replace("%", " %")
    recorded = [[r.seconds for r in results.runs(method)] for method in results.methods]
    round_seconds = sum(sum(of) / len(of) for of in recorded)
    hours = None if seeds is None or not results.one_machine else seeds * round_seconds / 3600
    worst = pairs[0]
    first = (
        f"{seeds} seeds are enough for every {'other ' if unknown else ''}pair, by the pilot's spread; "
        f"the noisiest is {worst.a} − {worst.b}."
        if seeds is not None
        else f"More than 10,000 seeds: {worst.a} − {worst.b} varies too much for a difference of {scaled}."
    )
    sentences = [first]
    if unknown:
        sentences.insert(
            0,
            f"The differences of {sentence_list(unknown)} are equal in all seeds of the pilot, so that their spread is "
            "unknown and nothing is planned for them; more seeds may tell it.",
        )
    if not results.one_machine:
        sentences.append("The pilot's runs come from different hardware or versions, so that they tell no hours.")
    if hours is not None:
        sentences.append(
            f"{seeds} seeds x {len(results.methods)} methods take {_duration(hours)} at the pilot's "
            f"{number(round_seconds, '.1f')} s a seed, runs one after another."
        )
    fewest = min(p.n for p in pairs)
    sentences.append(
        f"A spread from {fewest} seeds is itself uncertain: cautious is for its 80 % upper bound, "
        f"{number(statistics.sd_upper_bound(1.0, fewest), '.2f')} times the estimate."
    )
    return Plan(table("plan", caption, columns, rows), tuple(sentences), pairs, unknown, seeds, hours)


def _count(n: int | None) -> Cell:
    return ("> 10,000", None) if n is None else (number(n, "d"), float(n))


def _duration(hours: float) -> str:
    return f"{number(hours, '.1f')} hours" if hours >= 1 else f"{number(60 * hours, '.1f')} minutes ({hours:.2f} hours)"
