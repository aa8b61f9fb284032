"""The gate tried on itself: numbers of trials, bounds, resuming; and the command's outcome."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from filelock import FileLock
from residents import asked

from helpers.made_checks import report
from hpml_bench.gate import selftest
from hpml_bench.gate.check import gate_digest
from hpml_bench.gate.decide.rates import Rate, Summary, summarise
from hpml_bench.gate.records import CheckReport, CheckTrial
from hpml_bench.gate.selftest import run, slowed, total
from hpml_bench.gate.trials import TrialFolder
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError


def test_bounds_are_exact() -> None:
    """The numbers of the evidence: 0 of 299 bounds 1 %, 0 of 100 only 3 %, 59 of 59 bound 95 %."""
    assert Rate(0, 299).upper < 0.01 < Rate(0, 298).upper
    assert Rate(0, 100).upper == pytest.approx(0.0295, abs=1e-3)
    assert Rate(58, 58).lower < 0.95 < Rate(59, 59).lower
    assert Rate(0, 5).lower == 0.0
    assert Rate(5, 5).upper == 1.0


def test_one_trial_of_six_is_slowed_and_the_evidence_takes_59() -> None:
    """Few trials have at least one slowed."""
    assert [number for number in range(1, 13) if slowed(number)] == [3, 9]
    for same in (1, 5, 20, 299):
        numbers = range(1, total(same) + 1)
        assert sum(not slowed(number) for number in numbers) >= same
        assert any(map(slowed, numbers))
    assert sum(map(slowed, range(1, total(299) + 1))) >= 59


def check_double(calls: list[float], wrong: int | None = None) -> Any:
    """Return a check that says what a perfect gate would, but for one trial."""

    def check(request: Any, compared: Any, say: Any, work: Any) -> CheckReport:
        calls.append(work.delay)
        assert work.delay is not None
        assert compared.reference == compared.candidate
        slow = work.delay if len(calls) != wrong else 0.03 - work.delay
        assert request.minutes is None  # a trial that is begun is carried to its end
        settings = request.settings.model_dump(mode="json")
        here = {**environment.describe(), "gate": gate_digest(), "settings": settings}
        sides = {"reference": compared.reference.side({}), "candidate": compared.candidate.side({})}
        return report({"lora": slow}, mode="self-test", environment=here, **sides)

    return check


def test_trials_are_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call goes on where the first stopped, whatever ended it."""
    calls: list[float] = []
    monkeypatch.setattr(selftest, "check", check_double(calls))
    run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    assert calls == [0.0, 0.0, 0.03]
    trials = run(asked(), 4, 0.03, None, tmp_path, lambda _: None)
    assert calls == [0.0, 0.0, 0.03, 0.0, 0.0]
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5]
    assert CheckTrial.model_validate_json((tmp_path / "trial-0003.json").read_text()).slowdown == 0.03
    assert summarise(trials).status == 0


