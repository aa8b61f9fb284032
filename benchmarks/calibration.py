"""Calibration of the claims of pages, by simulation: how often they are false, what they find, and
how intervals cover.

    python benchmarks/calibration.py QUESTION [--trials N]   prints tables
    python benchmarks/calibration.py RECORDED [--trials N]   writes a committed record: power,
                                                             races, compare, ledger or priors
    python benchmarks/calibration.py RECORDED --table        the record's tables, as docs/ has them
    python benchmarks/calibration.py races --replay DIR...   races of recorded seeds
    python benchmarks/calibration.py trials FOLDER|FILE...   of `check`: simulation/check.py

`pages`: disturbed times, and methods just the margin apart. `groups`: dependent test rows.
`missing`: systems that lack rows. `counts`: rounded costs that differ in all seeds. `intervals`:
their coverage. `planned`: power of the seeds that `plan` gives. `check`: error rates of the gate's
rule. `power`: false pages and pairs found, with variances that methods share and without. `races`:
sweeps that end when they are decided. `compare`: pages of one run each. `ledger`: what looks,
metrics, checkpoints and ends of races find and cost, before and now. `priors`: variances that
earlier suites lend. A quick look takes 300 trials.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy import special
from simulation import (
    cases,
    check,
    compare,
    ledger,
    missing,
    percent,
    power,
    print_table,
    priors,
    races,
)
from simulation.pages import false_pages, page_metrics
from simulation.worlds import DISTURBANCES, MARGIN, MARGIN_COST, NOISE, ROWS, World
from statsmodels.stats.power import TTestPower

from hpml_bench import statistics
from hpml_bench.statistics import ALPHA
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, OF_SCORE

AT_MARGIN = (0, 0, 0, math.log1p(MARGIN_COST), math.log1p(MARGIN_COST))
WORLDS: Mapping[str, World] = {
    **{name: World(disturbance=name) for name in DISTURBANCES if "near" not in name},
    "two groups": World(
        score=(0, 0, 0, 0.06, 0.06), cost=(0, 0, 0, 0.3, 0.3), second=(0, 0, 0, 0.3, 0.3)
    ),
    "apart by the margin": World(score=(0, 0, 0, MARGIN, MARGIN), cost=AT_MARGIN, second=AT_MARGIN),
}
"""Worlds of normal noise beside those of `power`."""


def false_share(world: World, n: int, trials: int) -> float:
    """Return the share of pages of n seeds that make any false claim."""
    return false_pages(world, page_metrics(world, n, trials, np.random.default_rng([0, n])))


def planned_power(pilot: int, size: float, level: float, trials: int) -> tuple[float, float]:
    """Return the mean power of the seeds planned from a pilot's spread, of a true sd of 1, and
    from its 80 % bound.
    """
    spreads = np.sqrt(np.random.default_rng(0).chisquare(pilot - 1, trials) / (pilot - 1))
    found = []
    for planned in (spreads, [statistics.sd_upper_bound(float(sd), pilot) for sd in spreads]):
        seeds = [
            statistics.seeds_to_find([statistics.OverSeeds(2, 0.0, float(sd))], size, level)
            for sd in planned
        ]
        powers = np.array([TTestPower().power(size, n, level) for n in seeds if n is not None])
        found.append(
            float(np.nan_to_num(powers, nan=1.0).mean())
        )  # scipy has none where it is 1 but for 1e-12
    return found[0], found[1]


def print_pages(trials: int) -> None:
    """Print how often pages make a false claim, and how many pairs, of spreads 1:10, are marked
    as skewed.
    """

    def marked(noise: str) -> Iterator[str]:
        for n in power.SEEDS:
            random, spreads = np.random.default_rng(4), np.array([[1.0], [10.0]])
            pairs = (spreads * NOISE[noise](random, (2, n)) for _ in range(2000))
            yield percent(sum(statistics.looks_skewed(*pair) for pair in pairs) / 2000)

    sizes = ("3 seeds", "5", "10")
    rows = (
        (name, (percent(false_share(of, n, trials)) for n in power.SEEDS))
        for name, of in WORLDS.items()
    )
    print_table(
        f"Pages with any false claim, 5 methods, {trials:,} pages each",
        ("normal noise", *sizes),
        rows,
    )
    marks = ((noise, marked(noise)) for noise in ("normal", "skewed"))
    print_table("Pairs marked as skewed and of unequal spread (1:10)", ("noise", *sizes), marks)


def print_groups(pages: int) -> None:
    """Print how often pages make a false claim on the score where test rows depend on each
    other.
    """
    title = (
        f"Pages with a false claim on the score, 5 seeds, {ROWS:,} test rows in groups, {pages:,} "
        f"pages each"
    )
    kinds = (("5", 5, True), ("10", 10, True), ("1 to 19", 10, False))
    made = (
        (
            name,
            [partial(cases.grouped_page, size, known=known, even=even) for known in (False, True)],
        )
        for name, size, even in kinds
    )
    rows = ((name, (percent(cases.rate(page, pages)) for page in both)) for name, both in made)
    print_table(title, ("rows of a group", "taken for independent", "tested by group"), rows)


def print_counts(pages: int) -> None:
    """Print how often rounding makes equal costs of two systems differ, each the same in all
    seeds.
    """

    def share(noise: float, *, halfway: bool) -> str:
        random = np.random.default_rng([5, halfway])
        drawn = np.array([cases.counted_page(noise, random, halfway=halfway) for _ in range(pages)])
        differing, taken = map(float, drawn.mean(axis=0))
        return f"{percent(differing, 2)} ({percent(taken, 2)})"

    title = (
        f"Equal costs that rounding makes differ in all of 3 seeds (taken for real), {pages:,} "
        f"pages each"
    )
    rows = (
        (f"{noise:g}", (share(noise, halfway=halfway) for halfway in (False, True)))
        for noise in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    )
    print_table(
        title,
        ("noise, in units of the last digit", "true cost anywhere", "halfway between two"),
        rows,
    )


def print_intervals(trials: int) -> None:
    """Print the share of samples whose 95 % interval holds the true mean, 0."""
    sizes, samples = (3, 5, 10, 20, 40), 50_000 if trials >= 1000 else 5_000

    def coverage(noise: str) -> Iterator[str]:
        for n in sizes:
            values = NOISE[noise](np.random.default_rng(1), (samples, n))
            half = special.stdtrit(n - 1, 1 - ALPHA / 2) * values.std(axis=-1, ddof=1) / np.sqrt(n)
            yield percent(float(np.mean(np.abs(values.mean(axis=-1)) <= half)))

    rows = ((noise, coverage(noise)) for noise in ("normal", "skewed", "tied"))
    title = f"Coverage of the 95 % interval of a mean, {samples:,} samples"
    print_table(title, ("noise", *(f"n = {n}" for n in sizes)), rows)


def print_planned(trials: int) -> None:
    """Print the mean power of the numbers of seeds that `plan` gives from a pilot."""
    first, following = (
        ALPHA * FOR_DIFFERENCES * OF_SCORE * statistics.spent_at(look) / 10 for look in (1, 2)
    )
    levels = {
        "alone": ALPHA,
        "the first step of 10 pairs, a new folder": first,
        "the next look": following,
    }

    def cells(level: float) -> Iterator[str]:
        for pilot in (3, 5, 10):
            plain, cautious = planned_power(pilot, 1.0, level, trials)
            yield f"{percent(plain)} ({percent(cautious)})"

    title = (
        "Mean power of the seeds that `plan` gives (cautious) for a difference of one standard "
        "deviation"
    )
    rows = ((f"{label}, {100 * level:.2g} %", cells(level)) for label, level in levels.items())
    print_table(title, ("level", "pilot of 3", "of 5", "of 10"), rows)


PRINTED: Mapping[str, Callable[[int], None]] = {
    "pages": print_pages,
    "groups": print_groups,
    "counts": print_counts,
    "intervals": print_intervals,
    "planned": print_planned,
    "check": check.print_rates,
    "missing": missing.print_rates,
}
RECORDED = {"power": power, "races": races, "compare": compare, "ledger": ledger, "priors": priors}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=(*PRINTED, *RECORDED, "trials"))
    parser.add_argument(
        "recorded", type=Path, nargs="*", help="of `trials`: folders of self-tests, or packed files"
    )
    parser.add_argument(
        "--loaded",
        type=Path,
        nargs="+",
        default=[],
        help="of `trials`: those under a competing load",
    )
    parser.add_argument(
        "--pack", type=Path, help="of `trials`: write them as one .jsonl.gz and stop"
    )
    parser.add_argument(
        "--trials", type=int, help="pages of each kind; by default 3,000, or as recorded"
    )
    parser.add_argument("--out", type=Path, help="where a record goes, or the page of `trials`")
    parser.add_argument(
        "--table", action="store_true", help="print the record's tables; simulate nothing"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="race the seeds of folders",
    )
    parser.add_argument("--orders", type=int, default=1000, help="of replayed seeds")
    given = parser.parse_args(arguments)
    if given.question in PRINTED:
        PRINTED[given.question](given.trials or 3000)
        return 0
    if given.question == "trials":
        return check.report(given.recorded, given.loaded, given.pack, given.out)
    for folder in given.replay:
        print(folder.name, json.dumps(races.replay(folder, given.orders)), flush=True)
    module = RECORDED[given.question]
    if given.table:
        print(module.tables())
    elif not given.replay:
        module.record(given.trials, given.out or module.RECORD)
    return 0


if __name__ == "__main__":
    sys.exit(main())
