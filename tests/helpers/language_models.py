"""Small random causal language models, and methods trained on them for a few steps."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from helpers import tiny
from hpml_bench.data.prepare import weights_digest
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import Digests, MethodSpec, RunSpec
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.model import build_model

VOCABULARY, POSITIONS, PAD = 120, 96, 1
SPREAD = 0.3
"""Of the weights: with 0.02 the next token depends on the last one alone."""
KINDS = ("GPT-2", "Llama", "Qwen2", "Gemma 2")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("none", "full", "lora")},
    "prompt_tuning": ("prompt_tuning", {"tokens": 5}),
    "adapter": ("adapter", {"size": 4}),
    "PREFIX_TUNING": ("peft", {"type": "PREFIX_TUNING", "num_virtual_tokens": 5}),
    "P_TUNING": ("peft", {"type": "P_TUNING", "num_virtual_tokens": 5}),
    "IA3": ("peft", {"type": "IA3"}),
}
"""Methods and their options, by a name."""


def save_models(folder: Path) -> dict[str, Path]:
    """Save models of two layers and width 32; Gemma 2 sees six tokens back in a layer, and caps
    its logits at 3.
    """
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        GPT2Config,
        LlamaConfig,
        Qwen2Config,
    )

    common = {
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": SPREAD,
    }
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    shape |= {"intermediate_size": 64, "max_position_embeddings": POSITIONS, "pad_token_id": PAD}
    gemma = {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 6,
        "final_logit_softcapping": 3.0,
    }
    configs = (
        GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS, **common),
        LlamaConfig(**shape, **common),
        Qwen2Config(**shape, **common, tie_word_embeddings=True),
        Gemma2Config(**shape, **common, **gemma, tie_word_embeddings=False),
    )
    torch.manual_seed(0)
    for kind, config in zip(KINDS, configs, strict=True):
        model = AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            if weight.dim() == 1:  # biases start at zero
                weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(folder / kind)
    return {kind: folder / kind for kind in KINDS}


TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A chat template of the special tokens of `save_letters`."""


