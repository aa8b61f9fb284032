"""Coverage: the share of a backbone's weights that a method adapts, and the share that is quantised.

Both are shares of the weights in matrices, embeddings and output layer left out: 100 % where every linear layer is
reached. The experts of a mixture may be in no linear layer, and then be neither adapted nor quantised.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hpml_bench.plugins.method import make_method, quantization_of
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import quantization
from hpml_bench.training.model import describe_backbone
from hpml_bench.training.quantization import weights_in

WHOLE = 99.5  # share, in percent, from which on nothing is said


def coverage(encoder: nn.Module) -> dict[str, float]:
    """Return `adapted_percent` of a method of PEFT that acts on layers, `quantized_percent` of a quantised backbone."""
    base: Any = cast(Any, encoder).get_base_model() if isinstance(encoder, PeftModel) else encoder
    layers: list[Any] = [layer for layer in base.modules() if isinstance(layer, BaseTunerLayer)]
    # what doesn't count: embeddings, output layer, and what PEFT has added
    added = [getattr(x, name, None) for x in layers for name in (*x.adapter_layer_names, *x.other_param_names)]
    output = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    parts = [part for part in (*added, output) if isinstance(part, nn.Module)]
    parts += [part for part in base.modules() if isinstance(part, nn.Embedding)]
    outside = {id(weight) for part in parts for weight in part.parameters()}
    body = {id(weight): weight for weight in base.parameters() if weight.ndim > 1 and id(weight) not in outside}
    # PEFT acts on the weight of a linear layer, or on one parameter of stacked experts
    acted_on = {id(getattr(x.get_base_layer(), getattr(x, "parameter_name", "weight"), None)) for x in layers}
    adapted = [weight for key, weight in body.items() if key in acted_on or weight.requires_grad]
    quantized = [weight for weight in body.values() if type(weight).__name__ in quantization.WEIGHTS]
    shares = {"adapted_percent": adapted if layers else [], "quantized_percent": quantized}
    total = sum(map(weights_in, body.values()))
    return {name: 100 * sum(map(weights_in, part)) / total for name, part in shares.items() if part}


def notes(folder: Path, specs: Iterable[RunSpec]) -> Iterator[str]:
    """Yield a sentence on each method that can't run with a backbone, or leaves some of its weights as they are."""
    for spec in specs:
        name, found = spec.method.name, dict[str, float]()
        try:
            found = expected_coverage(folder, spec)
        except Unsupported as error:
            if isinstance(error.__cause__, ValueError | None):
                yield f"{name} is unsupported: {error}"
        except Exception:  # noqa: S110 - some types compute with the values of weights, which there are none of here
            pass
        adapted, quantized = (found.get(f"{share}_percent", 100.0) for share in ("adapted", "quantized"))
        if min(adapted, quantized) < WHOLE:
            kept = "" if "quantized_percent" not in found else f", and {quantized:.0f} % are stored in fewer bits"
            yield f"{name} adapts {adapted:.0f} % of the weights in matrices{kept}"


def expected_coverage(folder: Path, spec: RunSpec) -> dict[str, float]:
    """Return the coverage that a run will have, from the backbone's configuration alone.

    Raises Unsupported: the method can't run with this backbone; UserError: there is none, or an option is wrong.
    """
    method, kind = make_method(spec.method), make_task(spec.settings.task).model_kind
    settings = spec.settings.model_copy(update={"quantization": quantization_of(method, spec.settings)})
    backbone = describe_backbone(folder, settings, kind)
    quantization.replace_layers(backbone, settings)
    try:
        return coverage(method.build(backbone))
    except ValueError as error:
        raise Unsupported(str(error)) from error
