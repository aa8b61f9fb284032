"""`run-all --until decided`: seeds are added in rounds, who is behind leaves, and it ends when
it is decided.
"""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result

from helpers import tiny
from helpers.commands import called
from hpml_bench import run_suite
from hpml_bench.judge.results import Results
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.suite import Until, load_suite
from hpml_bench.sweep.race import measured, rounds, standing
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError
from hpml_bench.verify.verify import verify

METHODS = {"full": {"lr": 3e-2}, "head": {"lr": 1e-6}, "lora": {"lr": 1e-6}}


def run_all(suite: Path, out: Path, *more: str, status: int = 0) -> Result:
    return called("run-all", suite, "--out", out, "--wandb", "off", *more, status=status)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race of two methods, of which one learns and one can't, in rounds of 3 and 4 seeds; with
    what was printed.
    """
    folder = tmp_path_factory.mktemp("race")
    suite = tiny.local_suite(
        folder, 240, {"methods": METHODS}, steps=12, test_samples=100, world_size=1
    )
    done = run_all(suite, folder / "out", "--until", "decided", "--max-seeds", "4")
    (folder / "printed").write_text(done.output)
    return folder


def test_rounds_add_seeds_of_those_in_the_race_until_it_is_decided(raced: Path) -> None:
    """Printed before each round and at the end; who left has the seeds of its last round,
    declared in each record.
    """
    printed = (raced / "printed").read_text()
    assert "round 1 of 2, 3 seeds: " in printed
    results = Results.load(raced / "out" / "colours")
    found = results.verdicts
    seeds = {name: len(of) for name, of in found.scores.means.items()}
    assert len(found.rounds) in {1, 2}
    for one in found.rounds:
        assert all(seeds[name] == one.seeds for name in one.left)
    assert all(seeds[name] == found.rounds[-1].seeds for name in found.rounds[-1].systems)
    assert {record.declared.until for record in results.compared if record.declared} == {
        Until(rounds=(3, 4))
    }
    end = standing(
        measured(raced / "out" / "colours"), Until(rounds=(3, 4)), ("full", "head", "lora")
    ).end
    assert end
    assert f": {end}" in printed


def test_the_same_command_goes_on_where_it_was(raced: Path, tmp_path: Path) -> None:
    """Without a run of the last round it is done again, and the page is the same; ended, nothing
    is run.
    """
    folder, suite = (
        shutil.copytree(raced / "out", tmp_path / "out") / "colours",
        raced / "colours.yaml",
    )
    before = Results.load(folder).verdicts
    last = before.rounds[-1]
    lost = next(folder.glob(f"{last.systems[0]}-s{last.seeds - 1}-*"))
    shutil.rmtree(lost)
    assert len(Results.load(folder).verdicts.rounds) == len(before.rounds) - 1
    run_all(suite, folder.parent, "--until", "decided", "--max-seeds", "4")
    assert lost.exists()
    after = Results.load(folder).verdicts
    assert after.rounds == before.rounds
    assert [(c.a, c.b, c.p_adjusted) for c in after.score] == [
        (c.a, c.b, c.p_adjusted) for c in before.score
    ]
    (folder / "report.html").unlink()
    once_more = run_all(suite, folder.parent, "--until", "decided", "--max-seeds", "4")
    assert "ok in" not in once_more.output
    assert (folder / "report.html").exists(), "an ended race writes its page again"


def test_a_race_is_asked_for_from_python(raced: Path, tmp_path: Path) -> None:
    """It writes its page again; what is asked for is refused as on the command line."""
    out, suite = shutil.copytree(raced / "out", tmp_path / "out"), str(raced / "colours.yaml")
    (out / "colours" / "report.html").unlink()
    frame = run_suite(suite, out=out, until="decided", max_seeds=4)
    assert (out / "colours" / "report.html").exists()
    assert len(frame) == len(Results.load(out / "colours").compared)
    with pytest.raises(UserError, match="--seeds without it"):
        run_suite(suite, out=out, until="decided", seeds=4)


def test_a_preview_of_a_fresh_race_removes_nothing(raced: Path, tmp_path: Path) -> None:
    """It says the least and the most runs."""
    out = shutil.copytree(raced / "out", tmp_path / "out")
    before = sorted(out.rglob("*"))
    options = ("--until", "decided", "--max-seeds", "4", "--fresh", "--parallel", "1", "--dry-run")
    done = run_all(raced / "colours.yaml", out, *options)
    assert "9 to 12 runs" in done.output
    assert sorted(out.rglob("*")) == before


def test_an_honest_race_is_verified(raced: Path, tmp_path: Path) -> None:
    """Its rounds say which runs there should be; one that is missing of a complete round is
    named.
    """
    folder = tmp_path / "colours"
    shutil.copytree(raced / "out" / "colours", folder)
    made = verify(folder)
    # runs of under a second have no order in time, and logs name the home of whoever runs the tests
    assert {check.name for check in made.checks if check.state == "failed"} <= {
        "dates",
        "private paths",
    }
    assert not [check for check in made.checks if "began in another call" in check.finding]
    shutil.rmtree(next(folder.glob("head-s1-*")))
    missing = [check.finding for check in verify(folder).checks if check.name == "planned"]
    assert missing == ["suite.json: declares head with seed 1, which has no readable record"]


def test_the_exit_status_is_the_worst_of_all_rounds(
    raced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run of the first round isn't hidden by those after it."""
    statuses = iter((1, 0))
    monkeypatch.setattr(
        "hpml_bench.sweep.race.rounds", lambda request, *_: iter([request, request])
    )
    monkeypatch.setattr(
        "hpml_bench.cli.commands.run_all.sweep", lambda request, modes: next(statuses)
    )
    run_all(
        raced / "colours.yaml", raced / "out", "--until", "decided", "--max-seeds", "4", status=1
    )


