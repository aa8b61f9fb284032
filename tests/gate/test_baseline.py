"""Saved runs: what is stored, what is refused, what is compared."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from residents import QUIET, asked, fake

from hpml_bench.gate import baseline, page, verdicts
from hpml_bench.gate.records import CheckReport, TimedRun
from hpml_bench.gate.sides import OutOfTime
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("quiet_machine")

NOISY = "0.04 * __import__('random').uniform(0.999, 1.001)"


def installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: str = NOISY, **more: Any
) -> None:
    """Let what is installed be a resident that answers at once."""
    there = fake(folder, seconds, **more)
    monkeypatch.setattr(baseline, "Installation", lambda *_: there)


def edit(saved: Path, **changes: Any) -> None:
    """Change a baseline's file: `moved` to other hardware, `settings`, or let its first runs be
    `disturbed`.
    """
    stored = json.loads(saved.read_text())
    if "moved" in changes:
        here = environment.describe()
        stored["environment"] |= {
            "fingerprint": "another" if changes["moved"] else here["fingerprint"]
        }
        stored["environment"]["hardware"]["cpu"] = "Z80"
    stored["settings"].update(changes.get("settings", {}))
    for run in stored["runs"][: changes.get("disturbed", 0)]:
        run["disturbed"] = "the host took 9%"
    saved.write_text(json.dumps(stored))


def statuses(report: CheckReport) -> list[str]:
    return [verdict.status for verdict in report.verdicts]


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "disturbance", lambda *_: QUIET)
        installed(patch, folder / "then")
        baseline.save(asked(), folder / "base.json", 10, lambda _: None)
    return folder / "base.json"


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(saved_once, tmp_path / "base.json"))


def test_the_same_again_passes_and_what_is_slower_fails(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stored run has its own process's times and calibrations; the report holds both sides'
    runs.

    Of ten runs on either side four percent is a slower step, and a further operator fails too.
    """
    kept = baseline.load(saved)
    assert len(kept.runs) == 10
    assert all(len(run.calibration) == baseline.ROUNDS + 1 for run in kept.runs)
    assert kept.counts["lora"]["operators_per_step"]["value"] == 10
    installed(monkeypatch, tmp_path / "now")
    report = baseline.check(asked(), saved, lambda _: None)
    assert statuses(report) == ["PASS", "PASS"]
    assert len(report.runs) == len(report.reference_runs) == 10
    assert verdicts.exit_status(report.verdicts, strict=True) == 0
    shown = page.html(report)
    assert "10 now, 10 stored" in shown
    assert "Each run is a newly started interpreter, corrected by work" in shown
    assert page.facts(report)["Rule"].endswith(
        "error rates between sessions that lie apart are not known"
    )
    assert "runs" in page.step_times(report).columns
    assert not [
        text for text in ("Process pairs", "false alarms", "figure-blocks") if text in shown
    ]
    installed(monkeypatch, tmp_path / "slower", f"1.04 * {NOISY}", extra=1)
    assert statuses(baseline.check(asked(), saved, lambda _: None)) == ["FAIL", "FAIL"]


