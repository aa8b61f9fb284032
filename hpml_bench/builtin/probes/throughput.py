"""Samples and tokens per second in the timed window, and the spread of step times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hpml_bench.plugins.probe import Finished, Probe, Run, Step
from hpml_bench.records.run import Metric, Point
from hpml_bench.statistics.drift import step_time_drift

_SHARES = (50, 90, 99)
_WINDOW = "in the timed window (all steps but the first `warmup_steps`)"
_RATE = f"that all ranks trained on {_WINDOW}, divided by the slowest rank's time in it."
_metric = partial(Metric, over_ranks="same", phase="train", group="throughput")
_timed = partial(_metric, depends_on_machine=True)
_rate = partial(_timed, better="higher", over_steps="mean", format=",.0f")
_steadiness = partial(_timed, better="neither", over_steps="once")

METRICS = (
    _rate(
        name="samples_per_second", title="throughput", unit="samples/s", format=",.1f", definition=f"Samples {_RATE}"
    ),
    _rate(
        name="tokens_per_second", title="tokens", unit="tokens/s",
        definition=f"Real tokens (no padding, no virtual tokens) {_RATE}",
    ),
    _rate(
        name="padded_tokens_per_second", title="padded tokens", unit="tokens/s",
        definition=f"Tokens with padding (no virtual tokens) {_RATE}",
    ),
    _metric(
        name="virtual_tokens", title="virtual tokens", unit="tokens/sample", better="neither", over_steps="mean",
        format=".0f", noisy=False,
        definition="Positions that the method adds to each sequence (prompt tuning); never counted as tokens.",
    ),
    *(
        _timed(
            name=f"step_ms_p{share}", title=f"step time p{share}", unit="ms", better="lower", over_steps="percentile",
            format=".1f",
            definition=f"The {share}th percentile (linear interpolation) over the steps {_WINDOW} of a step's time, "
            "from the moment all ranks had ended the one before until all had ended it.",
        )
        for share in _SHARES
    ),
    _metric(
        name="timed_steps", title="timed steps", unit="", better="neither", over_steps="once", format=".0f",
        noisy=False, definition="Steps in the timed window (all but the first warm-up).",
    ),
    _steadiness(
        name="timed_seconds", title="timed window", unit="s", format=".2f",
        definition="Sum of the timed steps' seconds: the slowest rank's.",
    ),
    _steadiness(
        name="step_time_cv", title="step time variation", unit="", format=".1%",
        definition="Standard deviation of the timed steps' time over its mean.",
    ),
    _steadiness(
        name="step_time_drift", title="step time drift", unit="", format="+.1%",
        definition="Time of a step in the last third of the timed steps over that in the first third, less 1: positive "
        "when the run slows down. Each step's time is first divided by what a straight line in padded tokens, fitted "
        "to the timed steps, gives for a batch of its size; the shift is the median over all pairs of the differences "
        "of logarithms (Hodges and Lehmann 1963). Unknown with fewer than 4 steps a third.",
    ),
    *(
        _steadiness(
            name=f"step_time_drift_{end}", title=f"step time drift, {end} end", unit="", format="+.1%",
            definition=f"The {end} end of the 95 % interval of the step time drift, from Mann and Whitney's rank-sum "
            "statistic.",
        )
        for end in ("low", "high")
    ),
    _steadiness(
        name="step_time_outliers", title="step time outliers", unit="steps", format=".0f",
        definition="Timed steps whose time per padded token is above the third quartile by more than three "
        "interquartile ranges.",
    ),
    _steadiness(
        name="slowest_rank_share", title="slowest rank", unit="", format="+.1%",
        definition="The slowest rank's time in the timed window over the mean of the ranks' own, less 1. Ranks wait "
        "for each other in the all-reduce, so that this is small even where one is slow.",
    ),
)  # fmt: skip


class ThroughputProbe(Probe):
    """Keeps the steps of the timed window."""

    of_training = True
    metrics = METRICS

    def start(self, run: Run) -> None:
        """Note where the window begins; a run shorter than the warm-up is timed whole."""
        self.skip = run.settings.warmup_steps
        self.steps: list[Step] = []

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Keep the steps."""
        self.steps.extend(window)
        return []

    def stop(self) -> dict[str, Any]:
        """Return rates and percentiles."""
        timed = self.steps[self.skip :] or self.steps
        virtual = sum(step.virtual_tokens for step in timed) / sum(step.samples for step in timed)
        return {"virtual_tokens": virtual, **_rates(timed)}

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        """Return rates and percentiles of the points' steps."""
        timed = run.steps[run.settings.warmup_steps :] or run.steps
        return _rates(timed) if timed else {}


def _rates(timed: Sequence[Step]) -> dict[str, float]:
    """Return the metrics of the timed steps but the virtual tokens."""
    seconds = sum(step.seconds for step in timed)
    per_rank = np.sum([step.rank_seconds for step in timed], axis=0)
    milliseconds = [step.seconds * 1000 for step in timed]
    return {
        "samples_per_second": sum(step.samples for step in timed) / seconds,
        "tokens_per_second": sum(step.real_tokens for step in timed) / seconds,
        "padded_tokens_per_second": sum(step.padded_tokens for step in timed) / seconds,
        **{f"step_ms_p{share}": float(np.percentile(milliseconds, share)) for share in _SHARES},
        "timed_steps": len(timed),
        "timed_seconds": seconds,
        "slowest_rank_share": seconds / float(per_rank.mean()) - 1,
        **_steady(timed),
    }


def _steady(timed: Sequence[Step]) -> dict[str, float]:
    """Return how steady the steps were: variation, drift, outliers."""
    seconds = np.array([step.seconds for step in timed])
    per_token = seconds / [step.padded_tokens for step in timed]
    drift = step_time_drift(seconds, [step.padded_tokens for step in timed])
    q1, q3 = np.percentile(per_token, [25, 75])
    return {
        "step_time_cv": float(seconds.std() / seconds.mean()),
        "step_time_drift": drift.estimate,
        "step_time_drift_low": drift.low,
        "step_time_drift_high": drift.high,
        "step_time_outliers": int((per_token > q3 + 3 * (q3 - q1)).sum()),
    }
