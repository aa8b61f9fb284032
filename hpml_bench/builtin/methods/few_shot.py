"""Few-shot prompting: nothing is trained; answered training rows stand before each prompt (Brown
et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import Unsupported

if TYPE_CHECKING:
    import numpy as np


class FewShot(Method):
    """The base model, shown the same training rows before every prompt of a seed's evaluations."""

    title = "Few-shot prompting"
    built_by_shape = True
    trains = False

    class Options(Frozen):
        """Number of examples."""

        k: int = Field(default=4, ge=1)
        """Training rows before each prompt, drawn by the run's seed: as earlier turns of the
        conversation, or where there is no chat template as text with an empty line after each.
        """

    def examples(self, rows: int, random: np.random.Generator) -> Sequence[int]:
        if self.options.k > rows:
            raise Unsupported(
                f"its {self.options.k} examples are more than the {rows} training rows; lower k"
            )
        drawn: list[int] = random.permutation(rows)[: self.options.k].tolist()
        return drawn

    def build(self, backbone: Any) -> Any:
        return backbone.requires_grad_(False)
