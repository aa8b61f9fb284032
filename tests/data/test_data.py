"""The order of training and the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import tiny
from hpml_bench.data.prepared import MemoryNeed, global_batches, largest, pieces
from hpml_bench.plugins.rows import Rows

LENGTHS = np.random.default_rng(0).integers(3, 60, 200)


def test_an_epoch_holds_every_row_at_most_once() -> None:
    """No row twice within an epoch; what doesn't fill a last batch is left out, another part each epoch.

    The same seed gives the same batches, another seed others.
    """
    batches = list(global_batches(LENGTHS, 16, steps=24, seed=3))
    first, second = np.concatenate(batches[:12]), np.concatenate(batches[12:])
    assert len(set(first.tolist())) == 192
    assert set(first.tolist()) != set(second.tolist())
    one, again, other = ([b.tolist() for b in global_batches(LENGTHS, 16, 12, seed)] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_batches_are_of_like_length() -> None:
    """Bucketing by length saves most of the padding that shuffled batches have."""
    bucketed = sum(LENGTHS[b].max() * len(b) for b in global_batches(LENGTHS, 8, 25, 0))
    shuffled = sum(LENGTHS[b].max() * len(b) for b in np.random.default_rng(0).permutation(200).reshape(25, 8))
    assert bucketed - LENGTHS.sum() < 0.25 * (shuffled - LENGTHS.sum())


def test_rows_come_padded_on_the_right(tmp_path: Path) -> None:
    """A batch is the rows' own tokens, pads after them, and a mask that tells them apart; tokens count without pads."""
    rows = Rows(Path(tiny.prepared(tmp_path, rows=30).data) / "train", pad_id=7)
    batch = rows.batch(np.array([3, 9, 4]))
    for line, index in enumerate((3, 9, 4)):
        length = rows.lengths[index]
        assert batch.input_ids[line, :length].tolist() == rows.tokens(index).tolist()
        assert batch.input_ids[line, length:].eq(7).all()
        assert batch.attention_mask[line].sum() == length
    assert batch.real_tokens == rows.lengths[[3, 9, 4]].sum()
    assert batch.padded_tokens == 3 * rows.lengths[[3, 9, 4]].max()


def test_pieces_have_a_limit_of_targets_too() -> None:
    """Ten rows in pieces of four at most: as many as before where targets are few; one row that has too many alone."""
    order, few = np.arange(10)[::-1], np.ones(10, dtype=np.int64)
    assert [part.tolist() for part in pieces(order, few, 4, 4)] == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]
    assert [part.tolist() for part in pieces(order, few, 4, 3)] == [[9, 8, 7], [6, 5, 4], [3, 2, 1], [0]]
    assert [part.tolist() for part in pieces(np.arange(4), np.array([9, 1, 2, 1]), 3, 3)] == [[0], [1, 2], [3]]


def test_the_largest_passes_are_those_that_no_other_exceeds() -> None:
    """The longest, the one with most targets, and those between; none that has less of both, and one of equal ones."""
    needs = [(50, 10), (100, 1), (60, 5), (40, 20), (60, 5), (100, 1), (45, 12), (50, 9)]
    found = largest((MemoryNeed(*need), number) for number, need in enumerate(needs))
    assert sorted(found) == [0, 1, 2, 3, 6]
