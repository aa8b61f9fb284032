"""A sweep by jobs knows what is to be done: once a call, and not after it was stopped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import recorded

from hpml_bench.cluster.sweep import VAIN, Asked, Sweep
from hpml_bench.config.profile import load_profile
from hpml_bench.config.suite import load_suite
from hpml_bench.errors import UserError
from hpml_bench.launch.limits import Limits
from hpml_bench.records.folder import RunFolder, locked
from hpml_bench.records.plan import read_plan
from hpml_bench.records.run import RunRecord, Status


def asked(**changes: object) -> Asked:
    """Return what a call of run-all asks for."""
    values = {"suite": load_suite("quickstart", seeds=1), "profile": load_profile("manual"), "methods": ("head",)}
    return Asked(**{**values, "limits": Limits(), **changes})  # type: ignore[arg-type]


def record(status: Status, started: str) -> RunRecord:
    """Return a record of a run."""
    made = recorded.sweep(("lora",), 1)[0]
    return made.model_copy(update={"status": status, "started": started, "protocol_id": "p"})


@pytest.mark.parametrize(
    ("status", "started", "again", "settled"),
    [
        ("ok", "2026-01-01", False, True),
        ("ok", "2026-01-01", True, True),
        ("failed", "2026-01-01", False, False),  # before it was asked for again
        ("failed", "2026-01-03", False, True),
        ("failed", "2026-01-03", True, False),
        ("timeout", "2026-01-03", False, True),
    ],
)
def test_a_failed_run_is_done_again_once_a_call(
    status: Status, started: str, again: bool, settled: bool, tmp_path: Path
) -> None:
    """By jobs of the call that asks for it again, and not by further jobs of one in which it failed."""
    plan = asked().plan(tmp_path).model_copy(update={"asked": "2026-01-02"})
    assert plan.settles(record(status, started), "p", again) is settled
    assert not plan.settles(record(status, started), "another protocol", again)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """Not even a folder; and what is there stays."""
    sweep = Sweep.look(asked(), tmp_path / "quickstart", print)
    assert sweep.script().startswith("hpml-bench work ")
    assert list(tmp_path.iterdir()) == []


def test_variables_of_jobs_are_not_written_down(tmp_path: Path) -> None:
    """They may be keys."""
    profile = load_profile("manual", [("env", {"HF_TOKEN": "hf_secret"})])
    sweep = Sweep.open(asked(profile=profile), tmp_path / "quickstart", print)
    assert sweep.plan.profile.env == {"HF_TOKEN": "hf_secret"}
    assert "hf_secret" not in (sweep.folder / "plan.json").read_text()


def test_who_waits_for_a_stopped_sweep_submits_nothing(tmp_path: Path) -> None:
    """`stop` in another terminal ends the waiting too; the same call begins again."""
    said: list[str] = []
    sweep = Sweep.open(asked(), tmp_path / "quickstart", said.append)
    Sweep(sweep.folder, read_plan(sweep.folder), sweep.engine, print).stop()
    assert not sweep.wait(lambda _: None)
    assert said == ["the sweep was stopped"]
    assert not read_plan(Sweep.open(asked(), sweep.folder, print).folder).stopped


def test_two_that_submit_at_once_do_so_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits until the first one's jobs can be seen, and gives up after a while."""
    monkeypatch.setattr("hpml_bench.cluster.sweep.SUBMITTED_SECONDS", 0.2)
    sweep = Sweep.open(asked(), tmp_path / "quickstart", print)
    with locked(sweep.folder), pytest.raises(UserError, match="in use by process"):
        sweep.submit(again=True)
    assert sweep.submit(again=True) == 1


def test_a_job_that_could_not_be_launched_is_submitted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm holds it, and would never begin it; a sweep that gets nowhere this way ends."""
    folder, said = tmp_path / "commands", []
    folder.mkdir()
    answers = {
        "squeue": 'test ! -e held || echo "7_0|0|PENDING|launch failed requeued held|$(cat held)"',
        "sbatch": "grep -o 'hpml-[0-9a-f]*:units' > held; echo 7; echo >> submitted",
        "scancel": "rm held",
    }
    for name, answer in answers.items():
        (folder / name).write_text(f"#!/bin/bash\ncd {folder}\n{answer}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    sweep = Sweep.open(asked(profile=load_profile("slurm")), tmp_path / "quickstart", said.append)
    assert sweep.submit(again=True) == 1
    assert not sweep.wait(lambda _: None, poll=0.01)
    assert said.count("job 7_0 (1 in all) is held: pending (launch failed requeued held); cancelled") == VAIN + 1
    assert (folder / "submitted").read_text() == "\n" * (VAIN + 1)


def test_who_waits_reads_a_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where it was replaced; thousands of records are not read at each look."""
    sweep = Sweep.open(asked(), tmp_path / "quickstart", print)
    settings = recorded.SETTINGS
    (tmp_path / "quickstart" / "resolved.json").write_text(settings.model_dump_json())
    ((spec,),) = sweep.specs() or ()
    made = recorded.sweep(("head",), 1)[0].model_copy(update={"spec": spec, "run_id": spec.run_id})
    folder = RunFolder(sweep.folder / spec.run_id)
    folder.begin()
    folder.commit(made)
    looked: list[Path] = []
    read = RunFolder.record
    monkeypatch.setattr(RunFolder, "record", lambda run: looked.append(run.path) or read(run))
    for _ in range(3):
        assert [record.status for record in sweep.records()] == ["ok"]
        sweep.missing(again=True)
    assert len(looked) == 1
    folder.commit(made.model_copy(update={"status": "failed"}))
    assert [record.status for record in sweep.records()] == ["failed"]
    assert len(looked) == 2
