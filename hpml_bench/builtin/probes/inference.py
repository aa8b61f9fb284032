"""Speed of evaluation, and latency of one example, before and after the method is folded into
the backbone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.plugins.probe import Finished, Probe, Run
from hpml_bench.records.run import Metric

if TYPE_CHECKING:
    from hpml_bench.plugins.model import TaskModel

_metric = partial(Metric.define, group="inference", depends_on_machine=True)


def _latency(share: int, *, merged: bool) -> Metric:
    after = (
        " after the method was folded into the backbone's weights, where it can be"
        if merged
        else ""
    )
    return _metric(
        f"{'merged_' if merged else ''}latency_ms_p{share}",
        f"latency p{share}{', merged' if merged else ''}",
        "ms",
        "lower",
        ".2f",
        f"The {share}th percentile of the time from token ids to logits at batch 1 over the first "
        f"`latency_samples` test rows, each read once before, on one rank with the others "
        f"idle{after}.",
        over_ranks="rank0",
        over_steps="percentile",
        phase="inference",
    )


class InferenceProbe(Probe):
    """Times the test evaluation, then single examples on rank 0."""

    metrics = (
        _metric(
            "inference_seconds",
            "inference time",
            "s",
            "lower",
            ".2f",
            (
                "The exact evaluation pass over the test rows, the slowest rank's time, gathering "
                "left out."
            ),
            phase="test",
        ),
        _metric(
            "inference_samples_per_second",
            "inference throughput",
            "samples/s",
            "higher",
            ",.0f",
            "Test rows divided by the inference time.",
            phase="test",
        ),
        *(_latency(share, merged=merged) for merged in (False, True) for share in (50, 99)),
    )

    def stop(self) -> dict[str, Any]:
        if tested := self.tested:
            self.values["inference_seconds"] = tested.seconds
            self.values["inference_samples_per_second"] = len(tested.predictions) / tested.seconds
        if self.run.group.main and self.run.settings.latency_samples:
            self._latencies(self.run.model, "")
            if self.run.merged is not None:
                self._latencies(self.run.merged, "merged_")
        self.run.group.barrier()
        return self.values

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        return {
            "inference_samples_per_second": run.test_rows
            / (run.value("inference_seconds") or math.nan)
        }

    def _latencies(self, model: TaskModel, prefix: str) -> None:
        milliseconds = 1000 * np.asarray(latencies(self.run, model))
        self.values |= {
            f"{prefix}latency_ms_p{share}": np.percentile(milliseconds, share) for share in (50, 99)
        }


def latencies(run: Run, model: TaskModel) -> list[float]:
    from hpml_bench.training.evaluation import time_single_rows

    batches = (run.test.batch(np.array([row])).to(run.group.device) for row in run.timed_rows)
    calls = (
        partial(model, batch.input_ids, batch.attention_mask, **batch.more) for batch in batches
    )
    return time_single_rows(run, model, calls)
