"""Full fine-tuning: every weight of the backbone is trained."""

from typing import Any

from hpml_bench.plugins.method import Method
from hpml_bench.system.errors import Unsupported


class Full(Method):
    """Training of all weights that the backbone's output depends on; DDP refuses others."""

    title = "Full fine-tuning"
    lr = 5e-5
    built_by_shape = True

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.quantization import is_quantized
        from hpml_bench.training.trial import freeze_unused

        if is_quantized(backbone):
            raise Unsupported("it trains the backbone's own weights, and the backbone is quantised")

        backbone.requires_grad_(True)
        freeze_unused(backbone)
        return backbone
