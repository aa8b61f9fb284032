"""Rates of false pages, and of findings, where methods share their variance over seeds, and where
they don't.

The weight of the shared variance is chosen on half of the worlds, and confirmed with other pages of
all.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.statistics import clopper_pearson
from hpml_bench.statistics.evidence import PRIOR
from simulation import percent, table_lines
from simulation.cases import FAULTS
from simulation.pages import ALONE, PACKAGE, Rule, decided, false_pages, page_metrics
from simulation.worlds import World

RECORD = Path(__file__).parents[2] / "reports" / "reference" / "power" / "power.json"
SEEDS = (3, 5, 10)
SPREADS: Mapping[str, tuple[float, ...]] = {
    "equal": (1, 1, 1, 1, 1),
    "1:3:10": (1, 3, 10, 1, 3),
    "one of five ten times larger": (10, 1, 1, 1, 1),
    "one of five ten times smaller": (0.1, 1, 1, 1, 1),
    "one of twelve ten times larger": (10, *[1] * 11),
    "two of twelve ten times larger": (10, 10, *[1] * 10),
    "one of three ten times larger": (10, 1, 1),
    "one of four ten times larger": (10, 1, 1, 1),
}
CHOSEN_ON = (
    "equal",
    "one of five ten times larger",
    "one of twelve ten times larger",
    "one of three ten times larger",
)
"""Spreads of the worlds on which the weight is chosen; the others confirm it."""
APART = {"none": 0, "one": 1, "two": 2, "all but two": -2}
"""How many methods truly differ from the others, and from each other; the first, noisy one never
does.
"""
FEW = ("one of three ten times larger", "one of four ten times larger")
WITH_DIFFERENCES = (
    ("one of five ten times larger", "one", (3, 5)),
    ("one of five ten times larger", "two", (3,)),
    ("one of five ten times larger", "all but two", (3, 10)),
    ("one of three ten times larger", "none", (3,)),
    ("one of three ten times larger", "one", (3, 5)),
    ("one of four ten times larger", "one", (3,)),
    ("one of four ten times larger", "all but two", (3,)),
    ("one of twelve ten times larger", "all but two", (3,)),
    ("1:3:10", "all but two", (3,)),
)
"""Worlds of normal noise, in most of which pairs differ, so that later steps decide the others."""
SKEWED = (
    "1:3:10",
    "one of five ten times larger",
    "one of five ten times smaller",
    "one of twelve ten times larger",
)
"""Spreads of the worlds of exponential noise, which are measured and not promised."""
CANDIDATES = {f"{prior:g}": Rule(prior) for prior in (1.5, 1.8, 2.1, 2.4, 2.7, 3.0)}
"""Weights that are tried, in degrees of freedom."""
RULES = {"before": ALONE, "after": PACKAGE, "no least factor": replace(PACKAGE, floor=0.0)}
BOUND, SKEWED_BOUND = (
    0.06,
    0.105,
)  # largest upper 97.5 % bound of a promised cell, and largest rate of one that isn't


@dataclass(frozen=True)
class Cell:
    """Worlds of one noise, spreads, number of methods that differ, and number of seeds."""

    noise: str
    spreads: str
    apart: str
    seeds: int

    @property
    def chooses(self) -> bool:
        """Whether it is of the half on which the weight is chosen."""
        return self.spreads in CHOSEN_ON

    @property
    def world(self) -> World:
        spreads = SPREADS[self.spreads]
        k = len(spreads)
        if not (differ := APART[self.apart] % k):
            return World(self.noise, spreads)
        steps = [max(0, at - (k - differ) + 1) / differ for at in range(k)]
        cost = tuple(1.5 * step for step in steps)
        return World(
            self.noise, spreads, tuple(-0.5 * step for step in steps), cost, cost, cost_sd=0.005
        )

    def rates(self, rules: Mapping[str, Rule], trials: int, draw: int) -> dict[str, float]:
        """Return the share of false pages by each rule, on the same pages."""
        of = f"{self.noise}{self.spreads}{self.apart}".encode()
        metrics = page_metrics(
            self.world, self.seeds, trials, np.random.default_rng([draw, self.seeds, *of])
        )
        return {name: false_pages(self.world, metrics, rule) for name, rule in rules.items()}

    def holds(self, share: float, trials: int) -> bool:
        """Return whether a share of false pages is within the bound."""
        if self.noise == "skewed":
            return share <= SKEWED_BOUND
        return clopper_pearson(round(share * trials), trials)[1] < BOUND


def cells() -> Iterator[Cell]:
    usual = [spreads for spreads in SPREADS if spreads not in FEW]
    for noise, of in (("normal", usual), ("t3", usual), ("skewed", SKEWED)):
        for spreads, seeds in itertools.product(of, SEEDS):
            yield Cell(noise, spreads, "none", seeds)
    for spreads, apart, sizes in WITH_DIFFERENCES:
        yield from (Cell("normal", spreads, apart, seeds) for seeds in sizes)


def choose(trials: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the largest weight with which every cell of its half holds, and the rates of all
    that were tried.
    """
    found: list[dict[str, Any]] = []
    kept = set(CANDIDATES)
    for cell in filter(lambda cell: cell.chooses, cells()):
        rates = cell.rates(CANDIDATES, trials, draw=1)
        kept -= {name for name, share in rates.items() if not cell.holds(share, trials)}
        found.append({**asdict(cell), "false": rates})
    return max(map(float, kept), default=0.0), found


