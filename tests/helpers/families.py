"""Small random language models of families that are no plain transformer: mixtures of experts, state-space models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helpers.language_models import PAD, POSITIONS, SPREAD, VOCABULARY

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": PAD, "bos_token_id": 0,
    "eos_token_id": 0, "initializer_range": SPREAD, "max_position_embeddings": POSITIONS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {
    "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_n_groups": 1,
    "mamba_expand": 2, "mamba_chunk_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8,
    "n_groups": 1, "chunk_size": 8, "state_size": 8, "time_step_rank": 4, "expand": 2,
}  # fmt: skip
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "gpt_oss": EXPERTS | ALTERNATING,
    "granitemoe": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    "phimoe": EXPERTS,
    "llama4_text": EXPERTS | {
        "intermediate_size_mlp": 64, "moe_layers": [1], "attention_chunk_size": 16,
        "layer_types": ["chunked_attention", "full_attention"],
    },
    "jamba": EXPERTS | MAMBA | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "use_mamba_kernels": False, "mamba_dt_rank": 4,
    },
    "falcon_h1": MAMBA,
    "nemotron_h": EXPERTS | MAMBA | {
        "num_hidden_layers": 3, "layers_block_type": ["mamba", "moe", "attention"], "n_routed_experts": 4,
        "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 16, "moe_latent_size": None, "n_group": 1,
        "topk_group": 1,
    },
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": MAMBA | {"head_dim": 16, "num_heads": 4},
    "gemma4_text": ALTERNATING | {
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "global_head_dim": 8,
        "num_kv_shared_layers": 0,
    },
}  # fmt: skip
"""Options of configurations by `model_type`; those that a family doesn't have are left out."""


def save_family(kind: str, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if not folder.is_dir():
        fields = CONFIG_MAPPING[kind].__dataclass_fields__
        options = {key: value for key, value in (COMMON | FAMILIES[kind]).items() if key in fields}
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**options)).float().save_pretrained(folder)
    return folder


MROPE = {"rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
SMALL = {"hidden_size": 16, "intermediate_size": 32}
TOWER = SMALL | {"depth": 1, "num_heads": 2, "out_hidden_size": 32}
LAYERS = SMALL | {"num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"image_token_id": 117, "video_token_id": 118}
COMPOSITES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "qwen2_5_vl": (MROPE, TOWER, IMAGES | {"vision_start_token_id": 115, "vision_end_token_id": 116}),
    "qwen3_vl": (
        MROPE, TOWER | {"deepstack_visual_indexes": [0]}, IMAGES | {"vision_start_token_id": 115},
    ),
    "glm4v": (MROPE, TOWER, IMAGES | {"image_start_token_id": 115, "image_end_token_id": 116}),
    "mistral3": (
        {"model_type": "mistral"}, LAYERS | {"model_type": "pixtral", "image_size": 28, "patch_size": 14},
        {"image_token_id": 117},
    ),
    "internvl": (
        {"model_type": "qwen2"}, LAYERS | {"image_size": [28, 28], "patch_size": [14, 14]}, {"image_token_id": 117},
    ),
}  # fmt: skip
"""Options of text model, vision tower and whole, of models that transformers lists for text and images alone."""


def save_composite(kind: str, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    text, vision, whole = COMPOSITES[kind]
    config = CONFIG_MAPPING[kind](text_config=COMMON | text, vision_config=vision, **whole)
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).float().save_pretrained(folder)
    return folder