def save_letters(folder: Path, eos: str | None = "<|end|>", *, like_llama: bool = False) -> Path:
    """Save a model of 512 positions whose tokenizer has a token a byte, or a letter and ▁ for a
    space.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if like_llama:
        alphabet = ["▁", *map(chr, range(33, 127)), *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=like_llama))
    if like_llama:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        parts = [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        backend.decoder = decoders.Sequence(parts)
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|stop|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)
    torch.manual_seed(0)
    GPT2Model(
        GPT2Config(vocab_size=len(fast), n_positions=512, n_embd=8, n_layer=1, n_head=1)
    ).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def spec_of(
    folder: Path, method: str, options: dict[str, Any] | None = None, **changes: Any
) -> RunSpec:
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(
        name=method, method=method, options=kind.Options(**options or {}).model_dump(), lr=kind.lr
    )
    values = {
        "backbone": f"path:{folder}",
        "task": "causal_lm",
        "max_length": 40,
        "world_size": 1,
    } | changes
    return RunSpec(suite="language", settings=tiny.settings(**values), method=chosen, seed=0)


def trained(
    folder: Path, method: str, options: dict[str, Any] | None = None, steps: int = 4, **changes: Any
) -> tuple[LanguageModel, Method, Task, RunSpec]:
    """Build a method's language model, and train it for a few steps, with which its answers
    change.
    """
    spec = spec_of(folder, method, options, **changes)
    made, task = make_method(spec.method), make_task(spec.settings.task)
    model = cast(LanguageModel, build_model(folder, spec, made, task))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    ids, mask, labels = texts()
    if weights:
        optimizer = torch.optim.AdamW(weights, lr=3e-2, weight_decay=0)
        for _ in range(steps):
            torch.autograd.backward(task.loss(model(ids, mask, labels), labels) / 20)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval(), made, task, spec


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Return four right-padded texts of different lengths [4, 12], their mask, and labels of
    their second halves.
    """
    ids = torch.randint(3, VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([12, 5, 9, 2])[:, None]
    places = torch.arange(12)
    learnt = (places >= lengths // 2) & (places < lengths)
    return (
        ids.where(places < lengths, PAD),
        (places < lengths).long(),
        ids.where(learnt, IGNORE_INDEX),
    )


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Return the logits of a language model of ours at the learnt places of `texts`."""
    return torch.as_tensor(model(*texts()))


def prepared(folder: Path, **facts: Any) -> Prepared:
    """Return what a run on a model's folder was prepared as, without rows."""
    digests = Digests(weights=weights_digest(folder), tokenizer="", data="")
    return Prepared(
        **{"backbone": str(folder), "data": "", "digests": digests, "pad_id": PAD} | facts
    )


def prompts(count: int) -> list[list[int]]:
    """Return the token ids of prompts of 1 to 15 tokens."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(3, VOCABULARY, (1 + 7 * n % 15,), generator=generator).tolist()
        for n in range(count)
    ]


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """Return the logits of a model of transformers or PEFT at the learnt places of `texts`."""
    ids, mask, labels = texts()
    everywhere = model.eval()(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    return torch.as_tensor(everywhere[:, :-1][labels[:, 1:] != IGNORE_INDEX])


# Families that are no plain transformer: mixtures of experts, state-space models, models of text
# and images

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": SPREAD,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
}
EXPERTS = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
MAMBA = {
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_ssm": 64,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "n_groups": 1,
    "chunk_size": 8,
    "state_size": 8,
    "time_step_rank": 4,
    "expand": 2,
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "granitemoe": EXPERTS,
    "phimoe": EXPERTS,
    "gpt_oss": EXPERTS | ALTERNATING,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    "llama4_text": EXPERTS
    | {
        "intermediate_size_mlp": 64,
        "moe_layers": [1],
        "attention_chunk_size": 16,
        "layer_types": ["chunked_attention", "full_attention"],
    },
    "jamba": EXPERTS
    | MAMBA
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_dt_rank": 4,
    },
    "falcon_h1": MAMBA,
    "nemotron_h": EXPERTS
    | MAMBA
    | {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "moe", "attention"],
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "moe_shared_expert_intermediate_size": 16,
        "moe_latent_size": None,
        "n_group": 1,
        "topk_group": 1,
    },
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": MAMBA | {"head_dim": 16, "num_heads": 4},
    "gemma4_text": ALTERNATING
    | {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "global_head_dim": 8,
        "num_kv_shared_layers": 0,
    },
}
"""Options of configurations by `model_type`; those that a family doesn't have are left out."""


def save_family(kind: str, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if not folder.is_dir():
        fields = CONFIG_MAPPING[kind].__dataclass_fields__
        options = {key: value for key, value in (COMMON | FAMILIES[kind]).items() if key in fields}
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**options)).float().save_pretrained(
            folder
        )
    return folder


MROPE = {"rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
SMALL = {"hidden_size": 16, "intermediate_size": 32}
TOWER = SMALL | {"depth": 1, "num_heads": 2, "out_hidden_size": 32}
LAYERS = SMALL | {"num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"image_token_id": 117, "video_token_id": 118}
COMPOSITES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "qwen2_5_vl": (
        MROPE,
        TOWER,
        IMAGES | {"vision_start_token_id": 115, "vision_end_token_id": 116},
    ),
    "qwen3_vl": (
        MROPE,
        TOWER | {"deepstack_visual_indexes": [0]},
        IMAGES | {"vision_start_token_id": 115},
    ),
    "glm4v": (MROPE, TOWER, IMAGES | {"image_start_token_id": 115, "image_end_token_id": 116}),
    "mistral3": (
        {"model_type": "mistral"},
        LAYERS | {"model_type": "pixtral", "image_size": 28, "patch_size": 14},
        {"image_token_id": 117},
    ),
    "internvl": (
        {"model_type": "qwen2"},
        LAYERS | {"image_size": [28, 28], "patch_size": [14, 14]},
        {"image_token_id": 117},
    ),
}
"""Options of text model, vision tower and whole, of models that transformers lists for text and
images alone.
"""

GEMMA_3 = (
    ALTERNATING | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 6},
    LAYERS | {"image_size": 28, "patch_size": 14},
    {
        "boi_token_index": 117,
        "eoi_token_index": 118,
        "image_token_index": 119,
        "mm_tokens_per_image": 4,
    },
)
"""The same of Gemma 3 from 4B on, whose own configuration has no width."""


def save_of_images(kind: str, folder: Path) -> Path:
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    text, vision, whole = (COMPOSITES | {"gemma3": GEMMA_3})[kind]
    config = CONFIG_MAPPING[kind](text_config=COMMON | text, vision_config=vision, **whole)
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).float().save_pretrained(folder)
    return folder
