"""Memory that torchtune publishes for LoRA on Llama 3.1 8B beside what `hpml-bench fit` predicts, term by term.

    python benchmarks/published_memory.py
    python benchmarks/published_memory.py --recipes   # the table of cards in docs/memory.md

torchtune: 8B, batch 2 x 2,048 tokens, activation checkpointing, loss in eight chunks, weights and adapters of rank 8 in
bfloat16: 16.2 GiB at the peak. The first column is arithmetic on these terms; the second the prediction of our step on
the same model and batch, every token a target. Ours has adapters in float32, and a block's activations beside the
blocks' inputs at its peak, at which no logits are there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpml_bench.fit.predict import Predictor, predict
from hpml_bench.fit.trace import Footprint
from hpml_bench.suite.settings import DatasetSpec, OptimizerSpec, Settings, TaskSpec
from hpml_bench.suite.suite import MethodEntry, Suite

PUBLISHED, CHUNKS, RANK, TOKENS = 16.2, 8, 8, 2 * 2048
HALF = 2  # bytes of bfloat16
CONFIG = Path(__file__).resolve().parents[1] / "tests" / "files" / "configs" / "llama-3.1-8b"
MODEL_7B = CONFIG.with_name("llama-2-7b")


METHODS = {"full": MethodEntry(), "lora": MethodEntry(options={"r": RANK}), "qlora": MethodEntry(options={"r": RANK})}
ROUNDED = {
    "full": MethodEntry(),
    "full+adamw_8bit": MethodEntry(method="full", optimizer=OptimizerSpec(name="adamw_8bit")),
}
"""Methods of one card with `trained_weights: bfloat16`."""


def suite_of(config: Path, **changes: Any) -> Suite:
    """Return a suite of the three methods on a model, with checkpointing and texts of 2,048 tokens."""
    settings = Settings.model_validate({
        "backbone": f"path:{config}", "dataset": DatasetSpec(name="metamath"),
        "task": TaskSpec(name="causal_lm", options={"scorer": "exact"}),
        "steps": 10, "global_batch": 2, "eval_batch": 1, "max_length": 2048, "device": "cuda", "world_size": 1,
        "precision": "bf16", "gradient_checkpointing": True, **changes,
    })  # fmt: skip
    rounded = settings.trained_weights == "bfloat16"
    return Suite(name="published", settings=settings, methods=ROUNDED if rounded else METHODS)


def footprint() -> Footprint:
    """Return the predicted memory of LoRA's step."""
    suite = suite_of(CONFIG, weights="bfloat16")
    (spec,) = suite.runs(["lora"], [0])
    with tempfile.TemporaryDirectory() as name:
        predictor = Predictor(suite, 80 * 10**9, Path(name))
        return predictor.trace(spec.method, predictor.settings)


def recipes() -> None:
    """Print each method's peak in GB, with micro-batches of one text, on one card, and sharded over several."""
    ranks = (1, 2, 4, 16)
    print("| model | method |" + "".join(f" {number} card{'s' * (number > 1)} |" for number in ranks))
    print("|---|---|" + "--:|" * len(ranks))
    for model in (MODEL_7B, CONFIG):
        found = {number: peaks(model, number) for number in ranks}
        for method in METHODS:
            cells = [f"{found[number][method]:.0f}" if method in found[number] else "-" for number in ranks]
            print(f"| {model.name} | {method} | {' | '.join(cells)} |")
        for method, peak in peaks(model, 1, trained_weights="bfloat16").items():
            print(f"| {model.name} | {method}, rounded | {peak:.0f} |{' - |' * (len(ranks) - 1)}")


def peaks(config: Path, ranks: int, **changes: Any) -> dict[str, float]:
    """Return each method's bytes on a card of 80 GB, in GB; without those that can't be predicted."""
    shared = {"global_batch": 16, "micro_batch": 1, "weights": "bfloat16", "world_size": ranks, **changes}
    suite = suite_of(config, **shared, sharding="none" if ranks == 1 else "fsdp")
    prediction = predict(suite, 80 * 10**9, advised=False)
    return {need.method: need.peak / 1e9 for need in prediction.needs if need.peak is not None}


def torchtune() -> dict[str, float]:
    """Return the terms of torchtune's step in GiB: what is stored, each block's input, and a chunk of logits."""
    config = json.loads((CONFIG / "config.json").read_text())
    width, hidden, blocks = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = [(width, width), (width, keys), (width, keys), (width, width), *[(width, hidden)] * 3]  # of linear layers
    body = blocks * (sum(rows * columns for rows, columns in shapes) + 2 * width) + width
    adapters = blocks * sum(RANK * (rows + columns) for rows, columns in shapes)
    found = {
        "weights": HALF * (body + 2 * config["vocab_size"] * width + adapters),
        "gradients": HALF * adapters,
        "optimizer": 2 * HALF * adapters,
        "activations": HALF * TOKENS * width * blocks,
        "logits": HALF * TOKENS * config["vocab_size"] // CHUNKS,
    }
    return {name: size / 2**30 for name, size in {**found, "step": sum(found.values())}.items()}


def terms(found: Footprint) -> dict[str, float]:
    """Return the parts of our step in GiB, and the step."""
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "step")
    return {name: getattr(found, name) / 2**30 for name in parts}


def main() -> None:
    """Print both, or the table."""
    if "--recipes" in sys.argv[1:]:
        recipes()
        return
    theirs = torchtune()
    print(f"{'GiB':15} torchtune    ours")
    for name, size in terms(footprint()).items():
        print(f"{name:15} {f'{theirs[name]:9.2f}' if name in theirs else ' ' * 9} {size:7.2f}")
    print(f"{'published':15} {PUBLISHED:9.2f}")


if __name__ == "__main__":
    main()
