"""Shapes: models of real size with random weights, rows as long as AG News's, and the batches
that contenders draw.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.data.prepared import global_batches
from hpml_bench.system.environment import cores, has_bf16
from hpml_bench.training import products

ROWS = 12_800
"""Whole numbers of our buckets of batches of like lengths (25 of 512 rows) and of the HF
Trainer's (16 of 800).
"""
LONGEST, CLASSES, BATCH = 128, 4, 16
GROUPED = 50
"""Batches in a group that the HF Trainer sorts, of data sets of 3,200 rows or more; of fewer
rows it takes fewer.
"""
MODELS = ("gpt2", "minilm")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16, "target": "all-linear"},
    "prompt_tuning": {"tokens": 20},
    "adapter": {"placement": "pfeiffer", "reduction": 16},
    "full": {},
}


def lengths(rows: int = ROWS) -> np.ndarray:
    """Return lengths in tokens like those of AG News under GPT-2's tokenizer: drawn, mean 52, 99
    % up to 116.
    """
    drawn = np.exp(np.random.default_rng(0).normal(3.88, 0.38, rows))
    return np.clip(np.round(drawn), 12, LONGEST).astype(np.int64)


def rows(count: int = ROWS) -> dict[str, list[Any]]:
    of_ids, of_labels = (np.random.default_rng(seed) for seed in (1, 2))
    ids = [of_ids.integers(1000, 30_000, length).tolist() for length in lengths(count)]
    return {"input_ids": ids, "label": of_labels.integers(0, CLASSES, count).tolist()}


def save_model(name: str, folder: Path) -> None:
    """Save a bare backbone: GPT-2 of 124M parameters, or MiniLM-L6's BERT of 22M; dropout as
    published, 0.1.
    """
    import torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

    torch.manual_seed(0)
    minilm = {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    gpt2 = name == "gpt2"
    model = (
        GPT2Model(GPT2Config())
        if gpt2
        else BertModel(BertConfig(**minilm), add_pooling_layer=False)
    )
    model.save_pretrained(folder)


def save_rows(folder: Path, count: int = ROWS) -> None:
    """Save rows as the preparation leaves them, the same in every split."""
    import pyarrow as pa

    from hpml_bench.plugins.rows import write_rows

    write_rows(folder / "train", [rows(count)], pa.int64())
    for split in ("validation", "test"):
        (folder / split).symlink_to("train", target_is_directory=True)


def prepared(folder: Path, model: str) -> Any:
    from hpml_bench.data.prepared import Prepared
    from hpml_bench.suite.settings import Digests

    names, digests = (
        tuple(f"class {index}" for index in range(CLASSES)),
        Digests(weights="", tokenizer="", data=""),
    )
    backbone, data = str(folder / model), str(folder / "rows")
    return Prepared(backbone=backbone, data=data, label_names=names, digests=digests, pad_id=0)


@functools.cache
def faster_precision(model: Path) -> str:
    """Return the precision that `auto` takes for a model on this CPU: the faster one, by a
    product of its shape.
    """
    if not has_bf16("cpu"):
        return "fp32"
    shape = products.shape_of(json.loads((model / "config.json").read_text()), tokens=products.ROWS)
    return products.measure(shape, cores()).precision


def epoch(contender: str, lengths: np.ndarray) -> list[np.ndarray]:
    """Return an epoch of batches of row indices as a contender draws them, seeded."""
    if contender == "ours":
        return list(global_batches(lengths, BATCH, len(lengths) // BATCH, 0))
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(0)
    if contender == "grouped":
        order = get_length_grouped_indices(lengths.tolist(), BATCH, GROUPED, generator)
    else:
        order = torch.randperm(len(lengths), generator=generator).tolist()
    return [np.array(order[start : start + BATCH]) for start in range(0, len(order), BATCH)]


def representative(batches: list[np.ndarray], lengths: np.ndarray, count: int) -> list[np.ndarray]:
    """Return `count` of the batches, shuffled: of each of as many strata the one nearest to the
    stratum's mean.

    Strata are of batches in the order of their longest rows. Means and not middles: lengths have a
    long tail, and few middles together would be padded to less than the epoch is. What one lies off
    the next makes up for, the longest first, among which the gaps are widest.
    """
    longest_rows = np.array([lengths[indices].max() for indices in batches])
    chosen, wanted = [], 0.0
    for stratum in np.array_split(np.argsort(-longest_rows, kind="stable"), count):
        wanted += longest_rows[stratum].sum() * count / len(batches)
        nearest = stratum[np.abs(longest_rows[stratum] - wanted).argmin()]
        wanted -= longest_rows[nearest]
        chosen.append(batches[nearest])
    return [chosen[index] for index in np.random.default_rng(0).permutation(count)]
