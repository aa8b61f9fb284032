"""The analysis of recorded trials (`benchmarks/check_evidence.py`)."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import check_evidence as evidence
import check_resampling as resampling
import check_simulation as simulation
import numpy as np
import pytest

from helpers import made_checks
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.records import CheckTrial, Rules, TrialStarted


def trial(number: int, slowdown: float = 0.0, sd: float = 0.006) -> CheckTrial:
    """Return a made-up trial with its verdicts."""
    blocks = made_checks.blocks(dict.fromkeys(made_checks.METHODS, slowdown), sd=sd, seed=number)
    found = verdicts.look(verdicts.pair_effects(blocks), Rules(), 0)
    return CheckTrial(
        number=number, slowdown=slowdown, report=made_checks.report(blocks=blocks, counts=(), verdicts=found)
    )


TRIALS = tuple(trial(number, 0.03 if number % 6 == 3 else 0.0) for number in range(1, 13))


def recorded(*trials: CheckTrial) -> Any:
    """Return trials with the lines that they were started."""
    started = (TrialStarted(session=t.session, number=t.number, slowdown=t.slowdown, started="") for t in trials)
    return evidence.Evidence(trials, tuple(started))


def test_trials_survive_packing(tmp_path: Path) -> None:
    """A folder of trials and the file packed from it are the same, and packing twice gives the same bytes."""
    for made in TRIALS:
        (tmp_path / f"trial-{made.number:04d}.json").write_text(made.model_dump_json())
    (tmp_path / "begun.jsonl").write_text("".join(f"{line.model_dump_json()}\n" for line in recorded(*TRIALS).started))
    for name in ("a", "b"):
        evidence.pack(evidence.load(tmp_path), tmp_path / name / "trials.jsonl.gz")
    assert evidence.load(tmp_path / "a" / "trials.jsonl.gz") == recorded(*TRIALS)
    assert (tmp_path / "a" / "trials.jsonl.gz").read_bytes() == (tmp_path / "b" / "trials.jsonl.gz").read_bytes()


def test_rates_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten A/A trials without an alarm bound the rate at 1 - 0.05^(1/10), two slowed ones the power at 0.05^(1/2)."""
    monkeypatch.setattr(resampling, "RESAMPLED", 300)
    text = evidence.render(recorded(*TRIALS))
    assert "0 of 10 A/A trials; the rate is at most 25.89 %" in text
    assert "2 of 2 trials with all methods slowed by 3 % were caught; the power is at least 22.36 %" in text
    assert "Trials started: 12 in 1 session(s), of which 0 were broken off." in text


def test_sessions_are_taken_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of the same numbers from two folders all count."""
    monkeypatch.setattr(resampling, "RESAMPLED", 300)
    for name in ("a", "b"):
        of = [made.model_copy(update={"session": name}) for made in TRIALS]
        evidence.pack(recorded(*of), tmp_path / f"{name}.jsonl.gz")
    both = evidence.load(tmp_path / "b.jsonl.gz", tmp_path / "a.jsonl.gz")
    assert evidence.wrong(both) == []
    assert "0 of 20 A/A trials" in evidence.render(both)
    assert "Trials started: 24 in 2 session(s)" in evidence.render(both)


def test_a_trial_that_is_missing_twice_or_unannounced_is_told() -> None:
    """So that rates can't be had by leaving out."""
    assert evidence.wrong(recorded(*TRIALS)) == []
    assert evidence.wrong(recorded(*TRIALS[:4], *TRIALS[5:])) == ["trial 5 of session  is missing"]
    assert evidence.wrong(recorded(*TRIALS, TRIALS[6])) == ["trial 7 of session  is there more than once"]
    unannounced = evidence.Evidence(TRIALS, recorded(*TRIALS[:-1]).started)
    assert evidence.wrong(unannounced) == ["trial 12 of session  has no line that it was started"]
    broken = evidence.Evidence(TRIALS, recorded(*TRIALS, TRIALS[2]).started)
    assert evidence.wrong(broken) == []
    assert "of which 1 were broken off" in evidence._live(broken)


