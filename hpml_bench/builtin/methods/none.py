"""None: nothing is trained; the base model, for comparison with the trained ones."""

from typing import Any

from hpml_bench.plugins.method import Method
from hpml_bench.system.errors import Unsupported


class Nothing(Method):
    """The base model as it is: evaluated like the others, trained on nothing."""

    title = "Base model"
    built_by_shape = True
    trains = False

    def build(self, backbone: Any) -> Any:
        if backbone.get_output_embeddings() is None:
            raise Unsupported(
                "the task puts a new head on the model, which answers nothing before it is trained"
            )
        return backbone.requires_grad_(False)
