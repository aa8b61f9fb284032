"""Saved runs: what is stored, what is refused, what is compared."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from residents import asked, fake

from helpers import made_checks
from hpml_bench.gate import baseline
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.measure import machine
from hpml_bench.gate.records import TimedRun
from hpml_bench.gate.render import outputs, tables
from hpml_bench.system.errors import UserError

NOISY = "0.04 * __import__('random').uniform(0.999, 1.001)"


@pytest.fixture(autouse=True)
def quiet_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be quiet, whatever else runs on it; a test may have it otherwise."""
    monkeypatch.setattr(baseline, "between", lambda *_: machine.Disturbance(0.0, 0.0, None))


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: str = NOISY, extra: int = 0) -> None:
    """Let what is installed be a resident that answers at once."""
    there = fake(folder, seconds, extra)
    monkeypatch.setattr(baseline, "Installation", lambda *_: there)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of ten runs, of which each test has a copy."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "between", lambda *_: machine.Disturbance(0.0, 0.0, None))
        installed(patch, folder / "then")
        baseline.save(asked(), folder / "base.json", 10, lambda _: None)
    return folder / "base.json"


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """A baseline of ten runs."""
    return Path(shutil.copy(saved_once, tmp_path / "base.json"))


def test_ten_runs_are_separate_and_calibrated(saved: Path) -> None:
    """Each run has its own process's times and calibrations; the file has hardware and counts."""
    kept = baseline.load(saved)
    assert len(kept.runs) == 10
    assert all(len(run.calibration) == baseline.ROUNDS + 1 for run in kept.runs)
    assert kept.environment["fingerprint"]
    assert kept.counts["lora"]["operators_per_step"]["value"] == 10


