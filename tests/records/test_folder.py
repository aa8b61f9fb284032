"""Folders of runs and results: what is set aside, and links in the place of folders and locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpml_bench.records.files import RECORD, SET_ASIDE
from hpml_bench.records.folder import RunFolder, locked
from hpml_bench.system.errors import UserError


def test_set_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    """With `run.1` gone and `run.2` there, the next damaged run is `run.1`, and the one after it `run.3`."""
    (tmp_path / SET_ASIDE / "run.2").mkdir(parents=True)
    names = []
    for _ in range(2):
        (tmp_path / "run").mkdir()
        names.append(RunFolder(tmp_path / "run").set_aside().name)
    assert names == ["run.1", "run.3"]


def test_a_link_is_set_aside_and_not_followed(tmp_path: Path) -> None:
    """Of a run's folder that is a link only the link is moved; what it leads to stays as it was."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "results"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / RECORD).write_text("mine")
    (folder / "run").symlink_to(elsewhere)
    RunFolder(folder / "run").set_aside()
    assert (elsewhere / RECORD).read_text() == "mine"


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    """A results folder whose lock or holder's file is a link to a file of the user's leaves that file alone."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".lock-holder.json").symlink_to(mine)
    with locked(tmp_path):
        assert not (tmp_path / ".lock-holder.json").is_symlink()
    (tmp_path / ".lock").unlink(missing_ok=True)
    (tmp_path / ".lock").symlink_to(mine)
    with pytest.raises(UserError, match="a link"), locked(tmp_path):
        pass
    assert mine.read_text() == "mine"
