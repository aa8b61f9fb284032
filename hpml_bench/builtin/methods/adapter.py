"""Adapters: trained bottlenecks inside frozen blocks (Houlsby et al. 2019, arXiv:1902.00751).

An adapter adds `up(activation(down(x)))` to the output x of a block's projection, before the
residual connection. For width d and bottleneck m it has 2 d m + m + d parameters. Houlsby places
two in a block, after attention and after the feed-forward layer; Pfeiffer (Pfeiffer et al. 2020,
arXiv:2005.00247) the second only.
"""

import re
from collections import OrderedDict
from typing import Any, Literal

from pydantic import Field

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import Unsupported

PROJECTIONS = (
    (r"\.attn\.c_proj", r"\.mlp\.c_proj"),  # GPT-2
    (r"\.self_attn\.o_proj", r"\.mlp\.down_proj"),  # Llama, Mistral, Qwen, Gemma, SmolLM
    (
        r"\.attention\.output\.dense",
        r"(?<!\.attention)\.output\.dense",
    ),  # BERT, RoBERTa, ELECTRA, MiniLM
    (r"\.attention\.out_lin", r"\.ffn\.lin2"),  # DistilBERT
    (r"\.attention\.dense", r"\.mlp\.dense_4h_to_h"),  # GPT-NeoX, Pythia
    (r"\.self_attn\.out_proj", r"\.fc2"),  # OPT
    (r"\.attn\.Wo", r"\.mlp\.Wo"),  # ModernBERT
)
"""Patterns of the name endings of the last projections of attention and feed-forward layer, by
model family.
"""


class Adapter(Method):
    """Bottlenecks that add nothing at first (`up` is zero)."""

    title = "Adapter"
    built_by_shape = True

    class Options(Frozen):
        """The adapters' options."""

        placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
        """After the feed-forward layer of every block, or after attention too."""
        reduction: float = Field(default=16, ge=1)
        """Width of the backbone divided by the bottleneck's."""
        size: int | None = Field(default=None, ge=1)
        """Width of the bottleneck, instead of `reduction`."""
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
        """Activation between the two projections."""
        layer_norm: bool = False
        """Normalise the adapter's input, without parameters: helps where the blocks' outputs are
        small.
        """

    def build(self, backbone: Any) -> Any:
        from torch import nn

        options = self.options
        kind = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[
            options.activation
        ]
        backbone.requires_grad_(False)
        for projection in _projections(backbone, options.placement):
            width = (
                projection.nf if hasattr(projection, "nf") else projection.out_features
            )  # Conv1D, Linear
            size = options.size or max(1, int(width / options.reduction))
            norm = (
                nn.LayerNorm(width, elementwise_affine=False)
                if options.layer_norm
                else nn.Identity()
            )
            up = nn.Linear(size, width)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
            layers = OrderedDict(norm=norm, down=nn.Linear(width, size), activation=kind(), up=up)
            projection.add_module("adapter", nn.Sequential(layers))
            projection.register_forward_hook(
                lambda layer, _, output: output + layer.adapter(output)
            )
        return backbone


def _projections(backbone: Any, placement: str) -> list[Any]:
    modules = dict(backbone.named_modules())
    for endings in PROJECTIONS:
        attention, feed_forward = (
            [m for name, m in modules.items() if re.search(f"{e}$", name)] for e in endings
        )
        if attention and len(attention) == len(feed_forward):
            return feed_forward if placement == "pfeiffer" else attention + feed_forward
    raise Unsupported(
        f"adapters aren't placed in the blocks of {backbone.config.model_type} yet "
        f"(adapter.PROJECTIONS)"
    )
