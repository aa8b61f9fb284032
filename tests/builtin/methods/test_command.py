"""Another program as a method: what it gets, how it may fail, and that nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from helpers import skips
from helpers.cli_process import Command
from helpers.commands import called
from helpers.waiting import until
from hpml_bench.cli import main
from hpml_bench.plugins.method import make_method
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.local import run_sweep
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.errors import ProgramFailed, UserError
from hpml_bench.training import program

SETTINGS = {
    "backbone": "embedded:newswire-gpt2",
    "task": {"name": "causal_lm", "options": {"scorer": "exact", "max_new_tokens": 2}},
    "dataset": "newswire_chat",
    "train_samples": 24,
    "validation_samples": 8,
    "test_samples": 16,
    "steps": 3,
    "global_batch": 8,
    "max_length": 96,
    "latency_samples": 0,
    "device": "cpu",
    "world_size": 2,
    "threads": 1,
    "precision": "fp32",
}
TRAINER = '''
"""A trainer of the tests: copies the model, or does what MODE says."""
import json, os, shutil, subprocess, sys, time
from pathlib import Path

mode, model, train, out, seed, note = sys.argv[1:7]
print("mode", mode, flush=True)
if mode == "crash":
    sys.exit("no such optimizer")
if mode == "kill":
    os.kill(os.getpid(), 9)
if mode == "memory":
    raise MemoryError("all of it")
if mode in ("leave", "hang"):
    orphan = "import os, time; os.setsid(); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-S", "-c", orphan])
    Path(note).write_text(json.dumps([os.getpid(), child.pid]))
if mode == "hang":
    time.sleep(600)
if mode != "nothing":
    shutil.copytree(model, out, dirs_exist_ok=True)
    Path(out, "consumed.json").write_text(json.dumps({"tokens": 77}))
if mode == "well":
    seen = [sys.argv[6:], Path(train).read_text(), dict(os.environ), os.getcwd()]
    Path(note).write_text(json.dumps(seen))
'''
ARGUMENTS = ["{model}", "{train}", "{out}", "{seed}"]


def suite_file(folder: Path, mode: str = "well", *words: str, **settings: Any) -> Path:
    """Write a trainer, and beside it a suite of that and the base model."""
    (folder / "train.py").write_text(TRAINER)
    run = ["python", "train.py", mode, *ARGUMENTS, str(folder / "note"), *words]
    methods = {"none": {}, "other": {"method": "command", "lr": 0.5, "options": {"run": run}}}
    file = folder / "commands.yaml"
    file.write_text(
        yaml.safe_dump({"seeds": 2, "settings": SETTINGS | settings, "methods": methods})
    )
    return file


def run(
    file: Path, out: Path, seeds: tuple[int, ...] = (0,), **limits: Any
) -> tuple[RunRecord, ...]:
    """Do the trainer's runs of these seeds, and return their records; nothing of them is left."""
    request = SweepRequest(
        load_suite(str(file)),
        out,
        ("other",),
        seeds,
        limits=Limits(**{"stall": 0} | limits),
        allow_commands=True,
    )
    records = run_sweep(request, Console(quiet=True)).records
    assert processes.descendants() == set()
    assert not [*out.glob("*/*/command")]
    return records


def noted(folder: Path) -> Any:
    return json.loads((folder / "note").read_text())


def gone(pids: list[int]) -> bool:
    return until(lambda: not any(map(psutil.pid_exists, pids)))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[RunRecord, ...]]:
    """A suite whose trainer returned the base model, and its records of two seeds."""
    folder = tmp_path_factory.mktemp("done")
    words = ("{steps}", "{lr}", "{global_batch}", "{world_size}", "a {{b}}")
    file = suite_file(folder, "well", *words)
    records = run(file, folder / "out", (0, 1))
    request = SweepRequest(load_suite(str(file)), folder / "out", ("none",))
    return folder, (*records, *run_sweep(request, Console(quiet=True)).records)


