"""Sweeps that end when they are decided: how often their pages are false, and how many runs they need.

`python benchmarks/racing.py` writes reports/reference/power/racing.json: false pages of races at declared looks, by the
worlds and tests of power_pages.py, and replays of recorded seeds in random orders, of folders given as arguments.
`--trials 400` is a quick look. tests/benchmarks/test_races.py holds the arrays to the package's own race.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import power_pages as pages
from calibration import MARGIN_COST, MARGIN_QUALITY
from numpy.typing import NDArray
from power_pages import Floats, Squares, World, pairs_of
from scipy import stats

from hpml_bench import statistics
from hpml_bench.report.ending import race_end
from hpml_bench.report.judge import Verdicts, judge
from hpml_bench.report.results import Results
from hpml_bench.report.scores import AlignedScores, Race
from hpml_bench.statistics.evidence import LEAST_FACTOR, PRIOR
from hpml_bench.statistics.paired_tests import most_equal
from hpml_bench.statistics.verdicts import FOR_DIFFERENCES, FOR_EQUIVALENCES, OF_SCORE, spent_at
from hpml_bench.suite.suite import Until

RECORD = Path(__file__).parent.parent / "reports" / "reference" / "power" / "racing.json"
BOUND = 0.06
"""Largest upper 97.5 % bound of false pages."""
SCHEDULES: tuple[tuple[int, ...], ...] = (
    (3, 20), (3, 7, 20), (3, 5, 10, 20), (3, 4, 6, 10, 20), (3, 4, 5, 7, 12, 20), (3, 4, 5, 7, 10, 14, 20),
    (3, 4, 5, 6, 8, 11, 15, 20),
)  # fmt: skip
"""Numbers of seeds at 2 to 8 looks; the one of seven is the default of a suite."""
EQUAL = (1.0,) * 5
WORLDS: Mapping[str, World] = {
    "all equal": World("normal", EQUAL),
    "all equal (t3)": World("t3", EQUAL),
    "one best": World("normal", EQUAL, (0.06, 0, 0, 0, 0), (0.3, 0, 0, 0, 0), (0.3, 0, 0, 0, 0)),
    "two groups": World("normal", EQUAL, (0.06, 0.06, 0, 0, 0), (0.3, 0.3, 0, 0, 0), (0.3, 0.3, 0, 0, 0)),
    "near-ties": World("normal", EQUAL, (0.01, 0.0075, 0.005, 0.0025, 0), (0.05, 0.03, 0.02, 0.01, 0)),
    "a tenfold spread": World("normal", (10, 1, 1, 1, 1)),
    "two groups (a tenfold spread)": World("normal", (10, 1, 1, 1, 1), (0.06, 0.06, 0, 0, 0), (0.3, 0.3, 0, 0, 0)),
    "drift": World("normal", EQUAL),
    "twelve methods": World("normal", (1.0,) * 12),
}
DRIFT = 0.004
"""Change of a cost's logarithm from one run to the next."""


@dataclass(frozen=True)
class Data:
    """Pages with the most seeds."""

    right: NDArray[np.bool_]
    """Which rows are right, [pages, methods, seeds, rows]."""
    costs: tuple[Floats, ...]
    """Logarithms of each cost, [pages, methods, seeds]."""

    def metrics(self, n: int) -> list[Squares]:
        """Return the pairs by the score and the costs over the first n seeds."""
        k = self.right.shape[1]
        first, second = pairs_of(k)
        found = [Squares(n, k, *pages._score(self.right[:, :, :n]))]
        for logs in self.costs:
            d = logs[:, first, :n] - logs[:, second, :n]
            found.append(Squares(n, k, d.mean(axis=-1), d.var(axis=-1, ddof=1)))
        return found


def draw(world: World, n: int, count: int, random: np.random.Generator, *, drift: bool = False) -> Data:
    """Return pages with n seeds; with `drift` each run of a sweep is slower than the one before it."""
    logs = [pages.cost_logs(world, n, count, random, second=second) for second in (False, True)]
    if drift:
        k = world.methods
        place = np.argsort(random.random((count, k, n)), axis=1) + k * np.arange(n)
        logs = [of + DRIFT * place for of in logs]
    return Data(pages.answers(world, n, count, random), tuple(logs))


