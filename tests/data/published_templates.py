"""Chat templates as families of models publish them, with the tokens that end their answers.

The files in `templates/` are unchanged copies; templates/README.md says where each is from and under which licence. The
tokenizer is a small byte-level one that knows the special tokens a template writes, as the family's does.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from chat_families import LLAMA_3_WORDS, byte_level

FOLDER = Path(__file__).parent / "templates"
THOUGHTS = re.compile(r"</?(?:think|tool_call|tool_response|seed:think)>")
"""Added tokens that are not special: a text may hold them."""
SPECIAL = re.compile(
    r"<\|[^|<>'\"{}\s]{1,40}\|>|<\|[a-z_]{2,20}>|<[a-z_]{2,20}\|>|<｜[^｜<>]{1,40}｜>|<(?:start|end)_of_turn>|\[gMASK\]|<sop>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|ARGS|IMG)\]"
)


class Published(NamedTuple):
    """A template of a family."""

    models: str
    """Whose it is."""
    file: str
    end: str
    """The tokenizer's end token."""
    ends: tuple[str, ...] = ()
    """Further end tokens, of generation_config.json."""
    several: bool = True
    """Whether all answers of a conversation can be learnt; else the last one."""
    system: bool = True
    """Whether it knows system prompts."""
    system_last: bool = False
    """Whether it writes a system prompt into the last question, so that only the last answer can be learnt with one."""

    @property
    def template(self) -> str:
        """Its text."""
        return (FOLDER / f"{self.file}.jinja").read_text(encoding="utf-8")