def test_a_program_gets_the_rows_and_what_it_leaves_is_scored(
    done: tuple[Path, tuple[RunRecord, ...]],
) -> None:
    """Its arguments are the suite's values; the rows TRL's messages; the copied base model
    scores as the base model.
    """
    folder, (first, second, base) = done
    arguments, rows, environment, place = noted(folder)
    assert arguments == [str(folder / "note"), "3", "0.5", "8", "2", "a {b}"]
    messages = [json.loads(line)["messages"] for line in rows.splitlines()]
    assert len(messages) == 24
    assert [turn["role"] for turn in messages[0]] == ["user", "assistant"]
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "1", "it starts its own ranks, as it is told how many"
    assert Path(place).name == "command"
    assert {record.status for record in (first, second, base)} == {"ok"}
    assert first.metrics["test_loss"] == second.metrics["test_loss"] == base.metrics["test_loss"]
    assert first.metrics["program_tokens"] == 77
    assert first.metrics["program_seconds"] > 0
    assert first.metrics["program_memory_mb"] > 1
    assert "train_seconds" not in first.metrics or first.metrics["train_seconds"] is None
    assert not [metric for metric in base.definitions if metric.name.startswith("program_")]
    assert (
        "mode well"
        in (folder / "out" / "commands" / first.run_id / "rank0-command.log").read_text()
    )


def test_its_folder_is_reported_and_verified_without_running_it(
    done: tuple[Path, tuple[RunRecord, ...]],
) -> None:
    """Pages say whose program trained; neither command starts it again."""
    folder, _ = done
    before = (folder / "note").stat().st_mtime_ns
    results = str(folder / "out" / "commands")
    called("report", results)
    page = (folder / "out" / "commands" / "report.md").read_text()
    assert "Trained by its own program: other" in page
    assert "Program's time" in page
    told = CliRunner().invoke(main, ["verify", results])
    assert "FAILED" not in told.output, told.output
    assert (folder / "note").stat().st_mtime_ns == before


def test_what_a_program_left_can_be_scored_again(
    done: tuple[Path, tuple[RunRecord, ...]], tmp_path: Path
) -> None:
    """Kept or saved, it is a folder as any other that was trained before."""
    file = suite_file(tmp_path)
    words = [
        "run",
        "other",
        str(file),
        "--out",
        str(tmp_path / "out"),
        "--wandb",
        "off",
        "--allow-commands",
    ]
    called(*words, "--save", tmp_path / "saved")
    again = {"method": "trained", "options": {"path": str(tmp_path / "saved")}}
    suite = load_suite(str(file), settings={"methods.again": again})
    (record,) = run_sweep(
        SweepRequest(suite, tmp_path / "out", ("again",), (0,)), Console(quiet=True)
    ).records
    assert record.error is None
    assert record.metrics["test_loss"] == done[1][0].metrics["test_loss"]


def test_a_suite_of_commands_needs_to_be_allowed(tmp_path: Path) -> None:
    """Without the option nothing is written and the command is shown; the gate takes none."""
    file = suite_file(tmp_path)
    for words in (
        ["run-all", str(file)],
        ["run", "other", str(file)],
        ["run-all", str(file), "--parallel", "2"],
    ):
        told = called(*words, "--out", tmp_path / "out", "--wandb", "off", status=2)
        assert f"other: python path:{tmp_path / 'train.py'} well" in told.output
        assert "--allow-commands" in told.output
    assert not [*(tmp_path / "out").rglob("run.json")]
    told = called("check", file, "--methods", "other", "--against", "HEAD", status=2)
    assert "other runs a command" in told.output


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (["train", "{modle}"], "{modle} is unknown; known are model, train"),
        (["train", "{"], "Single '{'"),
    ],
)
def test_an_unknown_placeholder_is_a_sentence(tmp_path: Path, run: list[str], why: str) -> None:
    """It is refused when the suite's methods are read."""
    file = suite_file(tmp_path)
    suite = load_suite(str(file), settings={"methods.other.options.run": run})
    with pytest.raises(UserError, match=r"methods\.other\.options") as refused:
        suite.runs(("other",))
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "status", "why"),
    [
        ("crash", "failed", " s: no such optimizer; rank0-command.log ends: mode"),
        ("kill", "failed", "the command was ended by SIGKILL"),
        ("memory", "oom_host", "its memory had reached "),
        ("nothing", "failed", "the command ended well and left nothing in {out}"),
        ("leave", "failed", "the command left processes behind, which were ended (python"),
    ],
)
def test_a_program_that_fails_is_a_record(tmp_path: Path, mode: str, status: str, why: str) -> None:
    """The record has a status and a sentence with the end of its output; no process is left."""
    file = suite_file(tmp_path, mode)
    (record,) = run(file, tmp_path / "out")
    assert record.status == status
    assert why in record.error.message
    assert "rank0-command.log ends: mode" in record.error.message
    if mode == "leave":
        assert gone(noted(tmp_path))


