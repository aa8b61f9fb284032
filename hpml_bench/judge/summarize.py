"""The answer of one data set: its numbers in the units that a page shows, from the verdicts on
its systems.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpml_bench import statistics
from hpml_bench.judge.scores import AlignedScores, CostDefinition, SuiteFacts, entering
from hpml_bench.judge.summary import (
    Axis,
    CheckpointPair,
    Failure,
    Method,
    PageSummary,
    Pair,
    RoundOf,
    Score,
    Setup,
    Values,
)
from hpml_bench.judge.verdicts import Scope, Verdicts, is_exact, race_end, ranking_cost, shown_costs
from hpml_bench.records.numbers import (
    NAMED,
    capitalized,
    decimals,
    larger_unit,
    resolving,
    sentence_list,
    slug,
)
from hpml_bench.statistics import Comparison
from hpml_bench.system.text import count_of, sanitize

TESTS: Mapping[Scope, str] = {
    "seeds and rows": "Scores: differences of the first less the second within seed and row, in a "
    "two-way analysis of variance and a paired t test over seeds; p is the larger, the interval "
    "the wider.",
    "rows": "Scores: differences within a row. Where all are one of two values: McNemar's exact "
    "test. Else Student's t, with what few rows can't show: rare rows that carry the difference.",
    "seeds": "Scores: differences within a seed, by the paired t test, on these very rows.",
    "shares": "Shares of rows, without the rows: unpaired; p is the larger of Agresti and Caffo's "
    "(2000) and of Fisher's exact test.",
    "none": "Nothing is tested.",
}
"""Tests of pairs of scores."""


def summarize(found: Verdicts) -> PageSummary:
    scores, facts = found.scores, found.scores.facts or _bare(found)
    scale, score_unit = score_scale(scores)
    axes = _axes(found)
    methods = [_method(found, name, facts.methods[name], axes, scale) for name in scores.systems]
    sign = -1.0 if scores.score.better == "higher" else 1.0
    methods.sort(
        key=lambda method: (
            sign * method.values["score"].mean if "score" in method.values else math.inf
        )
    )
    pairs = {"score": tuple(_pair(found, c, scale) for c in found.score)}
    pairs |= {
        axis.tested: tuple(_pair(found, c) for c in found.costs[ranking_cost(scores, cost).column])
        for cost, axis in axes.items()
        if axis.tested
    }
    groups = "" if scores.groups is None else f" in {scores.group_count:,} groups"
    row = "shared row" if scores.lacking else "test row" if scores.trained_on else "row"
    why = [] if found.costs else [*dict.fromkeys(found.unranked.values())]
    runs = sum(m.seeds for m in facts.methods.values())
    seeds = (
        len(scores.seeds)
        if scores.facts
        else max((m.seeds for m in facts.methods.values()), default=0)
    )
    checkpoints = _checkpoints(found, scale)
    return PageSummary(
        suite=facts.suite,
        description=facts.description,
        model=facts.model,
        data=facts.data,
        rows=scores.count or 0,
        rows_text="number of rows not known"
        if scores.count is None
        else f"{count_of(scores.count, row)}{groups}",
        seeds=seeds,
        shared=_shared(found),
        runs=runs,
        planned=runs + len(facts.failures),
        tested=found.tested,
        judged=found.holds_for,
        chance=100 * statistics.ALPHA,
        setup=facts.setup,
        score=_score(found, scale, score_unit, methods, pairs["score"]),
        axes=tuple(axes.values()),
        methods=tuple(methods),
        pairs=pairs,
        under=dict(facts.under),
        guess=facts.guess,
        failures=facts.failures,
        unranked=". ".join([*why[:1], *map(capitalized, why[1:])]) or None,
        untried=facts.untried,
        over="row" if found.by_rows else "seed",
        least=statistics.LEAST_SEEDS,
        noun=scores.noun,
        tests=f"{TESTS[found.scope]}{lent_in_words(found)}",
        look=found.look,
        declared_looks=scores.declared_looks,
        checkpoints=checkpoints,
        checkpoints_judged=found.checkpoints_hold_for if checkpoints else "",
        changed=scores.changed,
        rounds=tuple(
            RoundOf(seeds=one.seeds, methods=one.systems, left=dict(one.left))
            for one in found.rounds
        ),
        ended=race_end(found),
        most_runs=len(scores.means) * scores.race.until.rounds[-1] if scores.race else 0,
        untested=found.why,
        lacking=_lacking(scores) if scores.lacking else "",
    )


def lent_in_words(found: Verdicts) -> str:
    """Return which earlier suites lend their variance to the pairs of a score, as a further
    sentence; empty if none.
    """
    if found.scores.prior is None or found.scope != "seeds and rows":
        return ""
    return (
        f" The variance over seeds is estimated with that of earlier suites: {found.scores.prior}."
    )


def _bare(found: Verdicts) -> SuiteFacts:
    """Return what there is to say of systems that no suite ran."""
    scores, names = (
        found.scores,
        [sanitize(name) for name in found.scores.systems],
    )  # of one printable line
    counts = sorted({len(of) for of in scores.means.values()})
    runs = (
        f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs"
        if counts != [1]
        else "one run"
    )
    return SuiteFacts(
        suite=scores.title,
        description="",
        model="",
        data=scores.title,
        under={},
        guess=None,
        setup=Setup(budget=f"{runs} of each system" if found.by_rows else ""),
        methods={
            name: Method(name=name, kind=name, seeds=len(of), values={})
            for name, of in scores.means.items()
        },
        failures=tuple(
            Failure(
                method=one.system,
                seed=int(one.seed) if one.seed.isdigit() else at,
                status=one.status,
            )
            for at, one in enumerate(scores.failed)
        ),
        untried=tuple(
            dict.fromkeys(one.system for one in scores.failed if one.system not in names)
        ),
    )


def score_scale(scores: AlignedScores) -> tuple[float, str]:
    """Return the factor and the unit in which scores are shown: per cent, or powers of ten of a
    multiple of three.
    """
    of = scores.score
    if of.percent if of.percent is not None else scores.ends == (0.0, 1.0):
        return 100.0, "%"
    largest = max(
        (abs(value) for runs in scores.means.values() for value in runs.values()), default=0.0
    )
    power = (
        0
        if of.unit or not largest or 1e-3 <= largest < 1e6
        else 3 * math.floor(math.log10(largest) / 3)
    )
    named = (
        f"× 10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
        if power
        else of.unit
    )
    return float(f"1e{-power}"), named


def needed(found: Verdicts, c: Comparison) -> int | None:
    """Return the seeds, or rows, that would decide a pair; with missing rows the largest number
    of all its tables.
    """
    scores = found.scores
    need = c.seeds_needed if scores.filled is None else _needed_by_all(c)
    if need is None or not found.by_rows:
        return need
    return math.ceil(need * (scores.count or 0) / (scores.group_count or scores.count or 1))


def _needed_by_all(c: Comparison) -> int | None:
    """Return the seeds, or rows, by which all of a pair's tables, whose means differ, would make
    the same claim.
    """
    if c.next_levels is None or not c.evidence:
        return None
    to_differ, to_be_equal = c.next_levels
    ways: list[list[int | None]] = []
    if len({math.copysign(1, table.mean) for table in c.evidence}) == 1:
        ways.append(
            [statistics.seeds_to_find([table], abs(table.mean), to_differ) for table in c.evidence]
        )
    if (margin := c.margin) is not None:
        ways.append(
            [
                statistics.seeds_to_show([table], margin, to_be_equal, mean=table.mean)
                for table in c.evidence
            ]
        )
    return min(
        (max(need for need in way if need is not None) for way in ways if None not in way),
        default=None,
    )


def entering_means(found: Verdicts) -> Mapping[str, Mapping[int, float]]:
    """Return the scores that enter means: over seeds of those that all share, over rows of each
    system's own.
    """
    return found.scores.means if found.by_rows else entering(found.scores.means, found.scores.race)


def _shared(found: Verdicts) -> int | None:
    """Return the seeds that all share where some lack some, 0 if means are of their own; None
    where all have all.
    """
    runs = [set(of) for of in found.scores.means.values()]
    if found.by_rows or len({frozenset(of) for of in runs}) < 2:
        return None
    if found.scores.race:
        return 0
    shared = len(set.intersection(*runs))
    return shared if shared >= statistics.LEAST_SEEDS else 0


def _lacking(scores: AlignedScores) -> str:
    who = [
        f"{name} {'lacks ' if at == 0 else ''}{n:,}"
        for at, (name, n) in enumerate(scores.lacking.items())
    ]
    if len(who) > NAMED:
        who = [f"{len(who)} systems lack up to {max(scores.lacking.values()):,}"]
    rows = count_of((scores.count or 0) + scores.unshared, "row")
    within = "" if scores.bounded else ", within the range seen"
    return (
        f"{sentence_list(who)} of {rows}: a verdict holds whatever these rows would have "
        f"scored{within}."
    )


def _score(
    found: Verdicts, scale: float, unit: str, methods: Sequence[Method], pairs: Sequence[Pair]
) -> Score:
    score = found.scores.score
    means = {
        method.name: method.values["score"].mean for method in methods if "score" in method.values
    }
    largest = max(map(abs, means.values()), default=1.0)
    digits = 1 if unit == "%" else decimals(largest, 3) if largest else 2
    alike = [
        p for p in pairs if p.winner and round(means[p.a], digits) == round(means[p.b], digits)
    ]
    # no two shown to differ print alike; that an end of their difference isn't 0 shows elsewhere
    digits = max([digits, *(resolving(p.difference, None, None, digits) for p in alike)])
    return Score(
        id=slug(score.name, "_") or "score",
        title=score.title or score.name,
        unit=unit,
        better=score.better,
        digits=digits,
        difference_unit="points" if unit == "%" else unit,
        margin=scale * (found.margin or 0.0),
    )


def _axes(found: Verdicts) -> dict[CostDefinition, Axis]:
    axes: dict[CostDefinition, Axis] = {}
    scores = found.scores
    for at, cost in enumerate(shown_costs(scores), 1):
        key = cost.key or f"cost-{slug(cost.title)}"
        key = (
            f"cost-{at}"
            if key == "cost-" or any(key == axis.key for axis in axes.values())
            else key
        )
        ranking = ranking_cost(scores, cost)
        name, tested = (cost.column, ranking.column) if cost.key else (f"cost_{at}", f"cost_{at}")
        axes[cost] = Axis(
            key=key,
            id=name,
            title=capitalized(cost.title),
            unit=cost_scale(scores, cost)[1],
            tested=tested if ranking.column in found.costs else None,
            exact=is_exact(cost, scores.costs[cost]),
            margin=ranking.margin,
        )
    return axes


def cost_scale(scores: AlignedScores, cost: CostDefinition) -> tuple[float, str]:
    """Return the factor and the unit in which values of a cost are shown; those of the cost it
    stands for, if any.
    """
    cost = next((other for other in scores.costs if other.column == cost.stands_for), cost)
    if cost.unit == "bytes":
        return 1e-6, "MB"
    means = [
        float(np.mean(list(of.values())))
        for of in entering(scores.costs[cost], scores.race).values()
    ]
    return larger_unit(cost.unit, max(means, default=0.0))


def _method(
    found: Verdicts, name: str, own: Method, axes: Mapping[CostDefinition, Axis], scale: float
) -> Method:
    scores, v = found.scores, {}
    if runs := entering_means(found).get(name):
        low, high = own_interval(found, name)
        v["score"] = _values(runs, scale, low, high)
    for cost, values in scores.costs.items():
        if (cost in axes or cost.stands_for) and (
            by_run := entering(values, scores.race).get(name)
        ):
            interval = statistics.mean_interval(list(by_run.values()), cost.grid)
            low = None if interval.low is None else max(0.0, interval.low)
            key = axes[cost].id if cost in axes else cost.column
            v[key] = _values(by_run, cost_scale(scores, cost)[0], low, interval.high)
    place = found.front.get(name)
    placed = {"front": place.place, "dominated_by": place.by} if place else {}
    return Method.model_validate(
        dict(own) | {"name": name, "rank_range": found.ranks.get(name), "values": v, **placed}
    )


def _values(
    runs: Mapping[int, float], scale: float, low: float | None, high: float | None
) -> Values:
    ends = [None if end is None else plain(scale * end) for end in (low, high)]
    each = tuple(plain(scale * runs[run]) for run in sorted(runs))
    return Values(
        mean=plain(scale * float(np.mean(list(runs.values())))),
        low=ends[0],
        high=ends[1],
        runs=each,
    )


def own_interval(found: Verdicts, name: str) -> tuple[float, float] | tuple[None, None]:
    """Return the ends of a mean's own 95 % interval, for what its verdicts hold for, within the
    range of the score.
    """
    scores, scope, runs = found.scores, found.scope, entering_means(found)[name]
    low: float | None = None
    high: float | None = None
    mean = float(np.mean(list(runs.values())))
    if scope == "seeds and rows" and len(runs) > 1:
        step = 1.0 if scores.binary else 0.0
        interval = statistics.crossed_interval(
            [scores.units[name][run] for run in runs], scores.span, step, scores.effective
        )
        low, high = interval.low, interval.high
    elif scope in {"seeds", "seeds and rows"}:
        grid = 1 / scores.count if scores.binary and scores.count else None
        interval = statistics.mean_interval(list(runs.values()), grid)
        low, high = interval.low, interval.high
    elif scope == "shares" and scores.count:
        least, most = scores.score.low or 0.0, scores.score.high or 1.0
        share = (mean - least) / (most - least)
        low, high = (
            least + (most - least) * end for end in statistics.share_interval(share, scores.count)
        )
    elif scope == "rows":
        if scores.binary and scores.groups is None and len(runs) == 1 and scores.count:
            low, high = statistics.share_interval(mean, scores.count)
        else:
            units = np.mean(list(scores.units[name].values()), axis=0)
            low, high = statistics.mean_of_rows(units, scores.span, scores.effective) or (
                None,
                None,
            )
    if low is None or high is None:
        return None, None
    least_end, most_end = scores.ends
    return low if least_end is None else max(low, least_end), high if most_end is None else min(
        high, most_end
    )


def _pair(found: Verdicts, c: Comparison, scale: float = 1.0) -> Pair:
    """Return a pair by score, times `scale`, or as factors of a cost; its counts are of rows
    where verdicts are.
    """

    def shown(value: float | None) -> float | None:
        if value is None or c.ratio:
            return None if value is None else plain(math.exp(value))
        most = (
            scores.range if scores.bounded else math.inf
        )  # no difference is beyond the score's range
        return plain(scale * min(max(value, -most), most))

    scores, (low, high), least = found.scores, c.deciding or (None, None), c.detectable
    shared, need = c.difference.n, c.seeds_needed
    if not c.ratio:
        shared, need = (scores.count or 0) if found.by_rows else shared, needed(found, c)
        least = None if least is not None and scores.bounded and least > scores.range else least
    return Pair(
        a=c.a,
        b=c.b,
        verdict=c.verdict,
        winner=c.winner("lower" if c.ratio else scores.score.better),
        difference=plain(math.exp(c.difference.mean) if c.ratio else scale * c.difference.mean),
        ci_low=shown(c.difference.low),
        ci_high=shown(c.difference.high),
        decided_low=shown(low),
        decided_high=shown(high),
        p=c.p,
        p_adjusted=c.p_adjusted,
        need=need,
        shared=shared,
        within_margin=c.verdict == "different" and c.equivalent,
        uncertain=c.uncertain,
        p_margin=c.p_equivalent,
        p_margin_adjusted=c.p_equivalent_adjusted,
        detectable=None
        if least is None
        else plain(100 * math.expm1(least) if c.ratio else scale * least),
    )


def _checkpoints(found: Verdicts, scale: float) -> tuple[CheckpointPair, ...]:
    """Return the pairs of checkpoints, if any is decided that the methods' own verdicts leave
    open; else none.
    """
    better = found.scores.score.better
    of_methods = {(c.a, c.b): c.winner(better) for c in found.score}
    decided = [c for c in found.checkpoints if c.differs]
    if all(of_methods.get((c.a, c.b)) for c in decided):
        return ()
    pairs = []
    for c in found.checkpoints:
        if c.p is None or c.p_adjusted is None:
            continue
        low, high = c.deciding or (None, None)
        pairs.append(
            CheckpointPair(
                a=c.a,
                b=c.b,
                winner=c.winner(better),
                difference=plain(scale * c.difference.mean),
                low=None if low is None else plain(scale * low),
                high=None if high is None else plain(scale * high),
                p=c.p,
                p_adjusted=c.p_adjusted,
                uncertain=c.skewed and c.differs,
            )
        )
    return tuple(pairs)


def plain(value: float) -> float:
    """Return a value without the noise of its last binary digits: ten significant decimals."""
    return float(f"{value:.10g}")
