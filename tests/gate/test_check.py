"""A check from request to report, with residents that answer at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from residents import asked, compared, fake

from hpml_bench.gate import check as checks
from hpml_bench.gate.check import Request, check
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.measure import machine, pairs
from hpml_bench.gate.records import CheckReport, Rules
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("quiet_machine")

NOISY = "0.04 * __import__('random').uniform(0.998, 1.002)"


def run(tmp_path: Path, request: Request, candidate: str = NOISY, extra: int = 0) -> CheckReport:
    """Check a candidate's step time and number of operators against the reference's."""
    sides = compared(fake(tmp_path / "a", NOISY), fake(tmp_path / "b", candidate, extra, label="candidate"))
    return check(request, sides, lambda _: None)


def test_equals_pass_at_the_first_look(tmp_path: Path) -> None:
    """Twelve pairs decide; the report has every block, both sides' versions, and says PASS of time and counts."""
    report = run(tmp_path, asked())
    assert report.pairs == 12
    assert {block.pair for block in report.blocks} == set(range(12))
    assert [verdict.status for verdict in report.verdicts] == ["PASS", "PASS"]
    assert report.reference.versions == {"torch": "1.2.3"}
    assert verdicts.exit_status(report.verdicts, strict=True) == 0
    assert CheckReport.model_validate_json(report.model_dump_json()) == report


def test_a_slower_step_fails_and_a_further_operator_is_named(tmp_path: Path) -> None:
    """Four percent is more than is let through; one operator more is a count's FAIL by name."""
    report = run(tmp_path, asked(), f"1.04 * {NOISY}", extra=1)
    status = {verdict.metric: verdict.status for verdict in report.verdicts}
    assert status == {"step_time": "FAIL", "operators_per_step": "FAIL"}
    assert report.counts[0].grew == ("aten::mm +1",)
    assert verdicts.exit_status(report.verdicts, strict=False) == 1


def test_time_that_runs_out_is_inconclusive(tmp_path: Path) -> None:
    """It stops before the limit, and says no more than its few pairs allow."""
    wild = "0.04 * (0.9 if START % 2 else 1.1)"
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", wild, pause=0.6, label="wild"))
    report = check(asked(minutes=4 / 60), sides, lambda _: None)
    assert 1 <= report.pairs <= 6
    assert report.seconds < 10
    assert report.verdicts[0].status == "INCONCLUSIVE"
    assert verdicts.exit_status(report.verdicts, strict=True) == 3


def test_no_time_at_all_is_an_error(tmp_path: Path) -> None:
    """A gate that measured nothing must not be green; who kept it waiting is named."""
    with pytest.raises(UserError, match=r"(fake|candidate): did not answer before the time was up"):
        run(tmp_path / "counts", asked(minutes=0.0001))
    with pytest.raises(UserError, match=r"not one process pair .*did not answer"):
        run(tmp_path / "time", replace(asked(minutes=0.0001), count=False))


@pytest.mark.parametrize(("extra", "status"), [(0, 2), (1, 1)])
def test_counts_stand_where_no_time_was_left(
    extra: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grew fails although no pair was timed; what didn't grow is no pass."""
    monkeypatch.setattr(checks._Measurement, "time", lambda *_: None)
    report = run(tmp_path, asked(minutes=1), extra=extra)
    assert (report.verdicts[0].metric, report.verdicts[0].pairs) == ("step_time", 0)
    assert verdicts.exit_status(report.verdicts, strict=False) == status


def test_counts_alone_take_no_time(tmp_path: Path) -> None:
    """No block is measured, and what is counted is judged."""
    report = run(tmp_path, replace(asked(), time=False), extra=2)
    assert report.blocks == ()
    assert [verdict.metric for verdict in report.verdicts] == ["operators_per_step"]
    assert verdicts.exit_status(report.verdicts, strict=False) == 1


def test_versions_that_speak_otherwise_are_incomparable(tmp_path: Path) -> None:
    """Never FAIL: the report says why of every method."""
    sides = compared(fake(tmp_path / "a", protocol=99, label="old"), fake(tmp_path / "b", label="new"))
    report = check(asked("lora", "adapter"), sides, lambda _: None)
    assert [verdict.status for verdict in report.verdicts] == ["INCOMPARABLE"] * 2
    assert "protocol 99" in report.verdicts[0].detail


def test_a_request_is_of_one_rank_at_a_steady_rate() -> None:
    """The suite's own ranks, threads and schedule would make pieces differ; the usual three methods are the default."""
    request = checks.request(load_suite("quickstart"), None, Rules(), None)
    assert (request.settings.world_size, request.settings.threads) == (1, 1)
    assert (request.settings.schedule, request.settings.lr_warmup) == ("constant", 0.0)
    assert [method.name for method in request.methods] == ["lora", "prompt_tuning", "adapter"]


def test_disturbed_pairs_are_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look waits until every method has its number of pairs; what was disturbed is noted."""
    found = iter([machine.Disturbance(0.5, 0.0, "stolen")] * 6)
    monkeypatch.setattr(pairs, "between", lambda *_: next(found, machine.Disturbance(0.0, 0.0, None)))
    report = run(tmp_path, asked())
    assert report.pairs == 14
    assert report.verdicts[0].pairs == 12
    assert "48 of 144 blocks were disturbed" in report.notes[0]


def test_a_machine_that_is_never_quiet_ends_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of pairs is bounded, and nothing that was disturbed is counted."""
    monkeypatch.setattr(pairs, "between", lambda *_: machine.Disturbance(0.5, 0.0, "stolen"))
    report = run(tmp_path, asked(rules=Rules(looks=(6, 8), alpha=0.05)))
    assert report.pairs == 12
    assert report.verdicts[0].status == "INCONCLUSIVE"
    assert report.verdicts[0].pairs == 0


def test_too_many_methods_are_told_before_anything_is_measured() -> None:
    """The rule can't be kept with so few pairs: better now than after minutes."""
    with pytest.raises(UserError, match="can't be judged"):
        asked("lora", "adapter", rules=Rules(looks=(6,)))
