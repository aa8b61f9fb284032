"""Checks of a folder and `hpml-bench verify`: lines, status, verified.json; hostile and unusual
folders, early ends.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

import hpml_bench
from helpers import tiny
from helpers.commands import called
from helpers.forging import (
    REFERENCE,
    Edit,
    Forged,
    Json,
    edit_points,
    of_quickstart,
    record,
    record_of,
    sealed,
)
from hpml_bench.judge.results import Results
from hpml_bench.records.load import headlines
from hpml_bench.select.selection import Selection
from hpml_bench.system.errors import UserError
from hpml_bench.verify.verify import ALL, Verified, verify


def of(made: Verified, name: str) -> list[str]:
    return [
        check.finding for check in made.checks if check.name == name and check.state == "failed"
    ]


@pytest.fixture
def forged(tmp_path: Path) -> Forged:
    """Return a folder of three methods and one seed."""
    return of_quickstart(tmp_path / "quickstart", seeds=1)


def test_pipes_and_links_are_named_and_not_followed(forged: Forged, tmp_path: Path) -> None:
    """Opening a pipe would wait for ever; nothing behind a link is read, also where a tracker's
    folder has its name.
    """
    os.mkfifo(forged.folder / "pipe")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("hf_" + "a1" * 20)
    (forged.folder / "wandb").symlink_to(tmp_path / "outside")
    (
        own := forged.run("lora", 0) / "wandb"
    ).mkdir()  # only the folder beside the runs is the tracker's
    (own / "log").symlink_to("/nowhere")
    made = verify(forged.folder)
    found = [
        "pipe: is no regular file",
        "wandb: is a link",
        f"{own.parent.name}/wandb/log: is a link",
    ]
    assert sorted(of(made, "plain files")) == sorted(found)
    assert of(made, "secrets") == []


def test_a_trackers_folder_is_no_part_of_the_result(forged: Forged) -> None:
    """A line says that nobody looked there; neither its links nor its texts fail a check or
    change the digest.
    """
    before = verify(forged.folder)
    logs = forged.folder / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to("/nowhere")
    (logs / "debug.log").write_text("/home/" + "alice/x\n")
    made = verify(forged.folder)
    assert (made.consistent, made.digest) == (True, before.digest)
    (found,) = [check for check in made.checks if "wandb" in check.finding]
    assert (found.state, found.name) == ("not checked", "plain files")
    shutil.rmtree(forged.folder / "wandb")
    forged.run("lora", 0).rename(forged.folder / "wandb")
    made = verify(forged.folder)
    assert made.runs == before.runs - 1, "a run there is missing from those that the suite declares"
    assert [line for line in of(made, "planned") if "declares lora with seed 0" in line]
    assert [record.run_id for record in headlines(forged.folder)] == [
        run.name for run in forged.runs[:-1]
    ]


def test_a_method_that_is_not_installed_is_said(forged: Forged) -> None:
    """Its suite can't be compared: a line says so, and other checks go on."""
    suite = forged.folder / "suite.json"
    suite.write_text(suite.read_text().replace('"method": null', '"method": "no_such_method"'))
    forged.edit(forged.run("lora", 0), spec__method__method="no_such_method", spec__suite="other")
    checks = [check for check in verify(forged.folder).checks if check.name in {"ids", "suite"}]
    for words in ("there is no method 'no_such_method'", "a plug-in of it isn't installed"):
        assert "not checked" in {check.state for check in checks if words in check.finding}


