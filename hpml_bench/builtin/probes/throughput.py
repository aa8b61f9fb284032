"""Samples and tokens per second in the timed window, and the spread of step times."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric, Point
from hpml_bench.statistics.drift import step_time_drift

_WINDOW = "in the timed window (all steps but the first `warmup_steps`)"


def _rate(name: str, title: str, unit: str, what: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit=unit,
        better="higher",
        over_ranks="same",
        over_steps="mean",
        phase="train",
        format=",.0f",
        group="throughput",
        depends_on_machine=True,
        definition=f"{what} that all ranks trained on {_WINDOW}, divided by the slowest rank's time in it.",
    )


def _percentile(share: int) -> Metric:
    return Metric(
        name=f"step_ms_p{share}",
        title=f"step time p{share}",
        unit="ms",
        better="lower",
        over_ranks="same",
        over_steps="percentile",
        phase="train",
        format=".1f",
        group="throughput",
        depends_on_machine=True,
        definition=f"The {share}th percentile (linear interpolation) over the steps {_WINDOW} of a step's time, from "
        "the moment all ranks had ended the one before until all had ended it.",
    )


def _steadiness(name: str, title: str, unit: str, form: str, definition: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit=unit,
        better="neither",
        over_ranks="same",
        over_steps="once",
        phase="train",
        format=form,
        group="throughput",
        depends_on_machine=name != "timed_steps",
        noisy=name != "timed_steps",
        definition=definition,
    )


METRICS = (
    _rate("samples_per_second", "throughput", "samples/s", "Samples").model_copy(update={"format": ",.1f"}),
    _rate("tokens_per_second", "tokens", "tokens/s", "Real tokens (no padding, no virtual tokens)"),
    _rate("padded_tokens_per_second", "padded tokens", "tokens/s", "Tokens with padding (no virtual tokens)"),
    Metric(
        name="virtual_tokens",
        title="virtual tokens",
        unit="tokens/sample",
        better="neither",
        over_ranks="same",
        over_steps="mean",
        phase="train",
        format=".0f",
        group="throughput",
        noisy=False,
        definition="Positions that the method adds to each sequence (prompt tuning); never counted as tokens.",
    ),
    _percentile(50),
    _percentile(90),
    _percentile(99),
    _steadiness("timed_steps", "timed steps", "", ".0f", "Steps in the timed window (all but the first warm-up)."),
    _steadiness("timed_seconds", "timed window", "s", ".2f", "Sum of the timed steps' seconds: the slowest rank's."),
    _steadiness(
        "step_time_cv", "step time variation", "", ".1%", "Standard deviation of the timed steps' time over its mean."
    ),
    _steadiness(
        "step_time_drift",
        "step time drift",
        "",
        "+.1%",
        "Time of a step in the last third of the timed steps over that in the first third, less 1: positive when the "
        "run slows down. Each step's time is first divided by what a straight line in padded tokens, fitted to the "
        "timed steps, gives for a batch of its size; the shift is the median over all pairs of the differences of "
        "logarithms (Hodges and Lehmann 1963). Unknown with fewer than 4 steps a third.",
    ),
    *(
        _steadiness(
            f"step_time_drift_{end}",
            f"step time drift, {end} end",
            "",
            "+.1%",
            f"The {end} end of the 95 % interval of the step time drift, from Mann and Whitney's rank-sum statistic.",
        )
        for end in ("low", "high")
    ),
    _steadiness(
        "step_time_outliers",
        "step time outliers",
        "steps",
        ".0f",
        "Timed steps whose time per padded token is above the third quartile by more than three interquartile ranges.",
    ),
    _steadiness(
        "slowest_rank_share",
        "slowest rank",
        "",
        "+.1%",
        "The slowest rank's time in the timed window over the mean of the ranks' own, less 1. Ranks wait for each "
        "other in the all-reduce, so that this is small even where one is slow.",
    ),
)


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
        seconds = sum(step.seconds for step in timed)
        per_rank = np.sum([step.rank_seconds for step in timed], axis=0)
        samples = sum(step.samples for step in timed)
        p50, p90, p99 = np.percentile([step.seconds * 1000 for step in timed], [50, 90, 99])
        return {
            "samples_per_second": samples / seconds,
            "tokens_per_second": sum(step.real_tokens for step in timed) / seconds,
            "padded_tokens_per_second": sum(step.padded_tokens for step in timed) / seconds,
            "virtual_tokens": sum(step.virtual_tokens for step in timed) / samples,
            "step_ms_p50": p50,
            "step_ms_p90": p90,
            "step_ms_p99": p99,
            "timed_steps": len(timed),
            "timed_seconds": seconds,
            "slowest_rank_share": seconds / float(per_rank.mean()) - 1,
            **_steady(timed),
        }


def _steady(timed: list[Step]) -> dict[str, float]:
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
