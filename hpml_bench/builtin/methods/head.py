"""Head only: the backbone stays frozen, and only the task's head is trained (linear probing)."""

from typing import Any

from hpml_bench.plugins.method import Method
from hpml_bench.system.errors import Unsupported


class Head(Method):
    """Nothing of the backbone is trained."""

    title = "Head only"
    built_by_shape = True

    def build(self, backbone: Any) -> Any:
        if backbone.get_output_embeddings() is not None:
            raise Unsupported(
                "the task puts no head on the model; the method none shows it untrained"
            )
        return backbone.requires_grad_(False)
