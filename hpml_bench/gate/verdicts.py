"""Verdicts on blocks, runs and counts, their sentences and exit status; docs/check.md explains
the rule, by pairs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from hpml_bench.gate.rank_tests import RankTest, rank_sum, signed_rank
from hpml_bench.gate.records import (
    Block,
    CheckReport,
    MethodCount,
    Rules,
    Status,
    TimedRun,
    Verdict,
)
from hpml_bench.records.numbers import MINUS, MISSING, number
from hpml_bench.select.comparability import grouped
from hpml_bench.statistics import holm
from hpml_bench.statistics.intervals import t_quantile
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

STEP_TIME = "step_time"
PASSED, REGRESSION, ERROR, UNDECIDED = 0, 1, 2, 3  # exit statuses
GRAVEST: tuple[Status, ...] = ("FAIL", "INCOMPARABLE", "INCONCLUSIVE", "PASS")  # the gravest first

Effects = Mapping[str, Sequence[float]]
"""method -> log ratios of the candidate's step time to the reference's, one per process pair, as
measured.
"""


def levels(total: float, looks: Sequence[int]) -> tuple[float, ...]:
    """Return the level of each look; together they are `total`, so that by Boole no correlation
    can exceed it.
    """
    # Spent in proportion to the pairs seen (Kim and DeMets 1987, with exponent 1): half of it at
    # half of the pairs. O'Brien and Fleming's function would leave the first look too little for a
    # rank test.
    return tuple(total * (look - before) / looks[-1] for before, look in pairwise((0, *looks)))


def alphas(rules: Rules, methods: int) -> tuple[float, ...]:
    """Return each look's family-wise level for FAIL; a `UserError` where so few pairs can't
    judge so many methods.
    """
    per_look = levels(rules.alpha, rules.looks)
    # the least p of n pairs is 2^-n, and Holm's first step requires level / methods
    if any(level / methods < 2.0**-look for level, look in zip(per_look, rules.looks, strict=True)):
        raise UserError(
            f"{methods} methods can't be judged at a false-alarm rate of {rules.alpha:.2%} with "
            f"{rules.looks[0]} pairs at the first look: ask for fewer methods"
        )
    return per_look


def betas(rules: Rules) -> tuple[float, ...]:
    """Return each look's level for PASS, of one method."""
    # A check passes only where all methods do, so that none needs adjusting (Berger 1982).
    return levels(rules.beta, rules.looks)


def looks_done(rules: Rules, pairs: int) -> int:
    return sum(look <= pairs for look in rules.looks)


def log_ratio(block: Block) -> float:
    outer, inner = block.seconds[0] * block.seconds[3], block.seconds[1] * block.seconds[2]
    ratio = math.log(inner / outer) / 2
    return ratio if block.order == "ABBA" else -ratio


def middle(values: Sequence[float]) -> float:
    """Return the interquartile mean, trimmed by n // 4 at either end: bursts of noise hit a
    block or two of a pair.
    """
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def pair_effects(blocks: Iterable[Block]) -> dict[str, list[float]]:
    """Return each method's log ratio per process pair, in the order of pairs, over its
    undisturbed blocks.
    """
    # For a block it is (ln B1 B2 - ln A1 A2) / 2, from which a drift of the machine's speed that is
    # linear over the block cancels; for a pair it is the interquartile mean over blocks. A pair
    # without an undisturbed block of a method has no value there.
    found: dict[str, list[float]] = {}
    by_pair = grouped(blocks, lambda block: (block.pair, block.method))
    for (_, method), of in sorted(by_pair.items(), key=lambda item: item[0][0]):
        ratios = [log_ratio(block) for block in of if block.disturbed is None]
        found.setdefault(method, []).extend([middle(ratios)] if ratios else [])
    return found


