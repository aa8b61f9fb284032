"""Conversions: a language model's quality with its adapter as LoRA, and merged in floats into
quantised weights.

Servers that know LoRA alone can take the first (`peft.convert_to_lora`, by a decomposition of each
layer's change), for which the method's option `converted_rank` asks. The second compares with the
unmerged model, and with the probe `merging`, where merged weights are quantised again, which
changes them (huggingface/peft#2321). Both leave the model as it is. Probes stop in the order of
their names, so that this one precedes the merging.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Probe, evaluated_again
from hpml_bench.records.run import Metric

_metric = partial(Metric.define, phase="run", group="merging")


AS = "with the adapter converted to LoRA by PEFT"
RANK = _metric(
    "converted_rank",
    "rank, as LoRA",
    "",
    "lower",
    ".0f",
    "The highest rank of a layer's update after PEFT converted the adapter to LoRA; MiSS has a "
    "rank of its own.",
)
DIFFERENCE = _metric(
    "converted_score_difference",
    "score difference, as LoRA",
    "",
    "higher",
    "+.1%",
    f"The test score {AS}, less that of the method itself.",
)
TITLES = ("test loss, as LoRA", "score, as LoRA", "answers changed, as LoRA", "evaluation, as LoRA")
_loss, _score, _changed, _seconds = evaluated_again("converted", TITLES, AS)
AS_LORA = (RANK, _loss, _score, DIFFERENCE, _changed, _seconds)

AFTER = (
    "after the method was folded into the dequantised weights of a quantised backbone, which stay "
    "floats"
)
BYTES = _metric(
    "dequantized_bytes",
    "size, merged in floats",
    "bytes",
    "lower",
    ",.0f",
    f"Bytes of the backbone's weights {AFTER} of four bytes each.",
)
TITLES = (
    "test loss, merged in floats",
    "score, merged in floats",
    "answers changed by merging in floats",
    "evaluation, merged in floats",
)
_loss, _score, _changed, _seconds = evaluated_again("dequantized", TITLES, AFTER)
IN_FLOATS = (_loss, BYTES, _score, _changed, _seconds)


class ConversionProbe(Probe):
    """Evaluates a language model again as LoRA, where its method asks for it, and in floats,
    where it is quantised.
    """

    metrics = (*AS_LORA, *IN_FLOATS)

    def definitions(self) -> tuple[Metric, ...]:
        from hpml_bench.training.quantization import is_quantized

        run = self.run
        if run.task.model_kind != "language_model":
            return ()
        as_lora = run.method.converted_rank > 0 and run.settings.sharding == "none"
        found = (*(AS_LORA if as_lora else ()), *(IN_FLOATS if is_quantized(run.model) else ()))
        of_answers = ("_test_score", "_score_difference", "_answers_changed")
        return tuple(
            metric for metric in found if run.answers or not metric.name.endswith(of_answers)
        )

    def stop(self) -> dict[str, Any]:
        from hpml_bench.training.evaluation import evaluate_merged
        from hpml_bench.training.quantization import merged_in_floats, weights_in

        if (tested := self.tested) is None or not (defined := self.definitions()):
            return self.values
        run, encoder = self.run, self.run.model.encoder
        if RANK in defined and (factors := _factors(encoder, run.method.converted_rank)):
            with _replaced(encoder, factors):
                values = evaluate_merged(run, run.model, tested, "converted")
            values["converted_rank"] = max(len(first) for first, _ in factors.values())
            if "converted_test_score" in values:
                values["converted_score_difference"] = (
                    values["converted_test_score"] - tested.metrics["score"]
                )
            self.values |= values
            del factors
        if BYTES in defined:
            with merged_in_floats(encoder) as merged:
                if merged:
                    self.values |= evaluate_merged(run, run.model, tested, "dequantized")
                    weights = sum(
                        weights_in(weight)
                        for weight in encoder.parameters()
                        if not weight.requires_grad
                    )
                    self.values["dequantized_bytes"] = 4 * weights
        return self.values


def _factors(encoder: Any, rank: int) -> dict[str, tuple[Any, Any]]:
    """Return the name of each adapted layer -> LoRA's A [rank, in] and B [out, rank]; none where
    PEFT can't.
    """
    import warnings

    from hpml_bench.system import heartbeat
    from hpml_bench.training.trial import in_evaluation_mode

    try:
        from peft import convert_to_lora  # PEFT 0.19 or newer
    except ImportError:
        return {}
    try:
        # in training mode some types drop out parts of what is decomposed
        with heartbeat.busy(), in_evaluation_mode(encoder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, found = convert_to_lora(encoder, rank)
    except (
        TypeError,
        ValueError,
    ):  # a type that is no change of weights, or a rank above that of a layer
        return {}
    names = {key.removesuffix(".lora_A.weight") for key in found if key.endswith(".lora_A.weight")}
    return {
        name: (found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"])
        for name in sorted(names)
    }


@contextmanager
def _replaced(encoder: Any, factors: dict[str, tuple[Any, Any]]) -> Iterator[None]:
    """Let the adapted layers return W x + B A x."""
    from torch.nn.functional import linear

    def forward(base: Any, first: Any, second: Any, inputs: Any) -> Any:
        return base(inputs) + linear(linear(inputs.to(first.dtype), first), second)

    layers = {name: encoder.get_submodule(name) for name in factors}
    for name, layer in layers.items():
        layer.forward = partial(forward, layer.get_base_layer(), *factors[name])
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward
