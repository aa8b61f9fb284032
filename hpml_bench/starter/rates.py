"""Published defaults: batches, epochs and learning rates, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A method with the rate that a publication gives."""

    name: str
    trains: str  # what it trains, in words
    source: str = ""  # where its rate comes from; empty where it has none
    lr: float | None = None  # None where the method has no rate of its own
    method: str | None = None  # the method's file, where it isn't the name
    options: Mapping[str, Any] = field(default_factory=dict)
    work: float = 4  # floating point operations per parameter and token of a training step; 0 for none
    compared: bool = True  # False: offered as a comment


@dataclass(frozen=True)
class Recipe:
    """Published defaults for a kind of model."""

    batch: int
    batch_why: str
    epochs: int
    epochs_why: str
    few_epochs: int  # epochs where there are fewer than `FEW` training rows
    few_why: str
    methods: tuple[Published, ...]


FEW = 1000
LARGE_MODEL = 200e6  # parameters above which the smallest of BERT's three rates is taken

PROMPT_TUNING = Published(
    "prompt_tuning", "embeddings before the text",
    "PEFT's guide to prompt-based methods, with AdamW; the paper's 0.3 is for Adafactor (Lester et al. 2021, "
    "arXiv:2104.08691)",
    3e-2, options={"tokens": 20}, compared=False,
)  # fmt: skip
IA3 = Published(
    "ia3", "factors of keys, values and feed-forward layers",
    "Liu et al. 2022, arXiv:2205.05638, who took it with Adafactor",
    3e-3, method="peft", options={"type": "IA3"}, compared=False,
)  # fmt: skip
RANK = {"r": 8, "alpha": 16}


def encoder_recipe(parameters: int) -> Recipe:
    """Return the defaults for a model with a new head."""
    lowest, size, lr = ("lowest", "more", 2e-5) if parameters > LARGE_MODEL else ("highest", "less", 5e-5)
    methods = (
        Published("head", "the new output layer alone, with head_lr: the baseline to beat", work=2),
        Published(
            "lora", "low-rank updates of all linear layers",
            "LoRA's own script for RoBERTa on MNLI, r and alpha too; it updates queries and values alone (Hu et "
            "al. 2021, arXiv:2106.09685; microsoft/LoRA, roberta_base_mnli.sh)",
            5e-4, options=RANK,
        ),
        Published(
            "full", "every weight",
            f"the {lowest} of BERT's 5e-5, 3e-5 and 2e-5 (Devlin et al. 2019, A.3), as the model has {size} than "
            f"{LARGE_MODEL / 1e6:g}M parameters",
            lr, work=6,
        ),
        Published(
            "adapter", "bottlenecks in frozen blocks",
            "the middle of 3e-5, 3e-4 and 3e-3 (Houlsby et al. 2019, arXiv:1902.00751)",
            3e-4, options={"placement": "houlsby"}, compared=False,
        ),
        PROMPT_TUNING, IA3,
    )  # fmt: skip
    return Recipe(
        32, "the batch of BERT's paper (16 or 32; Devlin et al. 2019, arXiv:1810.04805, A.3)",
        3, "BERT's paper took 2, 3 or 4 (Devlin et al. 2019, A.3)",
        10, "BERT's 2 to 4 are for larger sets, and small ones need more steps (Zhang et al. 2021, "
        "arXiv:2006.05987; Mosbach et al. 2021, arXiv:2006.04884, who took 20)",
        methods,
    )  # fmt: skip


def language_recipe(parameters: int) -> Recipe:
    """Return the defaults for a language model that learns to answer."""
    lora = 1e-4 if parameters > 13e9 else 2e-4
    source = (
        "QLoRA, 2e-4 up to 13B parameters and 1e-4 above (Dettmers et al. 2023, arXiv:2305.14314; qlora.py); r and "
        "alpha as LoRA's own script (roberta_base_mnli.sh); QLoRA saw no difference between r 8 and 256"
    )
    methods = (
        Published("none", "nothing: the base model as it is, for comparison", work=0),
        Published("lora", "low-rank updates of all linear layers", source, lora, options=RANK),
        Published(
            "full", "every weight",
            "Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1), and Stanford Alpaca",
            2e-5, work=6,
        ),
        Published(
            "qlora", "as lora does, on weights in 4 bits: less memory. Needs the package bitsandbytes",
            source, lora, options=RANK, compared=False,
        ),
        Published(
            "few_shot", "nothing: four training rows before each prompt, for which max_length must have room",
            work=0, options={"k": 4}, compared=False,
        ),
        PROMPT_TUNING, IA3,
    )  # fmt: skip
    return Recipe(
        16, "QLoRA's batch up to 13B parameters (Dettmers et al. 2023, arXiv:2305.14314, B.2)",
        2, "as Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1)",
        3, "3 as Stanford Alpaca (Taori et al. 2023), where Llama 2's fine-tuning took 2",
        methods,
    )  # fmt: skip