def test_the_same_again_passes(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and counts; the report holds both sides' runs."""
    installed(monkeypatch, tmp_path / "now")
    report = baseline.check(asked(), saved, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["PASS", "PASS"]
    assert len(report.runs) == len(report.reference_runs) == 10
    assert verdicts.exit_status(report.verdicts, strict=True) == 0


def test_a_slower_step_and_a_further_operator_fail(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four percent by ten runs on either side."""
    installed(monkeypatch, tmp_path / "now", f"1.04 * {NOISY}", extra=1)
    report = baseline.check(asked(), saved, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["FAIL", "FAIL"]


def moved(saved: Path) -> None:
    """Let a baseline be of other hardware."""
    stored = json.loads(saved.read_text())
    stored["environment"]["fingerprint"] = "another"
    stored["environment"]["hardware"]["cpu"] = "Z80"
    saved.write_text(json.dumps(stored))


def test_step_time_on_other_hardware_is_incomparable_never_a_failure(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run is made; both machines are named; only --strict makes it a status of its own."""
    moved(saved)
    installed(monkeypatch, tmp_path / "now")
    report = baseline.check(asked(), saved, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["INCOMPARABLE", "PASS"]
    assert "Z80" in report.verdicts[0].detail
    assert report.runs == ()
    assert verdicts.exit_status(report.verdicts, strict=False) == 0
    assert verdicts.exit_status(report.verdicts, strict=True) == 3


def test_a_count_that_grew_fails_on_other_hardware_too(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted exactly depends on no machine; what has a tolerance may, and is left out."""
    moved(saved)
    installed(monkeypatch, tmp_path / "now", extra=1)
    report = baseline.check(asked(), saved, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["INCOMPARABLE", "FAIL"]
    assert verdicts.exit_status(report.verdicts, strict=False) == 1
    stored = baseline.load(saved)
    rough = {"lora": {"operators_per_step": {**stored.counts["lora"]["operators_per_step"], "tolerance": 0.01}}}
    assert baseline._counts(rough, rough, same=False) == ()
    assert len(baseline._counts(rough, rough, same=True)) == 1


def resolved(saved: Path, **settings: Any) -> None:
    """Let a baseline's settings have been resolved to these."""
    stored = json.loads(saved.read_text())
    stored["settings"].update(settings)
    saved.write_text(json.dumps(stored))


@pytest.mark.parametrize("time", [True, False])
def test_settings_that_come_with_other_hardware_are_incomparable_no_mistake(
    time: bool, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bf16 baseline against fp32 here: not even counts, which bf16's casts are among, can fail."""
    moved(saved)
    resolved(saved, precision="bf16")
    installed(monkeypatch, tmp_path / "now", extra=1)
    request = asked()
    here = request.settings.model_copy(update={"precision": "fp32"})
    report = baseline.check(replace(request, settings=here, time=time), saved, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["INCOMPARABLE"]
    assert "Z80" in report.verdicts[0].detail
    assert "settings.precision" in report.verdicts[0].detail
    assert report.counts == ()
    assert verdicts.exit_status(report.verdicts, strict=True) == 3


def test_another_precision_on_the_same_hardware_is_a_mistake(saved: Path) -> None:
    """As any other setting is there; and any other setting is on other hardware too."""
    resolved(saved, precision="bf16")
    request = asked()
    here = request.settings.model_copy(update={"precision": "fp32"})
    with pytest.raises(UserError, match=r"another settings.precision"):
        baseline.check(replace(request, settings=here), saved, lambda _: None)
    moved(saved)
    longer = here.model_copy(update={"global_batch": 8})
    with pytest.raises(UserError, match=r"another settings.global_batch"):
        baseline.check(replace(request, settings=longer), saved, lambda _: None)


@pytest.mark.parametrize("extra", [0, 1])
def test_disturbed_runs_are_named_and_a_count_s_failure_stands(
    extra: int, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs stored as disturbed don't count; where all were, the time is undecided and the counts are judged."""
    stored = json.loads(saved.read_text())
    for run in stored["runs"][:2]:
        run["disturbed"] = "the host took 9%"
    saved.write_text(json.dumps(stored))
    installed(monkeypatch, tmp_path / "now", extra=extra)
    some = baseline.check(asked(), saved, lambda _: None)
    assert some.notes == (
        f"2 of 10 stored runs of {saved} were disturbed and don't count: 1 (the host took 9%), 2 (the host took 9%)",
    )
    assert some.verdicts[0].pairs == 10
    for run in stored["runs"]:
        run["disturbed"] = "the host took 9%"
    saved.write_text(json.dumps(stored))
    none = baseline.check(asked(), saved, lambda _: None)
    assert [verdict.status for verdict in none.verdicts] == ["INCONCLUSIVE", "FAIL" if extra else "PASS"]
    assert verdicts.exit_status(none.verdicts, strict=False) == (1 if extra else 2)
    assert "were disturbed" in outputs.html(none)


def test_a_run_is_recorded_with_what_disturbed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever saves it is told."""
    monkeypatch.setattr(baseline, "between", lambda *_: machine.Disturbance(0.5, 0.0, "stolen"))
    installed(monkeypatch, tmp_path / "then")
    said: list[str] = []
    baseline.save(asked(), tmp_path / "base.json", 2, said.append)
    assert [run.disturbed for run in baseline.load(tmp_path / "base.json").runs] == ["stolen", "stolen"]
    assert "2 of 2 runs made were disturbed and don't count: 1 (stolen), 2 (stolen)" in said


def test_no_error_rates_are_claimed_against_a_baseline(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold for pairs that take turns; the report's rule says so, and counts runs."""
    installed(monkeypatch, tmp_path / "now")
    report = baseline.check(asked(), saved, lambda _: None)
    assert "false alarms" not in tables.facts(report)["Rule"]
    assert tables.facts(report)["Rule"].endswith("error rates between sessions that lie apart are not known")
    assert "runs" in tables.step_times(report).columns
    assert "at most 1 % false alarms" in tables.rule(made_checks.report())


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "empty"])
def test_a_damaged_or_foreign_file_is_one_sentence(damage: str, saved: Path) -> None:
    """No traceback; what to do."""
    text = saved.read_text()
    contents = {"truncated": text[: len(text) // 2], "foreign": '{"name": "package.json"}', "empty": ""}
    if damage == "missing":
        saved.unlink()
    else:
        saved.write_text(contents[damage])
    with pytest.raises(UserError, match=r"base.json: (is truncated or no baseline|can't be read)"):
        baseline.check(asked(), saved, lambda _: None)


def test_other_work_is_refused(saved: Path) -> None:
    """Another method, or a setting changed since."""
    with pytest.raises(UserError, match="has no adapter, but lora"):
        baseline.check(asked("adapter"), saved, lambda _: None)
    request = asked()
    longer = replace(request, settings=request.settings.model_copy(update={"global_batch": 8}))
    with pytest.raises(UserError, match=r"another settings.global_batch"):
        baseline.check(longer, saved, lambda _: None)


def test_a_baseline_cut_short_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer runs than asked for would promise what they can't keep."""
    installed(monkeypatch, tmp_path / "then")
    with pytest.raises(UserError, match=r"nothing was saved|did not answer before the time was up"):
        baseline.save(asked(minutes=0.001), tmp_path / "base.json", 10, lambda _: None)
    assert not (tmp_path / "base.json").exists()


def test_the_machine_s_speed_is_taken_out() -> None:
    """A run on a machine that is a tenth slower in everything is the same run."""

    def run(speed: float) -> TimedRun:
        fields: dict[str, Any] = {"steps": {"lora": 2}, "steal": 0.0, "load": 0.0}
        calibration = ({"matrix_product": 0.01 * speed, "memory_copy": 0.002 * speed},) * 2
        return TimedRun(seconds={"lora": (0.08 * speed,) * 4}, calibration=calibration, **fields)

    (quick, slow) = verdicts.run_effects([run(1.0), run(1.1)], ["lora"])["lora"]
    assert quick == pytest.approx(slow)
    assert quick == pytest.approx(math.log(0.04) - (math.log(0.01) + math.log(0.002)) / 2)
