"""Sweeps on a real Slurm of two nodes: what users do with them, while nothing breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from two_nodes import Disturbed

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]


def test_a_sweep_equals_a_local_one(disturbed: Make, truth: dict[str, Any]) -> None:
    """A job a seed, each on its node; all losses, norms and predictions are those of a sweep without a cluster.

    Protection: settings are resolved once (resolved.json), and runs are what the plan says, wherever they run.
    """
    sweep = disturbed()
    assert sweep.open(seeds=2).submit(again=True) == 2
    assert sweep.complete()
    assert sweep.content() == truth
    where = [record.environment["where"] for record in sweep.sweep.records()]
    assert {(place["unit"], place["host"]) for place in where} in ({(0, "n1"), (1, "n2")}, {(0, "n2"), (1, "n1")})
    assert [how for _, how in sweep.starts()] == ["done", "done"]
    assert not sweep.left()
    assert not sweep.attempts()
