"""Calibration of `compare`: how often a page of one run each makes a false claim, and coverage of its intervals.

`python benchmarks/compare_calibration.py` writes reports/reference/compare/rates.json, with `--only` those of some
worlds anew, and prints with `--table` the table of docs/compare.md. A page's claims are made by the functions that
`hpml-bench compare` calls, from scores that are drawn here. All systems are equal in every world, some in other ways
than others: of one system rare rows fail, and all its other rows are a little better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from calibration_cases import bounded
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.statistics import Comparison

Floats = NDArray[np.float64]
Random = np.random.Generator
SYSTEMS, ROWS = (2, 5, 30), (20, 100, 300, 1000, 10_000)
RATES = Path(__file__).parents[1] / "reports" / "reference" / "compare" / "rates.json"
GROUP = 5
"""Rows of a group in the worlds with groups."""
PAGES = {2: 2000, 5: 1000, 30: 150}
"""Pages of a cell, by systems."""
LARGEST = 20_000_000
"""Most scores that are drawn for a cell, but for the least number of pages."""
LEAST = 150


Draw = Callable[[Random, int, int], Floats]
"""random, systems, rows -> [systems, rows]"""


@dataclass(frozen=True)
class World:
    """Scores of systems whose true means are equal."""

    draw: Draw
    span: float | None = 1.0
    """Range of a row's score; None where none is declared, and that of the scores seen is taken."""
    grouped: bool = False
    """Whether rows are in groups, which are then tested."""
    shares: bool = False
    """Whether means alone are known."""
    promised: bool = True
    """Whether the 5 % are promised."""


def right(random: Random, systems: int, rows: int) -> Floats:
    """Return right and wrong, about four rows in five, of which systems share the difficulty."""
    return (random.standard_normal(rows) + 0.9 + 0.5 * random.standard_normal((systems, rows)) > 0).astype(float)


def one_way(random: Random, systems: int, rows: int) -> Floats:
    """Return right and wrong; the first system alone fails in 2 % of the rows, and is alone right in another 2 %."""
    kind = random.random(rows)
    scores = np.tile((random.random(rows) < 0.8).astype(float), (systems, 1))
    scores[:, kind < 0.04] = 0.0
    scores[0, kind < 0.02] = 1.0
    scores[1:, (kind >= 0.02) & (kind < 0.04)] = 1.0
    return scores


def rare_failures(random: Random, systems: int, rows: int) -> Floats:
    """Return scores near 0.7; the first system's are 0.7 less in a hundredth of the rows, and else 0.007 more."""
    scores = 0.7 + 0.02 * random.standard_normal((systems, rows)).clip(-5, 5)
    scores[0] += 0.007
    scores[0][random.random(rows) < 0.01] -= 0.7
    return scores


def first_by(own: Draw, others: Draw) -> Draw:
    """Return a draw of which the first system's scores are drawn otherwise than the others'."""

    def drawn(random: Random, systems: int, rows: int) -> Floats:
        scores = others(random, systems, rows)
        scores[0] = own(random, 1, rows)
        return scores

    return drawn


def near(mean: float, sd: float, most: float = np.inf) -> Draw:
    """Return a draw of normal scores, at most so many standard deviations from their mean."""
    return lambda random, systems, rows: mean + sd * random.standard_normal((systems, rows)).clip(-most, most)