@pytest.mark.parametrize(("extra", "status", "strict"), [(0, 0, 3), (1, 1, 1)])
def test_other_hardware(
    extra: int,
    status: int,
    strict: int,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step time is INCOMPARABLE, never a failure, and no run is made; an exact count that grew
    fails all the same.

    One with a tolerance is of its hardware.
    """
    edit(saved, moved=True)
    installed(monkeypatch, tmp_path / "now", extra=extra)
    report = baseline.check(asked(), saved, lambda _: None)
    assert statuses(report) == ["INCOMPARABLE", "FAIL" if extra else "PASS"]
    assert "Z80" in report.verdicts[0].detail
    assert report.runs == ()
    assert [verdicts.exit_status(report.verdicts, strict=of) for of in (False, True)] == [
        status,
        strict,
    ]
    stored = json.loads(saved.read_text())
    stored["counts"]["lora"]["operators_per_step"]["tolerance"] = 0.01
    saved.write_text(json.dumps(stored))
    installed(monkeypatch, tmp_path / "tolerant", slack=0.01)
    assert baseline.check(replace(asked(), time=False), saved, lambda _: None).counts == ()
    edit(saved, moved=False)
    assert (
        baseline.check(replace(asked(), time=False), saved, lambda _: None).counts[0].tolerance
        == 0.01
    )


@pytest.mark.parametrize(
    ("stored", "here", "moved"),
    [
        ({}, {"global_batch": 8}, False),
        ({"precision": "bf16"}, {"precision": "fp32"}, True),
    ],
)
def test_other_work_is_refused(
    stored: dict[str, Any], here: dict[str, Any], moved: bool, saved: Path
) -> None:
    """A setting changed since, on whatever hardware; another method."""
    edit(saved, moved=moved, settings=stored)
    request = asked()
    changed = replace(request, settings=request.settings.model_copy(update=here))
    with pytest.raises(UserError, match=f"another settings.{next(iter(here))}"):
        baseline.check(changed, saved, lambda _: None)
    with pytest.raises(UserError, match="has no adapter, but lora"):
        baseline.check(asked("adapter"), saved, lambda _: None)


@pytest.mark.parametrize("extra", [0, 1])
def test_disturbed_runs_are_named_and_a_count_s_failure_stands(
    extra: int, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs stored as disturbed don't count; where all were, the time is undecided and the counts
    are judged.
    """
    edit(saved, disturbed=2)
    installed(monkeypatch, tmp_path / "now", extra=extra)
    some = baseline.check(asked(), saved, lambda _: None)
    assert some.notes == (
        f"2 of 10 stored runs of {saved} were disturbed and don't count: 1 (the host took 9%), 2 "
        f"(the host took 9%)",
    )
    assert some.verdicts[0].pairs == 10
    edit(saved, disturbed=10)
    none = baseline.check(asked(), saved, lambda _: None)
    assert statuses(none) == ["INCONCLUSIVE", "FAIL" if extra else "PASS"]
    assert verdicts.exit_status(none.verdicts, strict=False) == (1 if extra else 2)
    assert "were disturbed" in page.html(none)


def test_without_runs_of_now_the_time_is_undecided(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it ran out; the page says so."""

    def late(*_: object) -> None:
        raise OutOfTime("the time was up")

    monkeypatch.setattr(baseline, "_run", late)
    installed(monkeypatch, tmp_path / "now")
    report = baseline.check(asked(), saved, lambda _: None)
    assert statuses(report) == ["INCONCLUSIVE", "PASS"]
    assert [v.status for v in verdicts.of_runs({"lora": [0.0] * 10}, {}, report.rules)] == [
        "INCONCLUSIVE"
    ]
    for text in ("0 now, 10 stored", "the time was up before", "No step was timed"):
        assert text in page.html(report)


@pytest.mark.parametrize(
    "content", [None, "", '{"name": "package.json"}', '{"kind": "hpml-bench baseline", "su']
)
def test_a_damaged_or_foreign_file_is_one_sentence(content: str | None, tmp_path: Path) -> None:
    """No traceback; what to do."""
    if content is not None:
        (tmp_path / "base.json").write_text(content)
    with pytest.raises(UserError, match=r"base.json: (is truncated or no baseline|can't be read)"):
        baseline.check(asked(), tmp_path / "base.json", lambda _: None)


def test_what_is_saved_is_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer runs would promise what they can't keep; a run has what disturbed it, and whoever
    saves it is told.
    """
    monkeypatch.setattr(
        baseline, "disturbance", lambda *_: {"steal": 0.5, "load": 0.0, "disturbed": "stolen"}
    )
    installed(monkeypatch, tmp_path / "then")
    said: list[str] = []
    with pytest.raises(UserError, match=r"nothing was saved|did not answer before the time was up"):
        baseline.save(asked(minutes=0.001), tmp_path / "base.json", 10, said.append)
    assert not (tmp_path / "base.json").exists()
    baseline.save(asked(), tmp_path / "base.json", 2, said.append)
    assert [run.disturbed for run in baseline.load(tmp_path / "base.json").runs] == [
        "stolen",
        "stolen",
    ]
    assert "2 of 2 runs made were disturbed and don't count: 1 (stolen), 2 (stolen)" in said


def test_the_machine_s_speed_is_taken_out() -> None:
    """A run on a machine that is a tenth slower in everything is the same run."""

    def run(speed: float) -> TimedRun:
        fields: dict[str, Any] = {"steps": {"lora": 2}, "steal": 0.0, "load": 0.0}
        calibration = ({"matrix_product": 0.01 * speed, "memory_copy": 0.002 * speed},) * 2
        return TimedRun(seconds={"lora": (0.08 * speed,) * 4}, calibration=calibration, **fields)

    (quick, slow) = verdicts.run_effects([run(1.0), run(1.1)], ["lora"])["lora"]
    assert quick == pytest.approx(slow)
    assert quick == pytest.approx(math.log(0.04) - (math.log(0.01) + math.log(0.002)) / 2)
