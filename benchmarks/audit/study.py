"""Study of a results folder: its compared runs, values, pairs and verdicts; how it is read, and
all pairs tested.
"""

import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from audit import over_rows, statistics
from audit.rows import ACCURACY, RIGHT_OR_WRONG, SCORE, Guess, guess, weigh
from audit.runs import Run, by_method, compared_of, costed, one_host, read_run
from audit.statistics import Comparison, Floats, Json, Pair, compare_rows, holm, shaffer

TIME = "train_seconds"


@dataclass(eq=False)
class Study:
    """The runs of a folder, which of them are compared, and the verdicts."""

    suite: Json
    runs: list[Run]
    compared: list[Run]
    home: list[Run]  # those of the compared runs that costs are of
    methods: dict[str, list[Run]]
    definitions: dict[str, Json]
    memory: str
    pairs: dict[tuple[str, str, str], Pair] = field(default_factory=dict)

    @property
    def tested(self) -> int:
        return sum(pair.n >= 3 for pair in self.pairs.values())

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are compared: the score, and of time and memory those that rank
        methods.
        """
        return (
            self.score,
            *(of for of in (TIME, self.memory) if of in self.definitions and self.ranked(of)),
        )

    @functools.cached_property
    def over_rows(self) -> bool:
        """Whether verdicts on the score are for other rows alone: no seeds to judge by, or runs
        all alike.
        """
        seeds = [set(of) for of in self.by_seed(self.score).values()]
        alone = max(map(len, seeds), default=0)
        few = (
            max(
                (len(one & other) for one, other in itertools.combinations(seeds, 2)), default=alone
            )
            < 3
        )
        return few or all(
            np.array_equal(run.drawn, runs[0].drawn)
            for runs in self.methods.values()
            for run in runs
        )

    def ranked(self, metric: str) -> bool:
        """Whether a cost ranks methods: by three seeds of two alone on one host each, and by
        factors of no 0.
        """
        found = [of for of in self.by_seed(metric).values() if of]
        shared = [len(one.keys() & other.keys()) for one, other in itertools.combinations(found, 2)]
        alone = len(one_host(self.home)) == len(self.home) and not any(
            run.neighbours for run in self.home
        )
        return (
            alone
            and max(shared, default=0) >= 3
            and all(value > 0 for of in found for value in of.values())
        )

    @property
    def newest(self) -> Run:
        return (self.compared or self.runs)[-1]

    @property
    def score(self) -> str:
        return self.newest.headline

    @property
    def binary(self) -> bool:
        return self.score == ACCURACY or (
            self.score == SCORE and self.newest.scorer in RIGHT_OR_WRONG
        )

    @property
    def range(self) -> float:
        """Range of the score; an error and a loss have none."""
        least, most = self.bounds(self.score)
        return most - least if math.isfinite(most - least) else 0.0

    @functools.cached_property
    def drawn(self) -> dict[str, Floats]:
        """Each method's scores by row or group, as means over its runs."""
        return {
            name: np.mean([run.drawn for run in runs], axis=0)
            for name, runs in self.methods.items()
        }

    @property
    def span(self) -> float:
        """Range of a row's or group's score; over rows alone that of the scores seen, where none
        is known.
        """
        seen = float(np.ptp([run.scores for run in self.compared])) if self.over_rows else 0.0
        return (self.range or seen) * self.heaviest

    @property
    def heaviest(self) -> float:
        """Weight of the heaviest row or group over the mean."""
        return float(self.weights.max() / self.weights.mean())

    @functools.cached_property
    def weights(self) -> Floats:
        """Weight of each row or group; F1 weighs a row by its entities."""
        run = (self.compared or self.runs)[0]
        weights = pd.Series(
            weigh(self.score, run.predictions["reference"], run.record["label_names"])
        )
        if "group" in run.predictions:
            weights = weights.groupby(run.predictions["group"]).sum()
        return np.asarray(weights, dtype=np.float64)

    @functools.cached_property
    def difference_span(self) -> float:
        """The span of a difference: of a row's largest one where it is declared and holds, else the
        score's.

        It can't where the score is no mean of rows' real scores in a range, and doesn't where a row
        shows a larger one.
        """
        largest = self.margins.get("largest_difference")
        if largest is None or self.binary or not self.range or largest > self.range:
            return self.span
        first, by_seed = self.compared[0], dict[int, list[Floats]]()
        for run in self.compared:
            by_seed.setdefault(run.seed, []).append(run.scores)
        seen = max(float(np.ptp(np.array(rows), axis=0).max()) for rows in by_seed.values())
        uneven = np.ptp(
            weigh(self.score, first.predictions["reference"], first.record["label_names"])
        )
        return self.span if uneven or seen > largest * (1 + 1e-9) else self.heaviest * largest

    @property
    def looks(self) -> int:
        """How often the suite was declared with more seeds than before, of three or more."""
        sizes, silent = (
            [0],
            [run.seed + 1 for run in self.compared if not run.record.get("declared")],
        )
        for run in self.ordered:
            declared = (run.record.get("declared") or {}).get("seeds")
            size = max(declared, run.seed + 1) if declared else max(silent)
            if size >= 3 and size > sizes[-1]:
                sizes.append(size)
        return max(1, len(sizes) - 1)

    @functools.cached_property
    def declared_looks(self) -> int:
        """How many looks the first run declares; 0 where it declares none."""
        declared = (
            run.record["declared"].get("looks")
            for run in self.ordered
            if run.record.get("declared")
        )
        return next(declared, None) or 0

    def level(self, kind: str, looks: int) -> float:
        """Return what the page's 5 % leave for a kind of claim at a look.

        Declared looks share 95 % of it equally. Of what is left each further one takes two thirds.
        """
        share = {"different": 0.8, "equivalent": 0.15, "guess": 0.05}[kind]
        if looks <= self.declared_looks:
            return 0.05 * share * 0.95 / self.declared_looks
        left = 0.05 if self.declared_looks else 1.0
        for _ in range(looks - self.declared_looks - 1):
            left /= 3
        return 0.05 * share * left * 2 / 3

    def tested_by(self, metric: str) -> list[Pair]:
        return [pair for pair in self.pairs.values() if pair.metric == metric and pair.n >= 3]

    @property
    def of_two(self) -> bool:
        """Whether no metric has pairs of three methods: Holm's procedure then takes all metrics
        together.
        """
        return all(
            len({m for p in self.tested_by(of) for m in (p.first, p.second)}) < 3
            for of in self.metrics
        )

    def share(self, metric: str) -> float:
        """Return the weight of a metric: 60 % for the score, and equal parts of the rest for the
        costs.
        """
        costs = [of for of in self.metrics if of != self.score and self.tested_by(of)]
        if not costs:
            return 1.0
        of_score = 0.6 if self.tested_by(self.score) else 0.0
        return of_score if metric == self.score else (1 - of_score) / len(costs)

    def first_level(self, metric: str, looks: int) -> float:
        """Return the level of a pair's difference at the first step."""
        level = self.level("different", looks)
        if self.of_two:  # a difference has the part of its equivalence too
            level += self.level("equivalent", looks)
        return level * self.share(metric) / max(1, len(self.tested_by(metric)))

    def sign(self, metric: str) -> int:
        return -1 if self._definition(metric)["better"] == "lower" else 1

    def scale(self, metric: str) -> float:
        return 100.0 if self._definition(metric)["format"].endswith("%") else 1.0

    def _definition(self, metric: str) -> Json:
        """Return a metric's definition; where nothing is compared there is none, and any does."""
        return self.definitions.get(metric, {"better": "higher", "format": ".1%"})

    def bounds(self, metric: str) -> tuple[float, float]:
        """Return the least and the largest value there can be; an accuracy's are 0 and 1."""
        low, high = self.definitions[metric].get("bounds") or (
            (0, 1) if metric == ACCURACY else (None, None)
        )
        return -math.inf if low is None else low, math.inf if high is None else high

    @functools.cached_property
    def guess(self) -> Guess:
        run = self.compared[0]
        asked = bool(run.settings["task"]["options"].get("question"))
        return guess(self.score, run.predictions, run.record["label_names"], classes=asked)

    @functools.cached_property
    def ordered(self) -> list[Run]:
        """The compared runs, as they began."""
        return sorted(self.compared, key=lambda run: (run.started, run.record["run_id"]))

    @functools.cached_property
    def margins(self) -> dict[str, float | None]:
        """The margins that the first run declares, else the suite's."""
        declared = (
            run.record["declared"]["margin"] for run in self.ordered if run.record.get("declared")
        )
        return next(declared, self.suite.get("margin", {}))

    @functools.cached_property
    def lent(self) -> statistics.Lent:
        """What the first run declares that earlier suites lend to pairs compared by this score."""
        declared: Json = next(
            (run.record["declared"] for run in self.ordered if run.record.get("declared")), {}
        )
        prior = declared.get("prior")
        if not prior or prior["score"] != self.score:
            return {}
        return {frozenset(of["methods"]): (of["variance"], of["freedom"]) for of in prior["pairs"]}

    def margin(self, metric: str) -> float:
        if metric != self.score:
            return self.margins.get("cost") or 0.05
        return self.margins.get("quality") or 0.01 * (self.range or abs(self.guess.chance) or 1.0)

    def log_margin(self, metric: str) -> float:
        """Return the margin in the terms of the comparison."""
        return self.margin(metric) if metric == self.score else math.log1p(self.margin(metric))

    def grid(self, metric: str) -> float:
        """Return the distance of the values that can be measured, where it is known."""
        if metric == self.score and self.binary:
            return 1 / len(self.compared[0].scores)
        return self.definitions[metric].get("grid") or 0.0

    def by_seed(self, metric: str) -> dict[str, dict[int, float]]:
        """Return a metric's values by method and seed; those of a cost are of one machine."""
        cost = self.definitions[metric]["depends_on_machine"]
        kept = set(self.home if cost else [run for runs in self.methods.values() for run in runs])
        return {
            name: {
                run.seed: value
                for run in runs
                if run in kept and (value := run.metric(metric)) is not None
            }
            for name, runs in self.methods.items()
        }

    def shared(self, metric: str) -> list[int]:
        """Return the seeds that all methods have that a metric was measured of."""
        seeds = [set(values) for values in self.by_seed(metric).values() if values]
        return sorted(set.intersection(*seeds)) if seeds else []

    def values(self, metric: str) -> dict[str, list[float]]:
        """Return the values that means are over: of the three or more seeds that all methods
        share, else all.
        """
        # over rows alone a method's score is the mean over its own runs
        shared = [] if metric == self.score and self.over_rows else self.shared(metric)
        return {
            name: [values[seed] for seed in sorted(values) if len(shared) < 3 or seed in shared]
            for name, values in self.by_seed(metric).items()
        }

    def mean(self, metric: str, name: str) -> float:
        values = self.values(metric)[name]
        return float(np.mean(values)) if values else math.nan

    def measured(self, metric: str) -> list[str]:
        return [name for name, values in self.by_seed(metric).items() if values]

    def pair(self, metric: str, one: str, other: str) -> Pair:
        """Return a pair, in whichever order it is kept."""
        return self.pairs.get((metric, one, other)) or self.pairs[metric, other, one]

    def better(self, metric: str, one: str, other: str) -> bool:
        return self.pair(metric, one, other).better == one

    def ranks(self, metric: str, name: str) -> list[int] | None:
        """Return a method's first and last rank that the verdicts leave possible."""
        measured = self.measured(metric)
        others = [other for other in measured if other != name]
        first = 1 + sum(self.better(metric, other, name) for other in others)
        last = len(measured) - sum(self.better(metric, name, other) for other in others)
        return [first, last] if name in measured else None

    @functools.cache  # noqa: B019 - a study lives as long as the program
    def seeds_to_decide(self, pair: Pair) -> int | None:
        """Return how many seeds, or rows, would decide a pair at the next look; none where
        nothing is tested.
        """
        if pair.n < 3 or not pair.comparison.spreads:
            return None
        spread = sum(other.n >= 3 and other.comparison.spreads for other in self.pairs.values())
        equal = self.level("equivalent", self.looks + 1)
        equal *= self.share(pair.metric) if self.of_two else 1 / max(1, spread)
        levels = (self.first_level(pair.metric, self.looks + 1), equal)
        needed = pair.comparison.needed(levels, self.log_margin(pair.metric))
        if needed is None or pair.metric != self.score or not self.over_rows:
            return needed
        return math.ceil(needed * len(self.compared[0].scores) / pair.n)

    def place(self, name: str, metrics: Sequence[str]) -> tuple[str, list[str]]:
        """Return a method's place towards the Pareto front, and the methods that dominate it."""
        there = [
            other
            for other in self.methods
            if all(other in self.measured(metric) for metric in metrics)
        ]
        others = [other for other in there if other != name]
        if name not in there:
            return "–", []

        above = []
        for other in others:
            pairs = [self.pair(metric, other, name) for metric in metrics]
            no_worse = all(
                pair.better == other or (pair.equivalent and pair.better is None) for pair in pairs
            )
            above += [other] if no_worse and any(pair.better == other for pair in pairs) else []
        ahead = all(any(self.better(metric, name, other) for metric in metrics) for other in others)
        return "off" if above else "on" if ahead and others else "undecided", above

    @functools.cached_property
    def above_guessing(self) -> dict[str, float]:
        """Holm's p of each method against guessing, over seeds and in each run over rows: the
        smaller of both.
        """
        sign = self.sign(self.score)
        tables = {
            name: [sign * (run.drawn - run.by_group(self.guess.scores)) for run in runs]
            for name, runs in self.methods.items()
        }
        made = {
            name: compare_rows(np.array(of), self.span, self.binary, self.weights)
            for name, of in tables.items()
            if len(of) >= 3
        }
        ps = {(name, "seeds"): one.p(one.mean) for name, one in made.items()}
        ps |= {
            (name, "rows"): max(above_by_rows(run, self.weights) for run in of)
            for name, of in tables.items()
        }
        adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
        return {
            name: min(adjusted.get((name, "seeds"), 1.0), adjusted[name, "rows"]) for name in tables
        }