def confirm(trials: int) -> Iterator[dict[str, Any]]:
    """Yield the rates of all cells, with fresh pages, and print them."""
    for cell in cells():
        rates = cell.rates(RULES, trials, draw=2)
        kept, above = (
            cell.holds(rates["after"], trials),
            clopper_pearson(round(rates["after"] * trials), trials)[1],
        )
        print(cell, *map(percent, (*rates.values(), above)), "" if kept else "*", flush=True)
        yield {**asdict(cell), "chooses": cell.chooses, **rates, "upper": above, "holds": kept}


POWER: Mapping[str, World] = {
    **{
        f"score, {points} points apart": World(score=(0, 0, 0, points / 100, points / 100))
        for points in (3, 6, 9)
    },
    **{
        f"cost, {100 * share:.0f} % apart, noise {100 * sd:.0f} %": World(
            score=(0,) * 5, cost=(0, 0, 0, math.log1p(share), math.log1p(share)), cost_sd=sd
        )
        for share, sd in ((0.35, 0.02), (0.35, 0.05), (0.22, 0.05), (0.11, 0.02))
    },
}
"""Two groups of five methods that differ by the score, or by one of two costs."""


def power(name: str, n: int, trials: int) -> dict[str, float]:
    """Return the share of differing pairs that pages of n seeds find by either rule, on the same
    pages.
    """
    first, second = np.triu_indices(5, 1)
    apart, at = (first < 3) & (second >= 3), int(name.startswith("cost"))
    metrics = page_metrics(POWER[name], n, trials, np.random.default_rng([3, n, *name.encode()]))
    rules = {"before": ALONE, "after": PACKAGE}
    return {
        label: float((decided(metrics, of)[0][at][:, apart] < 0.05).mean())
        for label, of in rules.items()
    }


def rate_table(record: Mapping[str, Any]) -> str:
    """Return the table of false pages: by the package's rule, and by each pair's own variance in
    brackets.
    """
    equal = ("equal", "1:3:10", "one of five ten times larger")
    among: dict[str, tuple[str, Callable[[str, str], bool]]] = {
        **{
            f"normal, {one}": ("normal", lambda own, apart, of=one: (own, apart) == (of, "none"))  # type: ignore[misc]
            for one in equal
        },
        "normal, the worst of three other spreads": (
            "normal",
            lambda own, apart: own not in {*equal, *FEW} and apart == "none",
        ),
        "normal, the worst of three and four methods, and where one, two or all but two differ": (
            "normal",
            lambda own, apart: own in FEW or apart != "none",
        ),
        "t with 3 degrees of freedom, the worst of six": ("t3", lambda *_: True),
        "exponential, the worst of four (not promised)": ("skewed", lambda *_: True),
    }
    cases = {
        "a method that loses 30 points in a fifth of its seeds": "5 methods, {} seeds",
        "a periodic disturbance of two methods' time": "{} seeds",
    }

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name, (noise, chosen) in among.items():
            of = [row for row in record["false_pages"] if row["noise"] == noise]
            of = [row for row in of if chosen(row["spreads"], row["apart"])]
            worst = [
                [max(row[rule] for row in of if row["seeds"] == n) for rule in ("after", "before")]
                for n in SEEDS
            ]
            yield name, [f"{percent(after)} ({100 * before:.1f})" for after, before in worst]
        for case, condition in cases.items():
            yield (
                f"{case} (not promised)",
                [percent(record["cases"][case][condition.format(n)]) for n in SEEDS],
            )

    return "\n".join(
        table_lines(("noise over seeds, spread of methods", "3 seeds", "5", "10"), rows())
    )


def tables() -> str:
    """Return the table of false pages, and that of pairs found, by the same two rules."""
    made, found = (
        json.loads(RECORD.read_text(encoding="utf-8")),
        {name: list[str]() for name in POWER},
    )
    for row in made["power"]:
        found[row["difference"]].append(f"{percent(row['after'], 0)} ({100 * row['before']:.0f})")
    pairs = "\n".join(table_lines(("difference", "3 seeds", "5", "10"), found.items()))
    return f"{rate_table(made)}\n\n{pairs}"


def record(given: int | None, out: Path) -> None:
    trials = given or 8000
    best, tried = choose(trials)
    print(
        f"largest weight that holds on its half: {best:g} degrees of freedom; the package's is "
        f"{PRIOR:g}\n"
    )
    false = list(confirm(trials))
    found = [
        {"difference": name, "seeds": n, **power(name, n, trials // 4)}
        for name in POWER
        for n in SEEDS
    ]
    cases = {name: case(trials // 2) for name, case in FAULTS.items()}
    made = {
        "pages": trials,
        "prior": PRIOR,
        "largest_that_holds": best,
        "tried": tried,
        "false_pages": false,
        "power": found,
        "cases": cases,
    }
    out.write_text(json.dumps(made, indent=1) + "\n")
