"""Model and data on local disk, from which the ranks start; and a run's batches of it, per rank
and per pass.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from hpml_bench.plugins.decoding import Scaffold
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Digests

BUCKET = 32
"""Global batches sorted by length together: large enough to save most padding, small enough to
keep batches varied.
"""


T = TypeVar("T")


class Prepared(Frozen):
    """Model and data on local disk, ready for the ranks."""

    backbone: str  # folder of the pretrained model
    # folder with train, validation and test as Arrow streams of `input_ids` (list of int32) and
    # `label`
    data: str
    label_names: tuple[str, ...] = ()
    facts: dict[str, float] = Field(default_factory=dict)
    """Facts that the task computed from the training rows, such as the mean of the targets."""
    digests: Digests
    rows: dict[str, int] = Field(default_factory=dict)  # split -> number of rows
    notes: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """Sentences for the user before the runs start, such as on rows left out for their length."""
    pad_id: int
    stop_ids: tuple[int, ...] = ()  # tokens that end a generated answer
    scaffold: Scaffold = (
        Scaffold()
    )  # text that the template puts around the content of a generated answer


def global_batches(lengths: np.ndarray, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `steps` global batches of `size` row indices each; these arguments alone determine
    them.

    Every epoch is a new permutation, less the rows that don't fill a last batch. Within buckets of
    batches rows are sorted by length and the batches shuffled again, so that a batch pads little:
    for all methods alike.
    """
    epoch, done = 0, 0
    while done < steps:
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(lengths))[: len(lengths) // size * size]
        batches: list[np.ndarray] = []
        for start in range(0, len(order), BUCKET * size):
            bucket = order[start : start + BUCKET * size]
            by_length = bucket[np.argsort(lengths[bucket], kind="stable")]
            batches.extend(by_length.reshape(-1, size))
        for choice in generator.permutation(len(batches))[: steps - done]:
            yield batches[choice]
        done += len(batches)
        epoch += 1


def shard(indices: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Return one rank's part of a global batch: every `world`-th row, so that ranks get rows of
    like length.
    """
    return indices[rank::world]


def pieces(order: np.ndarray, targets: np.ndarray, rows: int, most: int) -> Iterator[np.ndarray]:
    """Yield row indices in pieces of at most `rows` rows and `most` of the rows' `targets`, or
    of one row with more.
    """
    start = 0
    while start < len(order):
        part = order[start : start + rows]
        part = part[: max(1, int((targets[part].cumsum() <= most).sum()))]
        yield part
        start += len(part)


class MemoryNeed(NamedTuple):
    """Sizes that set a pass's memory: activations grow with padded tokens, logits with targets."""

    padded: int
    targets: int


def largest(passes: Iterable[tuple[MemoryNeed, T]]) -> list[T]:
    """Return the passes whose needs no other covers: memory for these is enough for all. Of
    equal ones the first.
    """
    front: dict[MemoryNeed, T] = {}
    for need, what in passes:
        if not any(
            other.padded >= need.padded and other.targets >= need.targets for other in front
        ):
            kept = {
                o: w for o, w in front.items() if o.padded > need.padded or o.targets > need.targets
            }
            front = {**kept, need: what}
    return list(front.values())
