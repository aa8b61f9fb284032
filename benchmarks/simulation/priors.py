"""Pages whose variance over seeds is estimated with earlier suites': false claims, and pairs found,
by their weight.

A suite's noise over seeds is a base times a factor of its own. Earlier suites are of the same
methods, and of other numbers of rows. What they lend is the variance over seeds but for the rows'
part of it, (MS_seeds - MS_interaction) / m in expectation σ²_s, pooled; to it comes the interaction
of the page's own rows.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special, stats

from hpml_bench.statistics import clopper_pearson
from hpml_bench.statistics.earlier import freedom_lent
from hpml_bench.statistics.intervals import most_equal
from simulation import pages, percent, table_lines
from simulation.pages import Squares
from simulation.worlds import ROWS, Floats, World, answers

RECORD = Path(__file__).parents[2] / "reports" / "reference" / "power" / "priors.json"
LEVELS = (0.045, 0.025, 0.014)
"""Nominal levels of a page's differences by score: alone, and as the share of a look and of the
score.
"""
EARLIER_ROWS = (500, 200, 1000, 500, 200)
LENDERS = ((1, 3), (1, 5), (2, 3), (2, 5), (3, 3), (3, 5), (5, 3), (5, 5))
"""Numbers of earlier suites, and of seeds of each."""
SEEDS = 3  # of the page
SPREADS = (1.0, 3.0)
"""Spread over seeds: 1 has about as much from the rows' interaction, of 3 nearly all is the
seeds'.
"""
PROMISED_SD = 0.7  # of the logarithm of suites' variances, up to which false pages are promised
MOST_UPPER = 0.055  # largest upper 97.5 % bound of false pages at 4.5 %, of promised worlds
CHUNK = 400


@dataclass(frozen=True)
class Suites:
    """How the noise over seeds differs from suite to suite."""

    log_sd: float = 0.0  # of the logarithm of a suite's variance over seeds
    ratio: float = 1.0  # of the page's variance to that of a typical suite

    @property
    def promised(self) -> bool:
        return self.log_sd <= PROMISED_SD and self.ratio <= 1


SUITES: Mapping[str, Suites] = {
    **{
        f"sd {log_sd:g} of the log of variance": Suites(log_sd)
        for log_sd in (0, 0.35, 0.7, 1.0, 1.4)
    },
    "always twice the earlier suites' variance": Suites(ratio=2),
    "always four times the earlier suites' variance": Suites(ratio=4),
    "always a quarter of the earlier suites' variance": Suites(ratio=0.25),
}


AT_PROMISE = f"sd {PROMISED_SD} of the log of variance"


@dataclass(frozen=True)
class Cell:
    """Pages of one kind of suites, noise, base spread and number of methods."""

    suites: str
    noise: str
    spread: float
    methods: int


Weigh = Callable[[Floats, Floats, int], Floats | float]
"""The page's variances, those of earlier suites, [suites, pages, pairs], and their seeds ->
degrees of freedom.
"""


def by_suite(_: Floats, lent: Floats, __: int) -> float:
    return freedom_lent(len(lent))


def informed(_: Floats, lent: Floats, seeds: int) -> float:
    """Return the degrees of freedom that the number of suites and seeds allows, if suites differ
    by the promised sd.
    """
    # The log of the pooled variance errs by τ² (1 + 1 / J) + ψ'(D / 2), τ² being the variance of
    # suites' logs, J their number and D their degrees of freedom; that of a variance with d0 of
    # them by ψ'(d0 / 2) (Smyth 2004).
    of_error = PROMISED_SD**2 * (1 + 1 / len(lent)) + special.polygamma(
        1, len(lent) * (seeds - 1) / 2
    )
    halves = np.geomspace(0.02, 200, 4000)
    return min(4.0, 2 * float(np.interp(-of_error, -special.polygamma(1, halves), halves)))


def guarded(own: Floats, lent: Floats, seeds: int) -> Floats:
    """Return the degrees of freedom by suite, none where an F test at 10 % finds the page's own
    variance larger.
    """
    limit = stats.f.ppf(0.9, SEEDS - 1, len(lent) * (seeds - 1))
    return np.where(own > limit * lent.mean(axis=0), 0.0, by_suite(own, lent, seeds))


CHOSEN = "one each"
RULES: Mapping[str, Weigh] = {
    **{f"{freedom}": lambda *_, freedom=freedom: float(freedom) for freedom in range(5)},
    CHOSEN: by_suite,
    "by information": informed,
    "one each, guarded": guarded,
}
"""Rules by which earlier suites lend degrees of freedom; one for each suite, at most four, is
the package's.
"""


def lent_by(cell: Cell, count: int, random: np.random.Generator) -> dict[int, Floats]:
    """Return seeds -> variances over seeds of earlier suites but for their rows' part, [suites,
    pages, pairs].
    """
    world, found = (
        World(cell.noise, (cell.spread,) * cell.methods),
        {3: list[Floats](), 5: list[Floats]()},
    )
    for rows in EARLIER_ROWS:
        factor = factors(SUITES[cell.suites].log_sd, 1.0, count, random)
        right = answers(world, 5, count, random, np.arange(rows), factor)
        for seeds, suites in found.items():
            _, variance, _, rest, _ = pages.answer_squares(right[:, :, :seeds])
            suites.append(variance - rest / rows)
    return {seeds: np.array(suites) for seeds, suites in found.items()}


def factors(log_sd: float, ratio: float, count: int, random: np.random.Generator) -> Floats:
    """Return factors of the standard deviations of so many suites."""
    return math.sqrt(ratio) * np.exp(log_sd / 2 * random.standard_normal(count))


def least_p(of: Squares) -> Floats:
    """Return p with Shaffer's factors, or of two methods p itself, [pages, pairs]."""
    different, _ = pages.p_values(of)
    k = of.methods
    if k == 2:
        return different
    pairs = k * (k - 1) // 2
    most = np.maximum(
        [most_equal(k, at, pairs) for at in range(pairs)], pages.PACKAGE.floor * pairs
    )
    return pages.step_down(different, most)


