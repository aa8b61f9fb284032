"""Shapes: models of real size with random weights, and rows as long as AG News's; speed depends on no more."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.system.environment import cores, has_bf16
from hpml_bench.training import products

ROWS = 12_800
"""Whole numbers of our buckets of batches of like lengths (25 of 512 rows) and of the HF Trainer's (16 of 800)."""
LONGEST = 128
CLASSES = 4
BATCH = 16
MODELS = ("gpt2", "minilm")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16, "target": "all-linear"},
    "prompt_tuning": {"tokens": 20},
    "adapter": {"placement": "pfeiffer", "reduction": 16},
    "full": {},
}


def lengths(rows: int = ROWS) -> np.ndarray:
    """Return lengths in tokens like those of AG News under GPT-2's tokenizer: drawn, mean 52, 99 % up to 116."""
    drawn = np.exp(np.random.default_rng(0).normal(3.88, 0.38, rows))
    return np.clip(np.round(drawn), 12, LONGEST).astype(np.int64)


def token_ids(rows: int = ROWS) -> list[list[int]]:
    """Return rows of random token ids."""
    generator = np.random.default_rng(1)
    return [generator.integers(1000, 30_000, length).tolist() for length in lengths(rows)]


def labels(rows: int = ROWS) -> list[int]:
    """Return a class for each row."""
    return [int(label) for label in np.random.default_rng(2).integers(0, CLASSES, rows)]


def save_model(name: str, folder: Path) -> None:
    """Save a bare backbone: GPT-2 of 124M parameters, or MiniLM-L6's BERT of 22M; dropout as published, 0.1."""
    import torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = (
        GPT2Model(GPT2Config())
        if name == "gpt2"
        else BertModel(
            BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
            add_pooling_layer=False,
        )
    )
    model.save_pretrained(folder)


def save_rows(folder: Path, rows: int = ROWS) -> None:
    """Save rows as the preparation leaves them, the same in every split."""
    import pyarrow as pa

    from hpml_bench.plugins.rows import write_rows

    write_rows(folder / "train", [{"input_ids": token_ids(rows), "label": labels(rows)}], pa.int64())
    for split in ("validation", "test"):
        (folder / split).symlink_to("train", target_is_directory=True)


def prepared(folder: Path, model: str) -> Any:
    """Return a `Prepared` of a saved model and the saved rows."""
    from hpml_bench.data.prepared import Prepared
    from hpml_bench.records.run import Digests

    return Prepared(
        backbone=str(folder / model),
        data=str(folder / "rows"),
        label_names=tuple(f"class {index}" for index in range(CLASSES)),
        digests=Digests(weights="", tokenizer="", data=""),
        pad_id=0,
    )


def timed_products(model: Path) -> products.Products:
    """Time products of a model's shape on all cores."""
    shape = products.shape_of(json.loads((model / "config.json").read_text()), tokens=products.ROWS)
    return products.measure(shape, cores())


@functools.cache
def faster_precision(model: Path) -> str:
    """Return the precision that `auto` takes for a model on this CPU: the faster one, by a product of its shape."""
    return timed_products(model).precision if has_bf16("cpu") else "fp32"
