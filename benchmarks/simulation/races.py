"""Sweeps that end when they are decided: how often their pages are false, and how many runs they need."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.report.judge import Verdicts, judge, race_end
from hpml_bench.report.results import Results
from hpml_bench.report.scores import Race
from hpml_bench.statistics.verdicts import spent_at
from hpml_bench.suite.suite import Until
from simulation import pages
from simulation.pages import PACKAGE, Bools, Squares
from simulation.worlds import Floats, Random, World, answers, cost_logs

RECORD = Path(__file__).parents[2] / "reports" / "reference" / "power" / "racing.json"
BOUND = 0.06  # largest upper 97.5 % bound of false pages
SCHEDULES: tuple[tuple[int, ...], ...] = (
    (3, 20), (3, 7, 20), (3, 5, 10, 20), (3, 4, 6, 10, 20), (3, 4, 5, 7, 12, 20), (3, 4, 5, 7, 10, 14, 20),
    (3, 4, 5, 6, 8, 11, 15, 20),
)  # fmt: skip
"""Numbers of seeds at 2 to 8 looks; the one of seven is the default of a suite."""
TENFOLD = (10.0, 1.0, 1.0, 1.0, 1.0)
WORLDS: Mapping[str, World] = {
    "all equal": World(),
    "all equal (t3)": World("t3"),
    "one best": World(score=(0.06, 0, 0, 0, 0), cost=(0.3, 0, 0, 0, 0), second=(0.3, 0, 0, 0, 0)),
    "two groups": World(score=(0.06, 0.06, 0, 0, 0), cost=(0.3, 0.3, 0, 0, 0), second=(0.3, 0.3, 0, 0, 0)),
    "near-ties": World(score=(0.01, 0.0075, 0.005, 0.0025, 0), cost=(0.05, 0.03, 0.02, 0.01, 0)),
    "a tenfold spread": World(spreads=TENFOLD),
    "two groups (a tenfold spread)": World(spreads=TENFOLD, score=(0.06, 0.06, 0, 0, 0), cost=(0.3, 0.3, 0, 0, 0)),
    "drift": World(),
    "twelve methods": World(spreads=(1.0,) * 12),
}
DRIFT = 0.004  # change of a cost's logarithm from one run to the next


@dataclass(frozen=True)
class Data:
    """Pages with the most seeds."""

    right: Bools  # which rows are right, [pages, methods, seeds, rows]
    costs: tuple[Floats, ...]  # logarithms of each cost, [pages, methods, seeds]

    def metrics(self, n: int) -> list[Squares]:
        """Return the pairs by the score and the costs over the first n seeds."""
        score = Squares(n, self.right.shape[1], *pages.answer_squares(self.right[:, :, :n]))
        return [score, *(pages.cost_squares(logs[:, :, :n]) for logs in self.costs)]


def draw(name: str, n: int, count: int, random: Random) -> Data:
    """Return pages of a world with n seeds; with drift each run of a sweep is slower than the one before it."""
    world = WORLDS[name]
    logs = [cost_logs(world, n, count, random, second=second) for second in (False, True)]
    if name == "drift":
        k = world.methods
        place = np.argsort(random.random((count, k, n)), axis=1) + k * np.arange(n)
        logs = [of + DRIFT * place for of in logs]
    return Data(answers(world, n, count, random), tuple(logs))


class Outcome(NamedTuple):
    """Races of pages: what was claimed last, and how many runs it took."""

    different: list[Bools]  # by metric, [pages, pairs]
    near: list[Bools]
    signs: list[Floats]
    runs: NDArray[np.int64]


def race(data: Data, rounds: Sequence[int]) -> Outcome:
    """Race all pages at once, as `hpml_bench.statistics.race` does one: to the last round, or one method."""
    count, k = data.right.shape[:2]
    first, second = np.triu_indices(k, 1)
    staying, runs = np.ones((count, k), dtype=bool), np.zeros(count, dtype=np.int64)
    metrics, shape = range(1 + len(data.costs)), (count, len(first))
    different, near, settled = ([np.zeros(shape, dtype=bool) for _ in metrics] for _ in range(3))
    kept = [(np.ones(shape), np.ones(shape), np.zeros(shape)) for _ in metrics]
    before = 0
    for n in rounds:
        racing = staying.sum(axis=1) > 1
        runs += np.where(racing, staying.sum(axis=1) * (n - before), 0)
        before, live = n, racing[:, None]
        for at, of in enumerate(data.metrics(n)):
            fixed, now = settled[at] | ~live, (*p_values(of, staying), np.sign(of.mean))
            p, q, sign = (np.where(fixed, old, new) for old, new in zip(kept[at], now, strict=True))
            kept[at] = p, q, sign
        claims = pages.adjusted([(p, q) for p, q, _ in kept], k, PACKAGE, spent_at(1, len(rounds)))
        for claimed, p in zip((*different, *near), itertools.chain(*claims), strict=True):
            np.logical_or(claimed, (p < 0.05) & live, out=claimed)
        worse = different[0] & staying[:, first] & staying[:, second] & live
        sign = kept[0][2]
        leaves = np.zeros_like(staying)
        for at, (a, b) in enumerate(zip(first, second, strict=True)):
            leaves[:, b] |= worse[:, at] & (sign[:, at] > 0)
            leaves[:, a] |= worse[:, at] & (sign[:, at] < 0)
        staying &= ~leaves
        gone = ~(staying[:, first] & staying[:, second])
        settled = [fixed | d | e | gone for fixed, d, e in zip(settled, different, near, strict=True)]
    return Outcome(different, near, [sign for _, _, sign in kept], runs)


def p_values(of: Squares, staying: Bools) -> tuple[Floats, Floats]:
    """Return the p of `pages.p_values`, of variances that the methods in the race share; others' are of none."""
    first, second = np.triu_indices(of.methods, 1)
    found = np.ones_like(of.mean), np.ones_like(of.mean)
    for members in np.unique(staying, axis=0):
        if members.sum() < 2:
            continue
        at = np.flatnonzero((staying == members).all(axis=1))
        place = np.ix_(at, np.flatnonzero(members[first] & members[second]))
        rows, rest, opposed = (None if one is None else one[place] for one in (of.rows, of.rest, of.opposed))
        part = Squares(of.n, int(members.sum()), of.mean[place], of.variance[place], rows, rest, opposed)
        for to, values in zip(found, pages.p_values(part), strict=True):
            to[place] = values
    return found


