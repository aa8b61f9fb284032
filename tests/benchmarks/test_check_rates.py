"""Error rates of the gate's rule by simulation, and the analysis of recorded trials."""

import math
from pathlib import Path
from typing import Any

import calibration
import numpy as np
import pytest
from simulation import check as study

from helpers import made_checks
from hpml_bench.gate import rank_tests, verdicts
from hpml_bench.gate.records import CheckTrial, Rules, TrialStarted
from hpml_bench.statistics import clopper_pearson

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "reports" / "reference" / "check"
RULES = Rules()
TRIALS = 20_000
STATUS = {"INCONCLUSIVE": study.UNDECIDED, "PASS": study.PASS, "FAIL": study.FAIL}


def noise(kind: str, sd: float, effect: float) -> Any:
    """Return a drawing of log ratios about a slowdown; `common`: a pair is slow together in all
    methods.
    """

    def draw(generator: np.random.Generator, shape: tuple[int, int, int]) -> Any:
        common = generator.standard_normal((shape[0], 1, shape[2]))
        return math.log1p(effect) + sd * (common + generator.standard_normal(shape)) / math.sqrt(2)

    return draw if kind == "common" else study.drawing(kind, sd, effect)


def upper_bound(events: int) -> float:
    """Return the upper end of the 95 % interval of a rate in `TRIALS`."""
    return clopper_pearson(events, TRIALS)[1]


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "common"])
@pytest.mark.parametrize("sd", [0.005, 0.03])
def test_the_rule_keeps_its_rates(kind: str, sd: float) -> None:
    """At most alpha of trials at the slowdown let through FAIL over methods and looks; at the
    target at most beta PASS.

    Of a small spread equals hardly ever fail, and the target in all three methods is caught in more
    than 95 %.
    """
    for methods in (1, 8):
        assert (
            upper_bound(study.simulate(noise(kind, sd, RULES.null), RULES, methods, TRIALS).failed)
            < RULES.alpha
        )
    assert (
        upper_bound(study.simulate(noise(kind, sd, RULES.target), RULES, 1, TRIALS).slipped)
        < RULES.beta
    )
    if sd < 0.01:
        equal = study.simulate(noise(kind, sd, 0.0), RULES, 3, TRIALS)
        assert upper_bound(equal.failed) < 0.001
        assert equal.passed > 0.95 * TRIALS
        slowed = study.simulate(noise(kind, sd, RULES.target), RULES, 3, TRIALS)
        assert 1 - upper_bound(TRIALS - slowed.failed) > 0.95


@pytest.mark.parametrize(("pairs", "power"), [(12, 0.89), (16, 0.92), (24, 0.94)])
@pytest.mark.parametrize("methods", [1, 3])
def test_the_detectable_effect_is_detected(pairs: int, power: float, methods: int) -> None:
    """A slowdown as large as the printed effect is found about as often as promised (95 %), at
    Holm's first step.
    """
    level, sd = RULES.alpha / methods, 0.01
    values = np.random.default_rng(0).normal(0, 1, pairs)
    test = rank_tests.signed_rank((values / values.std(ddof=1) * sd).tolist())
    effect = verdicts.detectable(test, RULES, level)
    assert effect is not None
    slowed = study.simulate(
        noise("normal", sd, effect), Rules(looks=(pairs,), alpha=level), 1, TRIALS
    )
    assert slowed.failed > power * TRIALS


def test_the_page_of_docs_has_the_simulated_rates() -> None:
    """A row of docs/check.md, simulated again, is the same within half a percentage point."""
    found = [float(str(cell).removesuffix(" %")) for cell in study.rates_row("normal", 0.03)]
    lines = (ROOT / "docs" / "check.md").read_text().splitlines()
    line = next(line for line in lines if line.startswith("| normal | 3 %"))
    shown = [float(cell.strip().removesuffix(" %")) for cell in line.strip("|").split("|")[1:]]
    assert shown == pytest.approx(found, abs=0.5)


