"""Random faults at random moments (`benchmarks/soak.py`, of which `tox -e soak` does more)."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import soak

SEED = 20


@pytest.mark.slow
def test_a_sweep_that_is_hit_five_times_ends_as_an_undisturbed_one() -> None:
    """Five faults: `run-all` completes, losses and predictions are the same to the bit, and nothing is left."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as name:
        undisturbed = soak.new_sweep(Path(name), "undisturbed", "head", 4)
        assert soak.disturb(random.Random(0), undisturbed, []) == ([], [])
        expected = soak.content(undisturbed.folder)
        assert len(expected) == 4
        sweep = soak.new_sweep(Path(name), "disturbed", "head", 4)
        segments = soak.shared_memory()
        events, left = soak.disturb(rng, sweep, [rng.uniform(1, 4) for _ in range(5)])
        assert len(events) == 5
        assert left == [], events
        assert soak.leftovers(sweep) == [], events
        assert soak.content(sweep.folder) == expected, events
        left_behind = soak.shared_memory() - segments
        assert not [name for name in left_behind if name.startswith(("torch", "psm", "sem.mp-"))]


def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    """Its own eyes: another prediction or loss is another content, and a fault without a target is none."""
    import recorded

    recorded.write(tmp_path / "a", recorded.sweep(("lora",), 1))
    recorded.write(tmp_path / "b", recorded.sweep(("lora",), 1))
    assert soak.content(tmp_path / "a") == soak.content(tmp_path / "b") != {}
    (points,) = (tmp_path / "b").glob("*/points.jsonl")
    points.write_text(points.read_text().replace('"train_loss","step":10,"value":', '"train_loss","step":10,"value":1'))
    assert soak.content(tmp_path / "a") != soak.content(tmp_path / "b")
    assert Counter(soak.hit(random.Random(0), [], 9) for _ in range(3)) == {False: 3}  # type: ignore[arg-type]
