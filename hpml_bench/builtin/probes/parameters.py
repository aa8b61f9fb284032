"""Parameters: the numbers of trained and other ones, and the result's size on disk."""

import math
import tempfile
from functools import partial
from pathlib import Path

from hpml_bench.plugins.probe import Finished, Probe, Run
from hpml_bench.records.run import Metric
from hpml_bench.system import heartbeat

_metric = partial(Metric.define, phase="setup", group="parameters", noisy=False)
METRICS = (
    _metric(
        "trainable_parameters",
        "trainable parameters",
        "",
        "lower",
        ",.0f",
        (
            "Parameters of the backbone and the method that receive updates; the head is counted "
            "apart."
        ),
    ),
    _metric(
        "head_parameters",
        "head parameters",
        "",
        "lower",
        ",.0f",
        "Weights and biases of the task's head, trained for all.",
    ),
    _metric(
        "total_parameters",
        "total parameters",
        "",
        "lower",
        ",.0f",
        "All parameters of backbone, method and head.",
    ),
    _metric(
        "trainable_percent",
        "trainable share",
        "%",
        "lower",
        ".3g",
        (
            "Trainable parameters (head apart) as a percentage of all parameters of backbone and "
            "method."
        ),
    ),
    _metric(
        "adapted_percent",
        "weights adapted",
        "%",
        "neither",
        ".3g",
        "Weights that an update of PEFT stands beside, or that are trained, as a percentage of "
        "those in the backbone's matrices, embeddings and output layer apart. The rest is in no "
        "linear layer, such as the experts of some mixtures, or in layers whose weights the "
        "model's code reads itself.",
    ),
    _metric(
        "quantized_percent",
        "weights quantised",
        "%",
        "higher",
        ".3g",
        "Weights stored in 4 or 8 bits, as a percentage of the same: the experts of a mixture that "
        "are in no linear layer stay floats.",
    ),
    _metric(
        "frozen_bf16_percent",
        "frozen weights in bf16",
        "%",
        "higher",
        ".0f",
        "Frozen parameters kept in bfloat16 during training, as a percentage of all frozen ones: "
        "of methods that read them only in the layers' own forward passes, in bf16. Others cast "
        "them at every step.",
    ),
    _metric(
        "frozen_bytes",
        "frozen weights' size",
        "bytes",
        "lower",
        ",.0f",
        "Bytes of the frozen weights of backbone and method as they are kept during training, with "
        "the scales of quantised ones.",
    ),
    _metric(
        "saved_bytes",
        "saved size",
        "bytes",
        "lower",
        ",.0f",
        "Size on disk of what must be kept of one fine-tuning, head included: the method's own "
        "saving where it has one, which is carried out and measured, else the size of a "
        "safetensors file of its trained parameters.",
        over_ranks="rank0",
        phase="run",
    ),
)


class ParametersProbe(Probe):
    """Counts parameters at the start, and measures the saved size at the end."""

    metrics = METRICS

    def start(self, run: Run) -> None:
        from hpml_bench.training.quantization import coverage, weights_in

        super().start(run)
        encoder = list(run.model.encoder.parameters())
        head = sum(p.numel() for p in run.model.head.parameters())
        trainable = sum(p.numel() for p in encoder if p.requires_grad)
        total = sum(weights_in(p) for p in encoder)
        self.values = {
            "trainable_parameters": trainable,
            "head_parameters": head,
            "total_parameters": total + head,
            "trainable_percent": 100 * trainable / total,
            **coverage(run.model.encoder),
        }

    def after_training(self) -> None:
        import torch

        from hpml_bench.training.quantization import frozen_bytes, weights_in

        frozen = [p for p in self.run.model.encoder.parameters() if not p.requires_grad]
        kept = sum(weights_in(p) for p in frozen if p.dtype == torch.bfloat16)
        self.values["frozen_bf16_percent"] = (
            100 * kept / sum(map(weights_in, frozen)) if frozen else None
        )
        self.values["frozen_bytes"] = frozen_bytes(self.run.model.encoder)
        self.values["saved_bytes"] = saved_bytes(self.run) if self.run.group.main else None

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        total = run.value("total_parameters") - run.value("head_parameters")
        return {"trainable_percent": 100 * run.value("trainable_parameters") / (total or math.nan)}


def saved_bytes(run: Run) -> int:
    """Return the bytes to keep of this fine-tuning, head included; by the method's own saving
    where it has one.
    """
    from hpml_bench.training.saving import safetensors_bytes

    heartbeat.beat("measuring the saved size")
    with tempfile.TemporaryDirectory(dir=run.folder) as name:
        folder = Path(name)
        kept = run.model.head if run.method.save(run.model.encoder, folder) else run.model
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return written + safetensors_bytes(
        (key, p) for key, p in kept.named_parameters() if p.requires_grad
    )
