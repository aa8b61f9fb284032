"""A number for each text."""

from __future__ import annotations

import numpy as np

from hpml_bench.starter.entries import Entry
from hpml_bench.starter.kinds.heads import pooling
from hpml_bench.starter.view import Kind, View, nothing


def _options(view: View) -> tuple[Entry, ...]:
    return (pooling(view),)


def _spread(view: View) -> tuple[str, ...]:
    """Return the range of the numbers in words, with the RMSE of guessing their mean."""
    values = np.asarray(view.loaded.train["label"][:], dtype=np.float64)
    return (
        f"The numbers of the training rows are from {values.min():g} to {values.max():g}, with a mean of "
        f"{values.mean():.4g}; guessing the mean has an RMSE of {values.std():.4g}.",
    )


KIND = Kind("regression", _options, nothing, _spread)