def test_trials_of_different_kinds_are_not_taken_together() -> None:
    """Other slowdowns, rules or methods, or another version of the gate: refused, with the reason."""
    assert evidence.mixed(TRIALS) is None
    assert evidence.mixed([TRIALS[2], trial(4, 0.05)]) == "their slowdowns differ"
    other = TRIALS[0].report.model_copy(update={"methods": ("lora",)})
    assert (
        evidence.mixed([TRIALS[0], TRIALS[1].model_copy(update={"report": other})]) == "their rules or methods differ"
    )
    newer = TRIALS[0].report.model_copy(update={"environment": {"gate": "another"}})
    assert "gate's own code" in (evidence.mixed([TRIALS[0], TRIALS[1].model_copy(update={"report": newer})]) or "")


def test_the_slowdown_injected_is_shown_and_packed(tmp_path: Path) -> None:
    """Median and range of each method over slowed trials; trials that lack it are not passed over in silence."""
    shares = {3: 0.029, 9: 0.031, 15: 0.034}
    made = [trial(number, 0.03).model_copy(update={"injected": {"lora": share}}) for number, share in shares.items()]
    evidence.pack(recorded(TRIALS[0], *made), tmp_path / "trials.jsonl.gz")
    text = evidence._live(evidence.load(tmp_path / "trials.jsonl.gz"))
    assert "median and range of 3 of 3 slowed trials: lora 3.10 % (2.90 % to 3.40 %)." in text
    assert "Slowdown injected: not recorded in these 2 slowed trials." in evidence._live(recorded(*TRIALS))


def test_a_verdict_that_its_blocks_do_not_give_is_found() -> None:
    """Verdicts are made again from the blocks."""
    forged = TRIALS[2].report.model_copy(update={"blocks": TRIALS[0].report.blocks})
    found = evidence.wrong(recorded(*TRIALS[:2], TRIALS[2].model_copy(update={"report": forged})))
    assert found == ["trial 3 of session : its blocks give another outcome"]


def test_only_whole_pairs_of_equal_sides_are_resampled() -> None:
    """A pair in which a method was disturbed is left out and counted; slowed trials are too; runs keep to a trial."""
    made = TRIALS[0]
    lost = tuple(
        block.model_copy(update={"disturbed": "steal"}) if block.pair == 4 and block.method == "lora" else block
        for block in made.report.blocks
    )
    disturbed = made.model_copy(update={"report": made.report.model_copy(update={"blocks": lost})})
    found = resampling.pairs_of([disturbed, TRIALS[2], TRIALS[3]])
    assert found.ratios.shape == (23, 3, 2)
    assert found.left_out == 1
    assert found.starts.tolist() == [*range(6), *range(11, 18)]
    effects = verdicts.pair_effects(made.report.blocks)
    assert resampling.middle(found.ratios)[4] == pytest.approx([effects[method][5] for method in made_checks.METHODS])


def test_what_lasts_over_pairs_stays_in() -> None:
    """Pairs are drawn in runs: where trials differ as wholes, drawn ones vary more than of single pairs mixed."""
    generator = np.random.default_rng(0)
    levels = np.repeat(generator.normal(0, 0.02, 40), 12)
    ratios = np.broadcast_to(levels[:, None, None], (480, 1, 1))
    starts = np.array([start for start in range(475) if start % 12 <= 6])
    drawn = resampling.resampling(resampling.Pairs(ratios, starts, 0), 0.0)(generator, (2000, 1, 12)).mean(axis=-1)
    assert drawn.std() > 1.8 * 0.02 / math.sqrt(12)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 16])
def test_the_twin_of_the_middle_is_the_library(count: int) -> None:
    """The vectorised interquartile mean equals the one that checks use."""
    values = np.random.default_rng(count).normal(size=count)
    assert resampling.middle(values[None, :])[0] == pytest.approx(verdicts.middle(values.tolist()))


def test_resampled_trials_have_the_slowdown_and_spikes_add_spread_alone() -> None:
    """The mean moves by the slowdown in both cases; with spikes the spread grows."""
    pairs = resampling.pairs_of(TRIALS)
    shape = (400, 3, 24)
    plain = resampling.resampling(pairs, 0.05)(np.random.default_rng(0), shape)
    spiky = resampling.resampling(pairs, 0.05, 0.1)(np.random.default_rng(0), shape)
    assert plain.shape == spiky.shape == shape
    for values in (plain, spiky):
        assert values.mean() == pytest.approx(pairs.ratios.mean() + math.log(1.05), abs=0.002)
    assert spiky.std() > 2 * plain.std()
    once = resampling.resampling(pairs, 0.05, one=True)(np.random.default_rng(0), shape).mean(axis=-1)
    assert ((once > 0.025).sum(axis=1) == 1).all()  # one method of each trial, and each has its turn
    assert ((once > 0.025).sum(axis=0) > 90).all()


