"""The answer of a comparison: its numbers, from the systems of one data set and the verdicts on them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hpml_bench import statistics
from hpml_bench.comparison.measured import Cost
from hpml_bench.comparison.scores import Scores
from hpml_bench.comparison.verdicts import SHOWN, Verdicts, check_largest, check_margin, is_exact, verdicts
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.model import Answer, Axis, Failure, Method, Pair, Score, Setup, Values
from hpml_bench.report.answer.pairs import pair_of, plain
from hpml_bench.report.tables import capitalized, sentence_list
from hpml_bench.statistics import Comparison

MOST_DECIMALS = 6
"""Decimals of a score."""
ABOUT_NONE = 0.01
"""Share of a difference: an end of its interval that is nearer to 0 counts as 0."""


@dataclass(frozen=True)
class Compared:
    """The systems of one data set with the verdicts on them."""

    scores: Scores
    verdicts: Verdicts

    @classmethod
    def of(cls, scores: Scores, margin: float | None = None) -> Compared:
        """Return the systems with every pair decided.

        Raises:
            UserError: every difference that the score's range allows would lie within the margin, or the declared
                largest difference of a row isn't one.

        """
        check_largest(scores)
        if margin is not None:
            check_margin(scores, margin)
        return cls(scores, verdicts(scores, margin))

    @property
    def percent(self) -> bool:
        """Whether scores are shown as per cent: those of 0 to 1."""
        return self.scores.binary or (self.scores.score.low, self.scores.score.high) == (0.0, 1.0)

    @cached_property
    def power(self) -> int:
        """Power of ten in which scores are shown: a multiple of 3 where they are very small or large."""
        largest = max(abs(value) for of in self.scores.means.values() for value in of.values())
        return 0 if self.percent or not largest or 1e-3 <= largest < 1e6 else 3 * math.floor(math.log10(largest) / 3)

    @property
    def scale(self) -> float:
        """What a score is multiplied by to be shown."""
        return 100.0 if self.percent else float(f"1e{-self.power}")

    @property
    def by_rows(self) -> bool:
        """Whether verdicts are for other rows alone."""
        return self.verdicts.scope in {"rows", "shares", "none"}

    def needed(self, c: Comparison) -> int | None:
        """Return the seeds that would decide a pair, or the rows, also where groups of rows are tested.

        Where rows are missing the larger number of both tables; None where these have differences of two signs.
        """
        scores, half, need = self.scores, len(c.evidence) // 2, c.seeds_needed
        if scores.filled is not None and c.evidence:
            each = [replace(c, evidence=part).seeds_needed for part in (c.evidence[:half], c.evidence[half:])]
            known = [n for n in each if n is not None]
            need = max(known) if len(known) == 2 and c.evidence[0].mean * c.evidence[-1].mean > 0 else None
        if need is None or not self.by_rows:
            return need
        return math.ceil(need * (scores.count or 0) / (scores.group_count or scores.count or 1))

    def runs(self, name: str) -> dict[int, float]:
        """Return a system's scores that enter its mean: of the runs that all share, where verdicts are over runs."""
        own = dict(self.scores.means[name])
        shared = set.intersection(*(set(of) for of in self.scores.means.values()))
        if self.by_rows or len(shared) < statistics.LEAST_SEEDS:
            return own
        return {run: value for run, value in own.items() if run in shared}