def test_status_goes_by_the_first_record(raced: Path, tmp_path: Path) -> None:
    """It says how the race stands; where suite.json was edited since, by the looks that the
    first run declared.
    """
    shutil.copytree(raced / "out" / "colours", tmp_path / "colours")
    suite = tmp_path / "colours" / "suite.json"
    suite.write_text(json.dumps(json.loads(suite.read_text()) | {"until": {"rounds": [3, 9, 12]}}))
    done = called("status", tmp_path / "colours")
    assert "of 2, " in done.output
    assert (
        standing(measured(tmp_path / "colours"), Until(rounds=(3, 4)), ("full", "head", "lora")).end
        in done.output
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-seeds", "5"), "--max-seeds goes with --until"),
        (("--until", "decided", "--seeds", "5"), "--seeds without it"),
        (("--seeds", "5", "--max-seeds", "4"), "--seeds without it"),
        (
            ("--until", "decided", "--max-seeds", "4", "--methods", "full,lora"),
            "--methods goes without --until",
        ),
        (("--until", "decided", "--parallel", "1", "--detach"), "looks at each round"),
        (("--until", "decided", "--ahead"), "--ahead fills slots"),
        (("--parallel", "2", "--ahead"), "--ahead fills slots"),
        (("--until", "decided", "--max-seeds", "7"), "go on with the same --until and --max-seeds"),
        (("--until", "costs", "--max-seeds", "4"), "go on with the same --until and --max-seeds"),
    ],
)
def test_what_is_refused(options: tuple[str, ...], words: str, raced: Path) -> None:
    """Options that can't be meant together, and another declaration than that of the first run:
    looks count by it.
    """
    done = run_all(raced / "colours.yaml", raced / "out", *options, status=2)
    assert words in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("unit", "parallel", "runs"), [("run", 4, 12), ("run", 3, 9), ("seed", 4, 12), ("seed", 3, 9)]
)
def test_idle_slots_get_runs_of_the_next_round(
    unit: str, parallel: int, runs: int, tmp_path: Path
) -> None:
    """Nine runs of three seeds leave slots of a fourth wave idle, which take the first runs of
    the fourth seed.
    """
    suite = tiny.local_suite(tmp_path, more={"methods": METHODS, "until": "decided"})
    request = SweepRequest(load_suite(str(suite)), tmp_path / "out")
    profile = Profile(engine="local", unit=unit, parallel=parallel)
    first = next(rounds(request, lambda _: None, profile))
    assert len(first.runs(first.suite)) == runs
    assert [spec.seed for spec in first.runs(first.suite)] == [at // 3 for at in range(runs)]


@pytest.mark.suites
def test_a_race_ahead_of_its_rounds_is_the_same(raced: Path, tmp_path: Path) -> None:
    """Two slots for nine runs: the tenth is of the next round, which no look before it uses;
    verify wants no more.
    """
    options = ("--until", "decided", "--max-seeds", "4", "--parallel", "2", "--ahead")
    run_all(raced / "colours.yaml", tmp_path, *options)
    found, before = (
        Results.load(folder / "colours").verdicts for folder in (tmp_path, raced / "out")
    )
    assert found.rounds == before.rounds
    assert [(c.a, c.b, c.p) for c in found.score] == [(c.a, c.b, c.p) for c in before.score]
    assert [
        check.state for check in verify(tmp_path / "colours").checks if check.name == "planned"
    ] == ["ok"]


@pytest.mark.parametrize(
    ("given", "rounds"),
    [
        ("decided", (3, 4, 5, 7, 10, 14, 20)),
        ({"question": "costs", "rounds": [3, 6]}, (3, 6)),
    ],
)
def test_a_suite_may_declare_it(given: object, rounds: tuple[int, ...], tmp_path: Path) -> None:
    """By name, or with rounds of its own, which rise from 3: fewer seeds give no verdict;
    --max-seeds cuts them.
    """
    suite = tiny.local_suite(tmp_path, more={"until": given})
    until = load_suite(str(suite)).until
    assert until.rounds == rounds
    assert until.within(6).rounds[-1] == 6
    assert max(until.within(6).rounds[:-1]) < 6
    other = load_suite(str(suite)).asked("costs", None, None).until
    assert other == Until(question="costs", rounds=rounds), (
        "the option's question, the suite's rounds"
    )
    for wrong in ([], [2, 5], [3, 3], [5, 4]):
        with pytest.raises(UserError, match="rounds rise from 3"):
            load_suite(str(tiny.local_suite(tmp_path, more={"until": {"rounds": wrong}})))