def test_a_program_that_has_gone_since_the_check_is_a_sentence(tmp_path: Path) -> None:
    """It fails the run with what the system says of it."""
    (tmp_path / program.OUT).mkdir()
    with pytest.raises(ProgramFailed, match=r"the command can't be run: \[Errno 2\]"):
        program.run_program(["no-such-program"], tmp_path, tmp_path / "log", "cpu", 1)


@pytest.mark.parametrize(
    ("words", "lacking"),
    [
        ([], "give its words, as options: {run: [python, train.py"),
        (["no-such-program"], "there is no program no-such-program on PATH"),
        (["/nowhere/trainer"], "there is no program /nowhere/trainer"),
        (["./trainer"], "the program ./trainer isn't found"),
        (["python", "gone.py"], "the script gone.py isn't found; a relative path"),
        (["bash", "-e", "gone.sh"], "the script gone.sh isn't found"),
        ([sys.executable, "-m", "accelerate", "gone.py"], "the script gone.py isn't found"),
        (["python", "/nowhere/train.py"], "there is no script /nowhere/train.py"),
        (["python", "x" * 300 + ".py"], "isn't found"),
        (["{folder}/plain"], "plain can't be run as a program; make it executable"),
    ],
)
def test_a_missing_program_or_script_is_found_before_any_run(
    words: list[str], lacking: str, tmp_path: Path
) -> None:
    """One sentence with the method, and status 2; no folder is made."""
    (tmp_path / "plain").touch()
    file = suite_file(tmp_path)
    content = yaml.safe_load(file.read_text())
    words = [word.replace("{folder}", str(tmp_path)) for word in words]
    content["methods"]["other"]["options"]["run"] = words
    file.write_text(yaml.safe_dump(content))
    shown = called(
        *("run-all", file, "--out", tmp_path / "out", "--allow-commands"),
        *("--methods", "none,other", "--wandb", "off"),
        status=2,
    )
    sentence = shown.stderr.splitlines()[-1]
    assert "method other: " in sentence
    assert lacking in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["python", "train.py", "--export", "gone.py"],
        ["bash", "train.sh"],
        ["sh", "-c", "exit"],
        ["docker", "run", "image", "python", "train.py"],
        ["python", "{out}/made.py"],
    ],
)
def test_what_a_command_may_have_is_not_missed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script beside the suite's file, files after it, and a script in a container's image."""
    (tmp_path / "bin").mkdir()
    for name in ("train.sh", "bin/docker"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    file = suite_file(tmp_path)
    content = yaml.safe_load(file.read_text())
    content["methods"]["other"]["options"]["run"] = words
    file.write_text(yaml.safe_dump(content))
    suite = load_suite(str(file))
    method = make_method(suite.method("other"))
    assert method.lacks() == ()
    assert (f"path:{tmp_path / 'train.sh'}" in method.command) == ("train.sh" in words)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["trainer-of-nodes"], 0),
        (["python", "/only-on-nodes/train.py"], 0),
        (["python", "{folder}/gone.py"], 2),
        (["python", "gone.py"], 2),
    ],
)
def test_jobs_may_have_what_this_machine_lacks(
    words: list[str], status: int, tmp_path: Path
) -> None:
    """A program, or a path in a folder that isn't here, is a warning with jobs of other machines;
    what no machine can have is refused, and with jobs of this machine both are.
    """
    file = suite_file(tmp_path)
    content = yaml.safe_load(file.read_text())
    words = [word.replace("{folder}", str(tmp_path)) for word in words]
    content["methods"]["other"]["options"]["run"] = words
    file.write_text(yaml.safe_dump(content))
    call = ("run-all", file, "--out", tmp_path / "out", "--methods", "other", "--wandb", "off")
    shown = called(*call, "--allow-commands", "--on", "manual", "--dry-run", status=status)
    warning = "; the jobs may have it on their machines"
    assert (warning in shown.stderr) is (status == 0)
    called(*call, "--allow-commands", "--parallel", "1", "--dry-run", status=2)


def test_paths_of_a_relative_results_folder(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program runs in a folder of the run, and is told whole paths: --out is `reports` by
    default.
    """
    monkeypatch.chdir(room)
    words = ("--allow-commands", "--methods", "other", "--seeds", "1")
    Command(suite_file(room), Path("here"), *words).ends(0, 300)
    assert noted(room)[3] == str(
        room / "here/commands" / Path(noted(room)[3]).parent.name / "command"
    )


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """No output and no CPU time is no progress; what it had said last is in the sentence."""
    (record,) = run(suite_file(tmp_path, "hang"), tmp_path / "out", stall=12)
    assert (record.status, record.error.kind) == ("timeout", "Stall")
    assert "its command: mode hang" in record.error.message
    assert gone(noted(tmp_path))


