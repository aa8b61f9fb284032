"""How often pages are false, and what they find, before and after methods share their variance over seeds.

`python benchmarks/power.py` writes reports/reference/power/power.json, and prints with `--table` the tables of
docs/methodology.md. The weight of the shared variance is chosen on half of the worlds, and confirmed with other pages.
`--trials 400` is a quick look, 8,000 pages of each cell take a quarter of an hour.
tests/benchmarks/test_power.py asserts the bounds in a shorter run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from power_cases import CASES
from power_pages import AFTER, BEFORE, Rule, World, decided, false_pages, page_metrics, pairs_of
from scipy import stats

from hpml_bench.statistics.evidence import PRIOR

RECORD = Path(__file__).parent.parent / "reports" / "reference" / "power" / "power.json"
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
CHOSEN_ON = ("equal", "one of five ten times larger", "one of twelve ten times larger", "one of three ten times larger")
"""Spreads of the worlds on which the weight is chosen; the others confirm it."""
APART = {"none": 0, "one": 1, "two": 2, "all but two": -2}
"""How many methods truly differ from the others, and from each other; the first, noisy one never does."""
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
SKEWED = ("1:3:10", "one of five ten times larger", "one of five ten times smaller", "one of twelve ten times larger")
"""Spreads of the worlds of exponential noise, which are measured and not promised."""
CANDIDATES = (1.5, 1.8, 2.1, 2.4, 2.7, 3.0)
"""Weights that are tried, in degrees of freedom."""
BOUND, SKEWED_BOUND = 0.06, 0.105
"""Largest upper 97.5 % bound of a promised cell, and largest rate of one that isn't."""


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
        """What is true."""
        spreads = SPREADS[self.spreads]
        k = len(spreads)
        if not (differ := APART[self.apart] % k):
            return World(self.noise, spreads)
        steps = [max(0, at - (k - differ) + 1) / differ for at in range(k)]
        cost = tuple(1.5 * step for step in steps)
        return World(self.noise, spreads, tuple(-0.5 * step for step in steps), cost, cost, cost_sd=0.005)

    def rates(self, rules: Mapping[str, Rule], trials: int, draw: int) -> dict[str, float]:
        """Return the share of false pages by each rule, on the same pages."""
        random = np.random.default_rng(
            [draw, self.seeds, *self.noise.encode(), *f"{self.spreads}{self.apart}".encode()]
        )
        world = self.world
        metrics = page_metrics(world, self.seeds, trials, random)
        return {name: float(false_pages(world, metrics, rule).mean()) for name, rule in rules.items()}


def cells() -> Iterator[Cell]:
    """Yield the cells, 60."""
    usual = [spreads for spreads in SPREADS if spreads not in FEW]
    for noise, of in (("normal", usual), ("t3", usual), ("skewed", SKEWED)):
        for spreads, seeds in itertools.product(of, SEEDS):
            yield Cell(noise, spreads, "none", seeds)
    for spreads, apart, sizes in WITH_DIFFERENCES:
        yield from (Cell("normal", spreads, apart, seeds) for seeds in sizes)


def upper(share: float, trials: int) -> float:
    """Return Clopper and Pearson's upper 97.5 % bound of a share of so many pages."""
    false = round(share * trials)
    return float(stats.beta.ppf(0.975, false + 1, trials - false)) if false < trials else 1.0


def holds(cell: Cell, share: float, trials: int) -> bool:
    """Return whether a cell is within its bound."""
    return share <= SKEWED_BOUND if cell.noise == "skewed" else upper(share, trials) < BOUND


