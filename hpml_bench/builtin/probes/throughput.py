"""Samples and tokens per second in the timed window, and the spread of step times."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hpml_bench.plugins.probe import Finished, Step, StepsProbe
from hpml_bench.records.run import Metric
from hpml_bench.statistics.drift import step_time_drift

_SHARES = (50, 90, 99)
_WINDOW = "in the timed window (all steps but the first `warmup_steps`)"
_RATE = f"that all ranks trained on {_WINDOW}, divided by the slowest rank's time in it."
_metric = partial(Metric.define, phase="train", group="throughput")
_timed = partial(_metric, depends_on_machine=True)

METRICS = (
    _timed(
        "samples_per_second",
        "throughput",
        "samples/s",
        "higher",
        ",.1f",
        f"Samples {_RATE}",
        over_steps="mean",
    ),
    _timed(
        "tokens_per_second",
        "tokens",
        "tokens/s",
        "higher",
        ",.0f",
        f"Real tokens (no padding, no virtual tokens) {_RATE}",
        over_steps="mean",
    ),
    _timed(
        "padded_tokens_per_second",
        "padded tokens",
        "tokens/s",
        "higher",
        ",.0f",
        f"Tokens with padding (no virtual tokens) {_RATE}",
        over_steps="mean",
    ),
    _metric(
        "virtual_tokens",
        "virtual tokens",
        "tokens/sample",
        "neither",
        ".0f",
        "Positions that the method adds to each sequence (prompt tuning); never counted as tokens.",
        over_steps="mean",
        noisy=False,
    ),
    *(
        _timed(
            f"step_ms_p{share}",
            f"step time p{share}",
            "ms",
            "lower",
            ".1f",
            f"The {share}th percentile (linear interpolation) over the steps {_WINDOW} of a step's "
            "time, from the moment all ranks had ended the one before until all had ended it.",
            over_steps="percentile",
        )
        for share in _SHARES
    ),
    _metric(
        "timed_steps",
        "timed steps",
        "",
        "neither",
        ".0f",
        "Steps in the timed window (all but the first warm-up).",
        noisy=False,
    ),
    _timed(
        "timed_seconds",
        "timed window",
        "s",
        "neither",
        ".2f",
        "Sum of the timed steps' seconds: the slowest rank's.",
    ),
    _timed(
        "step_time_cv",
        "step time variation",
        "",
        "neither",
        ".1%",
        "Standard deviation of the timed steps' time over its mean.",
    ),
    _timed(
        "step_time_drift",
        "step time drift",
        "",
        "neither",
        "+.1%",
        "Time of a step in the last third of the timed steps over that in the first third, less 1: "
        "positive when the run slows down. Each step's time is first divided by what a straight "
        "line in padded tokens, fitted to the timed steps, gives for a batch of its size; the "
        "shift is the median over all pairs of the differences of logarithms (Hodges and Lehmann "
        "1963). Unknown with fewer than 4 steps a third.",
    ),
    *(
        _timed(
            f"step_time_drift_{end}",
            f"step time drift, {end} end",
            "",
            "neither",
            "+.1%",
            f"The {end} end of the 95 % interval of the step time drift, from Mann and Whitney's "
            "rank-sum statistic.",
        )
        for end in ("low", "high")
    ),
    _timed(
        "step_time_outliers",
        "step time outliers",
        "steps",
        "neither",
        ".0f",
        "Timed steps whose time per padded token is above the third quartile by more than three "
        "interquartile ranges.",
    ),
    _timed(
        "slowest_rank_share",
        "slowest rank",
        "",
        "neither",
        "+.1%",
        "The slowest rank's time in the timed window over the mean of the ranks' own, less 1. "
        "Ranks wait for each "
        "other in the all-reduce, so that this is small even where one is slow.",
    ),
)


class ThroughputProbe(StepsProbe):
    """Looks at the steps of the timed window."""

    of_training = True
    metrics = METRICS

    def stop(self) -> dict[str, Any]:
        timed = _in_window(self.steps, self.run.settings.warmup_steps)
        virtual = sum(step.virtual_tokens for step in timed) / sum(step.samples for step in timed)
        return {"virtual_tokens": virtual, **_rates(timed)}

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        timed = _in_window(run.steps, run.settings.warmup_steps)
        return _rates(timed) if timed else {}


def _in_window(steps: Sequence[Step], warmup: int) -> Sequence[Step]:
    return [step for step in steps[warmup:] if not step.again] or steps


def _rates(timed: Sequence[Step]) -> dict[str, float]:
    """Return the metrics of the timed steps but the virtual tokens."""
    seconds = sum(step.seconds for step in timed)
    per_rank = np.sum([step.rank_seconds for step in timed], axis=0)
    each, tokens = (
        np.array([step.seconds for step in timed]),
        [step.padded_tokens for step in timed],
    )
    drift = step_time_drift(each, tokens)
    q1, q3 = np.percentile(each / tokens, [25, 75])
    return {
        "samples_per_second": sum(step.samples for step in timed) / seconds,
        "tokens_per_second": sum(step.real_tokens for step in timed) / seconds,
        "padded_tokens_per_second": sum(tokens) / seconds,
        **{f"step_ms_p{share}": float(np.percentile(each * 1000, share)) for share in _SHARES},
        "timed_steps": len(timed),
        "timed_seconds": seconds,
        "slowest_rank_share": seconds / float(per_rank.mean()) - 1,
        "step_time_cv": float(each.std() / each.mean()),
        "step_time_drift": drift.estimate,
        "step_time_drift_low": drift.low,
        "step_time_drift_high": drift.high,
        "step_time_outliers": int((each / tokens > q3 + 3 * (q3 - q1)).sum()),
    }