def test_secrets_here_and_home_folders_are_found(
    forged: Forged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets whatever their form; homes of Linux, macOS and Windows, of which an address has
    none.
    """
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    homes = ["/home/" + "alice/x", "/Users/" + "alice", "C:\\Users\\" + "alice\\x"]
    others = [
        "https://example.org/home/" + "page",
        "to /homework/1",
        "/data/x.csv",
        "with correct-horse-battery",
    ]
    (forged.folder / "notes.txt").write_text("\n".join((*homes, *others)))
    made = verify(forged.folder)
    assert of(made, "secrets") == ["notes.txt:7: holds a secret of this environment"]
    lines = [line.partition(" ")[0] for line in of(made, "private paths")]
    assert lines == ["notes.txt:1:", "notes.txt:2:", "notes.txt:3:"]


def test_counts_that_differ_in_every_seed_are_no_contradiction(tmp_path: Path) -> None:
    """A method may choose its sizes by what it learns; one seed alone that differs is named."""
    made = of_quickstart(tmp_path / "quickstart", methods=("lora", "head"))
    for seed in range(3):
        made.edit(made.run("lora", seed), metrics__saved_bytes=1000.0 + seed)
    assert of(verify(made.folder), "sizes") == []
    made.edit(made.run("lora", 1), metrics__saved_bytes=1000.0)
    assert len(of(verify(made.folder), "sizes")) == 1


# The command


WIDTH = 80


def call(folder: Path, status: int = 0, width: int = WIDTH) -> str:
    return called("verify", folder, status=status, width=width).output


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_quickstart(tmp_path_factory.mktemp("honest") / "quickstart").folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "quickstart"))


@pytest.mark.parametrize(
    "name", ["quickstart", "minilm", "faq", "chat", "regression", "tagging", "trainers"]
)
def test_the_references_are_accepted(name: str, tmp_path: Path) -> None:
    """With their pages; each check has a line, and none is beyond the terminal's width."""
    said = call(Path(shutil.copytree(REFERENCE / name, tmp_path / name)))
    assert "failed" not in said
    assert max(map(len, said.replace(str(tmp_path / name), "").splitlines())) <= WIDTH
    assert {check.__name__.replace("_", " ") for check in ALL} == {
        check["name"]
        for check in json.loads((tmp_path / name / "verified.json").read_text())["checks"]
    }


def test_edited_pages_and_charts_are_refused(tmp_path: Path) -> None:
    """Numbers for programs, sentences, lines, words and elements are compared with those that
    the records give.
    """
    folder = Path(shutil.copytree(REFERENCE / "tagging", tmp_path / "tagging"))
    edits = {
        "report.json": ('"seeds": 1', '"seeds": 5'),
        "report.md": ("full", "lora"),
        "report.html": (' x2="', ' x2="1'),
        "figures/latency.svg": ("</svg>", "<text>head scores best</text></svg>"),
        "figures/curve_train_loss.svg": ("<line ", '<line onload="document.title = 1" '),
    }
    for name, (old, new) in edits.items():
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    (folder / "tables" / "best.csv").write_text("method,accuracy\nours,99\n")
    call(folder, 1)
    checks = json.loads((folder / "verified.json").read_text())["checks"]
    assert {check["finding"] for check in checks if check["state"] == "failed"} == {
        *(f"{name}: is not what the records give" for name in edits),
        "tables/best.csv: is no part of the report that the records give",
    }


def test_pages_beside_the_report_are_not_checked(folder: Path) -> None:
    """A reader may take them for the report's: a line names each, and refuses nothing."""
    names = ("index.html", "RESULTS.md", "figures.svg")
    for name in names:
        (folder / name).write_text("head scores best\n")
    said = call(folder, width=200)
    for name in names:
        assert re.search(rf"not checked +page +{name}: is no page of the report", said)


def test_a_report_that_cannot_be_written_again_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk is full: what is there may still be right."""
    folder = Path(shutil.copytree(REFERENCE / "tagging", tmp_path / "tagging"))

    def full(*_: object) -> None:
        raise UserError("no space")

    monkeypatch.setattr("hpml_bench.verify.files.write_page", full)
    assert re.search(
        r"not checked +page +the report can't be written again: no space", call(folder, width=200)
    )


def test_what_is_wrong_stands_first(folder: Path) -> None:
    """A line for each finding, five of a check at most; then what isn't checked, then what
    holds; status 1.
    """
    made = Forged(folder)
    made.edit(*made.runs, environment__python=None)
    said = call(folder, 1)
    lines = said.splitlines()
    states = [
        state for line in lines if (state := line[:11].strip()) in {"failed", "not checked", "ok"}
    ]
    assert states == sorted(states, key=["failed", "not checked", "ok"].index)
    assert states.count("failed") == 5
    assert "and 4 more of environment, in verified.json" in said
    assert "not consistent: see environment" in said
    assert max(len(line) for line in lines if str(folder) not in line) <= WIDTH
    assert len(json.loads((folder / "verified.json").read_text())["checks"]) == len(states) + 4


def test_the_verdicts_are_written_with_all_digests(folder: Path) -> None:
    """The digest of everything is what the commands of docs/submit.md print.

    The same folder gives the same file again; else the output names what differs.
    """
    said = call(folder)
    written = json.loads((folder / "verified.json").read_text())
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "verified.json"]
    sums = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert written["files"] == sums
    text = (Path(__file__).parents[2] / "docs" / "submit.md").read_text()
    (command,) = re.findall(r"^    (find .*sha256sum)$", text, re.MULTILINE)
    assert (
        subprocess.check_output(["bash", "-c", command], cwd=folder, text=True).split()[0]
        == written["digest"]
    )
    assert (written["consistent"], written["suite"], written["format"]) == (True, "quickstart", 1)
    assert f"sha256:{written['digest']}" in said
    before = (folder / "verified.json").read_bytes()
    assert "last written" not in call(folder)
    assert (folder / "verified.json").read_bytes() == before
    (folder / "notes.txt").write_text("a note\n")
    assert "since verified.json was last written changed: notes.txt" in call(folder)


def test_a_folder_without_a_readable_record_is_refused(folder: Path) -> None:
    """Each is named; what needs records isn't checked."""
    for path in folder.glob("*/run.json"):
        path.write_text("{}")
    said = call(folder, 1)
    assert "0 runs" in said
    assert "no record can be read" in said


def test_a_folder_that_is_no_result_is_a_mistake(tmp_path: Path, honest: Path) -> None:
    """One sentence and status 2."""
    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        shutil.copytree(honest, tmp_path / "several" / name)
    for where in ("missing", "empty", "several"):
        assert len(call(tmp_path / where, 2).splitlines()) == 1


def test_a_folder_that_can_not_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts are printed, then the sentence."""
    refuse = Mock(side_effect=OSError(30, "Read-only file system"))
    monkeypatch.setattr("hpml_bench.verify.verify.write_atomically", refuse)
    said = call(folder, 2)
    assert "plain files" in said
    assert "Read-only file system; verify a copy of the folder" in said


def test_a_record_made_to_stop_a_check_is_refused(folder: Path) -> None:
    """What a check stops at is a finding, since else it would pass."""
    made = Forged(folder)
    made.edit(
        made.run("lora", 0),
        environment__fingerprint={"a": 1},
        environment__hardware="b",
        seconds=1e300,
    )
    assert "can't be checked (OverflowError" in call(folder, 1, width=200)


# Runs that end early, by `select: early`


PLANNED, EVERY, PATIENCE = 60, 4, 2


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three methods whose runs ended early, lora's later than the heads'."""
    folder = tmp_path_factory.mktemp("early")
    settings = {
        "steps": PLANNED,
        "eval_every": EVERY,
        "select": "early",
        "patience": PATIENCE,
        "world_size": 1,
    }
    suite = tiny.local_suite(folder, **settings)
    content = yaml.safe_load(suite.read_text())
    suite.write_text(
        yaml.safe_dump(
            content | {"seeds": 1, "methods": content["methods"] | {"h": {"method": "head"}}}
        )
    )
    hpml_bench.run_suite(str(suite), out=folder / "out")
    return folder / "out" / "colours"


@pytest.fixture
def early(ended_early: Path, tmp_path: Path) -> Forged:
    return Forged(Path(shutil.copytree(ended_early, tmp_path / "colours")))


def wrong(made: Verified) -> dict[str, str]:
    """Return check -> what failed, logs' paths apart."""
    return {
        one.name: one.finding
        for one in made.checks
        if one.state == "failed" and one.name != "private paths"
    }


def test_runs_that_ended_early_hold(ended_early: Path) -> None:
    """Runs of unequal steps are compared, and the page says which step was selected."""
    assert wrong(verify(ended_early)) == {}
    results = Results.of(Selection.load(ended_early))
    steps = {record.consumed.steps for record in results.compared if record.consumed}
    assert len(results.compared) == 3
    assert len(steps) > 1
    assert max(steps) < PLANNED
    page = (ended_early / "report.md").read_text()
    assert "test rows never chose" in page
    assert f"A training ended at most {PATIENCE} evaluations later" in page


def shorter(made: Forged) -> list[Path]:
    """Let a run have ended an evaluation earlier, with points and sums that fit."""
    run, kept = made.run("lora", 0), list[Json]()
    steps, batch = (
        record_of(run)["consumed"]["steps"] - EVERY,
        record_of(run)["spec"]["settings"]["global_batch"],
    )
    edit_points(
        run, lambda old: kept.extend(point for point in old if point["step"] <= steps) or kept
    )
    timed = [point for point in kept if point["metric"] == "step_seconds"]
    seconds = [point["value"] for point in timed]
    losses = [point["value"] for point in kept if point["metric"] == "train_loss"][-20:]
    made.edit(
        run,
        consumed__steps=steps,
        consumed__samples=batch * steps,
        consumed__real_tokens=sum(point["real_tokens"] for point in timed),
        consumed__padded_tokens=sum(point["tokens"] for point in timed),
        metrics__train_seconds=sum(seconds),
        metrics__train_seconds_second_clock=sum(seconds),
        metrics__samples_per_second=batch * len(seconds[1:]) / sum(seconds[1:]),
        metrics__train_loss=sum(losses) / len(losses),
    )
    return [run]


@pytest.mark.parametrize(
    ("edit", "check", "what"),
    [
        (shorter, "consumption", "steps, and its validation scores give"),
        (
            record("lora 0", metrics__selected_step=4.0),
            "self checks",
            "fails the self-check selected step",
        ),
        (
            record("lora 0", metrics__selected_seconds=0.001),
            "self checks",
            "fails the self-check selected step",
        ),
        (
            record("lora 0", consumed__planned=PLANNED - EVERY),
            "consumption",
            "steps 56 instead of 60",
        ),
        (
            record("lora 0", consumed__planned=PLANNED - EVERY),
            "steps",
            "took 56 steps, and its settings say 60",
        ),
        (
            record("lora 0", consumed__planned=PLANNED - EVERY),
            "rates",
            "its method and schedule give",
        ),
        (
            record("lora 0", consumed__planned=None),
            "steps",
            "its plan without an early end is of None steps",
        ),
        (
            record("lora 0", consumed__order="0" * 16),
            "consumption",
            "order 0000000000000000 instead of",
        ),
        (
            record("lora 0", spec__settings__select="last", spec__settings__patience=None),
            "steps",
            "it has select last",
        ),
    ],
)
def test_a_forged_early_end_is_named(edit: Edit, check: str, what: str, early: Forged) -> None:
    """Hashes, sums and self-checks of the record were made to fit."""
    run = sealed(early, edit)
    found = wrong(verify(early.folder))[check]
    assert what in found
    assert found.startswith(run)
