"""Numbers of rows of a generated data set, whose source has no end."""

from hpml_bench.suite.settings import Settings

POOL = 8  # multiple of `train_samples` to generate where each seed draws its own rows


def split_sizes(settings: Settings) -> dict[str, int]:
    """Return split -> number of rows to generate: as the settings say, else a default."""
    train = settings.train_samples or 1024
    return {
        "train": train * POOL if settings.vary_data else train,
        "validation": settings.validation_samples or 500,
        "test": settings.test_samples or 1000,
    }