def answer_of(compared: Compared) -> Answer:
    """Return the answer of one data set."""
    scores, found = compared.scores, compared.verdicts
    axes = _axes(scores, found)
    sign = -1.0 if scores.score.better == "higher" else 1.0
    methods = sorted(
        (_method(compared, name, axes) for name in scores.systems), key=lambda method: sign * method.v["score"].m
    )
    pairs = {"score": tuple(_pair(compared, c) for c in found.score)}
    pairs |= {
        axis.id: tuple(pair_of(c, "lower") for c in found.costs[cost]) for cost, axis in axes.items() if axis.tested
    }
    runs = sum(len(of) for of in scores.means.values())
    uneven = not compared.by_rows and len({frozenset(of) for of in scores.means.values()}) > 1
    return Answer(
        suite=scores.title,
        description="",
        model="",
        data=scores.title,
        rows=scores.count or 0,
        rows_text=_rows_text(scores),
        seeds=max(len(of) for of in scores.means.values()),
        shared=(len(compared.runs(scores.systems[0])) if scores.shared_seeds else 0) if uneven else None,
        runs=runs,
        planned=runs + len(scores.failed),
        tested=sum(c.verdict != "untested" for of in (found.score, *found.costs.values()) for c in of),
        judged=found.holds_for,
        chance=100 * statistics.ALPHA,
        setup=Setup(budget=_runs_text(scores) if compared.by_rows else "", device="", host="", rates="", memory=""),
        score=_score(compared, [method.v["score"].m for method in methods], pairs["score"]),
        axes=tuple(axes.values()),
        methods=tuple(methods),
        pairs=pairs,
        under={},
        guess=None,
        failures=tuple(
            Failure(method=failure.system, seed=_seed(failure.seed, at), status=failure.status)
            for at, failure in enumerate(scores.failed)
        ),
        unranked=_unranked(found),
        untried=tuple(dict.fromkeys(f.system for f in scores.failed if f.system not in scores.systems)),
        over="row" if compared.by_rows else "seed",
        least=statistics.LEAST_SEEDS,
        noun="system",
        untested=found.why,
        lacking=_lacking(scores) if scores.lacking else "",
    )


def _unranked(found: Verdicts) -> str | None:
    """Return why no cost is ranked, as the end of a sentence and sentences after it; None where one is."""
    if found.costs or not found.unranked:
        return None
    first, *more = dict.fromkeys(found.unranked.values())
    return ". ".join([first, *map(capitalized, more)])


def _seed(text: str, at: int) -> int:
    return int(text) if text.isdigit() else at


def _rows_text(scores: Scores) -> str:
    if scores.count is None:
        return "number of rows not known"
    groups = "" if scores.groups is None else f" in {scores.group_count:,} groups"
    return f"{terms.count_of(scores.count, 'shared row' if scores.lacking else 'row')}{groups}"


def _lacking(scores: Scores) -> str:
    """Return who lacks how many rows, and what that means, as a sentence."""
    who = [f"{name} {'lacks ' if at == 0 else ''}{n:,}" for at, (name, n) in enumerate(scores.lacking.items())]
    if len(who) > terms.NAMED:
        who = [f"{len(who)} systems lack up to {max(scores.lacking.values()):,}"]
    rows = terms.count_of((scores.count or 0) + scores.unshared, "row")
    return f"{sentence_list(who)} of {rows}: a verdict holds without these rows and with the worst score in them."


def _runs_text(scores: Scores) -> str:
    counts = sorted({len(of) for of in scores.means.values()})
    if counts == [1]:
        return "one run of each system"
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs of each system"


def _score(compared: Compared, means: Sequence[float], pairs: Sequence[Pair]) -> Score:
    score = compared.scores.score
    percent = compared.percent
    unit = "%" if percent else terms.power_of_ten(compared.power) if compared.power else ""
    largest = max(map(abs, means))
    digits = 1 if percent else _decimals(largest, 3) if largest else 2
    margin = next((c.margin for c in compared.verdicts.score if c.margin), 0.0)
    return Score(
        id=_slug(score.name, "_") or "score",
        title=score.title or score.name,
        unit=unit,
        better=score.better,
        digits=max(digits, *(_resolving(pair) for pair in pairs)),
        difference_unit="points" if percent else unit,
        margin=compared.scale * margin,
    )


def _decimals(value: float, significant: int) -> int:
    """Return the decimals that show so many digits of a value, at most six."""
    return max(0, min(MOST_DECIMALS, significant - 1 - math.floor(math.log10(value))))


def _resolving(pair: Pair) -> int:
    """Return the decimals without which a difference that is shown would be read as none.

    Two digits of the difference, and one of the end of its interval that is nearer to 0, unless that is about 0.
    """
    if pair.v != "different" or not pair.d:
        return 0
    ends = [abs(end) for end in (pair.wlo, pair.whi) if end is not None and abs(end) > ABOUT_NONE * abs(pair.d)]
    return max(_decimals(abs(pair.d), 2), *(_decimals(end, 1) for end in ends), 0)


