"""Sweeps that end when they are decided: how often their pages are false, and how many runs they
need.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.judge.verdicts import FUTILE_SEEDS, Verdicts, judge, race_end
from hpml_bench.select.race import Race
from hpml_bench.statistics.evidence import LEAST_FACTOR
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, FOR_EQUIVALENCES, OF_SCORE, spent_at
from hpml_bench.suite.suite import Until
from simulation import pages
from simulation.pages import PACKAGE, Bools, Rule, Squares
from simulation.worlds import Floats, Random, World, answers, cost_logs

RECORD = Path(__file__).parents[2] / "reports" / "reference" / "power" / "racing.json"
BOUND = 0.06  # largest upper 97.5 % bound of false pages
SCHEDULES: tuple[tuple[int, ...], ...] = (
    (3, 20), (3, 7, 20), (3, 5, 10, 20), (3, 4, 6, 10, 20),
    (3, 4, 5, 7, 12, 20), (3, 4, 5, 7, 10, 14, 20),
    (3, 4, 5, 6, 8, 11, 15, 20),
)  # fmt: skip
"""Numbers of seeds at 2 to 8 looks; the one of seven is the default of a suite."""
TENFOLD = (10.0, 1.0, 1.0, 1.0, 1.0)
WORLDS: Mapping[str, World] = {
    "all equal": World(),
    "all equal (t3)": World("t3"),
    "one best": World(score=(0.06, 0, 0, 0, 0), cost=(0.3, 0, 0, 0, 0), second=(0.3, 0, 0, 0, 0)),
    "two groups": World(
        score=(0.06, 0.06, 0, 0, 0), cost=(0.3, 0.3, 0, 0, 0), second=(0.3, 0.3, 0, 0, 0)
    ),
    "near-ties": World(score=(0.01, 0.0075, 0.005, 0.0025, 0), cost=(0.05, 0.03, 0.02, 0.01, 0)),
    "a tenfold spread": World(spreads=TENFOLD),
    "two groups (a tenfold spread)": World(
        spreads=TENFOLD, score=(0.06, 0.06, 0, 0, 0), cost=(0.3, 0.3, 0, 0, 0)
    ),
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
    """Return pages of a named world with n seeds; with drift each run of a sweep is slower than
    the one before it.
    """
    return drawn(WORLDS[name], n, count, random, drift=DRIFT if name == "drift" else 0.0)


def drawn(world: World, n: int, count: int, random: Random, drift: float = 0.0) -> Data:
    """Return pages of a world with n seeds, whose costs' logarithms grow by so much from one run
    to the next.
    """
    logs = [cost_logs(world, n, count, random, second=second) for second in (False, True)]
    if drift:
        k = world.methods
        place = np.argsort(random.random((count, k, n)), axis=1) + k * np.arange(n)
        logs = [of + drift * place for of in logs]
    return Data(answers(world, n, count, random), tuple(logs))


class Outcome(NamedTuple):
    """Races of pages: what was claimed last, and how many runs it took."""

    different: list[Bools]  # by metric, [pages, pairs]
    near: list[Bools]
    signs: list[Floats]
    runs: NDArray[np.int64]
    hopeless: NDArray[
        np.bool_
    ]  # races that ended since no seeds that were left were expected to decide, [pages]


Hope = Callable[[Squares, int, float], Bools]
"""Whether pairs by score, [pages, pairs], may be decided by the most seeds, at their level."""


def race(
    data: Data, rounds: Sequence[int], rule: Rule = PACKAGE, hope: Hope | None = None
) -> Outcome:
    """Race all pages at once, as `hpml_bench.statistics.race` does one: to the last round, or one
    method.

    With `hope` a race also ends once all pairs of its methods are decided, or none of the open ones
    has hope.
    """
    count, k = data.right.shape[:2]
    first, second = np.triu_indices(k, 1)
    staying, runs = np.ones((count, k), dtype=bool), np.zeros(count, dtype=np.int64)
    metrics, shape = range(1 + len(data.costs)), (count, len(first))
    different, near, settled = ([np.zeros(shape, dtype=bool) for _ in metrics] for _ in range(3))
    kept = [(np.ones(shape), np.ones(shape), np.zeros(shape)) for _ in metrics]
    ended, hopeless = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    before, share = 0, spent_at(1, len(rounds))
    for n in rounds:
        racing = (staying.sum(axis=1) > 1) & ~ended
        runs += np.where(racing, staying.sum(axis=1) * (n - before), 0)
        before, live, of_round = n, racing[:, None], data.metrics(n)
        for metric, squares in enumerate(of_round):
            p, near_p = by_members(squares, staying, lambda part: pages.p_values(part, rule.prior))
            fixed, now = settled[metric] | ~live, (p, near_p, np.sign(squares.mean))
            p, q, sign = (
                np.where(fixed, old, new) for old, new in zip(kept[metric], now, strict=True)
            )
            kept[metric] = p, q, sign
        claims = pages.adjusted([(p, q) for p, q, _ in kept], k, rule, share)
        for claimed, p in zip((*different, *near), itertools.chain(*claims), strict=True):
            np.logical_or(claimed, (p < 0.05) & live, out=claimed)
        worse = different[0] & staying[:, first] & staying[:, second] & live
        sign = kept[0][2]
        leaves = np.zeros_like(staying)
        for pair, (a, b) in enumerate(zip(first, second, strict=True)):
            leaves[:, b] |= worse[:, pair] & (sign[:, pair] > 0)
            leaves[:, a] |= worse[:, pair] & (sign[:, pair] < 0)
        staying &= ~leaves
        gone = ~(staying[:, first] & staying[:, second])
        settled = [
            fixed | d | e | gone for fixed, d, e in zip(settled, different, near, strict=True)
        ]
        if hope is not None:
            still = ~(gone | different[0] | near[0])
            level = 0.05 * share
            (hoped,) = by_members(
                of_round[0],
                staying,
                lambda part: (hope(part, rounds[-1], level),),  # noqa: B023
                fill=0.0,
            )
            vain = (
                ~(still & hoped.astype(bool)).any(axis=1) & (n >= FUTILE_SEEDS) & still.any(axis=1)
            )
            hopeless |= vain & ~ended & racing & (n < rounds[-1])
            ended |= vain | ~still.any(axis=1)
    return Outcome(different, near, [sign for _, _, sign in kept], runs, hopeless)


def by_members(
    of: Squares,
    staying: Bools,
    values: Callable[[Squares], tuple[NDArray[Any], ...]],
    fill: float = 1.0,
) -> list[Floats]:
    """Return values of pairs by the variances that the methods in the race share; `fill` for
    those of others.
    """
    first, second = np.triu_indices(of.methods, 1)
    found: list[Floats] = []
    for members in np.unique(staying, axis=0):
        if members.sum() < 2:
            continue
        at = np.flatnonzero((staying == members).all(axis=1))
        place = np.ix_(at, np.flatnonzero(members[first] & members[second]))
        rows, rest, opposed = (
            None if one is None else one[place] for one in (of.rows, of.rest, of.opposed)
        )
        part = Squares(
            of.n, int(members.sum()), of.mean[place], of.variance[place], rows, rest, opposed, of.m
        )
        for index, of_part in enumerate(values(part)):
            if index == len(found):
                found.append(np.full_like(of.mean, fill))
            found[index][place] = of_part
    return found or [np.full_like(of.mean, fill)] * 2


def plausible(of: Squares, most: int, level: float) -> Bools:
    """Return which pairs by score the most seeds may find if they differ by a standard error more
    than measured.

    The package's hope (`judge/verdicts.py`), at the most level that a pair can have, which is the
    share of differences.
    """
    if of.methods == 2:
        least_level = level * (FOR_DIFFERENCES + OF_SCORE * FOR_EQUIVALENCES)
    else:
        least_level = (
            level
            * FOR_DIFFERENCES
            * OF_SCORE
            / max(1.0, LEAST_FACTOR * of.methods * (of.methods - 1) / 2)
        )
    size = np.abs(of.mean)
    tests = pages.errors(of)
    found = np.ones_like(size, dtype=bool)
    for test, least in zip(tests, pages.each_detectable(of, most, least_level), strict=True):
        found &= least <= size + test.error
    return found


def as_measured(of: Squares, most: int, level: float) -> Bools:
    """Return which pairs by score the most seeds find if they differ as measured, at the first
    step's level.

    The hope of earlier versions, with Holm's procedure over a score and two costs where there are
    two methods.
    """
    pairs = of.methods * (of.methods - 1) / 2
    share = FOR_DIFFERENCES / 3 if of.methods == 2 else FOR_DIFFERENCES * OF_SCORE / pairs
    return np.asarray(pages.detectable(of, most, level * share) <= np.abs(of.mean))


def runs_of(taken: Sequence[statistics.Round]) -> int:
    return sum(
        len(one.systems) * (one.seeds - (taken[at - 1].seeds if at else 0))
        for at, one in enumerate(taken)
    )


def cells(trials: int, chunk: int = 200) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yield world -> schedule -> share of false pages, its bound, and share of the runs of the
    last round.
    """
    for name, world in WORLDS.items():
        random = np.random.default_rng([38, *name.encode()])
        false, runs = dict.fromkeys(SCHEDULES, 0), dict.fromkeys(SCHEDULES, 0)
        for start in range(0, trials, chunk):
            data = draw(name, 20, min(chunk, trials - start), random)
            for rounds in SCHEDULES:
                found = race(data, rounds)
                false[rounds] += int(
                    pages.wrong(world, found.different, found.near, found.signs).sum()
                )
                runs[rounds] += int(found.runs.sum())
        yield (
            name,
            {
                " ".join(map(str, rounds)): {
                    "false": false[rounds] / trials,
                    "bound": statistics.clopper_pearson(false[rounds], trials)[1],
                    "runs": runs[rounds] / (trials * world.methods * rounds[-1]),
                }
                for rounds in SCHEDULES
            },
        )


