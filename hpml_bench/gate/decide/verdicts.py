"""Verdicts on step times: from blocks or runs to a verdict on each method, at the promised error rates.

The unit of evidence is a process pair; docs/check.md explains the rule and shows its error rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from hpml_bench.gate.decide import sentences, spending
from hpml_bench.gate.decide.rank_tests import RankTest, rank_sum, signed_rank
from hpml_bench.gate.records import Block, Rules, Status, TimedRun, Verdict
from hpml_bench.statistics import holm
from hpml_bench.statistics.intervals import t_quantile

STEP_TIME = "step_time"
PASSED, REGRESSION, ERROR, UNDECIDED = 0, 1, 2, 3
"""Exit statuses."""

Effects = Mapping[str, Sequence[float]]
"""method -> log ratios of the candidate's step time to the reference's, one per process pair, as measured."""


def pair_effects(blocks: Iterable[Block]) -> dict[str, list[float]]:
    """Return each method's log ratio per process pair, in the order of pairs, over its undisturbed blocks.

    For a block it is (ln B1 B2 - ln A1 A2) / 2, from which a drift of the machine's speed that is linear over the block
    cancels; for a pair it is the interquartile mean over blocks. A pair without an undisturbed block of a method has no
    value there.
    """
    ratios: dict[str, dict[int, list[float]]] = {}
    for block in blocks:
        of_pair = ratios.setdefault(block.method, {}).setdefault(block.pair, [])
        if block.disturbed is None:
            of_pair.append(log_ratio(block))
    return {
        method: [middle(values) for _, values in sorted(by_pair.items()) if values]
        for method, by_pair in ratios.items()
    }


def middle(values: Sequence[float]) -> float:
    """Return the interquartile mean, trimmed by n // 4 at either end: bursts of noise hit a block or two of a pair."""
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def log_ratio(block: Block) -> float:
    """Return the log ratio of the candidate's time to the reference's."""
    outer, inner = block.seconds[0] * block.seconds[3], block.seconds[1] * block.seconds[2]
    ratio = math.log(inner / outer) / 2
    return ratio if block.order == "ABBA" else -ratio


def run_effects(runs: Iterable[TimedRun], methods: Iterable[str]) -> dict[str, list[float]]:
    """Return for each method the log of each undisturbed run's step time, in units of the calibration's time.

    That is the mean log over all kinds of reference work, before, within and after the run.
    """
    effects: dict[str, list[float]] = {method: [] for method in methods}
    for run in runs:
        if run.disturbed is None:
            speed = fmean(math.log(seconds) for kinds in run.calibration for seconds in kinds.values())
            for method, values in effects.items():
                step = middle([math.log(seconds / run.steps[method]) for seconds in run.seconds[method]])
                values.append(step - speed)
    return effects


def look(effects: Effects, rules: Rules, look_index: int) -> tuple[Verdict, ...]:
    """Return a verdict per method at a scheduled look; INCONCLUSIVE while undecided.

    Call it when every method has `rules.looks[look_index]` values; later ones are ignored. A `UserError` where so many
    methods can't be judged with so few pairs.
    """
    return _looks(effects, rules, look_index + 1, last=False)


def final(effects: Effects, rules: Rules) -> tuple[Verdict, ...]:
    """Return the verdicts when time ran out: of the looks that were reached, then of one with the unspent error.

    The looks reached are those that the method with the most values allows. A `UserError` where so many methods can't
    be judged with so few pairs.
    """
    done = spending.looks_done(rules, max(map(len, effects.values()), default=0))
    return _looks(effects, rules, done, last=done < len(rules.looks))


def _looks(effects: Effects, rules: Rules, done: int, *, last: bool) -> tuple[Verdict, ...]:
    """Return the verdicts of the first `done` looks, and of a last one at all values with the levels they didn't spend.

    Each is gone through again over the pairs it saw: a method's first decision stands, and the result depends on
    nothing but the values in their order. The measured values don't decide when time runs out, so that the unspent
    levels may be spent then.
    """
    alphas, betas = spending.alphas(rules, max(1, len(effects))), spending.betas(rules)
    looks: list[tuple[int | None, float, float]] = list(zip(rules.looks[:done], alphas, betas, strict=False))
    if last:
        looks.append((None, sum(alphas[done:]), sum(betas[done:])))
    verdicts: dict[str, Verdict] = {}
    for size, alpha, beta in looks:
        tests = {method: signed_rank(values[:size]) if values else None for method, values in effects.items()}
        decided = {method: verdict for method, verdict in verdicts.items() if verdict.status != "INCONCLUSIVE"}
        verdicts = _judge(tests, alpha, beta, rules) | decided
    return tuple(verdicts.values())


