"""Speed of evaluation, and latency of one example, before and after the method is folded into the backbone."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.plugins.probe import Evaluation, Finished, Probe, Run
from hpml_bench.records.run import Metric, Point

if TYPE_CHECKING:
    from hpml_bench.plugins.model import TaskModel


_metric = partial(Metric, group="inference", depends_on_machine=True)


def _latency(share: int, *, merged: bool) -> Metric:
    after = " after the method was folded into the backbone's weights, where it can be" if merged else ""
    return _metric(
        name=f"{'merged_' if merged else ''}latency_ms_p{share}",
        title=f"latency p{share}{', merged' if merged else ''}",
        unit="ms", better="lower", over_ranks="rank0", over_steps="percentile", phase="inference", format=".2f",
        definition=f"The {share}th percentile of the time from token ids to logits at batch 1 over the first "
        f"`latency_samples` test rows, each read once before, on one rank with the others idle{after}.",
    )  # fmt: skip


METRICS = (
    _metric(
        name="inference_seconds", title="inference time", unit="s", better="lower",
        over_ranks="same", over_steps="once", phase="test", format=".2f",
        definition="The exact evaluation pass over the test rows, the slowest rank's time, gathering left out.",
    ),
    _metric(
        name="inference_samples_per_second", title="inference throughput", unit="samples/s", better="higher",
        over_ranks="same", over_steps="once", phase="test", format=",.0f",
        definition="Test rows divided by the inference time.",
    ),
    *(_latency(share, merged=merged) for merged in (False, True) for share in (50, 99)),
)  # fmt: skip


class InferenceProbe(Probe):
    """Times the test evaluation, then single examples on rank 0."""

    metrics = METRICS

    def start(self, run: Run) -> None:
        """Keep the run for `stop`."""
        self.run = run
        self.values: dict[str, Any] = {}

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """Keep the time of the test evaluation, and its rows per second."""
        if evaluation.phase == "test":
            self.values["inference_seconds"] = evaluation.seconds
            self.values["inference_samples_per_second"] = len(evaluation.predictions) / evaluation.seconds
        return []

    def stop(self) -> dict[str, Any]:
        """Time single examples as the method left the model, then merged."""
        if self.run.group.main and self.run.settings.latency_samples:
            self._latencies(self.run.model, "")
            if self.run.merged is not None:
                self._latencies(self.run.merged, "merged_")
        self.run.group.barrier()
        return self.values

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        """Return the rows per second."""
        return {"inference_samples_per_second": run.test_rows / (run.value("inference_seconds") or math.nan)}

    def _latencies(self, model: TaskModel, prefix: str) -> None:
        milliseconds = 1000 * np.asarray(latencies(self.run, model))
        self.values |= {f"{prefix}latency_ms_p{share}": np.percentile(milliseconds, share) for share in (50, 99)}


def latencies(run: Run, model: TaskModel) -> list[float]:
    """Return the seconds of each forward pass at batch 1.

    Each row is read once before: on a GPU the first pass of a length selects kernels and allocates memory.
    """
    import torch

    from hpml_bench.training.clock import one_at_a_time
    from hpml_bench.training.kernels import autocast

    model.eval()
    rows = np.arange(min(run.settings.latency_samples, len(run.test)))
    batches = (run.test.batch(np.array([row])).to(run.group.device) for row in [*rows, *rows])
    calls = (partial(model, batch.input_ids, batch.attention_mask) for batch in batches)
    with torch.no_grad(), autocast(run.settings):  # one for all: casts of trained weights are cached, as in a server
        return one_at_a_time(calls, run.group.device)[-len(rows) :]
