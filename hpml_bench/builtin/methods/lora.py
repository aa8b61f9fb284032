"""LoRA: frozen weights plus trained low-rank updates (Hu et al. 2021, arXiv:2106.09685)."""

from typing import Any

from hpml_bench.plugins.method import LoraOptions, Method


class LoRA(Method):
    """Updates `alpha / r` * B A beside frozen weights, by PEFT."""

    title = "LoRA"
    built_by_shape = True
    peft_type = "LORA"
    Options = LoraOptions

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.peft import add_lora

        return add_lora(backbone, self.options, self.options.target)

    def merge(self, encoder: Any) -> Any:
        return encoder.merge_and_unload()