@dataclass
class Outcome:
    """Races of pages: what was claimed last, and how many runs it took."""

    different: list[NDArray[np.bool_]]
    """By metric, [pages, pairs]."""
    near: list[NDArray[np.bool_]]
    sign: list[Floats]
    runs: NDArray[np.int64]
    staying: NDArray[np.bool_]
    """[pages, methods]."""


def race(data: Data, rounds: Sequence[int]) -> Outcome:
    """Race all pages at once, as `hpml_bench.statistics.race` does one: to the last round, or one method."""
    count, k = data.right.shape[:2]
    first, second = pairs_of(k)
    staying = np.ones((count, k), dtype=bool)
    runs = np.zeros(count, dtype=np.int64)
    settled: list[NDArray[np.bool_]] = []
    kept: list[tuple[Floats, Floats, Floats]] = []
    different: list[NDArray[np.bool_]] = []
    near: list[NDArray[np.bool_]] = []
    before = 0
    for n in rounds:
        racing = staying.sum(axis=1) > 1
        runs += np.where(racing, staying.sum(axis=1) * (n - before), 0)
        before = n
        metrics = data.metrics(n)
        fresh = [(*p_values(of, staying), np.sign(of.mean)) for of in metrics]
        if not kept:
            kept = fresh
            settled = [np.zeros_like(of.mean, dtype=bool) for of in metrics]
            different = [np.zeros_like(one) for one in settled]
            near = [np.zeros_like(one) for one in settled]
        kept = [
            tuple(np.where(fixed | ~racing[:, None], old, new) for old, new in zip(was, now, strict=True))  # type: ignore[misc]
            for fixed, was, now in zip(settled, kept, fresh, strict=True)
        ]
        claims = decided([(p, q) for p, q, _ in kept], k, spent_at(1, len(rounds)))
        live = racing[:, None]
        different = [old | (new & live) for old, new in zip(different, claims[0], strict=True)]
        near = [old | (new & live) for old, new in zip(near, claims[1], strict=True)]
        both = staying[:, first] & staying[:, second]
        worse = different[0] & both & live
        leaves = np.zeros_like(staying)
        for at, (a, b) in enumerate(zip(first, second, strict=True)):
            leaves[:, b] |= worse[:, at] & (kept[0][2][:, at] > 0)
            leaves[:, a] |= worse[:, at] & (kept[0][2][:, at] < 0)
        staying &= ~leaves
        gone = ~(staying[:, first] & staying[:, second])
        settled = [fixed | d | e | gone for fixed, d, e in zip(settled, different, near, strict=True)]
    return Outcome(different, near, [sign for _, _, sign in kept], runs, staying)