def test_it_is_the_rule_that_checks_use() -> None:
    """Trials decided at once get the verdicts that `verdicts_at` gives one by one, and stop at
    the same look.
    """
    draw = noise("normal", 0.02, 0.015)
    effects = draw(np.random.default_rng(5), (60, 4, RULES.looks[-1]))
    status, pairs = study.decide(effects, RULES)
    for trial, codes, seen in zip(effects, status, pairs, strict=True):
        values = {f"m{i}": row.tolist() for i, row in enumerate(trial)}
        looks = RULES.looks.index(int(seen)) + 1
        found = verdicts.verdicts_at(values, RULES, looks)
        assert [STATUS[verdict.status] for verdict in found] == codes.tolist()
        assert looks == len(RULES.looks) or verdicts.settled(found)
    assert {*np.unique(status)} == {*STATUS.values()}, "the drawing shows every status"


def trial(number: int, slowdown: float = 0.0, **report: Any) -> CheckTrial:
    """Return a made-up trial with its verdicts."""
    blocks = made_checks.blocks(dict.fromkeys(made_checks.METHODS, slowdown), sd=0.006, seed=number)
    found = verdicts.verdicts_at(verdicts.pair_effects(blocks), RULES, 1)
    fields: dict[str, Any] = {"blocks": blocks, "counts": (), "verdicts": found} | report
    return CheckTrial(number=number, slowdown=slowdown, report=made_checks.report(**fields))


MADE = tuple(trial(number, 0.03 if number % 6 == 3 else 0.0) for number in range(1, 13))


def recorded(*trials: CheckTrial) -> study.Evidence:
    """Return trials with the lines that they were started."""
    started = (
        TrialStarted(session=t.session, number=t.number, slowdown=t.slowdown, started="")
        for t in trials
    )
    return study.Evidence(trials, tuple(started))


def test_a_forged_missing_repeated_or_unannounced_trial_is_told() -> None:
    """So that rates can't be had by leaving out; verdicts are made again from the blocks."""
    assert study.wrong(recorded(*MADE)) == []
    assert study.wrong(recorded(*MADE[:4], *MADE[5:])) == ["trial 5 of session  is missing"]
    assert study.wrong(recorded(*MADE, MADE[6])) == ["trial 7 of session  is there more than once"]
    unannounced = study.Evidence(MADE, recorded(*MADE[:-1]).started)
    assert study.wrong(unannounced) == ["trial 12 of session  has no line that it was started"]
    broken = study.Evidence(MADE, recorded(*MADE, MADE[2]).started)
    assert study.wrong(broken) == []
    assert "of which 1 were broken off" in study.live(broken)
    forged = trial(3, 0.03, blocks=MADE[0].report.blocks)
    assert study.wrong(recorded(*MADE[:2], forged)) == [
        "trial 3 of session  has blocks that give another outcome"
    ]


@pytest.mark.parametrize(
    "other", [{"slowdown": 0.05}, {"methods": ("lora",)}, {"environment": {"gate": "another"}}]
)
def test_trials_of_different_kinds_are_not_taken_together(other: dict[str, Any]) -> None:
    """Of other slowdowns, methods or code: refused, with the reason."""
    assert study.mixed(MADE) is None
    assert "differ" in str(study.mixed([*MADE[:3], trial(4, **other)]))


def test_only_whole_pairs_of_equal_sides_are_resampled() -> None:
    """A pair in which a method was disturbed is left out and counted; slowed trials are too;
    runs keep to a trial.
    """
    made = MADE[0]
    lost = tuple(
        block.model_copy(update={"disturbed": "steal"})
        if block.pair == 4 and block.method == "lora"
        else block
        for block in made.report.blocks
    )
    found = study.pairs_of([trial(1, blocks=lost), MADE[2], MADE[3]])
    assert found.ratios.shape == (23, 3, 2)
    assert found.left_out == 1
    assert found.starts.tolist() == [*range(6), *range(11, 18)]


