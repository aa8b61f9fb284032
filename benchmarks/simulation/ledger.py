"""The ledger of a page's 5 %: what looks, metrics, checkpoints and races find, and how often such
pages are false.

Each figure is given by the rule of earlier versions and by the package's, on the same simulated
pages.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from hpml_bench.statistics import clopper_pearson
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, OF_SCORE, spent_at
from simulation import pages, percent, races, table_lines
from simulation.pages import EVEN, PACKAGE, Bools, Rule, Squares
from simulation.worlds import ROWS, Floats, Random, World, answers, checkpoint_scores, cost_logs

RECORD = Path(__file__).parents[2] / "reports" / "reference" / "power" / "ledger.json"
LOOKS = (3, 5, 10)  # seeds of each method at the looks of one who adds seeds
ROW_LOOKS = (200, 500, 1000, 2000)  # rows at the looks of one who doubles them
APART = math.log(1.35)  # difference of costs, of logarithms
SPENDINGS: Mapping[str, tuple[float, ...]] = {
    "90 %, then half of what is left (before)": (0.9, 0.05, 0.025, 0.0125),
    "half of what is left": (0.5, 0.25, 0.125, 0.0625),
    "60, 30, 5, 2.5 %": (0.6, 0.3, 0.05, 0.025),
    "60 % of what is left": (0.6, 0.24, 0.096, 0.0384),
    "two thirds of what is left (the package's)": tuple(spent_at(look) for look in (1, 2, 3, 4)),
    "three quarters of what is left": (0.75, 0.1875, 0.046875, 0.01171875),
    "declared, equal": (),
}
"""Ways to spend the 5 % over looks, as shares of it."""
BEFORE, AFTER = "before", "after"
FIRST_BEFORE = 0.9  # share of the 5 % of a first look in earlier versions


def two_groups(points: float, costs: tuple[float, float], methods: int = 2) -> World:
    """Return a world in which the last half of the methods score better, and cost more."""
    worse = methods - methods // 2
    score = (*(0.0,) * worse, *(points / 100,) * (methods - worse))
    first, second = ((*(0.0,) * worse, *(cost,) * (methods - worse)) for cost in costs)
    return World(spreads=(1.0,) * methods, score=score, cost=first, second=second)


@dataclass(frozen=True)
class Looks:
    """p values of pages at several numbers of seeds: a tuple of (different, margin) by metric
    for each.
    """

    methods: int
    p: tuple[list[tuple[Floats, Floats]], ...]

    def found(self, look: int, rule: Rule, spent: float) -> Bools:
        """Return which pairs are shown to differ by score, [pages, pairs]."""
        different, _ = pages.adjusted(self.p[look], self.methods, rule, spent)
        return np.asarray(different[0] < 0.05)


def looks_at(
    world: World, count: int, seeds: Sequence[int], random: Random, chunk: int = 500
) -> Looks:
    """Return the p of pages whose first seeds are looked at again with more."""
    parts: list[list[list[tuple[Floats, Floats]]]] = []
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        right = answers(world, seeds[-1], size, random)
        logs = [
            cost_logs(world, seeds[-1], size, random, second=second) for second in (False, True)
        ]
        data = races.Data(right, tuple(logs))
        parts.append([[pages.p_values(metric) for metric in data.metrics(n)] for n in seeds])
    by_look = (zip(*(part[look] for part in parts), strict=True) for look in range(len(seeds)))
    joined = [
        [tuple(map(np.concatenate, zip(*metric, strict=True))) for metric in metrics]
        for metrics in by_look
    ]
    return Looks(world.methods, tuple([(p, q) for p, q in metrics] for metrics in joined))


# Looks


def habits(count: int) -> dict[str, Any]:
    """Return what each spending finds at 6 points: looks at 3, 5, 10 seeds, a first look at 5,
    rows that double.
    """
    worlds = {
        "costs equal": two_groups(6, (0.0, 0.0)),
        "one cost 35 % apart": two_groups(6, (APART, 0.0)),
        "both costs 35 % apart": two_groups(6, (APART, APART)),
        "five methods, both costs 35 % apart": two_groups(6, (APART, APART), 5),
    }
    by_world = {
        name: looks_at(world, count, LOOKS, np.random.default_rng([52, *name.encode()]))
        for name, world in worlds.items()
    }
    rows = row_looks(count, np.random.default_rng(53))
    found: dict[str, Any] = {}
    for name, spending in SPENDINGS.items():
        declared = not spending
        rule = EVEN if BEFORE in name else PACKAGE
        found[name] = {
            "seeds": {
                world: found_by_looks(
                    looks, rule, [spent_at(1, len(LOOKS))] * 3 if declared else spending
                )
                for world, looks in by_world.items()
            },
            "first look at 5 seeds": {
                world: apart_share(
                    looks.found(1, rule, spent_at(1, 1) if declared else spending[0])
                )
                for world, looks in by_world.items()
            },
            "rows that double": float(
                np.any(
                    rows < 0.05 * np.array([spent_at(1, 4)] * 4 if declared else spending)[:, None],
                    axis=0,
                ).mean()
            ),
            "2,000 rows at once": float(
                (rows[-1] < 0.05 * (spent_at(1, 1) if declared else spending[0])).mean()
            ),
        }
    return found


def found_by_looks(looks: Looks, rule: Rule, spending: Sequence[float]) -> list[float]:
    """Return the share of the pairs that differ which are found by each look, or one before it."""
    claimed = np.zeros(looks.p[0][0][0].shape, dtype=bool)
    shares = []
    for look in range(len(looks.p)):
        claimed |= looks.found(look, rule, spending[look])
        shares.append(apart_share(claimed))
    return shares


def apart_share(claimed: Bools) -> float:
    """Return the share of claims among the pairs of different groups of `two_groups`."""
    methods = round((1 + math.sqrt(1 + 8 * claimed.shape[1])) / 2)
    first, second = np.triu_indices(methods, 1)
    worse = methods - methods // 2
    return float(claimed[:, (first < worse) & (second >= worse)].mean())


def row_looks(count: int, random: Random) -> Floats:
    """Return McNemar's p of two systems that are 3 points apart, of one run each, [looks at
    rows, pages].
    """
    right = answers(
        World(spreads=(0.0, 0.0), score=(0.0, 0.03)), 1, count, random, np.arange(ROW_LOOKS[-1])
    )[:, :, 0]
    p = []
    for rows in ROW_LOOKS:
        gains = right[:, 1, :rows].astype(int) - right[:, 0, :rows]
        more, less = (gains > 0).sum(axis=1), (gains < 0).sum(axis=1)
        p.append(
            np.minimum(
                1.0, 2 * special.bdtr(np.minimum(more, less), np.maximum(1, more + less), 0.5)
            )
        )
    return np.array(p)


# One look, two methods


def one_look(count: int) -> list[dict[str, Any]]:
    """Return what pages of two methods find at a first look: methods by either rule, and
    checkpoints.
    """
    found = []
    for seeds, rows in ((3, ROWS), (3, 2000), (4, ROWS), (4, 2000), (5, ROWS), (5, 2000)):
        for points in (2, 3, 6):
            for name, costs in (
                ("equal", (0.0, 0.0)),
                ("one 11 % apart", (math.log(1.11), 0.0)),
                ("both 35 % apart", (APART, APART)),
            ):
                random = np.random.default_rng([54, seeds, rows, points, *name.encode()])
                metrics = pages.page_metrics(two_groups(points, costs), seeds, count, random, rows)
                p = [pages.p_values(metric) for metric in metrics]
                row: dict[str, Any] = {
                    "seeds": seeds,
                    "rows": rows,
                    "points": points,
                    "costs": name,
                }
                for label, rule, spent in (
                    (BEFORE, EVEN, FIRST_BEFORE),
                    (AFTER, PACKAGE, spent_at(1)),
                    ("one look declared", PACKAGE, spent_at(1, 1)),
                ):
                    score, cost, _ = pages.adjusted(p, 2, rule, spent)[0]
                    row[label] = {
                        "score": float((score < 0.05).mean()),
                        "cost": float((cost < 0.05).mean()),
                    }
                row["checkpoints"] = float((checkpoint_claims(metrics, spent_at(1)) < 0.05).mean())
                found.append(row)
    return found


def checkpoint_claims(metrics: Sequence[Squares], spent: float) -> Floats:
    """Return the adjusted p of pairs by score for these checkpoints, each with an equal share of
    the score's part.
    """
    score, *costs = metrics
    p = pages.p_of_checkpoints(score)
    level = 0.05 * spent * FOR_DIFFERENCES * (OF_SCORE if costs else 1.0) / p.shape[-1]
    return np.asarray(np.minimum(1.0, 0.05 * p / level))


# False pages


CHECKPOINT_WORLDS: Mapping[str, World] = {
    f"{methods} methods, seeds' spread x {spread:g}": World(
        spreads=(spread,) * methods, score=(0.0,) * methods
    )
    for methods in (2, 3, 5)
    for spread in (0.0, 0.1, 0.3, 1.0, 3.0)
} | {
    f"{methods} methods, one's seeds' spread x {spread:g}": World(
        spreads=(0.0,) * (methods - 1) + (spread,), score=(0.0,) * methods
    )
    for methods in (3, 5)
    for spread in (0.1, 1.0)
}
"""Worlds of equal methods whose checkpoints are equal, nearly so, far apart, or for one method
alone.
"""


def false_checkpoints(count: int, rows: int = ROWS) -> dict[str, dict[str, float]]:
    """Return the share of pages with a false claim on methods, on checkpoints, or on either, at a
    first look.

    A claim on checkpoints is false where their true scores over all rows are equal, or in the other
    order.
    """
    found = {}
    for name, world in CHECKPOINT_WORLDS.items():
        for seeds in (3, 4):
            random = np.random.default_rng([55, seeds, *name.encode()])
            of_methods, of_checkpoints = [], []
            for size in [500] * max(1, count // 500):
                right, truth = checkpoint_scores(world, seeds, size, random, rows)
                score = Squares(seeds, world.methods, *pages.answer_squares(right), m=rows)
                costs = [
                    pages.cost_squares(cost_logs(world, seeds, size, random, second=second))
                    for second in (False, True)
                ]
                metrics = [score, *costs]
                different, near = pages.adjusted(
                    [pages.p_values(of) for of in metrics], world.methods
                )
                claimed_different, claimed_near = (
                    [p < 0.05 for p in by_metric] for by_metric in (different, near)
                )
                signs = [of.mean for of in metrics]
                of_methods.append(pages.wrong(world, claimed_different, claimed_near, signs))
                first, second = np.triu_indices(world.methods, 1)
                gap = truth[:, first] - truth[:, second]
                claimed = checkpoint_claims(metrics, spent_at(1)) < 0.05
                of_checkpoints.append((claimed & (np.sign(score.mean) * gap <= 1e-12)).any(axis=1))
            wrong, wrong_checkpoints = np.concatenate(of_methods), np.concatenate(of_checkpoints)
            either = wrong | wrong_checkpoints
            found[f"{name}, {seeds} seeds"] = {
                "methods": float(wrong.mean()),
                "checkpoints": float(wrong_checkpoints.mean()),
                "either": float(either.mean()),
                "bound": clopper_pearson(int(either.sum()), len(either))[1],
            }
    return found


# Races


RACES: Mapping[str, World] = {
    "two methods, 4.5 points apart": two_groups(4.5, (APART, APART)),
    "two methods, 6 points apart": two_groups(6, (APART, APART)),
    "two methods, 6 points apart, costs equal": two_groups(6, (0.0, 0.0)),
    "two methods, equal": two_groups(0, (0.0, 0.0)),
    "five methods in two groups, 6 points apart": two_groups(6, (APART, APART), 5),
}
ROUNDS = (3, 4, 5, 7, 10, 14, 20)
FALSE_RACES: Mapping[str, World] = {
    "two methods, equal": World(spreads=(1.0, 1.0)),
    "two methods, equal, noise of t3": World("t3", spreads=(1.0, 1.0)),
    "two methods, equal, machines with two speeds": World(
        spreads=(1.0, 1.0), cost_noise="two states"
    ),
    "two methods, a tenfold spread": World(spreads=(10.0, 1.0)),
    "three methods, one of a tenfold spread": World(spreads=(10.0, 1.0, 1.0)),
    "five methods, equal": World(),
    "five methods, machines with two speeds": World(cost_noise="two states"),
}
"""Worlds of equal methods."""


def ends(count: int, chunk: int = 200) -> dict[str, dict[str, dict[str, float]]]:
    """Return what races find and how many runs they take: with the ends of before, the
    package's, and none.
    """
    ways: Mapping[str, tuple[Rule, races.Hope | None]] = {
        BEFORE: (EVEN, races.as_measured),
        AFTER: (PACKAGE, races.plausible),
        "no early end": (PACKAGE, None),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, world in RACES.items():
        random = np.random.default_rng([56, *name.encode()])
        outcomes: dict[str, list[races.Outcome]] = {way: [] for way in ways}
        for start in range(0, count, chunk):
            data = races.drawn(world, ROUNDS[-1], min(chunk, count - start), random)
            for way, (rule, hope) in ways.items():
                outcomes[way].append(races.race(data, ROUNDS, rule, hope))
        found[name] = {way: _of_races(world, outcome) for way, outcome in outcomes.items()}
    return found


def false_races(count: int, chunk: int = 200) -> dict[str, dict[str, float]]:
    """Return the share of false pages of races of equal methods that go on to the last round,
    and its 95 % bound.
    """
    found = {}
    for name, world in FALSE_RACES.items():
        random, wrong = np.random.default_rng([57, *name.encode()]), 0
        for start in range(0, count, chunk):
            data = races.drawn(world, ROUNDS[-1], min(chunk, count - start), random)
            outcome = races.race(data, ROUNDS)
            wrong += int(pages.wrong(world, outcome.different, outcome.near, outcome.signs).sum())
        found[name] = {"false": wrong / count, "bound": clopper_pearson(wrong, count)[1]}
    return found


def _of_races(world: World, outcomes: Sequence[races.Outcome]) -> dict[str, float]:
    wrong = np.concatenate([pages.wrong(world, o.different, o.near, o.signs) for o in outcomes])
    claimed = np.concatenate([o.different[0] for o in outcomes])
    return {
        "found": apart_share(claimed),
        "runs": float(np.median(np.concatenate([o.runs for o in outcomes]))),
        "mean_runs": float(np.mean(np.concatenate([o.runs for o in outcomes]))),
        "hopeless": float(np.concatenate([o.hopeless for o in outcomes]).mean()),
        "false": float(wrong.mean()),
        "bound": clopper_pearson(int(wrong.sum()), len(wrong))[1],
    }


# The record


def habit_table(record: Mapping[str, Any]) -> str:
    """Return the table of ways to spend the 5 % over looks."""
    habits_found = record["habits"]
    worlds = [f"{name}: 3, 5, 10 seeds" for name in next(iter(habits_found.values()))["seeds"]]
    heads = (
        "spending",
        *worlds,
        "5 seeds at first, in these",
        "rows double four times",
        "2,000 rows at first",
    )

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name, found in habits_found.items():
            seeds = [
                ", ".join(percent(share, 0) for share in shares)
                for shares in found["seeds"].values()
            ]
            first = ", ".join(
                percent(share, 0) for share in found["first look at 5 seeds"].values()
            )
            yield (
                name,
                [
                    *seeds,
                    first,
                    percent(found["rows that double"], 0),
                    percent(found["2,000 rows at once"], 0),
                ],
            )

    return "\n".join(table_lines(heads, rows()))


def look_table(record: Mapping[str, Any], every: bool = False) -> str:
    """Return the table of pages at a first look; of 3 and 6 points, and 3 and 5 seeds, or
    `every` one.
    """
    heads = (
        "difference, costs, seeds, test rows",
        "methods",
        "one look declared",
        "first cost",
        "these checkpoints",
    )

    def rows() -> Iterator[tuple[str, list[str]]]:
        for row in record["one_look"]:
            usual = (
                row["points"] in {3, 6}
                and row["seeds"] in {3, 5}
                and row["costs"] != "both 35 % apart"
            )
            if not usual and not every:
                continue
            name = (
                f"{row['points']} points, {row['costs']}, {row['seeds']} seeds, {row['rows']:,} "
                f"rows"
            )
            after, before = row[AFTER], row[BEFORE]
            yield (
                name,
                [
                    f"{percent(after['score'], 0)} ({100 * before['score']:.0f})",
                    percent(row["one look declared"]["score"], 0),
                    f"{percent(after['cost'], 0)} ({100 * before['cost']:.0f})",
                    percent(row["checkpoints"], 0),
                ],
            )

    return "\n".join(table_lines(heads, rows()))


def race_table(record: Mapping[str, Any]) -> str:
    """Return the table of what races find."""

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name, found in record["races"].items():
            after, before, whole = found[AFTER], found[BEFORE], found["no early end"]
            yield (
                name,
                [
                    f"{percent(after['found'], 0)} ({100 * before['found']:.0f})",
                    percent(whole["found"], 0),
                    f"{after['runs']:.0f} ({before['runs']:.0f})",
                    f"{after['mean_runs']:.1f} ({before['mean_runs']:.1f})",
                ],
            )

    heads = (
        "race of at most 20 seeds",
        "pairs found",
        "without an early end",
        "median of the runs",
        "their mean",
    )
    return "\n".join(table_lines(heads, rows()))


def false_table(record: Mapping[str, Any]) -> str:
    """Return the table of false pages with claims on checkpoints: of each number of methods the
    worst of 3, 4 seeds.
    """

    def rows() -> Iterator[tuple[str, list[str]]]:
        for world in CHECKPOINT_WORLDS:
            cells = [record["checkpoints"][f"{world}, {seeds} seeds"] for seeds in (3, 4)]
            worst = max(cells, key=lambda cell: float(cell["either"]))
            yield (
                world,
                [percent(worst[key]) for key in ("methods", "checkpoints", "either", "bound")],
            )

    heads = (
        "equal methods",
        "false on methods",
        "false on checkpoints",
        "either",
        "its upper bound",
    )
    return "\n".join(table_lines(heads, rows()))


def false_race_table(record: Mapping[str, Any]) -> str:
    """Return the table of false pages of races of equal methods."""
    rows = (
        (name, [percent(found[key]) for key in ("false", "bound")])
        for name, found in record["false_races"].items()
    )
    return "\n".join(table_lines(("race of equal methods", "false pages", "upper bound"), rows))


def tables() -> str:
    """Return the tables of the record, as docs/methodology.md has them."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    makers = (habit_table, race_table, false_race_table, false_table, look_table)
    return "\n\n".join(make(record) for make in makers)


def record(given: int | None, out: Path) -> None:
    """Simulate so many pages of each kind, and five times as many to count false ones, and write
    the record.
    """
    count = given or 4000
    made = {
        "pages": count,
        "habits": habits(count),
        "one_look": one_look(count),
        "races": ends(count),
        "false_races": false_races(5 * count),
        "checkpoints": false_checkpoints(5 * count),
    }
    out.write_text(json.dumps(made, indent=1) + "\n")
