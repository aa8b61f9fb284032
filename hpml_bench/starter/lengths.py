"""Lengths of the rows in tokens of the model's own tokenizer, and how many of them a suite keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import KEPT, Task
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

MOST_ROWS = 2000
"""Rows whose lengths are taken, drawn from the training rows."""
BATCH = 500
UNLIMITED = 10**6
"""`max_length` that cuts nothing."""
MOST_TOKENS = {"encoder": 512, "language_model": 1024}
"""Largest `max_length` that is chosen, by kind of model: BERT's positions, and the task's own default."""
STEP = 8
"""Lengths are multiples of this."""
VIRTUAL = 32
"""Positions left for the virtual tokens of prompt methods."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of some rows, [rows], and of their prompts, [rows] or none."""

    tokens: NDArray[np.int64]
    prompts: NDArray[np.int64]

    @property
    def answers(self) -> NDArray[np.int64]:
        """Tokens of the last answers with their end, [rows]."""
        return self.tokens - self.prompts

    def in_words(self) -> str:
        """Return median, 99th percentile and maximum."""
        median, high = np.percentile(self.tokens, [50, 99])
        return (
            f"By the model's own tokenizer {len(self.tokens):,} training rows have {median:.0f} tokens in the median, "
            f"{high:.0f} at the 99th percentile and {self.tokens.max():,} at most"
        )

    def longer(self, limit: int) -> str:
        """Return how many rows are longer than a limit, with the verb."""
        count = int((self.tokens > limit).sum())
        if not count:
            return "none is"
        return f"{count:,} ({_percent(count / len(self.tokens))} %) {'is' if count == 1 else 'are'}"


def measure(train: Dataset, task: Task, encoder: Encoder) -> Lengths:
    """Return the lengths of rows drawn from the training rows.

    Raises:
        UserError: a row can't be encoded, or none has anything to learn.

    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST_ROWS])
    tokens: list[int] = []
    prompts: list[int] = []
    for batch in train.select(chosen).iter(BATCH):
        encoded: Mapping[str, list[Any]] = task.encode(batch, encoder)
        tokens += map(len, encoded["input_ids"])
        prompts += encoded["prompt"] if KEPT in encoded else [0] * len(encoded["input_ids"])
    if not tokens:
        raise UserError("no row has a token to learn; give rows with texts")
    return Lengths(np.array(tokens), np.array(prompts))


def choose_limit(lengths: Lengths, positions: int | None, most: int, *, cuts: bool) -> int:
    """Return `max_length`: the 99th percentile where longer texts are cut, the maximum where such rows are left out.

    At most `most`, and what the model's positions leave.
    """
    wanted = float(np.percentile(lengths.tokens, 99)) if cuts else float(lengths.tokens.max())
    limit = min(STEP * math.ceil(max(wanted, 2) / STEP), most)
    return limit if positions is None else max(2, min(limit, positions - min(VIRTUAL, positions // 4)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"
