"""The gate tried on itself: numbers of trials, bounds, resuming; and the command's outcome."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from residents import asked

from helpers.made_checks import report
from hpml_bench.gate import selftest
from hpml_bench.gate.check import gate_digest
from hpml_bench.gate.records import CheckReport, CheckTrial
from hpml_bench.gate.selftest import run, slowed, started, summary, total
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a check say what a perfect gate would; return the delays it was called with."""
    made: list[float] = []

    def check(request: Any, compared: Any, say: Any, prepared: Any, delay: float) -> CheckReport:
        made.append(delay)
        assert compared.reference == compared.candidate
        assert request.minutes is None  # a trial that is begun is carried to its end
        settings = request.settings.model_dump(mode="json")
        here = {**environment.describe(), "gate": gate_digest(), "settings": settings}
        sides = {"reference": compared.reference.side({}), "candidate": compared.candidate.side({})}
        return report({"lora": delay}, mode="self-test", environment=here, **sides)

    monkeypatch.setattr(selftest, "check", check)
    return made


def trials_of(slowdown: float, caught: bool, number: int) -> list[CheckTrial]:
    found = report({"lora": 0.05 if caught else 0.0})
    return [CheckTrial(number=n, slowdown=slowdown, report=found) for n in range(1, number + 1)]


def test_the_outcome_of_trials() -> None:
    """0 good; 1 a false alarm, of whatever session, or a miss; 2 where a kind of trial is
    lacking.
    """
    # Printed bounds claim no more than they give: 0 of 298 isn't rounded down to 1 %, nor 58 of 58
    # up to 95 %.
    good, alarm = trials_of(0.0, False, 298), trials_of(0.0, True, 1)
    caught, missed = trials_of(0.03, True, 58), trials_of(0.03, False, 1)
    status, told = summary([*good, *caught], 0.03)
    assert status == 0
    assert "0 of 298 A/A trials; the rate is at most 1.01 %" in told[0]
    assert "the power is at least 94.96 %" in told[1]
    for made in (
        [*good, *alarm, *caught],
        [*alarm, *good, *caught],
        [*good, *caught, *missed],
        alarm,
    ):
        assert summary(made, 0.03)[0] == 1
    for made in ([], good, caught):
        assert summary(made, 0.03)[0] == 2


def test_one_trial_of_six_is_slowed_and_the_evidence_takes_59() -> None:
    """Few trials have at least one slowed."""
    assert [number for number in range(1, 13) if slowed(number)] == [3, 9]
    for same in (1, 5, 20, 299):
        numbers = range(1, total(same) + 1)
        assert sum(not slowed(number) for number in numbers) >= same
        assert any(map(slowed, numbers))
    assert sum(map(slowed, range(1, total(299) + 1))) >= 59


def test_trials_are_kept_and_not_repeated(tmp_path: Path, calls: list[float]) -> None:
    """A second call goes on where the first stopped; that its number was changed is told, as
    bounds don't hold then.
    """
    run(asked(), 2, 0.03, None, tmp_path, print)
    again = run(asked(), 2, 0.03, None, tmp_path, print)
    assert calls == [0.0, 0.0, 0.03]
    assert not any("was changed between calls" in sentence for sentence in summary(again, 0.03)[1])
    trials = run(asked(), 4, 0.03, None, tmp_path, print)
    assert calls == [0.0, 0.0, 0.03, 0.0, 0.0]
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5]
    assert (
        CheckTrial.model_validate_json((tmp_path / "trial-0003.json").read_text()).slowdown == 0.03
    )
    status, told = summary(trials, 0.03)
    assert status == 0
    assert "was changed between calls (2, then 4)" in told[2]


def test_time_that_is_up_keeps_what_is_done(
    tmp_path: Path, calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trial is begun after it; the same command goes on."""
    said: list[str] = []
    clock = itertools.count(step=40.0)
    monkeypatch.setattr(selftest, "monotonic", lambda: next(clock))
    assert len(run(asked(), 2, 0.03, 1.0, tmp_path, said.append)) == len(calls) == 1
    assert said[1:] == ["the time was up before trial 2 of 3: the same command goes on from here"]
    assert len(run(asked(), 2, 0.03, None, tmp_path, said.append)) == len(calls) == 3


def test_every_trial_that_was_started_leaves_a_line(tmp_path: Path, calls: list[float]) -> None:
    """One that was broken off, or whose file was removed, is started anew, and both starts stand
    there.
    """

    def killed(*_: Any) -> CheckReport:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest, "check", killed)
        with pytest.raises(KeyboardInterrupt):
            run(asked(), 2, 0.03, None, tmp_path, print)
    run(asked(), 2, 0.03, None, tmp_path, print)
    (tmp_path / "trial-0002.json").unlink()
    trials = run(asked(), 2, 0.03, None, tmp_path, print)
    lines = started(tmp_path)
    assert [(line.number, line.slowdown) for line in lines] == [
        (1, 0.0),
        (1, 0.0),
        (2, 0.0),
        (3, 0.03),
        (2, 0.0),
    ]
    assert len({line.session for line in lines} | {trial.session for trial in trials}) == 1
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="is in use by process"):
        run(asked(), 2, 0.03, None, tmp_path, print)


def test_the_slowdown_injected_is_the_delay_over_the_other_side_s_step() -> None:
    """The middle one of the steps that are not disturbed; an A/A trial has none."""
    made = report({"lora": 0.5}, environment={"delay_seconds": {"lora": 0.0006}})
    assert selftest.injected_slowdown(made) == {"lora": pytest.approx(0.03)}, (
        "of the reference's 0.02 s"
    )
    assert selftest.injected_slowdown(report({"lora": 0.0})) == {}


def test_trials_of_another_kind_are_not_mixed_in(
    tmp_path: Path, calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other methods, another slowdown, or a file that can't be read: one sentence."""
    run(asked(), 2, 0.03, None, tmp_path, print)
    for request, slowdown in ((asked("adapter"), 0.03), (asked(), 0.05)):
        with pytest.raises(UserError, match="other methods, rules or slowdown"):
            run(request, 2, slowdown, None, tmp_path, print)
    with monkeypatch.context() as context:
        context.setattr(environment, "describe", lambda: {"fingerprint": "another"})
        with pytest.raises(UserError, match="other hardware, versions, gate or settings"):
            run(asked(), 2, 0.03, None, tmp_path, print)
    (tmp_path / "trial-0001.json").write_text("{")
    with pytest.raises(UserError, match="no trial that can be read"):
        run(asked(), 2, 0.03, None, tmp_path, print)
