"""Seeds and hours needed to find a difference of a given size, from the spread of a pilot's
records.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hpml_bench import statistics
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.verdicts import staying
from hpml_bench.page.tables import quantity_of, table
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.numbers import Cell, cell, number, sentence_list, titled
from hpml_bench.system.errors import UserError

DETECT = re.compile(r"([^=]+)=\s*(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+)\s*(\S.*)?")
Planned = tuple[str, int, float, float, int | None, int | None, int | None, int | None]
"""A row of the plan: pair, its seeds in the pilot, the standard deviation of its differences
within a seed (of logarithms where costs are compared by factors), and the least difference that
these seeds can find at the first step's level. Then seeds, None where no number up to 10,000 is
enough: those that find the size for this pair alone, at the level of the first step over all
pairs of the page, the same were the true spread at its 80 % upper bound, and those that show a
difference to be smaller than the size, were the methods the same.
"""


class SeedPlan(NamedTuple):
    """Result of a plan: a row a pair, that which shows least now first, and what they say
    together.
    """

    table: Table
    sentences: tuple[str, ...]


def plan(folder: Path, detect: str, power: float = statistics.POWER) -> SeedPlan:
    """Return seeds and hours to find a difference with a chance of `power`, or to exclude it, from
    records in `folder`.

    By the page's own tests, for each pair's spread in the pilot: of a score over seeds and rows, of
    a cost over seeds. `detect` is METRIC=SIZE: `accuracy=0.5pp`, `samples_per_second=3%` (of the
    mean over methods), `train_seconds=2`. A UserError where there is no pilot, too little in it, an
    unknown metric, or a size that can't be read.
    """
    if not statistics.ALPHA < power < 1:
        raise UserError(
            f"--power {power:g}: give a probability above {statistics.ALPHA:g} and below 1, such "
            f"as 0.8"
        )
    if not any(folder.glob("*/run.json")):
        raise UserError(
            f"{folder}: no pilot here; run a few seeds first (hpml-bench run-all {folder.name} "
            "--seeds 5) or name another --out"
        )
    results = Results.load(folder)
    if not results.compared:
        raise UserError(
            f"{folder}: no run of the pilot can be compared; hpml-bench report {folder} says why"
        )
    metric, size = _wanted(results, detect)
    if results.definitions[metric].depends_on_machine and not results.costs_ranked:
        raise UserError(
            f"--detect {detect}: in {folder} {results.aligned.unranked}, so that costs tell "
            "nothing; run a pilot without --parallel, or in jobs of a seed each that have their "
            "nodes to themselves"
        )
    names = {*(staying(results.verdicts) if results.race else results.methods)}
    compared = [c for c in results.comparisons(metric) if {c.a, c.b} <= names]
    over_rows = results.verdicts.by_rows
    tested = [
        c
        for c in compared
        if not c.exact and c.p is not None and not (over_rows and metric == results.quality)
    ]
    if not tested:
        shared = f"{statistics.LEAST_SEEDS} seeds that they share"
        reason = f"needs at least 2 methods x {shared}, of costs on one host a seed,"
        if any(c.exact for c in compared):
            reason = "is the same in every seed: one seed tells it exactly"
        elif results.race and len(names) < 2:
            reason = "isn't open: one method is left of the race"
        raise UserError(f"--detect {detect}: {metric} {reason} in {folder}")
    family: dict[str, tuple[statistics.Comparison, ...]] = {metric: tuple(tested)}
    if metric in results.family:
        family = dict(results.family)
    if not any(c.margin for of in family.values() for c in of):  # the size stands for the margin
        family[metric] = tuple(replace(c, margin=size, p_equivalent=1.0) for c in tested)
    look, declared = results.verdicts.look, results.aligned.declared_looks
    levels = tuple(
        statistics.levels(family, at, results.quality, declared=declared)[metric]
        for at in (look, look + 1)
    )
    pairs = sorted(
        (_planned(c, size, levels, power) for c in tested if c.evidence), key=lambda row: -row[3]
    )
    unknown = [f"{c.a} − {c.b}" for c in tested if not c.evidence]
    if not pairs:
        raise UserError(
            f"--detect {detect}: in {folder} no pair's difference in {metric} varies over the "
            "seeds, so that its spread is unknown; add seeds"
        )
    return _told(results, metric, size, power, pairs, unknown)


def _planned(
    c: statistics.Comparison, size: float, levels: Sequence[tuple[float, float]], power: float
) -> Planned:
    """Return what a pair can find at this look, and needs at the next, by the `levels` of both
    looks' first steps.
    """
    n, evidence = c.difference.n, c.evidence
    (level, _), (first, first_equivalent) = levels
    wanted = math.log1p(size) if c.ratio else size  # a factor less 1
    least = max(statistics.detectable(one, n, level, power) for one in evidence)
    return (
        f"{c.a} − {c.b}",
        n,
        c.difference.sd or 0.0,
        math.expm1(least) if c.ratio else least,
        statistics.seeds_to_find(evidence, wanted, statistics.ALPHA, power),
        statistics.seeds_to_find(evidence, wanted, first, power),
        statistics.seeds_to_find([*map(statistics.cautious, evidence)], wanted, first, power),
        statistics.seeds_to_show(evidence, wanted, first_equivalent, power),
    )


def _wanted(results: Results, detect: str) -> tuple[str, float]:
    """Return the metric and the difference: of a cost as a share of it, else in the metric's own
    unit.
    """
    match = DETECT.fullmatch(detect.strip())
    if not match or float(match[2]) <= 0:
        raise UserError(
            f"--detect {detect}: write METRIC=SIZE with a size above 0, as accuracy=0.5pp or "
            f"step_ms_p50=3%"
        )
    wanted, amount, unit = match[1].strip(), float(match[2]), (match[3] or "").strip()
    known = [name for name in sorted(results.definitions) if results.values(name)]
    metric = wanted if wanted in known else f"test_{wanted}"
    if metric not in known:
        raise UserError(
            f"--detect {detect}: the pilot has no metric '{wanted}'; it has {', '.join(known)}"
        )
    definition = results.definitions[metric]
    share, (least, most) = definition.format.endswith("%"), definition.bounds
    if unit == "pp" and share:
        if least is not None and most is not None and amount / 100 >= most - least:
            raise UserError(
                f"--detect {detect}: {metric} can't differ by so much; give a smaller difference"
            )
        return metric, amount / 100
    means = results.means(metric).values()
    mean = abs(math.fsum(means) / len(means))
    by_factor = any(c.ratio for c in results.comparisons(metric))
    if unit == "%" and not share and definition.unit != "%":
        return metric, amount / 100 if by_factor else amount / 100 * mean
    if unit in {"", definition.unit} and not (share and not unit):
        return metric, amount / mean if by_factor else amount
    choice = (
        "pp (percentage points)" if share else f"% (of the mean) or {definition.unit or 'no unit'}"
    )
    raise UserError(f"--detect {detect}: a difference in {metric} is given in {choice}")


def _told(
    results: Results,
    metric: str,
    size: float,
    power: float,
    pairs: Sequence[Planned],
    unknown: Sequence[str],
) -> SeedPlan:
    needed = [row[5] for row in pairs]
    seeds = None if None in needed else max(n for n in needed if n)
    quantity = quantity_of(results, metric)
    by_factor = any(c.ratio for c in results.comparisons(metric))
    scale, unit = (100.0, "%") if by_factor else (quantity.scale, quantity.unit)
    unit = "pp" if unit == "%" and not by_factor and scale == 100 else unit
    scaled = f"{number(size * scale)} {unit}".strip()
    rows: list[list[Cell]] = [
        [
            pair,
            n,
            cell(sd * scale),
            cell(least * scale),
            *(("none", None) if of is None else cell(of, "d") for of in counts),
        ]
        for pair, n, sd, least, *counts in pairs
    ]
    columns = (
        "pair",
        "Pilot seeds",
        titled("SD over seeds", unit),
        titled("Detectable now", unit),
        "Seeds, alone",
        "Seeds, page",
        "Seeds, cautious",
        "Seeds, equivalent",
    )
    caption = f"Seeds to find {scaled} of {quantity.title} with a chance of {power:.0%}".replace(
        "%", " %"
    )
    spent = 100 * statistics.spent_at(results.verdicts.look + 1, results.aligned.declared_looks)
    worst, every = pairs[needed.index(seeds)][0], "every other pair" if unknown else "every pair"
    fewest = min(n for _, n, *_ in pairs)
    enough = f"{seeds} seeds are enough for {every}, by the pilot's spread; {worst} takes most."
    sentences = (
        f"The differences of {sentence_list(unknown)} are equal in all seeds of the pilot, so that "
        "their spread is unknown and nothing is planned for them; more seeds may tell it."
        if unknown
        else "",
        enough
        if seeds
        else f"No number of seeds up to 10,000: {worst} leaves more open than {scaled}.",
        f"For other seeds and other test rows: what the {answer_of(results).rows_text} leave open "
        "no seed tells; more test rows may."
        if metric == results.quality
        else "",
        f"Equivalent: so many seeds show the difference of two equal methods to be under {scaled}.",
        _hours(results, seeds),
        f"A spread from {fewest} seeds is itself uncertain: cautious is for its 80 % upper bound.",
        f"Seeds are those of the next look at this folder, which may use {spent:.2g} % of its "
        "chance of error; in a folder of their own fewer are enough.",
    )
    return SeedPlan(table("plan", caption, columns, rows), tuple(filter(None, sentences)))


def _hours(results: Results, seeds: int | None) -> str:
    """Return a sentence on how long so many seeds of every method take, or on why that is
    unknown.
    """
    if len(results.machines) > 1:
        return (
            "The pilot's runs come from different hardware or versions, so that they tell no hours."
        )
    if results.beside:
        return (
            "Runs of the pilot had neighbours on their host, which slow each other, so that they "
            "tell no hours."
        )
    if seeds is None:
        return ""
    names = staying(results.verdicts) if results.race else results.methods
    recorded = [[run.wall_seconds for run in results.runs(method)] for method in names]
    round_seconds = sum(sum(of) / len(of) for of in recorded)
    hours = seeds * round_seconds / 3600
    duration = (
        f"{number(hours, '.1f')} hours"
        if hours >= 1
        else f"{number(60 * hours, '.1f')} minutes ({hours:.2f} hours)"
    )
    pace = f"{number(round_seconds, '.1f')} s a seed, runs one after another"
    return f"{seeds} seeds x {len(results.methods)} methods take {duration} at the pilot's {pace}."
