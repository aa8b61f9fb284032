"""wandb gets hostile text as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from payloads import attack, folder

from helpers.fake_wandb import runs_below
from hpml_bench.builtin.trackers.wandb import Wandb
from hpml_bench.records.load import load_records
from hpml_bench.report.render import all_tables, load, page_of
from hpml_bench.system.text import sanitize


def test_hostile_runs_are_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run and the comparison are kept whole, texts to the letter, and nothing is written elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = folder(tmp_path / "reports" / "one", attack())
    before = {path for path in tmp_path.rglob("*") if "wandb" not in path.parts}
    results = load(place)
    records = load_records(place).records
    sentence = Wandb("offline").publish(place, records, lambda: all_tables(page_of(results)))
    assert sentence is not None, capsys.readouterr().err
    assert "kept offline" in sentence
    runs = runs_below(place)
    assert len(runs) == len(load_records(place).records) + 1
    for name, run in runs.items():
        assert run["config"]["suite"] == attack(), "to the letter"
        assert run["group"].startswith(attack())
        if name == "comparison":
            cells = [cell for shown in run["tables"].values() for row in shown["data"] for cell in row]
            assert cells.count(sanitize(attack())) >= 3, "as one line, as in the report's own tables"
        else:
            assert run["config"]["settings"]["dataset"] == {"name": attack(), "options": {attack(): attack()}}
    assert {path for path in tmp_path.rglob("*") if not {"wandb", "home"} & set(path.parts)} <= before