def of_runs(reference: Effects, candidate: Effects, rules: Rules) -> tuple[Verdict, ...]:
    """Return a verdict per method from separate runs of each side, looked at once: a stored baseline against now.

    The values are those of `run_effects`. The looks of the rules don't count. `Verdict.pairs` is the number of the
    candidate's runs.
    """
    tests = {
        method: rank_sum(values, candidate[method]) if values and candidate.get(method) else None
        for method, values in reference.items()
    }
    return tuple(_judge(tests, rules.alpha, rules.beta, rules, "runs").values())


def incomparable(method: str, reason: str) -> Verdict:
    """Return the verdict on a method whose two sides can't be compared."""
    return Verdict(method=method, metric=STEP_TIME, status="INCOMPARABLE", detail=reason)


def unmeasured(method: str, unit: str = "pairs") -> Verdict:
    """Return the verdict on a method whose step time has no value; its counts stand."""
    return Verdict(method=method, metric=STEP_TIME, status="INCONCLUSIVE", detail=f"no {unit} were measured")


def settled(verdicts: Iterable[Verdict]) -> bool:
    """Return whether further measuring can't change the exit status: something failed, or everything is decided."""
    statuses = {verdict.status for verdict in verdicts}
    return "FAIL" in statuses or "INCONCLUSIVE" not in statuses


def overall(verdicts: Iterable[Verdict]) -> Status:
    """Return the one status that a check has: the gravest of its verdicts."""
    statuses = {verdict.status for verdict in verdicts}
    gravest: tuple[Status, ...] = ("FAIL", "INCOMPARABLE", "INCONCLUSIVE", "PASS")
    return next((status for status in gravest if status in statuses), "INCONCLUSIVE")


def exit_status(verdicts: Iterable[Verdict], strict: bool) -> int:
    """Return 0 for pass, 1 for a regression, 2 where nothing was measured, 3 for undecided under `strict`.

    A requested step time without any value is nothing measured, whatever the counts say, unless one grew.
    """
    verdicts = tuple(verdicts)
    status = overall(verdicts)
    if status == "FAIL":
        return REGRESSION
    timed = [verdict for verdict in verdicts if verdict.metric == STEP_TIME] or verdicts
    if all(verdict.status == "INCONCLUSIVE" and not verdict.pairs for verdict in timed):
        return ERROR
    return UNDECIDED if strict and status != "PASS" else PASSED


def detectable(test: RankTest, rules: Rules, alpha: float) -> float | None:
    """Return the least slowdown found with power 1 - beta at this spread, as a fraction; None where none would be.

    d0 + (t(1 - a, n - 1) + t(1 - beta, n - 1)) s / √n · √(π / 3) on the scale of logs: that of a one-sided t test, and
    the rank test's efficiency against it with normal noise (Pitman's 3 / π). d0 is the slowdown let through, and a the
    highest level up to `alpha` that the rank test attains with so few values.
    """
    attained = test.attained(alpha)
    if test.error is None or attained is None:
        return None
    quantiles = t_quantile(1 - attained, test.freedom) + t_quantile(1 - rules.beta, test.freedom)
    return math.expm1(math.log1p(rules.null) + quantiles * test.error * math.sqrt(math.pi / 3))


def _judge(
    tests: Mapping[str, RankTest | None], alpha: float, beta: float, rules: Rules, unit: str = "pairs"
) -> dict[str, Verdict]:
    """Return each method's verdict at one look, with Holm's adjustment over methods.

    A lower bound is at the level at which Holm tested the method, so that it lies above the null slowdown exactly where
    the adjusted p is at most `alpha`; an upper bound is at `beta`.
    """
    null, target = math.log1p(rules.null), math.log1p(rules.target)
    raw = {method: 1.0 if test is None else test.p_above(null) for method, test in tests.items()}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    rejected = sorted((method for method in raw if adjusted[method] <= alpha), key=raw.__getitem__)
    verdicts = {}
    for method, test in tests.items():
        if test is None:
            verdicts[method] = unmeasured(method, unit)
            continue
        step = rejected.index(method) if method in rejected else len(rejected)
        lower, upper = test.lower(alpha / (len(tests) - step)), test.upper(beta)
        status: Status = "INCONCLUSIVE"
        if method in rejected:
            status = "FAIL"
        elif upper is not None and upper < target:
            status = "PASS"
        verdict = Verdict(
            method=method,
            metric=STEP_TIME,
            status=status,
            estimate=math.expm1(test.estimate),
            lower=None if lower is None else math.expm1(lower),
            upper=None if upper is None else math.expm1(upper),
            p=adjusted[method],
            mde=detectable(test, rules, alpha / len(tests)),
            pairs=test.size,
            detail="",
        )
        verdicts[method] = verdict.model_copy(update={"detail": sentences.of_step_time(verdict, rules, unit)})
    return verdicts
