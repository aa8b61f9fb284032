"""Error rates of `hpml-bench check` by simulation of its rule: the table of docs/check.md, in some seconds.

    python benchmarks/check_rates.py

tests/benchmarks/test_simulation.py asserts what must hold, and that the simulated rule is the one that checks use.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from check_simulation import Draw, simulate

from hpml_bench.gate.decide.rank_tests import Floats
from hpml_bench.gate.decide.sentences import rate
from hpml_bench.gate.records import Rules
from hpml_bench.report.export import markdown_table
from hpml_bench.report.tables import Cell, table

TRIALS = 20_000
METHODS = 3
Shape = tuple[int, int, int]
NOISE: dict[str, Callable[[np.random.Generator, Shape], Floats]] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "heavy tails": lambda generator, shape: generator.standard_t(3, shape) / math.sqrt(3),
    "skewed to slow": lambda generator, shape: generator.standard_exponential(shape) - 1,
    "skewed to fast": lambda generator, shape: 1 - generator.standard_exponential(shape),
}
"""Of mean 0 and standard deviation 1; heavy tails are Student's t with 3 degrees of freedom, skewed is exponential."""
SPREADS = (0.005, 0.01, 0.015, 0.03)
COLUMNS = (
    "noise", "sd between pairs", "FAIL at 0 %", "FAIL at 1 %", "FAIL at 2 %", "FAIL at 3 %",
    "FAIL at 3 % in one of three", "PASS at 0 %", "one method's PASS at 3 %", "pairs at 0 %", "pairs at 3 %",
)  # fmt: skip


def drawing(kind: str, spread: float, slowdown: float) -> Draw:
    """Return a drawing of log ratios about a slowdown."""
    return lambda generator, shape: math.log1p(slowdown) + spread * NOISE[kind](generator, shape)


def one_slowed(kind: str, spread: float, slowdown: float) -> Draw:
    """Return the same with the slowdown in the first method alone."""

    def draw(generator: np.random.Generator, shape: Shape) -> Floats:
        values = spread * NOISE[kind](generator, shape)
        values[:, 0] += math.log1p(slowdown)
        return values

    return draw


def row(kind: str, spread: float) -> list[Cell]:
    """Return the shares of simulated trials that end each way."""
    rules = Rules()
    at = {
        slowdown: simulate(drawing(kind, spread, slowdown), rules, METHODS, TRIALS)
        for slowdown in (0, 0.01, 0.02, 0.03)
    }
    single = simulate(one_slowed(kind, spread, rules.target), rules, METHODS, TRIALS)
    alone = simulate(drawing(kind, spread, rules.target), rules, 1, TRIALS)
    shares = [found.failed for found in at.values()] + [single.failed, at[0].passed, alone.passed]
    shown = [f"{share / TRIALS:.2%}".replace("%", " %") for share in shares]
    return [kind, rate(spread), *shown, f"{at[0].pairs:.1f}", f"{at[0.03].pairs:.1f}"]


def main() -> None:
    """Print the table."""
    rows = [row(kind, spread) for kind in NOISE for spread in SPREADS]
    print(markdown_table(table("rates", "Error rates", COLUMNS, rows)))


if __name__ == "__main__":
    main()
