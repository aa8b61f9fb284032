"""Numbers of rows of the generated splits."""

from __future__ import annotations

from hpml_bench.suite.settings import Settings

POOL = 8
"""Multiple of `train_samples` to generate where each seed draws its own rows."""


def split_sizes(settings: Settings) -> dict[str, int]:
    """Return the number of rows to generate of each split, the test rows last."""
    return {
        "train": (settings.train_samples or 1024) * (POOL if settings.vary_data else 1),
        "validation": settings.validation_samples or 500,
        "test": settings.test_samples or 1000,
    }
