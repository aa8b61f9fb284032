"""Ranks of a machine do some things in turn."""

from __future__ import annotations

import pytest
import torch

from hpml_bench.training.distributed import Group


@pytest.mark.parametrize("fails", [False, True])
def test_a_rank_goes_after_as_many_meetings_as_ranks_are_before_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks meet equally often, on each machine; one that raises lets the next go on."""
    meetings: list[str] = []
    monkeypatch.setattr(Group, "barrier", lambda _: meetings.append("meet"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for rank in range(6):
        meetings.clear()
        monkeypatch.setenv("LOCAL_RANK", str(rank % 3))
        try:
            with Group(rank, 6, torch.device("cpu")).in_turn():
                meetings.append("load")
                if fails:
                    raise ValueError
        except ValueError:
            assert fails
        assert meetings.index("load") == rank % 3
        assert meetings.count("meet") == 3
