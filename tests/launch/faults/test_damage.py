"""Damaged records and files: said, kept beside the runs, and run again; never a crash, never averaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from soak import content

from helpers import tiny
from hpml_bench.cli import main
from hpml_bench.records.files import SET_ASIDE
from hpml_bench.records.load import load_records


def run_all(suite: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["run-all", str(suite), "--out", str(out), "--wandb", "off", *options])


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("colours")
    suite = tiny.local_suite(folder)
    result = run_all(suite, folder / "out", "--seeds", "3")
    assert result.exit_code == 0, result.output
    return suite, folder / "out/colours"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def later_version(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated": ("run.json", truncate, "not readable"),
    "garbage": ("run.json", lambda path: path.write_bytes(b"\x00\xff{]" * 50), "not readable"),
    "unknown version": ("run.json", later_version, "schema version 99"),
    "torn line": ("points.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-20]), "not the file"),
    "predictions cut": ("predictions.parquet", truncate, "not the file"),
}


def test_damaged_runs_are_set_aside_and_done_again(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Five runs damaged, each in another way: the report leaves them out and says so; run-all makes them anew."""
    suite, before = finished_runs
    folder = tmp_path / "colours"
    shutil.copytree(before, folder)
    *damaged, whole = sorted(path.parent.name for path in folder.glob("*/run.json"))
    kept = {}
    for run, (name, damage, _) in zip(damaged, DAMAGES.values(), strict=True):
        damage(folder / run / name)
        kept[run] = (name, (folder / run / name).read_bytes())
    stamp = (folder / whole / "run.json").stat().st_mtime_ns

    loaded = load_records(folder)
    assert [record.run_id for record in loaded.records] == [whole]
    for run, (name, _, words) in zip(damaged, DAMAGES.values(), strict=True):
        (told,) = [problem for problem in loaded.problems if run in problem]
        assert name in told
        assert words in told

    result = run_all(suite, tmp_path, "--seeds", "3")
    assert result.exit_code == 0, result.output
    assert "1 of 6 runs are recorded already" in result.output
    assert content(folder) == content(before)
    assert (folder / whole / "run.json").stat().st_mtime_ns == stamp
    for run, (name, then) in kept.items():
        assert f"{run}: {name} is" in result.output.replace("\n", "")
        copy = folder / SET_ASIDE / f"{run}.1" / (name if name != "run.json" else "run.json.damaged")
        assert copy.read_bytes() == then
    assert load_records(folder).problems == ()


def test_a_record_is_read_with_its_own_files_alone(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """A record whose points are gone, or are others, is not read; the report says which, and run-all does it again."""
    run = min(finished_runs[1].glob("*/run.json")).parent
    shutil.copytree(run, tmp_path / run.name)
    assert len(load_records(tmp_path).records) == 1
    (tmp_path / run.name / "points.jsonl").unlink()
    (told,) = load_records(tmp_path).problems
    assert "points.jsonl is missing" in told
    (tmp_path / run.name / "points.jsonl").write_text("{}\n")
    (told,) = load_records(tmp_path).problems
    assert "points.jsonl is not the file that was recorded" in told
    assert load_records(tmp_path).records == ()