def _slug(text: str, between: str) -> str:
    return re.sub(r"[^a-z0-9]+", between, text.lower()).strip(between)


def _axes(scores: Scores, found: Verdicts) -> dict[Cost, Axis]:
    axes: dict[Cost, Axis] = {}
    for at, cost in enumerate(list(scores.costs)[:SHOWN]):
        key = f"cost-{_slug(cost.title, '-')}"
        key = f"cost-{at + 1}" if key == "cost-" or any(key == axis.key for axis in axes.values()) else key
        name = f"cost_{at + 1}"
        axes[cost] = Axis(key=key, id=name, title=capitalized(cost.title), unit=cost.unit,
                          tested=name if cost in found.costs else None,
                          exact=is_exact(cost, scores.costs[cost]))  # fmt: skip
    return axes


def _method(compared: Compared, name: str, axes: Mapping[Cost, Axis]) -> Method:
    scores, found = compared.scores, compared.verdicts
    runs = compared.runs(name)
    mean = float(np.mean(list(runs.values())))
    low, high = _own_interval(compared, name, runs)
    scale = compared.scale
    v = {"score": Values(m=plain(scale * mean), lo=low, hi=high, runs=tuple(plain(scale * x) for x in runs.values()))}
    for cost, axis in axes.items():
        values = scores.costs[cost].get(name, {})
        if values:
            interval = statistics.mean_interval(list(values.values()))
            v[axis.id] = Values(m=plain(interval.mean), lo=interval.low, hi=interval.high, runs=tuple(values.values()))
    tested = any(c.verdict != "untested" for c in found.score)
    places = statistics.rank_intervals(found.score, scores.systems, scores.score.better) if tested else {}
    return Method(name=name, kind=name, place=places.get(name), seeds=len(scores.means[name]), v=v)


def _own_interval(compared: Compared, name: str, runs: Mapping[int, float]) -> tuple[float | None, float | None]:
    """Return the ends of a mean's own 95 % interval, within the range of the score, as shown."""
    scores, scope = compared.scores, compared.verdicts.scope
    low: float | None = None
    high: float | None = None
    mean = float(np.mean(list(runs.values())))
    if scope == "seeds and rows" and len(runs) > 1:
        step = 1.0 if scores.binary else 0.0
        interval = statistics.crossed_interval([scores.units[name][run] for run in runs], scores.span, step)
        low, high = interval.low, interval.high
    elif scope in {"seeds", "seeds and rows"}:
        grid = 1 / scores.count if scores.binary and scores.count else None
        interval = statistics.mean_interval(list(runs.values()), grid)
        low, high = interval.low, interval.high
    elif scope == "shares" and scores.count:
        least, most = scores.score.low or 0.0, scores.score.high or 1.0
        share = (mean - least) / (most - least)
        low, high = (least + (most - least) * end for end in statistics.share_interval(share, scores.count))
    elif scope == "rows":
        if scores.binary and scores.groups is None and len(runs) == 1 and scores.count:
            low, high = statistics.share_interval(mean, scores.count)
        else:
            units = np.mean(list(scores.units[name].values()), axis=0)
            low, high = statistics.mean_of_rows(units, scores.span) or (None, None)
    if low is None or high is None:
        return None, None
    bounds = (0.0, 1.0) if scores.binary else (scores.score.low, scores.score.high)
    low = low if bounds[0] is None else max(low, bounds[0])
    high = high if bounds[1] is None else min(high, bounds[1])
    return plain(compared.scale * low), plain(compared.scale * high)


def _pair(compared: Compared, c: Comparison) -> Pair:
    """Return a pair; where verdicts are for other rows its counts are of rows, also where groups were tested."""
    made = pair_of(c, compared.scores.score.better, compared.scale).model_copy(update={"need": compared.needed(c)})
    return made.model_copy(update={"n": compared.scores.count or 0}) if compared.by_rows else made
