"""The gate tried on itself: numbers of trials, bounds, resuming; and the command's outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receipts import blocks, receipt
from residents import asked

from hpml_bench import environment
from hpml_bench.errors import UserError
from hpml_bench.gate import selftest
from hpml_bench.gate.records import Receipt, Trial
from hpml_bench.gate.selftest import Rate, run, slowed, summarise, total
from hpml_bench.gate.sides import OutOfTime


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

    def check(request: Any, compared: Any, say: Any, work: Any) -> Receipt:
        calls.append(work.delay)
        assert work.delayable
        assert compared.reference == compared.candidate
        slow = work.delay if len(calls) != wrong else 0.03 - work.delay
        here = {**environment.describe(), "settings": request.settings.model_dump(mode="json")}
        sides = {"reference": compared.sides[0], "candidate": compared.sides[1]}
        return receipt({"lora": slow}, mode="self-test", environment=here, **sides)

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
    assert Trial.model_validate_json((tmp_path / "trial-0003.json").read_text()).slowdown == 0.03
    assert summarise(trials).good


@pytest.mark.parametrize("wrong", [1, 3])
def test_a_false_alarm_or_a_miss_is_no_good(wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One A/A trial that fails, or a slowed one that doesn't."""
    monkeypatch.setattr(selftest, "check", check_double([], wrong))
    summary = summarise(run(asked(), 2, 0.03, None, tmp_path, lambda _: None))
    assert not summary.good
    assert summary.false_alarms.happened == (wrong == 1)
    assert summary.caught.happened == (wrong != 3)
    assert any("of 2 A/A trials" in sentence for sentence in summary.sentences(0.03))


def test_no_trial_or_none_slowed_is_no_good() -> None:
    """A gate that was not tried has proved nothing, which is an error; a false alarm is one all the same."""
    assert summarise([]).status == 2
    assert summarise([Trial(number=1, slowdown=0.0, receipt=receipt({"lora": 0.0}))]).status == 2
    assert summarise([Trial(number=1, slowdown=0.0, receipt=receipt({"lora": 0.05}))]).status == 1


def test_time_that_is_up_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that would end too late is not begun."""
    calls: list[float] = []
    monkeypatch.setattr(selftest, "check", check_double(calls))  # its receipts say that a trial took 321 s
    said: list[str] = []
    trials = run(asked(), 5, 0.03, 2.0, tmp_path, said.append)
    assert len(trials) == len(calls) == 1
    assert "goes on from here" in said[-1]


def test_a_trial_that_the_time_cuts_short_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial is told how long it has; one without a pair, or ended before a look decided, is made anew later."""
    limits: list[float] = []

    def nothing(request: Any, *_: Any) -> Receipt:
        limits.append(request.minutes)
        raise OutOfTime("not one process pair was measured")

    monkeypatch.setattr(selftest, "check", nothing)
    said: list[str] = []
    assert run(asked(), 2, 0.03, 2.0, tmp_path, said.append) == []
    assert limits == [pytest.approx(2.0, abs=0.1)]
    monkeypatch.setattr(selftest, "check", lambda *_: receipt({"lora": 0.0}, blocks=blocks({"lora": 0.0}, pairs=5)))
    assert run(asked(), 2, 0.03, 2.0, tmp_path, said.append) == []
    assert said == ["the time is up; the same command goes on from here"] * 2
    assert list(tmp_path.iterdir()) == []


def test_the_slowdown_really_put_in_is_the_delay_over_the_other_side_s_step() -> None:
    """Of each pair; the median over pairs is kept, and an A/A trial has none."""
    delays = [{"lora": seconds} for seconds in (0.0006, 0.0005, 0.0009)]
    made = receipt({"lora": 0.5}, environment={"delay_seconds": delays})  # a step of the reference takes 0.02 s
    assert selftest.put_in(made) == {"lora": pytest.approx(0.03)}
    assert selftest.put_in(receipt({"lora": 0.0}, environment={"delay_seconds": []})) == {}


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
        with pytest.raises(UserError, match="other hardware, versions or settings"):
            run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
    (tmp_path / "trial-0001.json").write_text("{")
    with pytest.raises(UserError, match="no trial that can be read"):
        run(asked(), 2, 0.03, None, tmp_path, lambda _: None)