def test_resampled_trials_have_the_slowdown_and_spikes_add_spread_alone() -> None:
    """The mean moves by the slowdown in both cases; with spikes the spread grows; equals pass by
    the rule of checks.
    """
    pairs, shape = study.pairs_of(MADE), (400, 3, 24)
    plain, spiky = (
        study.resampling(pairs, 0.05, spikes)(np.random.default_rng(0), shape)
        for spikes in (0.0, study.SPIKES)
    )
    assert plain.shape == spiky.shape == shape
    for values in (plain, spiky):
        assert values.mean() == pytest.approx(pairs.ratios.mean() + math.log(1.05), abs=0.002)
    assert spiky.std() > 2 * plain.std()
    once = study.resampling(pairs, 0.05, one=True)(np.random.default_rng(0), shape).mean(axis=-1)
    assert (
        (once > 0.025).sum(axis=1) == 1
    ).all()  # one method of each trial, and each has its turn
    assert ((once > 0.025).sum(axis=0) > 90).all()
    assert study.simulate(study.resampling(pairs, 0.0), RULES, 3, 200).passed == 200


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It packs a folder, the same bytes each time, prints and writes the report; 1 where a trial is
    missing, 2 without.

    And 2 with another machine's.
    """
    monkeypatch.setattr(study, "RESAMPLED", 300)
    for made in MADE:
        (tmp_path / f"trial-{made.number:04d}.json").write_text(made.model_dump_json())
    (tmp_path / "begun.jsonl").write_text(
        "".join(f"{line.model_dump_json()}\n" for line in recorded(*MADE).started)
    )
    every, again, cut, there = (
        str(tmp_path / f"{name}.jsonl.gz") for name in ("all", "again", "cut", "there")
    )
    for file in (every, again):
        assert calibration.main(["trials", str(tmp_path), "--pack", file]) == 0
    assert Path(every).read_bytes() == Path(again).read_bytes()
    assert study.load(Path(every)) == recorded(*MADE)
    elsewhere = [
        trial(made.number, made.slowdown, environment={"fingerprint": "another"}) for made in MADE
    ]
    study.pack(recorded(*MADE[1:]), Path(cut))
    study.pack(recorded(*elsewhere), Path(there))
    assert (
        calibration.main(
            ["trials", every, "--out", str(tmp_path / "evidence.md"), "--loaded", every]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert text == (tmp_path / "evidence.md").read_text()
    rows = [
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith("| 1 % / 3 % | as recorded")
    ]
    assert [row[2] for row in rows] == ["0 %", "1 %", "2 %", "3 %", "5 %"]
    assert (rows[0][3], rows[-1][3:5]) == ("0.00 %", ["100.00 %", "100.00 %"])
    assert calibration.main(["trials", cut]) == 1
    (tmp_path / "none").mkdir()
    assert calibration.main(["trials", str(tmp_path / "none")]) == 2
    assert calibration.main(["trials", every, "--loaded", there]) == 2


@pytest.mark.parametrize("name", ["amd-epyc", "intel-xeon"])
def test_the_committed_trials_give_the_committed_rates(name: str) -> None:
    """All are there, from their blocks come their verdicts, and the page's live parts are what
    they say.
    """
    machine = CHECK / name
    assert {folder.name for folder in CHECK.iterdir()} == {"amd-epyc", "intel-xeon"}, (
        "one more has to be named here"
    )
    titles = {
        machine: "## Live trials",
        machine / "loaded": "## Live trials under a competing load",
    }
    parts, together = [], []
    for folder in [folder for folder in titles if folder.exists()]:
        trials = study.load(*sorted(folder.glob("*.jsonl.gz")))
        assert len(trials.trials) >= 6
        assert study.wrong(trials) == []
        together += trials.trials
        assert all(found.report.seconds <= 600 for found in trials.trials), (
            "the time that a check may take"
        )
        parts += [titles[folder], study.live(trials)]
    assert study.mixed(together) is None
    assert (machine / "evidence.md").read_text().startswith("\n\n".join([*parts, "## Resampling"]))
