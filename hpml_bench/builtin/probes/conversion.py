"""Conversion to LoRA: quality of a language model whose adapter PEFT has turned into LoRA's two factors.

Servers that know LoRA alone can take the result (`peft.convert_to_lora`, by a decomposition of each layer's change).
The method's option `converted_rank` asks for it. The layers are replaced for one evaluation; the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Probe
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, phase="run", group="merging")
AS = "with the adapter converted to LoRA by PEFT"
RANK = _metric(
    "converted_rank", "rank, as LoRA", "", "lower", ".0f",
    "The highest rank of a layer's update after PEFT converted the adapter to LoRA; MiSS has a rank of its own.",
)  # fmt: skip
LOSS = _metric("converted_test_loss", "test loss, as LoRA", "nats/token", "lower", ".3f", f"The test loss {AS}.")
SCORE = _metric("converted_test_score", "score, as LoRA", "", "higher", ".1%", f"The test score {AS}.")
DIFFERENCE = _metric(
    "converted_score_difference", "score difference, as LoRA", "", "higher", "+.1%",
    f"The test score {AS}, less that of the method itself.",
)  # fmt: skip
CHANGED = _metric(
    "converted_answers_changed", "answers changed, as LoRA", "", "lower", ".1%",
    f"Share of the test rows that are answered otherwise {AS}.",
)  # fmt: skip
SECONDS = _metric(
    "converted_evaluation_seconds", "evaluation, as LoRA", "s", "lower", ".2f",
    f"The slowest rank's time for losses and answers of the test rows {AS}.", depends_on_machine=True,
)  # fmt: skip


class ConversionProbe(Probe):
    """Evaluates a language model again with its adapter as LoRA, where a method asks for it and PEFT can."""

    metrics = (RANK, LOSS, SCORE, DIFFERENCE, CHANGED, SECONDS)
    before: Evaluation | None = None

    @property
    def applies(self) -> bool:
        whole = self.run.task.model_kind == "language_model" and self.run.settings.sharding == "none"
        return whole and self.run.method.converted_rank > 0

    def definitions(self) -> tuple[Metric, ...]:
        if not self.applies:
            return ()
        return self.metrics if self.run.answers else (RANK, LOSS, SECONDS)

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "test":
            self.before = evaluation
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def stop(self) -> dict[str, Any]:
        if not self.applies or self.before is None:
            return {}
        from hpml_bench.training.evaluation import evaluate_merged

        run, encoder = self.run, self.run.model.encoder
        factors = _factors(encoder, run.method.converted_rank)
        if not factors:
            return {}
        with _replaced(encoder, factors):
            values = evaluate_merged(run, run.model, self.before, "converted")
        values["converted_rank"] = max(len(first) for first, _ in factors.values())
        if "converted_test_score" in values:
            values["converted_score_difference"] = values["converted_test_score"] - self.before.metrics["score"]
        return values


def _factors(encoder: Any, rank: int) -> dict[str, tuple[Any, Any]]:
    """Return the name of each adapted layer -> LoRA's A [rank, in] and B [out, rank]; none where PEFT can't."""
    import warnings

    from hpml_bench.system import heartbeat

    try:
        from peft import convert_to_lora  # PEFT 0.19 or newer
    except ImportError:
        return {}
    try:
        with heartbeat.busy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, found = convert_to_lora(encoder, rank)
    except (TypeError, ValueError):  # a type that is no change of weights, or a rank above that of a layer
        return {}
    names = {key.removesuffix(".lora_A.weight") for key in found if key.endswith(".lora_A.weight")}
    return {name: (found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"]) for name in sorted(names)}


@contextmanager
def _replaced(encoder: Any, factors: dict[str, tuple[Any, Any]]) -> Iterator[None]:
    """Put W x + B A x in the place of the adapted layers."""
    from torch import nn
    from torch.nn.functional import linear

    class AsLora(nn.Module):
        def __init__(self, base: nn.Module, first: Any, second: Any) -> None:
            super().__init__()
            self.base, self.first, self.second = base, first, second

        def forward(self, inputs: Any) -> Any:
            return self.base(inputs) + linear(linear(inputs.to(self.first.dtype), self.first), self.second)

    layers = {name: encoder.get_submodule(name) for name in factors}
    try:
        for name, layer in layers.items():
            encoder.set_submodule(name, AsLora(layer.get_base_layer(), *factors[name]))
        yield
    finally:
        for name, layer in layers.items():
            encoder.set_submodule(name, layer)