def p_values(of: Squares, staying: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the p of `power_pages.p_values`, of variances that the methods in the race share; others' are of none."""
    first, second = pairs_of(of.methods)
    both = staying[:, first] & staying[:, second]
    found = np.ones_like(of.mean), np.ones_like(of.mean)
    for members in np.unique(staying, axis=0):
        at = np.flatnonzero((staying == members).all(axis=1))
        names = np.flatnonzero(members)
        if len(names) < 2:
            continue
        own = np.flatnonzero(members[first] & members[second])
        part = Squares(of.n, len(names), *(None if one is None else one[np.ix_(at, own)] for one in (
            of.mean, of.variance, of.rows, of.rest, of.opposed)))  # type: ignore[arg-type]  # fmt: skip
        for to, values in zip(found, pages.p_values(part, pages.Rule(PRIOR)), strict=True):
            to[np.ix_(at, own)] = values
    assert both.shape == found[0].shape  # noqa: S101
    return found


def decided(
    p: Sequence[tuple[Floats, Floats]], k: int, spent: float
) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
    """Return what is claimed by metric, differences and equivalences, as `decide_family` of three methods or more."""
    pairs = k * (k - 1) // 2
    holm = np.arange(len(p) * pairs, 0, -1)
    equal = pages._step_down(np.concatenate([q for _, q in p], axis=-1), holm) / (spent * FOR_EQUIVALENCES) < 0.05
    most = np.maximum([most_equal(k, at, pairs) for at in range(pairs)], LEAST_FACTOR * pairs)
    shares = [OF_SCORE, *[(1 - OF_SCORE) / (len(p) - 1)] * (len(p) - 1)] if len(p) > 1 else [1.0]
    different = [
        pages._step_down(one, most) / (spent * FOR_DIFFERENCES * share) < 0.05
        for (one, _), share in zip(p, shares, strict=True)
    ]
    return different, np.split(equal, len(p), axis=-1)


def package(right: NDArray[np.bool_], costs: Sequence[Floats], rounds: Sequence[int]) -> tuple[list[list[bool]], int]:
    """Return the package's claims by metric, and the runs, of a race on answers and costs of one page."""
    names = tuple(f"m{at}" for at in range(len(right)))

    def compare(staying: tuple[str, ...], seeds: int) -> dict[str, tuple[statistics.Comparison, ...]]:
        at = [names.index(name) for name in staying]
        rows = {name: dict(enumerate(right[one, :seeds])) for name, one in zip(staying, at, strict=True)}
        found = {"score": statistics.compare_scores(rows, MARGIN_QUALITY)}
        for number, of in enumerate(costs):
            values = {name: dict(enumerate(np.exp(of[one, :seeds]))) for name, one in zip(staying, at, strict=True)}
            found[f"cost {number}"] = statistics.compare_costs(values, MARGIN_COST)
        return found

    found, taken = statistics.race(
        names, rounds, lambda *_: True, compare,
        lambda family, look: statistics.decide_family(family, look, "score", declared=len(rounds)), "score", "higher",
    )  # fmt: skip
    runs = sum(len(one.systems) * (one.seeds - (taken[at - 1].seeds if at else 0)) for at, one in enumerate(taken))
    return [[c.verdict != "undecided" for c in of] for of in found.values()], runs


def disagreements(name: str, count: int, schedules: Sequence[tuple[int, ...]] = SCHEDULES) -> int:
    """Return how many of `count` pages of a world at each schedule the package races otherwise than the arrays."""
    data = draw(
        WORLDS[name], schedules[0][-1], count, np.random.default_rng([7, *name.encode()]), drift=name == "drift"
    )
    found = 0
    for rounds in schedules:
        own = race(data, rounds)
        for page in range(count):
            claims = [list(d[page] | e[page]) for d, e in zip(own.different, own.near, strict=True)]
            theirs = package(data.right[page], [of[page] for of in data.costs], rounds)
            found += theirs != (claims, int(own.runs[page]))
    return found


def false_pages(world: World, found: Outcome) -> NDArray[np.bool_]:
    """Return which pages hold a false claim."""
    first, second = pairs_of(world.methods)
    wrong = np.zeros(len(found.runs), dtype=bool)
    margins = (MARGIN_QUALITY, *[math.log1p(MARGIN_COST)] * 2)
    for at, (truth, margin) in enumerate(zip((world.score, world.cost, world.second), margins, strict=True)):
        values = truth or (0.0,) * world.methods
        gap = np.subtract.outer(values, values)[first, second]
        wrong |= (found.different[at] & (found.sign[at] * gap <= 0)).any(axis=-1)
        wrong |= (found.near[at] & (np.abs(gap) >= margin * (1 - 1e-9))).any(axis=-1)
    return wrong


def upper(false: int, count: int) -> float:
    """Return Clopper and Pearson's upper 97.5 % bound of a share."""
    return float(stats.beta.ppf(0.975, false + 1, count - false)) if false < count else 1.0


def cells(trials: int, names: Sequence[str], chunk: int = 200) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yield world -> schedule -> share of false pages, its bound, and share of the runs of the last round."""
    for name in names:
        world, random = WORLDS[name], np.random.default_rng([38, *name.encode()])
        false = dict.fromkeys(SCHEDULES, 0)
        runs = dict.fromkeys(SCHEDULES, 0)
        for start in range(0, trials, chunk):
            data = draw(world, 20, min(chunk, trials - start), random, drift=name == "drift")
            for rounds in SCHEDULES:
                found = race(data, rounds)
                false[rounds] += int(false_pages(world, found).sum())
                runs[rounds] += int(found.runs.sum())
        yield name, {
            " ".join(map(str, rounds)): {
                "false": false[rounds] / trials, "bound": upper(false[rounds], trials),
                "runs": runs[rounds] / (trials * world.methods * rounds[-1]),
            }
            for rounds in SCHEDULES
        }  # fmt: skip


def replay(folder: Path, orders: int, question: Literal["decided", "costs"] = "decided") -> dict[str, float]:
    """Return what races of recorded seeds in random orders need and say, beside one look at all seeds."""
    scores = Results.load(folder).aligned
    random, count = np.random.default_rng(38), len(scores.seeds)
    until = Until(question=question).within(count)
    best = _best(judge(scores))
    runs, other, named, ends = 0, 0, 0, Counter[str]()
    for _ in range(orders):
        raced, seeds = _raced(_reordered(scores, random.permutation(count)), until)
        runs += seeds
        other += _best(raced) != best
        named += _best(raced) is not None and best is not None and _best(raced) != best
        end = race_end(raced)
        ends[next((name for name in ENDS if name in end), end)] += 1
    whole = orders * count * len(scores.means)
    shares = {f"ended: {name}": n / orders for name, n in ends.items()}
    return {"seeds": count, "orders": orders, "runs": runs / whole, "other best": other / orders,
            "contrary best": named / orders, **shares}  # fmt: skip


ENDS = ("is shown to score best", "are shown to score alike", "is expected to tell", "have the")


def _reordered(scores: AlignedScores, order: NDArray[np.int64]) -> AlignedScores:
    """Return the scores alone, with the seeds in another order."""

    def of(values: Mapping[str, Mapping[int, Any]]) -> dict[str, dict[int, Any]]:
        return {
            name: {at: by[int(run)] for at, run in enumerate(order) if int(run) in by} for name, by in values.items()
        }

    names = tuple(str(at) for at in range(len(order)))
    rows = None if scores.rows is None else of(scores.rows)
    return replace(scores, seeds=names, means=of(scores.means), rows=rows, costs={})


def _raced(scores: AlignedScores, until: Until) -> tuple[Verdicts, int]:
    """Return the verdicts of a race at its end, and the runs that it took."""
    for at, seeds in enumerate(until.rounds):
        # later rounds haven't run yet
        part = replace(scores.part(scores.means, seeds), race=Race(until))
        found = judge(part)
        if race_end(found) or at == len(until.rounds) - 1:
            break
    taken = found.rounds
    return found, sum(
        len(one.systems) * (one.seeds - (taken[at - 1].seeds if at else 0)) for at, one in enumerate(taken)
    )


def _best(found: Verdicts) -> str | None:
    """Return the method that is shown to score best."""
    first = [name for name, (low, high) in found.ranks.items() if (low, high) == (1, 1)]
    return first[0] if first else None


def main() -> None:
    """Write the record, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--replay", type=Path, nargs="*", default=[], metavar="DIR", help="replay these folders alone")
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--agree", type=int, metavar="N", help="race N pages of each world by the package as well")
    parser.add_argument("--out", type=Path, default=RECORD)
    given = parser.parse_args()
    for folder in given.replay:
        print(folder.name, json.dumps(replay(folder, given.orders)), flush=True)
    if given.agree:
        for name in given.worlds.split(","):
            races = f"{given.agree} pages at {len(SCHEDULES)} schedules"
            print(f"{name:30} {races}, raced otherwise: {disagreements(name, given.agree)}", flush=True)
    if given.replay or given.agree:
        return
    found = {}
    for name, by in cells(given.trials, given.worlds.split(",")):
        found[name] = by
        for rounds, of in by.items():
            print(
                f"{name:30} {rounds:24} false {of['false']:.2%} (<= {of['bound']:.2%})  runs {of['runs']:.0%}",
                flush=True,
            )
    given.out.write_text(json.dumps({"pages": given.trials, "worlds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
