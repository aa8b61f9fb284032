"""The order of training and the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import tiny
from hpml_bench.data.rows import Rows, global_batches, shard

LENGTHS = np.random.default_rng(0).integers(3, 60, 200)


def test_an_epoch_holds_every_row_at_most_once() -> None:
    """No row twice within an epoch; what doesn't fill a last batch is left out, another part each epoch."""
    batches = list(global_batches(LENGTHS, 16, steps=24, seed=3))
    first, second = np.concatenate(batches[:12]), np.concatenate(batches[12:])
    assert len(set(first.tolist())) == 192
    assert set(first.tolist()) != set(second.tolist())


def test_the_order_depends_on_the_seed_alone() -> None:
    """The same seed gives the same batches, another seed others."""
    one, again, other = ([b.tolist() for b in global_batches(LENGTHS, 16, 12, seed)] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_batches_are_of_like_length() -> None:
    """Bucketing by length saves most of the padding that shuffled batches have."""
    bucketed = sum(LENGTHS[b].max() * len(b) for b in global_batches(LENGTHS, 8, 25, 0))
    shuffled = sum(LENGTHS[b].max() * len(b) for b in np.random.default_rng(0).permutation(200).reshape(25, 8))
    assert bucketed - LENGTHS.sum() < 0.25 * (shuffled - LENGTHS.sum())


def test_shares_make_up_the_global_batch() -> None:
    """The ranks' shards are disjoint and together the whole batch."""
    batch = np.arange(12)
    shards = [shard(batch, rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(shards).tolist()) == batch.tolist()
    assert {len(part) for part in shards} == {4}


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
