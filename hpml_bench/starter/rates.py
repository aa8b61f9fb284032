"""Published defaults: batches, epochs and learning rates, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A method with the rate that a publication gives."""

    name: str
    why: str
    """What it trains, and the source of the rate."""
    lr: float | None = None
    """None where the method has no rate of its own."""
    method: str | None = None
    """The method's file, where it isn't the name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    trained: float = 0.01
    """Share of the parameters that it trains, about."""
    work: float = 4
    """Floating point operations per parameter and token of a training step; 0 for none."""
    compared: bool = True
    """False: offered as a comment."""


@dataclass(frozen=True)
class Recipe:
    """Published defaults for a kind of model."""

    batch: int
    batch_why: str
    epochs: int
    epochs_why: str
    few_epochs: int
    """Epochs where there are fewer than `FEW` training rows."""
    few_why: str
    methods: tuple[Published, ...]


FEW = 1000
LARGE_MODEL = 200e6
"""Parameters above which the smallest of BERT's three rates is taken."""
TUNE = "Rates are where a search begins: `hpml-bench tune {file}` tries equally many for each method."


def encoder_recipe(parameters: int) -> Recipe:
    """Return the defaults for a model with a new head."""
    full = 2e-5 if parameters > LARGE_MODEL else 5e-5
    return Recipe(
        batch=32,
        batch_why="of BERT's paper (16 or 32; Devlin et al. 2019, arXiv:1810.04805, A.3)",
        epochs=3,
        epochs_why="of BERT's paper (2, 3 or 4; Devlin et al. 2019, A.3)",
        few_epochs=10,
        few_why="more than BERT's 2 to 4, as small sets need more steps (Zhang et al. 2021, arXiv:2006.05987; Mosbach "
        "et al. 2021, arXiv:2006.04884, who take 20)",
        methods=(
            Published("head", "the new output layer alone, with head_lr: the baseline to beat", trained=0, work=2),
            Published(
                "lora",
                "low-rank updates of all linear layers; rate, r and alpha of LoRA's own script for RoBERTa on MNLI (Hu "
                "et al. 2021, arXiv:2106.09685: microsoft/LoRA, roberta_base_mnli.sh, which updates queries and values "
                "alone)",
                5e-4,
                options={"r": 8, "alpha": 16},
            ),
            Published(
                "full",
                f"every weight; BERT's paper tried 5e-5, 3e-5 and 2e-5 (Devlin et al. 2019, A.3), and the "
                f"{'lowest is for models above' if full < 5e-5 else 'highest is for models below'} "
                f"{LARGE_MODEL / 1e6:g}M parameters here",
                full,
                trained=1,
                work=6,
            ),
            Published(
                "adapter",
                "bottlenecks in frozen blocks; the middle of 3e-5, 3e-4 and 3e-3 (Houlsby et al. 2019, "
                "arXiv:1902.00751)",
                3e-4,
                options={"placement": "houlsby"},
                compared=False,
            ),
            _PROMPT,
            _IA3,
        ),
    )


def language_recipe(parameters: int) -> Recipe:
    """Return the defaults for a language model that learns to answer."""
    lora = 1e-4 if parameters > 13e9 else 2e-4
    source = "2e-4 up to 13B parameters, 1e-4 above (Dettmers et al. 2023, arXiv:2305.14314: qlora.py and its README)"
    rank = "r and alpha of LoRA's script (microsoft/LoRA, roberta_base_mnli.sh)"
    return Recipe(
        batch=16,
        batch_why="of QLoRA up to 13B parameters (Dettmers et al. 2023, arXiv:2305.14314, B.2)",
        epochs=2,
        epochs_why="of Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1)",
        few_epochs=3,
        few_why="of Stanford Alpaca (Taori et al. 2023), as there are few rows; Llama 2's fine-tuning has 2",
        methods=(
            Published("none", "the base model as it is, for comparison", trained=0, work=0),
            Published(
                "lora",
                f"low-rank updates of all linear layers; {source}; {rank}",
                lora,
                options={"r": 8, "alpha": 16},
            ),
            Published(
                "full",
                "every weight; of Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1) and "
                "Stanford Alpaca",
                2e-5,
                trained=1,
                work=6,
            ),
            Published(
                "qlora",
                f"lora on weights in 4 bits, for less memory; needs pip install 'hpml-bench[quant]'; {source}",
                lora,
                options={"r": 8, "alpha": 16},
                compared=False,
            ),
            _PROMPT,
            _IA3,
        ),
    )


_PROMPT = Published(
    "prompt_tuning",
    "embeddings before the text; of PEFT's guide to prompt-based methods, with AdamW (the paper's 0.3 is for "
    "Adafactor: Lester et al. 2021, arXiv:2104.08691)",
    3e-2,
    options={"tokens": 20},
    compared=False,
)
_IA3 = Published(
    "ia3",
    "factors of keys, values and feed-forward layers (Liu et al. 2022, arXiv:2205.05638, with Adafactor)",
    3e-3,
    method="peft",
    options={"type": "IA3"},
    compared=False,
)
