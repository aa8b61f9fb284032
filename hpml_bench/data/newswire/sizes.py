"""Numbers of rows of the generated splits."""

from __future__ import annotations

from hpml_bench.suite.settings import Settings

ROWS = {"train": 1024, "validation": 500, "test": 1000}
"""How many rows where the settings leave it open."""
POOL = 8
"""Times `train_samples` are there where each seed draws its own."""


def split_sizes(settings: Settings) -> dict[str, int]:
    """Return how many rows of each split to generate, the test rows last."""
    return {
        "train": (settings.train_samples or ROWS["train"]) * (POOL if settings.vary_data else 1),
        "validation": settings.validation_samples or ROWS["validation"],
        "test": settings.test_samples or ROWS["test"],
    }