def above_by_rows(gains: Floats, weights: Floats) -> float:
    """Return the one-sided p of a run's gains over other rows: McNemar's exact test, of real
    numbers Student's t.
    """
    if gains.mean() <= 0:
        return 1.0
    if np.isin(gains, (-1.0, 0.0, 1.0)).all():
        more, less = int((gains > 0).sum()), int((gains < 0).sum())
        return min(0.5, float(stats.binom.cdf(min(more, less), more + less, 0.5)))
    made = over_rows.compare_over_rows(gains, 0.0, [gains], weights)
    return made.p(made.mean)


def read_study(folder: Path) -> Study:
    read = [read_run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    runs = sorted((run for run in read if run), key=lambda run: run.started)
    ended = [run for run in runs if run.record["status"] == "ok"]
    compared = compared_of(ended)
    home = costed(compared)
    suite = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    over = "peak_memory_over_setup_mb"
    on_cpu = bool(home) and not home[0].record["environment"]["hardware"]["gpus"]
    # Where no run has it, the whole peak: the methodology doesn't say.
    memory = (
        over if on_cpu and any(run.metric(over) is not None for run in home) else "peak_memory_mb"
    )
    definitions = {item["name"]: item for run in compared for item in run.record["definitions"]}
    methods = by_method(compared, list(suite["methods"]))
    study = Study(suite, runs, compared, home, methods, definitions, memory)
    compare_all(study)
    return study


def compared_pair(
    study: Study, metric: str, first: str, second: str
) -> tuple[Floats, Comparison, bool]:
    """Return two methods' differences by seed, their comparison, and whether they look like skewed
    noise.

    Over rows alone: by row or group, and whether few rows carry the mean.
    """
    if metric == study.score and study.over_rows:
        d = study.drawn[first] - study.drawn[second]
        made = over_rows.compare_over_rows(
            d, study.difference_span, study.drawn.values(), study.weights
        )
        return d, made, study.range == 0 and carried_by_few(d)
    found = study.by_seed(metric)
    seeds = sorted(set(found[first]) & set(found[second]))
    values = [np.array([found[name][seed] for seed in seeds]) for name in (first, second)]
    if not seeds:
        return np.array([]), Comparison(math.nan, math.nan, 0), False
    if metric == study.score:
        drawn = [
            np.array([run.drawn for run in study.methods[m] if run.seed in seeds])
            for m in (first, second)
        ]
        table, d = drawn[0] - drawn[1], values[0] - values[1]
        few_rows = study.range == 0 and carried_by_few(table.mean(axis=0))
        own = compare_rows(table, study.difference_span, study.binary, study.weights)
        return d, own, few_rows or statistics.erratic(d, values)
    logs = [np.log(x) for x in values]
    d, grid = logs[0] - logs[1], study.grid(metric) / min(map(np.min, values))
    variance = float(d.var(ddof=1)) + grid**2 / 12 if len(seeds) > 1 else math.nan
    return d, Comparison(float(d.mean()), variance, len(seeds)), statistics.erratic(d, logs)


def carried_by_few(differences: Floats) -> bool:
    """Whether few rows carry the mean of differences; equal ones nothing does."""
    return bool(np.ptp(differences)) and abs(float(stats.skew(differences))) > 3


def compare_all(study: Study) -> None:
    """Test all pairs of methods on the metrics that rank them, as one family."""
    for metric, both in itertools.product(study.metrics, itertools.combinations(study.methods, 2)):
        d, made, marked = compared_pair(study, metric, *both)
        scale = study.scale(metric) if metric == study.score else None
        study.pairs[metric, *both] = Pair(metric, *both, d, made, marked, study.sign(metric), scale)
    for metric in study.metrics:
        if metric != study.score or not study.over_rows:
            of = [pair for pair in study.pairs.values() if pair.metric == metric]
            statistics.share(
                of, len(study.measured(metric)), study.lent if metric == study.score else {}
            )
    tested = [pair for pair in study.pairs.values() if pair.n >= 3]
    for pair in tested:
        pair.p = pair.comparison.p_different
        if pair.comparison.spreads:
            pair.p_margin = pair.comparison.p_margin(study.log_margin(pair.metric))
    spread = [pair for pair in tested if pair.comparison.spreads]
    equivalent = study.level("equivalent", study.looks)
    if study.of_two:
        for pair, p in zip(
            tested, adjusted_of_two(study, [pair.p for pair in tested]), strict=True
        ):
            pair.p_holm = p
        for pair in spread:
            pair.p_margin_holm = min(
                1.0, 0.05 * pair.p_margin / (equivalent * study.share(pair.metric))
            )
        return
    for metric in study.metrics:
        of_metric = study.tested_by(metric)
        measured = len({method for pair in of_metric for method in (pair.first, pair.second)})
        sharing = metric != study.score or not study.over_rows
        level = study.level("different", study.looks) * study.share(metric)
        for pair, p in zip(
            of_metric, shaffer([one.p for one in of_metric], measured, sharing=sharing), strict=True
        ):
            pair.p_holm = min(1.0, 0.05 * p / level)
    for pair, p in zip(spread, holm([pair.p_margin for pair in spread]), strict=True):
        pair.p_margin_holm = min(1.0, 0.05 * p / equivalent)


def adjusted_of_two(study: Study, p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p of the tested pairs, one of each metric, by the graph of Bretz et al.
    (2009).

    The hypothesis with the smallest p, in terms of its level, is rejected first. It then passes its
    level on to those that are left, by their weights, but for what its own equivalence needs; what
    it got from others it passes on whole.
    """
    tested = [pair.metric for pair in study.pairs.values() if pair.n >= 3]
    weights = [study.share(metric) for metric in tested]
    kept = study.level("different", study.looks)
    both = kept + study.level("equivalent", study.looks)
    left, passed = set(range(len(tested))), 0.0
    found, largest = [0.0] * len(tested), 0.0
    while left:
        total = sum(weights[at] for at in left)
        levels = {at: weights[at] * both + passed * weights[at] / total for at in left}
        first = min(left, key=lambda at: p_values[at] / levels[at])
        largest = max(largest, min(1.0, 0.05 * p_values[first] / levels[first]))
        found[first] = largest
        passed += weights[first] * kept
        left.remove(first)
    return found


FEW_SEEDS = 5  # seeds under which checkpoints are compared too


def compared_checkpoints(study: Study) -> list[Json]:
    """Return the pairs of checkpoints on other rows, where any of them differs and the methods'
    own pair is open.
    """
    enough = {
        name: {run.seed: run for run in runs}
        for name, runs in study.methods.items()
        if len(runs) >= 3
    }
    seeds = set.intersection(*map(set, enough.values())) if len(enough) > 1 else set()
    unequal = any(set(runs) != seeds for runs in enough.values())
    if study.over_rows or unequal or not 3 <= len(seeds) < FEW_SEEDS:
        return []
    means = {
        name: np.mean([runs[seed].drawn for seed in sorted(seeds)], axis=0)
        for name, runs in enough.items()
    }
    both, made, few_rows = list(itertools.combinations(means, 2)), [], list[bool]()
    for a, b in both:
        difference = means[a] - means[b]
        few_rows.append(study.range == 0 and carried_by_few(difference))
        made.append(
            over_rows.compare_over_rows(
                difference, study.difference_span, means.values(), study.weights
            )
        )
    p_values = [one.p_different if one.spreads else 1.0 for one in made]
    level = study.level("different", study.looks) * study.share(study.score) / len(both)
    adjusted = [min(1.0, 0.05 * p / level) for p in p_values]
    found, news = [], False
    for (a, b), one, few, p, adjusted_p in zip(
        both, made, few_rows, p_values, adjusted, strict=True
    ):
        low, high = one.accepted(level) if one.spreads else (math.nan, math.nan)
        ahead = study.sign(study.score) * one.mean > 0
        winner = (a if ahead else b) if adjusted_p < 0.05 else None
        news |= winner is not None and study.pair(study.score, a, b).better is None
        scale = study.scale(study.score)
        found.append(
            {
                "a": a,
                "b": b,
                "winner": winner,
                "difference": scale * one.mean,
                "low": scale * low if math.isfinite(low) else None,
                "high": scale * high if math.isfinite(high) else None,
                "p": p,
                "p_adjusted": adjusted_p,
                "uncertain": few and winner is not None,
            }
        )
    return found if news else []
