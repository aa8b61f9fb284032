"""Pages of `compare --shared` whose systems lack rows: how often they make a false claim, and find
a difference.

Systems are right or wrong in each row, and share the rows' difficulty. A page's claims are made by
the functions that `hpml-bench compare` calls, on the rows that both systems have, and on all rows
with the missing ones filled. Rows that both lack are in no table, as in a user's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.scores import AlignedScores
from hpml_bench.judge.verdicts import judge
from simulation import percent, print_table
from simulation.pages import Bools
from simulation.worlds import Floats, Random

ROWS, SHARES = 1000, (0.01, 0.05, 0.1, 0.2)
BETTER = 0.15  # ahead in difficulty by which a system is right in 3.7 % more of the rows
Loss = Literal["none", "at random", "failures"]


@dataclass(frozen=True)
class World:
    """Two systems, each of which lacks a share of its rows."""

    losses: tuple[Loss, Loss]
    ahead: tuple[float, float] = (0.0, 0.0)
    """How much less difficult rows are for each system; equal systems make every claim false."""


WORLDS: Mapping[str, World] = {
    "equal, one lacks failures, the other as many at random": World(("failures", "at random")),
    "equal, both lack rows at random": World(("at random", "at random")),
    "equal, one lacks failures": World(("failures", "none")),
    "one lacks rows at random, and is better": World(("at random", "none"), (BETTER, 0.0)),
    "one lacks rows at random, the other is better": World(("at random", "none"), (0.0, BETTER)),
}


def right(random: Random, ahead: tuple[float, float], rows: int = ROWS) -> Floats:
    """Return right and wrong, [2, rows], in about four rows of five."""
    of_systems = 0.5 * random.standard_normal((2, rows)) + np.array(ahead)[:, None]
    return np.asarray(random.standard_normal(rows) + 0.9 + of_systems > 0, dtype=float)


def lost(random: Random, scores: Floats, loss: Loss, share: float) -> Bools:
    """Return which rows a system lacks: none, or a share of all, at random or first those in
    which it is wrong.
    """
    missing = np.zeros(len(scores), bool)
    if loss != "none":
        order = random.permutation(len(scores))
        if loss == "failures":
            order = order[np.argsort(scores[order], kind="stable")]
        missing[order[: round(share * len(scores))]] = True
    return missing


def page(world: World, share: float, random: Random) -> AlignedScores:
    """Return the scores of a page, as `compare --shared` aligns them."""
    tables = []
    for name, scores, loss in zip("ab", right(random, world.ahead), world.losses, strict=True):
        whole = pd.DataFrame({"system": name, "row": np.arange(len(scores)), "score": scores})
        tables.append(whole[~lost(random, scores, loss, share)])
    (aligned,) = assemble([of_frame(pd.concat(tables))], shared=True)
    return aligned


def claims(name: str, share: float, pages: int, seed: int = 0) -> dict[str, float]:
    """Return the share of a world's pages that make a claim, by the rule for missing rows; the
    last is `compare`'s.
    """
    world, random = WORLDS[name], np.random.default_rng([seed, round(1000 * share)])
    made = {"shared rows alone": 0, "worst score in all": 0, "against the claim": 0}
    for _ in range(pages):
        scores = page(world, share, random)
        worst = scores.filled and scores.filled[0]  # higher is better
        rules = (None, (worst, worst) if worst else None, scores.filled)
        for rule, filled in zip(made, rules, strict=True):
            (pair,) = judge(replace(scores, filled=filled)).score
            made[rule] += pair.differs
    return {rule: count / pages for rule, count in made.items()}


def print_rates(pages: int) -> None:
    """Print the share of pages with a claim by how missing rows are filled."""

    def rows() -> Iterator[tuple[str, Iterator[str]]]:
        for name in WORLDS:
            for share in SHARES:
                yield (
                    f"{name}, {percent(share, 0)}",
                    map(percent, claims(name, share, pages).values()),
                )

    title = (
        f"Pages with a claim, {ROWS:,} rows, of which systems lack a share, {pages:,} pages each"
    )
    print_table(
        title,
        ("missing rows", "shared rows alone", "and worst score in all", "and against the claim"),
        rows(),
    )
