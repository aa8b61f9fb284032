"""QLoRA: LoRA on all linear layers of a backbone stored in 4 bits (Dettmers et al. 2023,
arXiv:2305.14314).
"""

from typing import Any, Literal

from hpml_bench.plugins.method import LoraOptions, Method
from hpml_bench.suite.settings import QuantizationSpec


class QLoRA(Method):
    """Updates `alpha / r` * B A beside frozen weights in NF4, by PEFT and bitsandbytes; the
    defaults are `lora`'s.
    """

    title = "QLoRA"
    peft_type = "LORA"

    class Options(LoraOptions):
        """LoRA's options, and those of the 4-bit weights."""

        double_quantization: bool = True
        """The scales of the 4-bit blocks are quantised too, to 8 bits."""
        compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
        """The type in which inputs are multiplied with the 4-bit weights; empty for that of
        `precision`.
        """

    @property
    def quantization(self) -> QuantizationSpec:
        chosen = self.options
        return QuantizationSpec(
            name="nf4",
            double_quantization=chosen.double_quantization,
            compute_dtype=chosen.compute_dtype,
        )

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.peft import add_lora

        return add_lora(backbone, self.options, self.options.target)

    def merge(self, encoder: Any) -> Any:
        """Return the backbone with the updates added to its weights, which are quantised again."""
        return encoder.merge_and_unload()
