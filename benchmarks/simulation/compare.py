"""Pages of `compare` of one run each: how often they make a false claim, and coverage of their
intervals.

A page's claims are made by the functions that `hpml-bench compare` calls. All systems are equal in
every world, some in other ways than others: of one system rare rows fail, and all its other rows
are a little better.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.statistics import Comparison, clopper_pearson
from simulation import percent, table_lines
from simulation.worlds import Floats, Random

SYSTEMS, ROWS = (2, 5, 30), (20, 100, 300, 1000, 10_000)
RECORD = Path(__file__).parents[2] / "reports" / "reference" / "compare" / "rates.json"
ALIKE, UNLIKE = (5,), (50, *[1] * 9)  # rows of the groups, in turn
PAGES, LEAST = {2: 2000, 5: 1000, 30: 150}, 150  # pages of a cell, by systems, and the least number
LARGEST = 20_000_000  # most scores that are drawn for a cell, but for the least number of pages
Draw = Callable[[Random, int, int], Floats]  # random, systems, rows -> [systems, rows]


@dataclass(frozen=True)
class Systems:
    """Scores of systems whose true means are equal."""

    draw: Draw
    span: float | None = 1.0
    """Range of a row's score; None where none is declared, and that of the scores seen is taken."""
    sizes: tuple[
        int, ...
    ] = ()  # rows of the groups, in turn, which are then tested; empty: rows stand alone
    shares: bool = False  # whether means alone are known
    promised: bool = True  # whether the 5 % are promised


def right(random: Random, systems: int, rows: int) -> Floats:
    """Return right and wrong, about four rows in five, of which systems share the difficulty."""
    return (
        random.standard_normal(rows) + 0.9 + 0.5 * random.standard_normal((systems, rows)) > 0
    ).astype(float)


def one_way(random: Random, systems: int, rows: int) -> Floats:
    """Return right and wrong; the first system alone fails in 2 % of the rows, and is alone
    right in another 2 %.
    """
    kind = random.random(rows)
    scores = np.tile((random.random(rows) < 0.8).astype(float), (systems, 1))
    scores[:, kind < 0.04] = 0.0
    scores[0, kind < 0.02] = 1.0
    scores[1:, (kind >= 0.02) & (kind < 0.04)] = 1.0
    return scores


def rare_failures(random: Random, systems: int, rows: int) -> Floats:
    """Return scores near 0.7; the first system's are 0.7 less in a hundredth of the rows, and
    else 0.007 more.
    """
    scores = 0.7 + 0.02 * random.standard_normal((systems, rows)).clip(-5, 5)
    scores[0] += 0.007
    scores[0][random.random(rows) < 0.01] -= 0.7
    return scores


def first_by(own: Draw, mean: float, sd: float, most: float = np.inf) -> Draw:
    """Return a draw of the first system's scores by its own, of the others' normal ones, of at
    most so many sd.
    """

    def drawn(random: Random, systems: int, rows: int) -> Floats:
        scores = mean + sd * random.standard_normal((systems, rows)).clip(-most, most)
        scores[0] = own(random, 1, rows)
        return scores

    return drawn