@pytest.mark.parametrize(("second", "told"), [(4, "(2, then 4)"), (2, None)])
def test_a_number_of_trials_that_is_changed_is_told(
    second: int, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds don't hold where trials are added until they look good; one number over two calls is as fixed."""
    monkeypatch.setattr(selftest, "check", check_double([]))
    for planned in (2, second):
        trials = run(asked(), planned, 0.03, None, tmp_path, lambda _: None)
    (*_, last, _) = summarise(trials).sentences(0.03)
    assert (told is not None) == ("was changed between calls" in last)
    assert told is None or told in last


@pytest.mark.parametrize("wrong", [1, 3])
def test_a_false_alarm_or_a_miss_is_no_good(wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One A/A trial that fails, or a slowed one that doesn't."""
    monkeypatch.setattr(selftest, "check", check_double([], wrong))
    summary = summarise(run(asked(), 2, 0.03, None, tmp_path, lambda _: None))
    assert summary.status == 1
    assert summary.false_alarms.happened == (wrong == 1)
    assert summary.caught.happened == (wrong != 3)
    assert any("of 2 A/A trials" in sentence for sentence in summary.sentences(0.03))


def test_no_trial_or_none_slowed_is_no_good() -> None:
    """A gate that was not tried has proved nothing, which is an error; a false alarm is one all the same."""
    assert summarise([]).status == 2
    assert summarise([CheckTrial(number=1, slowdown=0.0, report=report({"lora": 0.0}))]).status == 2
    assert summarise([CheckTrial(number=1, slowdown=0.0, report=report({"lora": 0.05}))]).status == 1


def test_time_that_is_up_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial is begun that might end too late, by the slowest pair so far and the most pairs; the first one is."""
    calls: list[float] = []
    monkeypatch.setattr(selftest, "check", check_double(calls))  # its reports say that 12 pairs took 321 s
    said: list[str] = []
    trials = run(asked(), 5, 0.03, 16.0, tmp_path, said.append)  # 36 pairs would take 963 s: a little more than that
    assert len(trials) == len(calls) == 1
    assert "goes on from here" in said[-1]
    assert len(run(asked(), 2, 0.03, 17.0, tmp_path, said.append)) == 3


def test_a_call_with_too_few_minutes_says_how_many_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command would end at once, again and again; with the minutes that are named it goes on."""
    calls: list[float] = []
    monkeypatch.setattr(selftest, "check", check_double(calls))
    said: list[str] = []
    for _ in range(2):
        assert len(run(asked(), 2, 0.03, 8.0, tmp_path, said.append)) == 1
    told = "trial 2 of 3 may need 17 minutes: the same command goes on from here with --max-minutes 17 or more"
    assert said[1:] == [told, told]
    assert len(run(asked(), 2, 0.03, 17.0, tmp_path, said.append)) == 3


@pytest.mark.parametrize("longest", [0.0, 59.0, 60.0, 558.0, 594.001, 599.999, 600.0, 963.0])
def test_the_minutes_that_are_named_are_enough(longest: float) -> None:
    """Whole minutes, with a little to spare for what a call does before its first trial."""
    begun = monotonic()
    told = selftest.refusal(1e-6, begun, longest)
    if not longest:
        assert told == ""
        return
    minutes = int(told.rpartition("--max-minutes ")[2].split()[0])
    assert minutes * 60 <= longest + 66
    assert selftest.refusal(minutes, begun - 5, longest) == ""


def test_time_that_would_do_from_the_start_asks_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the minutes given are enough for a trial, the same command goes on."""
    told = selftest.refusal(10, monotonic() - 300, 500.0)
    assert told == "may need 9 minutes, and 5.0 are left: the same command goes on from here"


def test_every_trial_that_was_started_leaves_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was broken off, or whose file was removed, is started anew, and both starts stand there."""

    def killed(*_: Any) -> CheckReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(selftest, "check", killed)
    with pytest.raises(KeyboardInterrupt):
        run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    monkeypatch.setattr(selftest, "check", check_double([]))
    run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    (tmp_path / "trial-0002.json").unlink()
    trials = run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    assert [line.number for line in TrialFolder(tmp_path).started()] == [1, 1, 2, 3, 2]
    assert [line.slowdown for line in TrialFolder(tmp_path).started()] == [0.0, 0.0, 0.0, 0.03, 0.0]
    assert len({line.session for line in TrialFolder(tmp_path).started()} | {trial.session for trial in trials}) == 1


def test_one_self_test_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    """A second would overwrite the first one's trials."""
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another self-test writes there"):
        run(asked(), 2, 0.03, None, tmp_path, lambda _: None)


def test_trials_of_one_number_and_two_sessions_both_count() -> None:
    """A false alarm is not hidden by another session's trial of the same number."""
    alarm, quiet = (CheckTrial(number=1, slowdown=0.0, report=report({"lora": slowdown})) for slowdown in (0.05, 0.0))
    for order in ([alarm, quiet], [quiet, alarm]):
        assert summarise(order).false_alarms == Rate(1, 2)


def test_printed_bounds_claim_no_more_than_they_give() -> None:
    """0 of 298 is not rounded down to 1 %, nor 58 of 58 up to 95 %."""
    told = Summary(Rate(0, 298), Rate(58, 58), 100.0, 120.0).sentences(0.03)
    assert "at most 1.01 %" in told[0]
    assert "at least 94.96 %" in told[1]
    told = Summary(Rate(0, 299), Rate(59, 59), 100.0, 120.0).sentences(0.03)
    assert "at most 1.00 %" in told[0]
    assert "at least 95.04 %" in told[1]


def test_the_slowdown_injected_is_the_delay_over_the_other_side_s_step() -> None:
    """Of each pair; the median over pairs is kept, and an A/A trial has none."""
    delays = [{"lora": seconds} for seconds in (0.0006, 0.0005, 0.0009)]
    made = report({"lora": 0.5}, environment={"delay_seconds": delays})  # a step of the reference takes 0.02 s
    assert selftest.injected_slowdown(made) == {"lora": pytest.approx(0.03)}
    assert selftest.injected_slowdown(report({"lora": 0.0}, environment={"delay_seconds": []})) == {}


def test_trials_of_another_kind_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other methods, another slowdown, or a file that can't be read: one sentence."""
    monkeypatch.setattr(selftest, "check", check_double([]))
    run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    with pytest.raises(UserError, match="other methods, rules or slowdown"):
        run(asked("adapter"), 2, 0.03, None, tmp_path, lambda _: None)
    with pytest.raises(UserError, match="other methods, rules or slowdown"):
        run(asked(), 2, 0.05, None, tmp_path, lambda _: None)
    with monkeypatch.context() as context:
        context.setattr(environment, "describe", lambda: {"fingerprint": "another"})
        with pytest.raises(UserError, match="other hardware, versions, gate or settings"):
            run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    (tmp_path / "trial-0001.json").write_text("{")
    with pytest.raises(UserError, match="no trial that can be read"):
        run(asked(), 2, 0.03, None, tmp_path, lambda _: None)


def test_trials_under_the_earlier_names_are_read(tmp_path: Path) -> None:
    """`receipt`, `put_in` and `tainted` were what is `report`, `injected` and `disturbed` today."""
    made = CheckTrial(number=1, slowdown=0.03, injected={"lora": 0.03}, report=report({"lora": 0.03}))
    blocks = tuple(block.model_copy(update={"disturbed": "steal"}) for block in made.report.blocks)
    made = made.model_copy(update={"report": made.report.model_copy(update={"blocks": blocks})})
    text = made.model_dump_json()
    for today, before in (("report", "receipt"), ("injected", "put_in"), ("disturbed", "tainted")):
        assert f'"{today}":' in text
        text = text.replace(f'"{today}":', f'"{before}":')
    (tmp_path / "trial-0001.json").write_text(text)
    assert [trial for _, trial in TrialFolder(tmp_path).trials()] == [made]
