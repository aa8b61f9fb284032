"""Trackers: which are chosen, and what a report says of them; one of another package is in tests/test_adding.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers import made_records
from hpml_bench.builtin.trackers.wandb import Wandb
from hpml_bench.cli import main
from hpml_bench.plugins.tracker import make_trackers
from hpml_bench.system.errors import UserError


def test_a_report_ends_with_where_its_runs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker gets the records of all runs, and the page where one is written."""
    told = []
    monkeypatch.setattr(Wandb, "publish", lambda _, folder, records, tables, page: told.append((records, page)) or "X!")
    folder = made_records.write(tmp_path / "example", made_records.sweep(("lora", "full"), 1))
    result = CliRunner().invoke(main, ["report", str(folder), "--format", "md", "--track", "wandb=offline"])
    assert result.exit_code == 0, result.output
    assert "X!" in result.output
    assert [(len(records), page) for records, page in told] == [(2, None)]


def test_a_tracker_that_is_off_is_left_out() -> None:
    """Off by what is asked, or by its own choice; a tracker nobody knows, and one without a service, are told."""
    assert make_trackers({"wandb": "off"}) == make_trackers({"accelerate": "auto"}) == ()
    with pytest.raises(UserError, match=r"there is no tracker 'diary'; there are .*mlflow, .*tensorboard, "):
        make_trackers({"diary": "on"})
    with pytest.raises(UserError, match="name a service, one of mlflow, tensorboard, trackio"):
        make_trackers({"accelerate": "on"})


@pytest.mark.parametrize("given", ["=on", "notebook=", "notebook=on,mlflow="])
def test_half_a_tracker_is_refused(tmp_path: Path, given: str) -> None:
    """`--track` takes names, each alone or with a mode."""
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--track", given])
    assert result.exit_code == 2
    assert "write NAME or NAME=MODE" in result.output
