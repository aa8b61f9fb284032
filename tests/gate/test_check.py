"""A check from request to report, what disturbs it, its process pairs, and the command;
residents answer at once.
"""

import os
from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import psutil
import pytest
from residents import QUIET, asked, compared, fake

from helpers.commands import called
from hpml_bench.cli.commands import check as command
from hpml_bench.gate import baseline, machine, outputs, verdicts
from hpml_bench.gate import check as checks
from hpml_bench.gate.check import (
    BLOCKS,
    REPEATS,
    Measurement,
    Prepared,
    Request,
    check,
    settings_message,
)
from hpml_bench.gate.machine import Snapshot, disturbance
from hpml_bench.gate.records import CheckReport, Rules
from hpml_bench.gate.sides import OutOfTime
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import load_suite
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("quiet_machine")

NOISY = "0.04 * __import__('random').uniform(0.998, 1.002)"
STOLEN = {"steal": 0.5, "load": 0.0, "disturbed": "the host took it"}


def run(tmp_path: Path, request: Request, candidate: str = NOISY, extra: int = 0) -> CheckReport:
    sides = compared(
        fake(tmp_path / "a", NOISY), fake(tmp_path / "b", candidate, "candidate", extra=extra)
    )
    return check(request, sides, lambda _: None)


def measurement(tmp_path: Path, *methods: str) -> Measurement:
    """Return one of residents that answer at once; the candidate's steps take 5 % longer."""
    sides = fake(tmp_path / "a", "0.04"), fake(tmp_path / "b", "0.042", label="b")
    return Measurement(asked(*methods), compared(*sides), dict.fromkeys(sides, Prepared({}, {})))


def test_every_pair_measures_all_methods_in_blocks_of_both_orders(tmp_path: Path) -> None:
    """As many blocks of each method, in shuffled order; A is the reference, so that the ratio is
    the candidate's.
    """
    made = measurement(tmp_path, "lora", "adapter")
    with made.pair() as pair:
        made.load(pair)
        made.warm_up(pair)
        blocks = list(made.measure(pair, 3))
        firsts = {next(made.measure(pair, 0)).method for _ in range(12)}
    assert firsts == {"lora", "adapter"}
    assert Counter(block.method for block in blocks) == {"lora": BLOCKS, "adapter": BLOCKS}
    assert {block.order for block in blocks} == {"ABBA", "BAAB"}
    assert {block.pair for block in blocks} == {3}
    for block in blocks:
        assert verdicts.log_ratio(block) == pytest.approx(0.04879, abs=1e-4)


@pytest.mark.parametrize("suite", ["quickstart", "minilm", "document", "reuters"])
def test_settings_that_are_sent_are_read_as_they_were(suite: str) -> None:
    """Nothing is lost on the way; the length of a language model's texts, whose default has
    changed, is always sent.

    A version that doesn't know a newest key isn't told it: of settings and methods only what
    differs is sent.
    """
    chosen = load_suite(suite).settings
    assert Settings.model_validate(settings_message(chosen)) == chosen
    chat = {
        "backbone": "embedded:newswire-gpt2",
        "steps": 3,
        "dataset": "newswire_chat",
        "task": "causal_lm",
    }
    for length in (64, 128, 1024):
        sent = settings_message(chosen := Settings.model_validate(chat | {"max_length": length}))
        assert sent["max_length"] == length
        assert Settings.model_validate(sent) == chosen
    sent = asked("lora", "head").load_message({})
    assert (sent["settings"]["train_samples"], "clip_norm" in sent["settings"]) == (64, False)
    assert ["options" in method for method in sent["methods"]] == [True, False]


def test_equals_pass_at_the_first_look_and_what_is_slower_fails(tmp_path: Path) -> None:
    """Twelve pairs decide; the report has every block, both sides' versions, and says PASS of time
    and counts.

    Four percent is more than is let through; one operator more is a count's FAIL by name.
    """
    report = run(tmp_path / "equal", asked())
    assert report.pairs == 12
    assert {block.pair for block in report.blocks} == set(range(12))
    assert [verdict.status for verdict in report.verdicts] == ["PASS", "PASS"]
    assert report.reference.versions == {"torch": "1.2.3"}
    assert verdicts.exit_status(report.verdicts, strict=True) == 0
    assert CheckReport.model_validate_json(report.model_dump_json()) == report
    report = run(tmp_path / "slower", asked(), f"1.04 * {NOISY}", extra=1)
    status = {verdict.metric: verdict.status for verdict in report.verdicts}
    assert status == {"step_time": "FAIL", "operators_per_step": "FAIL"}
    assert report.counts[0].grew == ("aten::mm +1",)
    assert verdicts.exit_status(report.verdicts, strict=False) == 1


def test_time_that_runs_out_is_inconclusive(tmp_path: Path) -> None:
    """It is ended at the limit, and says no more than its few pairs allow."""
    wild = "0.04 * (0.9 if START % 2 else 1.1)"
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", wild, pause=0.6, label="wild"))
    report = check(asked(minutes=4 / 60), sides, lambda _: None)
    assert 1 <= report.pairs <= 6
    assert report.seconds < 10
    assert report.verdicts[0].status == "INCONCLUSIVE"
    assert verdicts.exit_status(report.verdicts, strict=True) == 3


