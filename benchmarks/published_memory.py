"""Table of docs/memory.md: what `hpml-bench fit` predicts for models of 7 and 8 billion parameters
on cards.

python benchmarks/published_memory.py
"""

from pathlib import Path
from typing import Any

from hpml_bench.fit.predict import predict
from hpml_bench.suite.settings import DatasetSpec, OptimizerSpec, Settings, TaskSpec
from hpml_bench.suite.suite import MethodEntry, Suite

CONFIG = Path(__file__).resolve().parents[1] / "tests" / "files" / "configs" / "llama-3.1-8b"
MODEL_7B = CONFIG.with_name("llama-2-7b")
METHODS = {
    "full": MethodEntry(),
    "lora": MethodEntry(options={"r": 8}),
    "qlora": MethodEntry(options={"r": 8}),
}
ROUNDED = {
    "full": MethodEntry(),
    "full+adamw_8bit": MethodEntry(method="full", optimizer=OptimizerSpec(name="adamw_8bit")),
}
"""Methods of one card with `trained_weights: bfloat16`."""


def main() -> None:
    ranks = (1, 2, 4, 16)
    print(
        "| model | method |" + "".join(f" {number} card{'s' * (number > 1)} |" for number in ranks)
    )
    print("|---|---|" + "--:|" * len(ranks))
    for model in (MODEL_7B, CONFIG):
        found = {number: peaks(model, number) for number in ranks}
        for method in METHODS:
            cells = [
                f"{found[number][method]:.0f}" if method in found[number] else "-"
                for number in ranks
            ]
            print(f"| {model.name} | {method} | {' | '.join(cells)} |")
        for method, peak in peaks(model, 1, trained_weights="bfloat16").items():
            print(f"| {model.name} | {method}, rounded | {peak:.0f} |{' - |' * (len(ranks) - 1)}")


def peaks(config: Path, ranks: int, **changes: Any) -> dict[str, float]:
    """Return each method's bytes on a card of 80 GB, in GB; without those that can't be
    predicted.
    """
    settings = Settings.model_validate(
        {
            "backbone": f"path:{config}",
            "dataset": DatasetSpec(name="metamath"),
            "task": TaskSpec(name="causal_lm", options={"scorer": "exact"}),
            "steps": 10,
            "global_batch": 16,
            "micro_batch": 1,
            "eval_batch": 1,
            "max_length": 2048,
            "device": "cuda",
            "world_size": ranks,
            "sharding": "none" if ranks == 1 else "fsdp",
            "precision": "bf16",
            "weights": "bfloat16",
            "gradient_checkpointing": True,
            **changes,
        }
    )
    suite = Suite(name="published", settings=settings, methods=ROUNDED if changes else METHODS)
    needs = predict(suite, 80 * 10**9, advised=False).needs
    return {need.method: need.peak / 1e9 for need in needs if need.peak is not None}


if __name__ == "__main__":
    main()