def score_of(methods: int, points: int) -> tuple[float, ...] | None:
    """Return true scores of two groups so many points apart; None where all are equal."""
    better = methods // 2
    return (0.0,) * (methods - better) + (points / 100,) * better if points else None


def with_earlier(of: Squares, lent: Floats, seeds: int, weigh: Weigh) -> Squares:
    """Return pages with the variance that earlier suites lend, to which the page's own rows add
    their part.
    """
    of_rows = np.zeros_like(of.mean) if of.rest is None else of.rest / ROWS
    earlier = np.maximum(lent.mean(axis=0), 0) + of_rows
    return replace(
        of, earlier=earlier, weight=np.asarray(weigh(of.variance, lent + of_rows, seeds))
    )


def rates(cell: Cell, trials: int) -> dict[str, dict[str, list[list[int]]]]:
    """Return lenders -> rule -> at each true difference and level, how many pages are false, or
    pairs are found.
    """
    random = np.random.default_rng(
        [55, cell.methods, int(10 * cell.spread), *f"{cell.suites}{cell.noise}".encode()]
    )
    suites, k = SUITES[cell.suites], cell.methods
    first, second = np.triu_indices(k, 1)
    found: dict[str, dict[str, list[list[int]]]] = {}
    for start in range(0, trials, CHUNK):
        count = min(CHUNK, trials - start)
        lent = lent_by(cell, count, random)
        for at, points in enumerate((0, 3, 6)):
            score = score_of(k, points)
            gap = np.subtract.outer(score or (0.0,) * k, score or (0.0,) * k)[first, second]
            world = World(cell.noise, (cell.spread,) * k, score)
            right = answers(
                world,
                SEEDS,
                count,
                random,
                factor=factors(suites.log_sd, suites.ratio, count, random),
            )
            page = Squares(SEEDS, k, *pages.answer_squares(right))
            for (lenders, seeds), (name, weigh) in itertools.product(LENDERS, RULES.items()):
                p = least_p(with_earlier(page, lent[seeds][:lenders], seeds, weigh))
                right_sign = np.sign(page.mean) * gap > 0
                by_rule = found.setdefault(f"{lenders} of {seeds}", {})
                counts = by_rule.setdefault(name, [[0] * len(LEVELS) for _ in range(3)])[at]
                for place, level in enumerate(LEVELS):
                    claims = p < level
                    hits = (
                        (claims & right_sign)[:, gap != 0].sum()
                        if points
                        else claims.any(axis=-1).sum()
                    )
                    counts[place] += int(hits)
    return found