def replay(folder: Path, orders: int) -> dict[str, float]:
    """Return what races of recorded seeds in random orders need and say, beside one look at all
    seeds.
    """
    scores = Results.load(folder).aligned
    random, count = np.random.default_rng(38), len(scores.seeds)
    until, names = Until().within(count), tuple(map(str, range(count)))
    best = _best(judge(scores))

    def reordered(
        of: Mapping[str, Mapping[int, Any]], places: list[tuple[int, int]]
    ) -> dict[str, dict[int, Any]]:
        return {name: {at: by[run] for at, run in places if run in by} for name, by in of.items()}

    runs = other = named = 0
    for _ in range(orders):
        places = list(enumerate(random.permutation(count).tolist()))
        rows = None if scores.rows is None else reordered(scores.rows, places)
        shuffled = replace(
            scores, seeds=names, means=reordered(scores.means, places), rows=rows, costs={}
        )
        for seeds in until.rounds:  # later ones haven't run yet
            raced = judge(replace(shuffled.part(shuffled.means, seeds), race=Race(until)))
            if race_end(raced):
                break
        runs += runs_of(raced.rounds)
        other += (found := _best(raced)) != best
        named += found is not None and best is not None and found != best
    whole = orders * count * len(scores.means)
    return {
        "seeds": count,
        "orders": orders,
        "runs": runs / whole,
        "other best": other / orders,
        "contrary best": named / orders,
    }


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