def test_methods_of_a_pair_stay_together() -> None:
    """Methods that moved together when recorded do so when resampled."""
    common = np.random.default_rng(0).normal(0, 0.01, (200, 1, 1)).repeat(3, axis=1)
    drawn = resampling.resampling(resampling.Pairs(common, np.arange(195), 0), 0.0)(
        np.random.default_rng(1), (5, 3, 24)
    )
    assert np.array_equal(drawn[:, 0], drawn[:, 2])


def test_the_study_has_a_row_for_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules by noises by slowdowns; five percent is caught and nothing is not."""
    monkeypatch.setattr(resampling, "RESAMPLED", 300)
    found = resampling.study({"as recorded": (resampling.pairs_of(TRIALS), 0.0)}, [Rules()])
    assert [row[2] for row in found.rows] == ["0 %", "1 %", "2 %", "3 %", "5 %"]
    assert found.rows[0][3] == "0.00 %"
    assert found.rows[-1][3:5] == ("100.00 %", "100.00 %")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints and writes the report; without trials it says so with status 2; where one is missing, status 1."""
    monkeypatch.setattr(resampling, "RESAMPLED", 300)
    evidence.pack(recorded(*TRIALS), tmp_path / "trials.jsonl.gz")
    monkeypatch.setattr(
        sys, "argv", ["x", str(tmp_path / "trials.jsonl.gz"), "--write", str(tmp_path / "evidence.md"),
                      "--loaded", str(tmp_path / "trials.jsonl.gz")]
    )  # fmt: skip
    assert evidence.main() == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "evidence.md").read_text()
    assert text.startswith("## Live trials\n")
    assert "Under load: drawn from" in text
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "trials.jsonl.gz")])
    assert evidence.main() == 0
    assert "nder load" not in capsys.readouterr().out
    evidence.pack(recorded(*TRIALS[1:]), tmp_path / "cut.jsonl.gz")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "cut.jsonl.gz")])
    assert evidence.main() == 1
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "none")])
    assert evidence.main() == 2


def test_resampling_uses_the_rule_of_checks() -> None:
    """At no slowdown and small spread every resampled trial passes."""
    pairs = resampling.pairs_of(TRIALS)
    found = simulation.simulate(resampling.resampling(pairs, 0.0), Rules(), 3, 200)
    assert found.passed == 200


CHECK = Path(__file__).parents[2] / "reports" / "reference" / "check"


@pytest.mark.parametrize("name", ["amd-epyc", "intel-xeon"])
def test_the_committed_trials_give_the_committed_rates(name: str) -> None:
    """All are there, from their blocks come their verdicts, and the page's live parts are what they say."""
    machine = CHECK / name
    titles = {machine: "## Live trials", machine / "loaded": "## Live trials under a competing load"}
    parts, together = [], []
    for folder in [folder for folder in titles if folder.exists()]:
        trials = evidence.load(*sorted(folder.glob("*.jsonl.gz")))
        assert len(trials.trials) >= 6
        assert evidence.wrong(trials) == []
        together += trials.trials
        assert all(trial.report.seconds <= 600 for trial in trials.trials), "the time that a check may take"
        parts += [titles[folder], evidence._live(trials)]
    assert evidence.mixed(together) is None
    assert (machine / "evidence.md").read_text().startswith("\n\n".join([*parts, "## Resampling"]))


def test_each_folder_of_trials_is_looked_at_and_one_has_some_under_load() -> None:
    """A machine more has to be named in the test above."""
    assert {folder.name for folder in CHECK.iterdir()} == {"amd-epyc", "intel-xeon"}
    assert list(CHECK.glob("*/loaded/*.jsonl.gz"))


def test_loaded_trials_of_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is of one machine: with those of another beside, the status is 2."""
    elsewhere = [t.report.model_copy(update={"environment": {"fingerprint": "another"}}) for t in TRIALS]
    others = [t.model_copy(update={"report": report}) for t, report in zip(TRIALS, elsewhere, strict=True)]
    evidence.pack(recorded(*TRIALS), tmp_path / "here.jsonl.gz")
    evidence.pack(recorded(*others), tmp_path / "there.jsonl.gz")
    here, there = str(tmp_path / "here.jsonl.gz"), str(tmp_path / "there.jsonl.gz")
    monkeypatch.setattr(sys, "argv", ["x", here, "--loaded", there])
    assert evidence.main() == 2