def test_computing_without_output_is_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look that finds CPU time of what the guard started is a heartbeat, and sees its
    memory.
    """
    said: list[str] = []
    monkeypatch.setattr(heartbeat, "beat", said.append)
    monkeypatch.setattr(program, "LOOK_SECONDS", 0.01)
    (tmp_path / "log").write_text("loading\n")
    work = (
        "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'while True: pass'])"
    )
    with subprocess.Popen([sys.executable, "-c", work], start_new_session=True) as guard:
        try:
            usage, deadline = (
                program.Usage(guard.pid, tmp_path / "log", "cpu"),
                time.monotonic() + 60,
            )
            while (len(said) < 3 or usage.peak_mb < 1) and time.monotonic() < deadline:
                if usage.peak_mb < 1:  # it has started nothing yet: the time is the guard's own
                    said.clear()
                usage.look()
        finally:
            os.killpg(guard.pid, signal.SIGKILL)
    assert said[:3] == ["its command: loading"] * 3
    assert usage.peak_mb > 1


def test_killed(tmp_path: Path) -> None:
    """A kill of the command ends the program, and what it started in a session of its own."""
    command = Command(
        suite_file(tmp_path, "hang"), tmp_path / "out", "--allow-commands", "--methods", "other"
    )
    command.until(lambda: (tmp_path / "note").exists() and (tmp_path / "note").stat().st_size)
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    assert gone(noted(tmp_path))
    assert command.left() == []


def test_a_script_imports_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the fork server, from which ranks come, imports nothing from the working folder."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    (tmp_path / "near.py").write_text("NAME = 'weights'\n")
    (tmp_path / "train.py").write_text(
        "import near, pathlib, sys\npathlib.Path(sys.argv[1], near.NAME).touch()\n"
    )
    (tmp_path / program.OUT).mkdir()
    words = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / program.OUT)]
    assert program.run_program(words, tmp_path, tmp_path / "log", "cpu", 1)["program_seconds"] > 0
    assert (tmp_path / program.OUT / "weights").exists()


@pytest.mark.suites
@pytest.mark.parametrize("name", ["trl", "transformers", "transformers_by_length"])
def test_the_trainers_of_the_suite_learn(tmp_path: Path, name: str) -> None:
    """A few steps of each script lower the loss of the base model, and say how many tokens they
    took.
    """
    if name == "trl" and find_spec("trl") is None:
        pytest.skip(skips.NO_TRL)
    few = {
        "train_samples": 64,
        "steps": 12,
        "eval_every": 12,
        "test_samples": 32,
        "latency_samples": 0,
    }
    suite = load_suite("trainers", settings=few)
    request = SweepRequest(suite, tmp_path, (name, "none"), (0,), allow_commands=True)
    records = run_sweep(request, Console(quiet=True)).records
    trained, base = sorted(records, key=lambda record: record.spec.method.name == "none")
    assert trained.status == "ok", trained.error
    assert trained.metrics["test_loss"] < base.metrics["test_loss"]
    assert trained.metrics["program_tokens"] > 12 * 16


@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_rows_are_written_in_both_forms(form: Any) -> None:
    """Turns that are not learnt have weight 0; further keys and tools are kept."""
    fields = ["", json.dumps({"tool_calls": [1]}), "", ""]
    row = [
        ["system", "assistant", "user", "assistant"],
        ["s", "a", "u", "b"],
        [1, 0, 1, 1],
        fields,
        '[{"t": 1}]',
    ]
    line = program.as_line(json.dumps(row), form)
    names = ("from", "value") if form == "sharegpt" else ("role", "content")
    turns = line["conversations" if form == "sharegpt" else "messages"]
    assert tuple(turns[2][name] for name in names) == (
        "human" if form == "sharegpt" else "user",
        "u",
    )
    assert all(set(names) <= turn.keys() for turn in turns)
    assert turns[1]["weight"] == 0
    assert turns[1]["tool_calls"] == [1]
    assert "weight" not in turns[3]
    assert line["tools"] == [{"t": 1}]