def cells() -> Iterator[Cell]:
    for suites in SUITES:
        yield from (Cell(suites, "normal", spread, 2) for spread in SPREADS)
        yield Cell(suites, "normal", 1.0, 5)
    yield from (Cell(AT_PROMISE, "t3", spread, 2) for spread in SPREADS)


def results(trials: int) -> Iterator[dict[str, Any]]:
    for cell in cells():
        count = trials if cell.methods == 2 and SUITES[cell.suites].promised else trials // 4
        pairs = cell.methods // 2 * (cell.methods - cell.methods // 2)
        for lenders, by_rule in rates(cell, count).items():
            for rule, (false, three, six) in by_rule.items():
                found = {
                    size: [round(n / count / pairs, 5) for n in of]
                    for size, of in (("3", three), ("6", six))
                }
                yield {
                    "suites": cell.suites,
                    "noise": cell.noise,
                    "spread": cell.spread,
                    "methods": cell.methods,
                    "pages": count,
                    "earlier": lenders,
                    "rule": rule,
                    "false": [round(n / count, 5) for n in false],
                    "upper": round(clopper_pearson(false[0], count)[1], 5),
                    "found": found,
                }


def tables() -> str:
    """Return the table of false pages, and of pairs found, by the number of earlier suites."""
    made = json.loads(RECORD.read_text(encoding="utf-8"))["results"]
    counts = sorted({suites for suites, _ in LENDERS})
    head = ("suites' variances; nominal level", "none", *(f"{count} earlier" for count in counts))
    usual = {"suites": AT_PROMISE, "noise": "normal", "spread": 1.0, "methods": 2}

    def chosen(count: int, rule: str, **given: Any) -> list[Mapping[str, Any]]:
        there = [
            row for row in made if row["rule"] == rule and row["earlier"].startswith(f"{count} of ")
        ]
        return [row for row in there if all(row[name] == value for name, value in given.items())]

    def false(level: int, suites: str) -> Iterator[str]:
        yield percent(max(row["false"][level] for row in chosen(1, "0", suites=suites)))
        for count in counts:
            worst = [
                max(row["false"][level] for row in chosen(count, rule, suites=suites))
                for rule in (CHOSEN, "4")
            ]
            yield f"{percent(worst[0])} ({100 * worst[1]:.1f})"

    def found(level: int, points: str) -> Iterator[str]:
        for count, rule in ((1, "0"), *((count, CHOSEN) for count in counts)):
            yield percent(
                min(row["found"][points][level] for row in chosen(count, rule, **usual)), 0
            )

    def rows() -> Iterator[tuple[str, Iterator[str]]]:
        for suites, kind in SUITES.items():
            yield (
                f"{suites}{'' if kind.promised else ' (not promised)'}; {percent(LEVELS[0])}",
                false(0, suites),
            )
        for level in (1, 2):
            yield f"{AT_PROMISE}; {percent(LEVELS[level])}", false(level, AT_PROMISE)
        for points, level in (("6", 0), ("6", 2), ("3", 0)):
            yield f"found of {points} points; {percent(LEVELS[level])}", found(level, points)

    return "\n".join(table_lines(head, rows()))


def record(given: int | None, out: Path) -> None:
    trials = given or 8000
    made = []
    for row in results(trials):
        made.append(row)
        if row["rule"] == CHOSEN:
            print(
                {name: row[name] for name in ("suites", "noise", "spread", "methods", "earlier")},
                flush=True,
            )
    lines = ",\n".join(json.dumps(row) for row in made)
    out.write_text(
        f'{{"pages": {trials}, "levels": {json.dumps(LEVELS)}, "results": [\n{lines}\n]}}\n'
    )