def runs_of(taken: Sequence[statistics.Round]) -> int:
    return sum(len(one.systems) * (one.seeds - (taken[at - 1].seeds if at else 0)) for at, one in enumerate(taken))


def cells(trials: int, chunk: int = 200) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yield world -> schedule -> share of false pages, its bound, and share of the runs of the last round."""
    for name, world in WORLDS.items():
        random = np.random.default_rng([38, *name.encode()])
        false, runs = dict.fromkeys(SCHEDULES, 0), dict.fromkeys(SCHEDULES, 0)
        for start in range(0, trials, chunk):
            data = draw(name, 20, min(chunk, trials - start), random)
            for rounds in SCHEDULES:
                found = race(data, rounds)
                false[rounds] += int(pages.wrong(world, found.different, found.near, found.signs).sum())
                runs[rounds] += int(found.runs.sum())
        yield name, {
            " ".join(map(str, rounds)): {
                "false": false[rounds] / trials, "bound": statistics.clopper_pearson(false[rounds], trials)[1],
                "runs": runs[rounds] / (trials * world.methods * rounds[-1]),
            }
            for rounds in SCHEDULES
        }  # fmt: skip


def replay(folder: Path, orders: int) -> dict[str, float]:
    """Return what races of recorded seeds in random orders need and say, beside one look at all seeds."""
    scores = Results.load(folder).aligned
    random, count = np.random.default_rng(38), len(scores.seeds)
    until, names = Until().within(count), tuple(map(str, range(count)))
    best = _best(judge(scores))

    def reordered(of: Mapping[str, Mapping[int, Any]], places: list[tuple[int, int]]) -> dict[str, dict[int, Any]]:
        return {name: {at: by[run] for at, run in places if run in by} for name, by in of.items()}

    runs = other = named = 0
    for _ in range(orders):
        places = list(enumerate(random.permutation(count).tolist()))
        rows = None if scores.rows is None else reordered(scores.rows, places)
        shuffled = replace(scores, seeds=names, means=reordered(scores.means, places), rows=rows, costs={})
        for seeds in until.rounds:  # later ones haven't run yet
            raced = judge(replace(shuffled.part(shuffled.means, seeds), race=Race(until)))
            if race_end(raced):
                break
        runs += runs_of(raced.rounds)
        other += (found := _best(raced)) != best
        named += found is not None and best is not None and found != best
    whole = orders * count * len(scores.means)
    return {"seeds": count, "orders": orders, "runs": runs / whole, "other best": other / orders,
            "contrary best": named / orders}  # fmt: skip


def _best(found: Verdicts) -> str | None:
    """Return the method that is shown to score best."""
    return next((name for name, rank in found.ranks.items() if rank == (1, 1)), None)


def _lines(worlds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    for name, by in worlds.items():
        for rounds, of in by.items():
            found = f"false {of['false']:.2%} (<= {of['bound']:.2%}), runs {of['runs']:.0%}"
            yield f"{name}, {rounds} seeds: {found}"


def tables() -> str:
    return "\n".join(_lines(json.loads(RECORD.read_text(encoding="utf-8"))["worlds"]))


def record(given: int | None, out: Path) -> None:
    trials, found = given or 4000, {}
    for name, by in cells(trials):
        print(*_lines({name: by}), sep="\n", flush=True)
        found[name] = by
    out.write_text(json.dumps({"pages": trials, "worlds": found}, indent=1) + "\n")