def clustered(draw: Draw) -> Draw:
    """Return a draw in which the rows of a group have nearly one score."""

    def drawn(random: Random, systems: int, rows: int) -> Floats:
        own = np.repeat(draw(random, systems, rows // GROUP), GROUP, axis=1)
        alone = draw(random, systems, rows)
        mixed: Floats = np.where(random.random((systems, rows)) < 0.8, own, alone)
        return mixed

    return drawn


DRAWS: Mapping[str, Draw] = {
    "normal": lambda random, systems, rows: (
        random.standard_normal(rows) + 0.5 * random.standard_normal((systems, rows))
    ),
    "half right": lambda random, systems, rows: (random.random((systems, rows)) < 0.5).astype(float),
    "3 % wrong": lambda random, systems, rows: (random.random((systems, rows)) < 0.97).astype(float),
    "lognormal": lambda random, systems, rows: np.exp(random.standard_normal((systems, rows))),
    "zero-inflated": lambda random, systems, rows: (
        (random.random((systems, rows)) < 0.1) * random.exponential(1.0, (systems, rows))
    ),
    "uniform in a tenth": lambda random, _, rows: (random.random(rows) < 0.1) * random.random(rows),
    "exponential in a twentieth": lambda random, _, rows: (random.random(rows) < 0.05) * random.exponential(1.0, rows),
}
"""Scores of independent rows; normal ones share the rows' difficulty."""
WORLDS: Mapping[str, World] = {
    "normal": World(DRAWS["normal"], None),
    "right and wrong": World(right),
    "right and wrong, 3 % wrong": World(DRAWS["3 % wrong"]),
    "right and wrong, one system's own 2 %": World(one_way),
    "right and wrong, means alone": World(DRAWS["3 % wrong"], shares=True),
    "half right, means alone": World(DRAWS["half right"], shares=True),
    "zero-inflated": World(DRAWS["zero-inflated"], None),
    "zero-inflated in one system, 0 to 1": World(first_by(DRAWS["uniform in a tenth"], near(0.05, 0.002, 5))),
    "rare failures of one system, 0 to 1": World(rare_failures),
    "lognormal": World(DRAWS["lognormal"], None),
    "normal, in groups": World(clustered(DRAWS["normal"]), None, grouped=True),
    "right and wrong, in groups": World(clustered(right), grouped=True),
    "rare failures of one system, in groups": World(clustered(rare_failures), grouped=True),
    "lognormal in one system, no range": World(
        first_by(DRAWS["lognormal"], near(float(np.exp(0.5)), 0.1)), None, promised=False
    ),
    "rare rows of one system, no range": World(
        first_by(DRAWS["exponential in a twentieth"], near(0.05, 0.001)), None, promised=False
    ),
}


def page(world: World, scores: Floats) -> tuple[Comparison, ...]:
    """Return the verdicts of a page on scores, [systems, rows], as `compare` gives them for one run each."""
    named = {f"s{at}": row for at, row in enumerate(scores)}
    span = world.span or float(np.ptp(scores))
    if world.shares:
        means = {name: float(row.mean()) for name, row in named.items()}
        return decided(statistics.compare_shares(means, scores.shape[1]))
    if world.grouped:
        groups = np.arange(scores.shape[1]) // GROUP
        named = {name: statistics.group_scores(row, groups) for name, row in named.items()}
    bounded_ = world.span is not None
    return decided(statistics.compare_rows(named, None, span, bounded=bounded_))


def decided(pairs: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return pairs of scores with their verdicts, on a page that has none on guessing."""
    return statistics.decide_family({"score": pairs}, 1, "score", guess=False)["score"]


@dataclass(frozen=True)
class Rate:
    """How often pages of a world are wrong."""

    world: str
    promised: bool
    systems: int
    rows: int
    pages: int
    false: int
    """Pages with a claim; every claim is false."""
    bound: float
    """Upper 97.5 % bound of their share."""
    covered: float
    """Share of the pairs' 95 % intervals that hold 0."""


def rate(name: str, systems: int, rows: int, pages: int, seed: int = 0) -> Rate:
    """Return how often a page of a world makes a false claim, and how often its intervals hold the truth."""
    world, random = WORLDS[name], np.random.default_rng([seed, systems, rows])
    false = held = intervals = 0
    for _ in range(pages):
        found = page(world, world.draw(random, systems, rows))
        false += any(c.differs for c in found)
        for c in found:
            if c.difference.low is not None and c.difference.high is not None:
                held += c.difference.low <= 0 <= c.difference.high
                intervals += 1
    bound = bounded(false, pages)
    return Rate(name, world.promised, systems, rows, pages, false, bound, held / intervals if intervals else 1.0)


def rates(worlds: Iterable[str] = WORLDS) -> Iterator[Rate]:
    """Yield the rates of worlds at all sizes; of large pages fewer are drawn."""
    for name in worlds:
        for systems in SYSTEMS:
            for rows in ROWS:
                yield rate(name, systems, rows, max(LEAST, min(PAGES[systems], LARGEST // (systems * rows))))


def rate_table(found: Iterable[Rate]) -> str:
    """Return a row per world: the largest share of false pages, that of all, and the least coverage, over all sizes."""
    lines = [
        "| scores | worst size | its false pages | of all pages | least coverage |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    by_world: dict[str, list[Rate]] = {}
    for one in found:
        by_world.setdefault(one.world, []).append(one)
    for world, of in by_world.items():
        worst = max(of, key=lambda one: one.false / one.pages)
        every = sum(one.false for one in of) / sum(one.pages for one in of)
        size = f"{worst.systems} systems, {worst.rows:,} rows"
        least = min(one.covered for one in of)
        shares = (f"{100 * share:.1f} %" for share in (worst.false / worst.pages, every, least))
        lines.append(f"| {world}{'' if worst.promised else ' (not promised)'} | {size} | {' | '.join(shares)} |")
    return "\n".join(lines)


def load() -> list[Rate]:
    """Return the recorded rates."""
    return [Rate(**one) for one in json.loads(RATES.read_text(encoding="utf-8"))]


def main() -> None:
    """Write the rates, and print each."""
    parser = argparse.ArgumentParser(description="Simulate how often pages of `compare` are wrong.")
    parser.add_argument("--table", action="store_true", help="print the table of the recorded rates; draw nothing")
    parser.add_argument("--only", nargs="+", metavar="WORLD", choices=WORLDS, default=[], help="keep the other rates")
    chosen = parser.parse_args()
    if chosen.table:
        print(rate_table(load()))
        return
    found = [one for one in load() if one.world not in chosen.only] if chosen.only else []
    for one in rates(chosen.only or WORLDS):
        found.append(one)
        share = f"{100 * one.false / one.pages:.1f} % of {one.pages:,}"
        print(f"{one.world}, {one.systems} systems, {one.rows:,} rows: {share}, {100 * one.covered:.1f} %", flush=True)
    found.sort(key=lambda one: list(WORLDS).index(one.world))
    lines = ",\n".join(json.dumps(asdict(one)) for one in found)
    RATES.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