def run_effects(runs: Iterable[TimedRun], methods: Iterable[str]) -> dict[str, list[float]]:
    """Return for each method the log of each undisturbed run's step time, in units of the
    calibration's time.
    """
    # That is the mean log over all kinds of reference work, before, within and after the run.
    effects: dict[str, list[float]] = {method: [] for method in methods}
    for run in runs:
        if run.disturbed is None:
            speed = fmean(
                math.log(seconds) for kinds in run.calibration for seconds in kinds.values()
            )
            for method, values in effects.items():
                step = middle(
                    [math.log(seconds / run.steps[method]) for seconds in run.seconds[method]]
                )
                values.append(step - speed)
    return effects


def verdicts_at(effects: Effects, rules: Rules, looks: int | None = None) -> tuple[Verdict, ...]:
    """Return a verdict per method after so many scheduled looks; INCONCLUSIVE while undecided.

    Replays every look on the pairs available then: a method's first decision stands. Without
    `looks`, time ran out: the looks done are those that the method with the most values allows, and
    a last one, of all values, has the levels not yet spent; it may, since measured values don't
    decide when time runs out. A `UserError` as of `alphas`.
    """
    alpha, beta = alphas(rules, max(1, len(effects))), betas(rules)
    done = looks_done(rules, max(map(len, effects.values()), default=0)) if looks is None else looks
    steps: list[tuple[int | None, float, float]] = list(
        zip(rules.looks[:done], alpha, beta, strict=False)
    )
    if looks is None and done < len(rules.looks):
        steps.append((None, sum(alpha[done:]), sum(beta[done:])))
    verdicts: dict[str, Verdict] = {}
    for size, of_fail, of_pass in steps:
        tests = {
            method: signed_rank(values[:size]) if values else None
            for method, values in effects.items()
        }
        decided = {
            method: verdict
            for method, verdict in verdicts.items()
            if verdict.status != "INCONCLUSIVE"
        }
        verdicts = _judge(tests, of_fail, of_pass, rules) | decided
    return tuple(verdicts.values())


def of_runs(reference: Effects, candidate: Effects, rules: Rules) -> tuple[Verdict, ...]:
    """Return a verdict per method from separate runs of each side, looked at once: a stored
    baseline against now.
    """
    # The values are those of `run_effects`; `Verdict.pairs` is the number of the candidate's runs.
    tests = {
        method: rank_sum(values, candidate[method]) if values and candidate.get(method) else None
        for method, values in reference.items()
    }
    return tuple(_judge(tests, rules.alpha, rules.beta, rules, "runs").values())


def _judge(
    tests: Mapping[str, RankTest | None],
    alpha: float,
    beta: float,
    rules: Rules,
    unit: str = "pairs",
) -> dict[str, Verdict]:
    """Return each method's verdict at one look, with Holm's adjustment over methods.

    A lower bound is at the level at which Holm tested the method, so that it lies above the null
    slowdown exactly where the adjusted p is at most `alpha`; an upper bound is at `beta`.
    """
    null, target = math.log1p(rules.null), math.log1p(rules.target)
    raw = {method: 1.0 if test is None else test.p_above(null) for method, test in tests.items()}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    rejected = sorted((method for method in raw if adjusted[method] <= alpha), key=raw.__getitem__)
    verdicts = {}
    for method, test in tests.items():
        if test is None:
            verdicts[method] = untimed(method, f"no {unit} were measured", "INCONCLUSIVE")
            continue
        step = rejected.index(method) if method in rejected else len(rejected)
        lower, upper = test.lower(alpha / (len(tests) - step)), test.upper(beta)
        passed = upper is not None and upper < target
        verdict = Verdict(
            method=method,
            metric=STEP_TIME,
            estimate=math.expm1(test.estimate),
            status="FAIL" if method in rejected else "PASS" if passed else "INCONCLUSIVE",
            lower=None if lower is None else math.expm1(lower),
            upper=None if upper is None else math.expm1(upper),
            p=adjusted[method],
            mde=detectable(test, rules, alpha / len(tests)),
            pairs=test.size,
            detail="",
        )
        verdicts[method] = verdict.model_copy(
            update={"detail": step_time_sentence(verdict, rules, unit)}
        )
    return verdicts


