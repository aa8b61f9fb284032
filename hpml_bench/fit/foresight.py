"""Foresight of a sweep: whether its runs may take more memory than there is, from sizes of files, without torch."""

from __future__ import annotations

import json
from pathlib import Path

from hpml_bench.data.sources import weight_files
from hpml_bench.fit.limits import limit_of
from hpml_bench.suite.settings import Settings

SHARE = 0.5
"""Share of a rank's memory up to which an estimate raises no doubt: methods may take more than the estimate."""
TRAINED = 8
"""Bytes per byte of the weights' files where all are trained with AdamW: 16 per weight, of 2 bytes at least."""
LAYER = 68
"""Bytes that a block keeps per token and unit of width in float32: twice the 34 of half precision (Korthikanti et al.
2022, arXiv:2205.05198, equation 2)."""
SCORES = 0.4
"""Further such bytes per token that each token attends to: scores, softmax and dropout of heads of width 32."""
LOGIT = 12
"""Bytes per logit: the logit, its softmax and its gradient."""
WIDTH, LAYERS = ("hidden_size", "n_embd", "dim", "d_model"), ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Keys of config.json, of which models have one each."""


def in_doubt(settings: Settings, folder: Path) -> bool:
    """Return whether runs of resolved settings might not fit; raises what `estimate` does."""
    limit = limit_of(settings, None)
    return limit.most > 0 and estimate(settings, folder) > SHARE * (limit.most - limit.outside)


def estimate(settings: Settings, folder: Path) -> float:
    """Return about the bytes of tensors that full fine-tuning of a folder's model takes.

    Raises:
        Exception: config.json is strange, or files can't be read.

    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= config.get("text_config") or {}
    width, layers = (next(int(config[key]) for key in keys if key in config) for keys in (WIDTH, LAYERS))
    share = settings.global_batch // (settings.world_size or 1)
    rows = settings.micro_batch if isinstance(settings.micro_batch, int) else share
    tokens = max(rows, settings.eval_batch // 8) * settings.max_length  # evaluations keep no activations
    per_token = layers * width * (LAYER + SCORES * settings.max_length) + LOGIT * int(config.get("vocab_size", 0))
    weights = TRAINED * sum(file.stat().st_size for file in weight_files(folder))
    return weights + tokens * per_token