def choose(trials: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the largest weight with which every cell of its half holds, and the rates of all that were tried."""
    rules = {f"{prior:g}": Rule(prior) for prior in CANDIDATES}
    found: list[dict[str, Any]] = []
    kept = set(rules)
    for cell in cells():
        if cell.chooses:
            rates = cell.rates(rules, trials, draw=1)
            kept -= {name for name, share in rates.items() if not holds(cell, share, trials)}
            found.append({**asdict(cell), "false": rates})
    return max(map(float, kept), default=0.0), found


def confirm(trials: int) -> list[dict[str, Any]]:
    """Return the rates of all cells before and after, with fresh pages."""
    rules = {
        "before": BEFORE,
        "after": AFTER,
        "larger": replace(AFTER, larger=True),
        "no least factor": replace(AFTER, floor=0.0),
    }
    found: list[dict[str, Any]] = []
    for cell in cells():
        rates = cell.rates(rules, trials, draw=2)
        kept = holds(cell, rates["after"], trials)
        above = upper(rates["after"], trials)
        row = {**asdict(cell), "chooses": cell.chooses, **rates, "upper": above, "holds": kept}
        shares = " | ".join(f"{100 * share:.1f} %" for share in (*rates.values(), above))
        print(
            f"| {cell.noise}, {cell.spreads}, {cell.apart} apart | {cell.seeds} | {shares} |{'' if kept else ' *'}",
            flush=True,
        )
        found.append(row)
    return found


POWER: Mapping[str, World] = {
    **{
        f"score, {points} points apart": World("normal", SPREADS["equal"], score=(0, 0, 0, points / 100, points / 100))
        for points in (3, 6, 9)
    },
    **{
        f"cost, {100 * share:.0f} % apart, noise {100 * sd:.0f} %": World(
            "normal", SPREADS["equal"], score=(0,) * 5, cost=(0, 0, 0, math.log1p(share), math.log1p(share)), cost_sd=sd
        )
        for share, sd in ((0.35, 0.02), (0.35, 0.05), (0.22, 0.05), (0.11, 0.02))
    },
}
"""Two groups of five methods that differ by the score, or by one of two costs."""


def power(trials: int, only: tuple[str, int] | None = None) -> list[dict[str, Any]]:
    """Return the share of differing pairs that pages find, before and after, on the same pages.

    `only`: one difference and number of seeds.
    """
    first, second = pairs_of(5)
    apart = (first < 3) & (second >= 3)
    found: list[dict[str, Any]] = []
    for name, world in POWER.items():
        for n in SEEDS:
            if only and only != (name, n):
                continue
            metrics = page_metrics(world, n, trials, np.random.default_rng([3, n, *name.encode()]))
            at = 0 if name.startswith("score") else 1
            rates = {
                label: float((decided(metrics, rule)[0][at][:, apart] < 0.05).mean())
                for label, rule in (("before", BEFORE), ("after", AFTER))
            }
            print(f"| {name} | {n} | {100 * rates['before']:.0f} % | {100 * rates['after']:.0f} % |", flush=True)
            found.append({"difference": name, "seeds": n, **rates})
    return found


def rate_table(record: Mapping[str, Any]) -> str:
    """Return the table of false pages: after, and before in brackets, by seeds."""
    lines = ["| noise over seeds, spread of methods | 3 seeds | 5 | 10 |", "| --- | ---: | ---: | ---: |"]

    def line(name: str, noise: str, among: Callable[[Mapping[str, Any]], bool]) -> None:
        cells = []
        for n in SEEDS:
            of = [row for row in record["false_pages"] if row["noise"] == noise and row["seeds"] == n and among(row)]
            cells.append(f"{100 * max(r['after'] for r in of):.1f} % ({100 * max(r['before'] for r in of):.1f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")

    equal = ("equal", "1:3:10", "one of five ten times larger")
    for spreads in equal:
        line(f"normal, {spreads}", "normal", partial(_is, spreads))
    line("normal, the worst of three other spreads", "normal",
         lambda row: row["spreads"] not in {*equal, *FEW} and row["apart"] == "none")  # fmt: skip
    line("normal, the worst of three and four methods, and where one, two or all but two differ", "normal",
         lambda row: row["spreads"] in FEW or row["apart"] != "none")  # fmt: skip
    line("t with 3 degrees of freedom, the worst of six", "t3", lambda _: True)
    line("exponential, the worst of four (not promised)", "skewed", lambda _: True)
    for case, condition in (
        ("a method that loses 30 points in a fifth of its seeds", "5 methods, {} seeds"),
        ("a periodic disturbance of two methods' time", "{} seeds"),
    ):
        shares = " | ".join(f"{100 * record['cases'][case][condition.format(n)]:.1f} %" for n in SEEDS)
        lines.append(f"| {case} (not promised) | {shares} |")
    return "\n".join(lines)


def _is(spreads: str, row: Mapping[str, Any]) -> bool:
    """Return whether a row is of these spreads, and of methods that are all equal."""
    return bool(row["spreads"] == spreads and row["apart"] == "none")


def power_table(record: Mapping[str, Any]) -> str:
    """Return the table of pairs found: after, and before in brackets, by seeds."""
    lines = ["| difference | 3 seeds | 5 | 10 |", "| --- | ---: | ---: | ---: |"]
    for name in POWER:
        rows = [row for row in record["power"] if row["difference"] == name]
        cells = (f"{100 * row['after']:.0f} % ({100 * row['before']:.0f})" for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write the record."""
    parser = argparse.ArgumentParser(description="Simulate false pages and power, before and after.")
    parser.add_argument("--trials", type=int, default=8000, help="pages of each cell")
    parser.add_argument("--out", type=Path, default=RECORD, help="where the record goes")
    parser.add_argument("--table", action="store_true", help="print the tables of the record; simulate nothing")
    given = parser.parse_args()
    if given.table:
        record = json.loads(given.out.read_text(encoding="utf-8"))
        print(f"{rate_table(record)}\n\n{power_table(record)}")
        return
    best, tried = choose(given.trials)
    print(f"largest weight that holds on its half: {best:g} degrees of freedom; the package's is {PRIOR:g}\n")
    print("| false pages | seeds | before | after | larger of both | no least factor | upper bound |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    confirmed = confirm(given.trials)
    print("\n| pairs found | seeds | before | after |\n| --- | ---: | ---: | ---: |")
    found = power(given.trials // 4)
    cases = {name: case(given.trials // 2) for name, case in CASES.items()}
    record = {"pages": given.trials, "prior": PRIOR, "largest_that_holds": best, "tried": tried,
              "false_pages": confirmed, "power": found, "cases": cases}  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