def detectable(test: RankTest, rules: Rules, alpha: float) -> float | None:
    """Return the least slowdown found with power 1 - beta at this spread, as a fraction; None where
    none would be.

    d0 + (t(1 - a, n - 1) + t(1 - beta, n - 1)) s / √n · √(π / 3) on the scale of logs: that of a
    one-sided t test, and the rank test's efficiency against it with normal noise (Pitman's 3 / π).
    d0 is the slowdown let through, and a the highest level up to `alpha` that the rank test attains
    with so few values.
    """
    attained = test.attained(alpha)
    if test.error is None or attained is None:
        return None
    quantiles = t_quantile(1 - attained, test.freedom) + t_quantile(1 - rules.beta, test.freedom)
    return math.expm1(math.log1p(rules.null) + quantiles * test.error * math.sqrt(math.pi / 3))


def untimed(method: str, reason: str, status: Status = "INCOMPARABLE") -> Verdict:
    return Verdict(method=method, metric=STEP_TIME, status=status, detail=reason)


def settled(verdicts: Iterable[Verdict]) -> bool:
    """Return whether further measuring can't change the exit status: something failed, or
    everything is decided.
    """
    statuses = {verdict.status for verdict in verdicts}
    return "FAIL" in statuses or "INCONCLUSIVE" not in statuses


def overall(verdicts: Iterable[Verdict]) -> Status:
    """Return the one status that a check has: the gravest of its verdicts."""
    return min((verdict.status for verdict in verdicts), key=GRAVEST.index, default="INCONCLUSIVE")


def exit_status(verdicts: Iterable[Verdict], strict: bool) -> int:
    """Return 0 for pass, 1 for a regression, 2 where nothing was measured, 3 for undecided under
    `strict`.
    """
    # A requested step time without any value is nothing measured, whatever the counts say, unless
    # one grew.
    verdicts = tuple(verdicts)
    status = overall(verdicts)
    if status == "FAIL":
        return REGRESSION
    timed = [verdict for verdict in verdicts if verdict.metric == STEP_TIME] or verdicts
    if all(verdict.status == "INCONCLUSIVE" and not verdict.pairs for verdict in timed):
        return ERROR
    return UNDECIDED if strict and status != "PASS" else PASSED


def of_step_time(report: CheckReport) -> tuple[Verdict, ...]:
    place = {method: index for index, method in enumerate(report.methods)}
    verdicts = [verdict for verdict in report.verdicts if verdict.metric == STEP_TIME]
    return tuple(sorted(verdicts, key=lambda verdict: place.get(verdict.method, len(place))))


def compare_counts(
    method: str, reference: dict[str, Any], candidate: dict[str, Any], exact_only: bool = False
) -> tuple[list[MethodCount], list[Verdict]]:
    """Return a `MethodCount` for each quantity that both sides count, and a verdict for each that
    any does.

    A quantity that only one side counts is INCOMPARABLE: a removed count must not pass.
    `exact_only`: those with a tolerance are left out.
    """
    # Each side has name -> {title, unit, value, tolerance, parts: name -> amount}, as a resident
    # counts them. The smaller tolerance holds, so that a change can't raise its own.
    counts = [
        MethodCount(
            method=method,
            name=name,
            title=now["title"],
            unit=now["unit"],
            reference=then["value"],
            candidate=now["value"],
            tolerance=min(now["tolerance"], then["tolerance"]),
            grew=grew(then["parts"], now["parts"]) if now["value"] > then["value"] else (),
        )
        for name, now in candidate.items()
        if (then := reference.get(name))
    ]
    counts = [count for count in counts if not (exact_only and count.tolerance)]
    judged = [of_count(count) for count in counts]
    for name in sorted(reference.keys() ^ candidate.keys()):
        lone = f"only the {'reference' if name in reference else 'candidate'} counts {name}"
        judged.append(Verdict(method=method, metric=name, status="INCOMPARABLE", detail=lone))
    return counts, judged


