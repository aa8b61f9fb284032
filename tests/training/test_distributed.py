"""Ranks of a machine do some things in turn; one that is alone is open to nobody."""

from __future__ import annotations

import _thread
import sys

import psutil
import pytest
import torch

from helpers import tiny
from hpml_bench.plugins.group import Group


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


def listening() -> set[tuple[str, int]]:
    """Return the addresses and ports on which this process takes connections."""
    found = psutil.Process().net_connections("tcp")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


def test_a_group_of_one_rank_listens_on_the_loopback_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `check` makes them, for ten minutes: whoever reaches a group's store can write to it."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    before = listening()
    with tiny.alone() as group:
        assert group.gather(torch.ones(1)).tolist() == [[1.0]]
        assert {address for address, _ in listening() - before} <= {"127.0.0.1"}


def test_the_interpreters_lock_is_let_go_before_a_group_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of gloo need it to drop their last work; who frees the group holds it, and would wait for ever."""
    ran: list[bool] = []
    seen: list[bool] = []
    destroy = torch.distributed.destroy_process_group
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: (seen.append(bool(ran)), destroy()))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)  # another thread runs only when this one lets it
    try:
        with tiny.alone():
            _thread.start_new_thread(ran.append, (True,))
    finally:
        sys.setswitchinterval(before)
    assert seen == [True]
