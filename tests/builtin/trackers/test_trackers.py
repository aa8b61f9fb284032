"""Trackers: one file is enough for a new one, which follows the runs of a sweep and publishes its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers import made_records
from helpers.plugin_packages import forget, install
from hpml_bench.cli import main
from hpml_bench.plugins.tracker import follow_all, make_trackers
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError

NOTEBOOK = '''
"""Keeps what it is told in a list, as a service would."""
from contextlib import contextmanager
from hpml_bench.system.errors import UserError
from hpml_bench.plugins.tracker import Tracker

TOLD = []

class Notebook(Tracker):
    @classmethod
    def choose_mode(cls, asked):
        if asked not in {"on", "auto"}:
            raise UserError(f"--tracker notebook={asked}: give on")
        return "on" if asked == "on" else "off"

    @contextmanager
    def follow(self, spec, folder, results_folder):
        TOLD.append(("began", spec.run_id, folder.parent == results_folder))
        yield
        TOLD.append(("ended", spec.run_id))

    def publish(self, folder, records, tables, page):
        TOLD.append(("published", sorted({record.spec.method.name for record in records}), page and page.name))
        return f"{len(records)} runs are in the notebook"
'''


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(monkeypatch, tmp_path / "package", "trackers", notebook=NOTEBOOK)
    yield
    monkeypatch.undo()
    forget()


def spec(seed: int) -> RunSpec:
    return made_records.record("lora", seed).spec


@pytest.mark.usefixtures("notebook")
def test_a_tracker_of_another_package_follows_and_publishes(tmp_path: Path) -> None:
    """It is found by its entry point, called around each run, and its sentence ends `hpml-bench report`."""
    trackers = make_trackers({"wandb": "off", "notebook": "on"})
    told = registry.get("trackers", "notebook").TOLD
    with follow_all(trackers, spec(0), tmp_path / "r", tmp_path):
        assert told == [("began", spec(0).run_id, True)]
    assert told[-1] == ("ended", spec(0).run_id)
    folder = made_records.write(tmp_path / "example", made_records.sweep(("lora", "full"), 1))
    result = CliRunner().invoke(main, ["report", str(folder), "--format", "md", "--tracker", "notebook=on"])
    assert result.exit_code == 0, result.output
    assert told[-1] == ("published", ["full", "lora"], None)
    assert "2 runs are in the notebook" in result.output
    assert "notebook" in CliRunner().invoke(main, ["list", "trackers"]).output


@pytest.mark.usefixtures("notebook")
def test_a_tracker_that_is_off_is_left_out() -> None:
    """Off by what is asked, or by its own choice; a mode it doesn't know, and a tracker nobody knows, are told."""
    assert make_trackers({"notebook": "off"}) == ()
    assert make_trackers({"notebook": "auto"}) == ()
    with pytest.raises(UserError, match="give on"):
        make_trackers({"notebook": "maybe"})
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