def groups_of(rows: int, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the number of each row's group."""
    return np.repeat(np.arange(rows), np.resize(sizes, rows))[:rows]


def clustered(draw: Draw, sizes: tuple[int, ...] = ALIKE, alike: float = 0.8) -> Draw:
    """Return a draw in which so large a share of the rows have the score of their group."""

    def drawn(random: Random, systems: int, rows: int) -> Floats:
        groups = groups_of(rows, sizes)
        own = draw(random, systems, int(groups[-1]) + 1)[:, groups]
        alone = draw(random, systems, rows)
        return np.asarray(np.where(random.random((systems, rows)) < alike, own, alone))

    return drawn


def normal(random: Random, systems: int, rows: int) -> Floats:
    return random.standard_normal(rows) + 0.5 * random.standard_normal((systems, rows))


def lognormal(random: Random, systems: int, rows: int) -> Floats:
    return np.asarray(np.exp(random.standard_normal((systems, rows))))


def right_in(share: float) -> Draw:
    return lambda random, systems, rows: (random.random((systems, rows)) < share).astype(float)


WORLDS: Mapping[str, Systems] = {
    "normal": Systems(normal, None),
    "right and wrong": Systems(right),
    "right and wrong, 3 % wrong": Systems(right_in(0.97)),
    "right and wrong, one system's own 2 %": Systems(one_way),
    "right and wrong, means alone": Systems(right_in(0.97), shares=True),
    "half right, means alone": Systems(right_in(0.5), shares=True),
    "zero-inflated": Systems(
        lambda random, *of: (random.random(of) < 0.1) * random.exponential(1.0, of), None
    ),
    "zero-inflated in one system, 0 to 1": Systems(
        first_by(
            lambda random, _, rows: (random.random(rows) < 0.1) * random.random(rows),
            0.05,
            0.002,
            5,
        )
    ),
    "rare failures of one system, 0 to 1": Systems(rare_failures),
    "lognormal": Systems(lognormal, None),
    "normal, in groups": Systems(clustered(normal), None, ALIKE),
    "right and wrong, in groups": Systems(clustered(right), sizes=ALIKE),
    "rare failures of one system, in groups": Systems(clustered(rare_failures), sizes=ALIKE),
    "right and wrong, a tenth of the groups large": Systems(
        clustered(right, UNLIKE, 1.0), sizes=UNLIKE
    ),
    "lognormal in one system, no range": Systems(
        first_by(lognormal, float(np.exp(0.5)), 0.1), None, promised=False
    ),
    "rare rows of one system, no range": Systems(
        first_by(
            lambda random, _, rows: (random.random(rows) < 0.05) * random.exponential(1.0, rows),
            0.05,
            0.001,
        ),
        None,
        promised=False,
    ),
}


def page(world: Systems, scores: Floats) -> tuple[Comparison, ...]:
    """Return the verdicts of a page on scores, [systems, rows], as `compare` gives them for one
    run each.
    """
    rows = scores.shape[1]
    if world.shares:
        pairs = statistics.compare_shares(
            {f"s{at}": float(row.mean()) for at, row in enumerate(scores)}, rows
        )
    else:
        groups = groups_of(rows, world.sizes or (1,))
        weights, own = np.bincount(groups), [statistics.group_scores(row, groups) for row in scores]
        named = {f"s{at}": row for at, row in enumerate(own if world.sizes else scores)}
        span = (world.span or float(np.ptp(scores))) * float(weights.max() / weights.mean())
        many = statistics.effective_number(weights)
        pairs = statistics.compare_rows(
            named, None, span, bounded=world.span is not None, effective=many
        )
    return statistics.decide_family({"score": pairs}, 1, "score", guess=False)["score"]


@dataclass(frozen=True)
class Rate:
    """Rates of wrong pages of a world."""

    world: str
    promised: bool
    systems: int
    rows: int
    pages: int
    false: int  # pages with a claim; every claim is false
    bound: float  # upper 97.5 % bound of their share
    covered: float  # share of the pairs' 95 % intervals that hold 0


def rate(name: str, systems: int, rows: int, pages: int, seed: int = 0) -> Rate:
    """Return how often a page of a world makes a false claim, and how often its intervals hold
    the truth.
    """
    world, random = WORLDS[name], np.random.default_rng([seed, systems, rows])
    false, held = 0, []
    for _ in range(pages):
        found = page(world, world.draw(random, systems, rows))
        false += any(c.differs for c in found)
        intervals = [(c.difference.low, c.difference.high) for c in found]
        held += [
            low <= 0 <= high for low, high in intervals if low is not None and high is not None
        ]
    covered = sum(held) / len(held) if held else 1.0
    return Rate(
        name, world.promised, systems, rows, pages, false, clopper_pearson(false, pages)[1], covered
    )


def load() -> list[Rate]:
    return [Rate(**one) for one in json.loads(RECORD.read_text(encoding="utf-8"))]


def tables() -> str:
    """Return a row per world: the largest share of false pages, that of all, and the least
    coverage, over all sizes.
    """

    def rows() -> Iterator[tuple[str, list[str]]]:
        for world, own in itertools.groupby(load(), key=lambda one: one.world):
            of = list(own)
            worst = max(of, key=lambda one: one.false / one.pages)
            every = sum(one.false for one in of) / sum(one.pages for one in of)
            shares = (worst.false / worst.pages, every, min(one.covered for one in of))
            name = f"{world}{'' if worst.promised else ' (not promised)'}"
            yield name, [f"{worst.systems} systems, {worst.rows:,} rows", *map(percent, shares)]

    head = ("scores", "worst size", "its false pages", "of all pages", "least coverage")
    return "\n".join(table_lines(head, rows(), left=2))


def record(_: int | None, out: Path) -> None:
    """Simulate all worlds at all sizes, print each rate, and write them. Of large pages fewer
    are drawn.
    """
    found = []
    for name, systems, rows in itertools.product(WORLDS, SYSTEMS, ROWS):
        one = rate(
            name, systems, rows, max(LEAST, min(PAGES[systems], LARGEST // (systems * rows)))
        )
        share = f"{percent(one.false / one.pages)} of {one.pages:,}"
        print(
            f"{name}, {systems} systems, {rows:,} rows: {share}, {percent(one.covered)}", flush=True
        )
        found.append(json.dumps(asdict(one)))
    out.write_text("[\n" + ",\n".join(found) + "\n]\n", encoding="utf-8")