def of_count(count: MethodCount) -> Verdict:
    """Return a count's verdict: FAIL for any increase above its tolerance; with how much it
    changed, and what grew.
    """
    growth = count.candidate - count.reference
    detail = (
        f"{sanitize(count.title, 80)}: {amount(count.candidate)} {sanitize(count.unit, 40)}"
    ).rstrip()
    if not growth:
        detail += ", as before"
    else:
        detail += f", {'from' if growth > 0 else 'down from'} {amount(count.reference)}"
        if count.reference:
            allowed = f", {rate(count.tolerance)} is allowed" if count.tolerance else ""
            detail += f" ({percent(count.change)}{allowed})"
        if growth > 0 and count.grew:
            detail += f"; what grew: {grown(count)}"
    status: Status = "FAIL" if growth > abs(count.reference) * count.tolerance else "PASS"
    return Verdict(
        method=count.method, metric=count.name, estimate=count.change, detail=detail, status=status
    )


def grew(before: dict[str, float], after: dict[str, float]) -> tuple[str, ...]:
    """Return the five parts that grew most, the largest growth first, each as `name +amount`."""
    growth = {name: amount - before.get(name, 0) for name, amount in after.items()}
    ordered = sorted((name for name in growth if growth[name] > 0), key=lambda name: -growth[name])
    return tuple(f"{name} +{growth[name]:,.6g}" for name in ordered[:5])


def step_time_sentence(verdict: Verdict, rules: Rules, unit: str = "pairs") -> str:
    """Return a sentence on the evidence for the step time's verdict."""
    seen = f"{verdict.pairs} {unit if verdict.pairs != 1 else unit.removesuffix('s')}"
    takes = f"a step takes {longer(verdict.estimate)} by {seen}"
    if verdict.status == "FAIL":
        return f"{takes}, at least {longer(verdict.lower)}; {rate(rules.null)} is let through"
    if verdict.status == "PASS":
        bound = "at least" if verdict.upper is not None and verdict.upper < 0 else "at most"
        return f"{takes}, {bound} {longer(verdict.upper)}; {rate(rules.target)} must not pass"
    if verdict.mde is None:
        return f"{takes}, which are too few to find a slowdown at these levels"
    return f"{takes}, bounds {interval(verdict)}; they would have found about {longer(verdict.mde)}"


def grown(count: MethodCount) -> str:
    """Return the parts that made a count grow; operators as torch writes them in Python:
    `aten.item`.
    """
    return ", ".join(sanitize(name, 80).replace("::", ".") for name in count.grew)


def percent(value: float | None, *, sign: bool = True) -> str:
    """Return a relative change as `+1.3 %`."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = number(value * 100, ".2f" if abs(value) < 0.1 else ".0f")
    return f"{'+' if sign and value > 0 and text.strip('0.') else ''}{text} %"


def longer(value: float | None) -> str:
    """Return a relative change of a time as `1.30 % longer`."""
    if value is None:
        return "not known"
    return f"{percent(abs(value), sign=False)} {'shorter' if value < 0 else 'longer'}"


def rate(value: float) -> str:
    """Return a set rate as `1 %`, `0.5 %`."""
    return f"{value * 100:.4g} %"


def amount(value: float) -> str:
    """Return a count in full, a share to six digits."""
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.6g}"


def interval(verdict: Verdict) -> str:
    """Return the bounds as `[−0.10 %, +0.42 %]`; a bound that so few values don't give is open."""
    if verdict.lower is None and verdict.upper is None:
        return MISSING
    low = f"{MINUS}∞" if verdict.lower is None else percent(verdict.lower)
    high = "∞" if verdict.upper is None else percent(verdict.upper)
    return f"[{low}, {high}]"