def test_no_time_at_all_is_an_error(tmp_path: Path) -> None:
    """A gate that measured nothing must not be green; who kept it waiting is named."""
    for count in (True, False):
        with pytest.raises(
            UserError, match=r"(fake|candidate): did not answer before the time was up"
        ):
            run(tmp_path / str(count), replace(asked(minutes=0.0001), count=count))


@pytest.mark.parametrize(("extra", "status"), [(0, 2), (1, 1)])
def test_counts_stand_where_no_time_was_left(
    extra: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grew fails although no pair was timed; what didn't grow is no pass."""

    def late(*_: object) -> None:
        raise OutOfTime("the time was up")

    monkeypatch.setattr(checks.Measurement, "warm_up", late)
    report = run(tmp_path, asked(minutes=1), extra=extra)
    assert (report.verdicts[0].metric, report.verdicts[0].pairs) == ("step_time", 0)
    assert report.notes == ("the time was up",)
    assert verdicts.exit_status(report.verdicts, strict=False) == status


def test_a_request_is_of_one_rank_at_a_steady_rate() -> None:
    """The suite's own ranks, threads and schedule would make pieces differ; three methods are
    the default.
    """
    # Too many methods are refused before anything is measured.
    request = checks.request(load_suite("quickstart"), None, Rules(), None)
    assert (request.settings.world_size, request.settings.threads) == (1, 1)
    assert (request.settings.schedule, request.settings.lr_warmup) == ("constant", 0.0)
    assert request.names == ("lora", "prompt_tuning", "adapter")
    with pytest.raises(UserError, match="can't be judged"):
        asked("lora", "adapter", rules=Rules(looks=(6,)))


def test_disturbed_pairs_are_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look waits until every method has its number of pairs; what was disturbed is noted, and
    repeated a few times.

    On a machine that is never quiet the number of pairs is bounded, and nothing that was disturbed
    is counted.
    """
    found = iter(
        [STOLEN] * (2 * (1 + REPEATS) + 1)
    )  # two pairs, and a round of a third that is quiet when repeated
    monkeypatch.setattr(checks, "disturbance", lambda *_: next(found, QUIET))
    report = run(tmp_path / "quiet", asked())
    assert report.pairs == 14
    assert report.verdicts[0].pairs == 12
    assert [block.pair for block in report.blocks].count(2) == 2 * BLOCKS
    assert "56 of 152 blocks were disturbed" in report.notes[0]
    monkeypatch.setattr(checks, "disturbance", lambda *_: STOLEN)
    report = run(tmp_path / "never", asked(rules=Rules(looks=(6, 8), alpha=0.05)))
    assert report.pairs == 12
    assert (report.verdicts[0].status, report.verdicts[0].pairs) == ("INCONCLUSIVE", 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"stolen": 0.1}, "the host took 5%"),
        ({"throttled": 2}, "quota"),
        ({"busy": 4.5, "own": 0}, "4.5 other processes"),
        ({"busy": 4.5, "own": 2}, None),
    ],
)
def test_disturbance_is_judged_from_what_others_did(
    changes: dict[str, float], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stolen time, throttling and a crowd disturb; our own work doesn't."""
    monkeypatch.setattr(environment, "affinity", lambda: {0, 1})
    quiet = Snapshot(at=0, total=0, busy=0, stolen=0, own=0, throttled=0)
    fields: dict[str, Any] = {"at": 1, "total": 2, "busy": 1, "own": 1} | changes
    found = disturbance(quiet, replace(quiet, **fields))["disturbed"]
    assert (found is None) == (reason is None)
    assert (reason or "") in (found or "")


def test_only_the_cores_allowed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on elsewhere on a large host disturbs nobody here; where these aren't listed all
    cores are summed.

    Where the list can't be read, all is 0.
    """
    times = namedtuple("times", "user nice system idle iowait irq softirq steal guest guest_nice")
    cores = [times(core, 0, 0, 1, 1, 0, 0, 2, 9, 9) for core in range(8)]
    monkeypatch.setattr(psutil, "cpu_times", lambda *, percpu: cores)
    for allowed, busy in (({2, 5}, 7), ({99}, 28)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        found = machine.snapshot([])
        cores_read = len(allowed) if busy == 7 else 8
        assert (found.busy, found.stolen, found.total) == (
            busy,
            2 * cores_read,
            busy + 4 * cores_read,
        )

    def unreadable(*, percpu: bool) -> None:
        raise PermissionError(percpu)

    monkeypatch.setattr(psutil, "cpu_times", unreadable)
    assert machine.snapshot([]).total == 0


def test_a_snapshot_counts_this_process_as_its_own() -> None:
    """A busy loop here raises `own` by the processor's time that it gets."""
    before, end = machine.snapshot([]), process_time() + 0.1
    while process_time() < end:
        pass
    after = machine.snapshot([])
    assert after.own - before.own >= 0.05
    assert after.total > before.total > 0


# The command


FOUR = "exactly one of --against REV, --against-env PYTHON, --baseline FILE and --self-test"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("check", FOUR),
        ("check --against main --self-test", FOUR),
        *(
            (f"check --self-test --slowdown {value}", "is no share")
            for value in ("0", "three", "-1%", "200%")
        ),
        ("check --self-test --slowdown 0.5%", "must be above the 1%"),
        *(
            (f"check --self-test {option}", f"{option.removesuffix('=x')}: goes with a check")
            for option in (
                "--strict",
                "--counts-only",
                "--json=x",
                "--junit=x",
                "--markdown=x",
                "--html=x",
            )
        ),
        ("baseline save base.json --runs 9", "--runs"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: str, sentence: str) -> None:
    """What to compare with is named once; a slowdown is a share above what is let through; ten
    runs at least.
    """
    assert sentence in called(*arguments.split(), status=2).output


@pytest.mark.parametrize(("extra", "status"), [(0, 0), (1, 1)])
def test_status_and_files(
    extra: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 where nothing grew, 1 where something did; every file asked for is written."""
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", extra=extra, label="b"))
    monkeypatch.setattr(command, "_comparison", lambda *_: sides)
    files = {
        kind: tmp_path / "new" / f"check.{kind}" for kind in ("json", "junit", "markdown", "html")
    }
    options = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    done = called(
        "check", "--against", "main", "--counts-only", "--methods", "lora", *options, status=status
    )
    assert done.output.splitlines()[0] == "suite quickstart, lora"
    assert all(path.stat().st_size for path in files.values())
    assert bool(CheckReport.model_validate_json(files["json"].read_text()).counts[0].grew) == bool(
        extra
    )


@pytest.mark.parametrize("kind", ["json", "junit", "markdown", "html"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is a file, or can't have any in it; nothing is installed for it."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setattr(command, "_comparison", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "check", Path("/proc/check"), tmp_path / ("long" * 99)):
        done = called(
            "check", "--against", "main", "--methods", "lora", f"--{kind}", path, status=2
        )
        assert f"--{kind} {path}: can't be written (" in done.output
        assert len(done.output.splitlines()) == 1


def full(*_: object) -> None:
    raise OSError(28, "No space left")


def test_annotations_and_files_do_not_cost_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A summary that can't be written leaves the files, and a file that can't any more leaves
    the annotations.
    """
    sides = compared(fake(tmp_path / "a"), fake(tmp_path / "b", label="b", extra=1))
    monkeypatch.setattr(command, "_comparison", lambda *_: sides)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary"))
    report = tmp_path / "check.json"
    words = ("check", "--against", "main", "--counts-only", "--methods", "lora", "--json", report)
    output = called(*words, status=2).output
    assert "none/summary can't be written (" in output
    assert report.exists()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setattr(outputs, "write_atomically", full)
    output = called(*words, status=2).output
    assert f"--json {report}: can't be written (No space left)" in output
    assert "::error title=FAIL lora%3A operators" in output
    assert (tmp_path / "summary").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "say what to compare with"),
        (("--against", "main", "--max-minutes", "ten"), "'ten' is not a valid float range."),
        (("--against", "main", "--methods", "nosuch"), "nosuch"),
    ],
)
def test_a_mistake_is_annotated_in_a_github_workflow(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and sentence are those it has elsewhere, where there is no annotation."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    elsewhere = called("check", *arguments, status=2)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    there = called("check", *arguments, status=2)
    annotation, _, rest = there.output.partition("\n")
    assert annotation.startswith("::error title=hpml-bench check::")
    assert sentence in annotation
    assert rest == elsewhere.output


@pytest.mark.parametrize(("options", "status"), [((), 0), (("--strict",), 3)])
def test_two_versions_that_cannot_be_compared_are_shown(
    options: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INCOMPARABLE fails only where that is asked for."""
    sides = compared(fake(tmp_path / "a", protocol=7, label="v7"), fake(tmp_path / "b", label="b"))
    monkeypatch.setattr(command, "_comparison", lambda *_: sides)
    done = called("check", "--against", "v7", "--methods", "lora", *options, status=status)
    assert "INCOMPARABLE" in done.output
    assert "protocol 7" in done.output


@pytest.mark.parametrize(
    "error", [RuntimeError("no foresight"), OSError(32, "Broken pipe"), EOFError()]
)
@pytest.mark.parametrize("command_line", ["check --against main", "baseline save base.json"])
def test_a_bug_is_no_regression(
    command_line: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2 and one sentence with the place: 1, which is Python's and click's, would be a
    regression.
    """

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "_comparison", broken)
    monkeypatch.setattr(baseline, "save", broken)
    done = called(*command_line.split(), "--methods", "lora", status=2)
    assert f"{type(error).__name__}: {error} (test_check.py:" in done.output
    assert "Traceback" not in done.output