PUBLISHED = [
    Published("Qwen2.5", "trl-qwen2_5", "<|im_end|>", ("<|endoftext|>",)),
    Published("Qwen3", "trl-qwen3", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Qwen3 of TRL's training", "trl-qwen3_training", "<|im_end|>", ("<|endoftext|>",)),
    Published("Qwen3-2507", "trl-qwen3_instruct_2507", "<|im_end|>", ("<|endoftext|>",)),
    Published("Qwen3.5, thinking", "trl-qwen3_5_think", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Qwen3.5", "trl-qwen3_5_nothink", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Qwen3.6", "trl-qwen3_6", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Qwen3.8", "trl-qwen3_8", "<|im_end|>", ("<|endoftext|>",)),
    Published("QwQ", "Qwen-QwQ-32B", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Phi-3", "trl-phi3", "<|endoftext|>", ("<|assistant|>", "<|end|>")),
    Published("Phi-3 of TRL's training", "trl-phi3_training", "<|endoftext|>", ("<|assistant|>", "<|end|>")),
    Published("Phi-3.5", "trl-phi3_5", "<|endoftext|>", ("<|assistant|>", "<|end|>")),
    Published("Phi-4", "microsoft-phi-4", "<|im_end|>"),
    Published("GPT-OSS", "trl-gptoss", "<|return|>", ("<|endoftext|>", "<|call|>")),
    Published("GPT-OSS of TRL's training", "trl-gptoss_training", "<|return|>", ("<|endoftext|>", "<|call|>")),
    Published("GLM-4", "zai-org-GLM-4-9B-0414", "<|endoftext|>", ("<|user|>", "<|observation|>")),
    Published("GLM-4.5", "trl-glm4moe", "<|endoftext|>", ("<|user|>", "<|observation|>")),
    Published("GLM-5", "zai-org-GLM-5", "<|endoftext|>", ("<|user|>", "<|observation|>"), several=False),
    Published("DeepSeek-R1 distils", "trl-deepseek_r1_distill", "<｜end▁of▁sentence｜>", several=False),
    Published("DeepSeek-V3", "trl-deepseekv3", "<｜end▁of▁sentence｜>", several=False),
    Published("DeepSeek-V3.1", "deepseek-ai-DeepSeek-V3.1", "<｜end▁of▁sentence｜>"),
    Published("DeepSeek-V3.2", "deepseek-ai-DeepSeek-V3.2", "<｜end▁of▁sentence｜>", several=False),
    Published("Nemotron-3-Nano", "trl-nemotron_3_nano", "<|im_end|>", several=False),
    Published("Nemotron-3-Ultra", "trl-nemotron_3_ultra", "<|im_end|>", several=False),
    Published("SmolLM3", "HuggingFaceTB-SmolLM3-3B", "<|im_end|>"),
    Published("SmolLM2", "HuggingFaceTB-SmolLM2-135M-Instruct", "<|im_end|>"),
    Published("Falcon-11B", "tiiuae-falcon-11B", "<|endoftext|>"),
    Published("Falcon3", "tiiuae-Falcon3-7B-Instruct", "<|endoftext|>"),
    Published("Llama 3", "trl-llama3", "<|end_of_text|>", ("<|eot_id|>",)),
    Published("Llama 3.2", "trl-llama3_2", "<|eot_id|>", ("<|end_of_text|>", "<|eom_id|>")),
    Published("Gemma and Gemma 2", "trl-gemma", "<eos>", ("<end_of_turn>",), system=False),
    Published("Gemma 3", "trl-gemma3", "<eos>", ("<end_of_turn>",)),
    Published("Gemma 4", "google-gemma-4-26B-A4B-it", "<eos>", ("<turn|>",), several=False),
    Published("Mistral 7B v0.2", "mistralai-Mistral-7B-Instruct-v0.2", "</s>"),
    Published("Mistral 7B v0.3", "mistralai-Mistral-7B-Instruct-v0.3", "</s>", system_last=True),
    Published("Mistral Nemo", "mistralai-Mistral-Nemo-Instruct-2407", "</s>", system_last=True),
    Published("Mistral Small 3", "mistralai-Mistral-Small-24B-Instruct-2501", "</s>"),
    Published("Ministral 3, reasoning", "mistralai-Ministral-3-3B-Reasoning-2512", "</s>"),
    Published("Zephyr and TinyLlama", "HuggingFaceH4-zephyr-7b-beta", "</s>"),
    Published("OpenChat 3.5", "openchat-openchat-3.5-0106", "<|end_of_turn|>"),
    Published("Yi-1.5", "01-ai-Yi-1.5-9B-Chat", "<|im_end|>"),
    Published("InternLM2.5", "internlm-internlm2_5-7b-chat", "<|im_end|>"),
    Published("OLMo 2", "allenai-OLMoE-1B-7B-0125-Instruct", "<|endoftext|>"),
    Published("OLMo 3, thinking", "allenai-Olmo-3-7B-Think", "<|im_end|>", ("<|endoftext|>",), several=False),
    Published("Granite 3.3", "ibm-granite-granite-3.3-2B-Instruct", "<|end_of_text|>"),
    Published("Kimi-K2", "moonshotai-Kimi-K2-Instruct", "<|im_end|>"),
    Published("Kimi-K2, thinking", "moonshotai-Kimi-K2-Thinking", "<|im_end|>"),
    Published("MiniMax-M2", "MiniMaxAI-MiniMax-M2", "[e~[", several=False),
    Published("Seed-OSS", "ByteDance-Seed-OSS", "<seed:eos>"),
    Published("Jamba, reasoning", "ai21labs-AI21-Jamba-Reasoning-3B", "<|im_end|>", several=False),
    Published("LFM2.5", "trl-lfm2_2_5", "<|im_end|>"),
]


@cache
def tokenizer(family: Published) -> Any:
    """Return a small tokenizer that knows the special tokens of a family."""
    found = {*SPECIAL.findall(family.template), family.end, *family.ends, "<|bos|>"}
    plain = sorted(set(THOUGHTS.findall(family.template)))
    return byte_level(*sorted(found), plain=plain, bos="<|bos|>", words=LLAMA_3_WORDS, eos_token=family.end)


def end_ids(family: Published) -> tuple[int, ...]:
    """Return the end tokens of a family's generation_config.json."""
    return tuple(tokenizer(family).convert_tokens_to_ids([family.end, *family.ends]))
