"""Generation: tokens a second of the answers to the test rows, and the time to an answer's first token."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpml_bench.plugins.probe import Evaluation, Probe, Run
from hpml_bench.records.run import Metric, Point

METRICS = (
    Metric(
        name="generated_tokens_per_second",
        title="generated tokens/s",
        unit="tokens/s",
        better="higher",
        over_ranks="same",
        over_steps="once",
        phase="test",
        format=",.0f",
        group="inference",
        depends_on_machine=True,
        definition="Tokens of the answers to the test rows over all ranks, divided by the slowest rank's time for its "
        "own, prompts read included.",
    ),
    Metric(
        name="first_token_ms_p50",
        title="time to first token p50",
        unit="ms",
        better="lower",
        over_ranks="rank0",
        over_steps="percentile",
        phase="inference",
        format=".2f",
        group="inference",
        depends_on_machine=True,
        definition="The median time from a prompt's token ids to its answer's first token at batch 1 over the first "
        "`latency_samples` test rows, each read once before, on one rank with the others idle.",
    ),
)


class GenerationProbe(Probe):
    """Takes the time of the test answers, then of single prompts on rank 0."""

    metrics = METRICS

    def start(self, run: Run) -> None:
        """Keep the run for its end."""
        self.run = run
        self.found: dict[str, Any] = {}

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """Take the generation's time."""
        if evaluation.phase == "test" and evaluation.generated is not None:
            generated = evaluation.generated
            self.found["generated_tokens_per_second"] = generated.tokens / generated.seconds
        return []

    def here(self) -> tuple[Metric, ...]:
        """Return the definitions where the task generates answers."""
        return METRICS if self.run.task.decoding is not None else ()

    def stop(self) -> dict[str, Any]:
        """Time the first token of single prompts."""
        run = self.run
        if run.task.decoding is not None and run.settings.latency_samples:
            if run.group.main:
                self.found["first_token_ms_p50"] = 1000 * float(np.median(first_token_seconds(run)))
            run.group.barrier()
        return self.found


def first_token_seconds(run: Run) -> list[float]:
    """Return the time to the first token of each of the first prompts, each read once before."""
    import torch

    from hpml_bench.training.clock import one_at_a_time
    from hpml_bench.training.precision import autocast

    model: Any = run.model
    model.eval()
    lengths = run.test.column("prompt")
    rows = list(range(min(run.settings.latency_samples, len(run.test))))
    tokens = (run.test.tokens(row)[: lengths[row]].astype(np.int64) for row in [*rows, *rows])
    prompts = (torch.from_numpy(ids)[None].to(run.group.device) for ids in tokens)
    calls = (lambda ids=ids: model.read(ids, torch.ones_like(ids)).logits.argmax() for ids in prompts)
    with torch.no_grad(), autocast(run.settings):
        return one_at_a_time(calls, run.group.device)[-len(rows) :]
