"""Prompt tuning: trained embeddings before the text, all else frozen (Lester et al. 2021,
arXiv:2104.08691).
"""

from typing import Any, Literal

from pydantic import Field

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen


class PromptTuning(Method):
    """A trained prompt before a frozen backbone's input, by PEFT."""

    title = "Prompt Tuning"
    lr = 3e-2
    built_by_shape = True
    peft_type = "PROMPT_TUNING"

    class Options(Frozen):
        """Prompt tuning's options."""

        tokens: int = Field(default=20, ge=1)
        """Virtual tokens put before every text; they count against the model's positions."""
        init: Literal["vocabulary", "random"] = "vocabulary"
        """First values: embeddings of random tokens of the vocabulary, or N(0, 1)."""

    def build(self, backbone: Any) -> Any:
        """Return the backbone frozen, with a trained prompt before its input; its output is
        longer by `tokens`.
        """
        from peft import PromptTuningConfig, get_peft_model

        from hpml_bench.training.peft import task_type

        config = PromptTuningConfig(
            task_type=task_type(backbone),
            num_virtual_tokens=self.options.tokens,
            prompt_tuning_init="SAMPLE_VOCAB" if self.options.init == "vocabulary" else "RANDOM",
        )
        return get_peft_model(backbone, config)
