"""Jobs are known by the numbers that sbatch gave, whatever a site does with comments and whoever
wrote the folder.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import called
from helpers.fake_slurm import line, on_slurm, opened, resolved
from hpml_bench.records.jobs import SUBMITTED, read_plan
from hpml_bench.records.plan import Limits
from hpml_bench.suite.profile import load_profile
from hpml_bench.sweep.jobs import JobSweep, find
from hpml_bench.sweep.resolve import resolve_for_job
from hpml_bench.sweep.status import state
from hpml_bench.system.errors import UserError


def given(slurm: Path) -> list[str]:
    return sorted(path.name for path in slurm.glob("given*"))


@pytest.mark.parametrize("comment", ["(null)", "project=x", "cut\noff"])
def test_a_site_that_rewrites_comments_gets_each_unit_once(
    comment: str, tmp_path: Path, slurm: Path
) -> None:
    """Further calls see the jobs, `status` names them, a report waits for them, and `stop` ends
    them.
    """
    sweep = opened(tmp_path, seeds=2, prepare="job")
    assert sweep.submit(again=True) == (0, 1)
    waiting = "PENDING|Dependency"
    queue = line(sweep, "7", waiting, comment=comment) + line(
        sweep, "8_0", waiting, comment=comment
    )
    (slurm / "queue").write_text(queue + line(sweep, "8_1", waiting, comment=comment))
    assert opened(tmp_path, seeds=2, prepare="job").submit(again=True) == ()
    assert [row[3] for row in state(sweep)[1][1:]] == ["8_0", "8_1"]
    assert sweep.submit_report()
    assert "--dependency=afterany:7,afterany:8\n" in (slurm / "given9").read_text()
    (slurm / "queue").write_text(queue + line(sweep, "9", waiting, comment=comment))
    assert sweep.submit_report()
    assert given(slurm) == ["given7", "given8", "given9"]
    assert find(sweep.folder, print).stop() == 3
    assert (slurm / "cancelled").read_text() == "--quiet -- 7 8 9\n"


def test_a_number_that_slurm_gave_anew_is_not_ours(tmp_path: Path, slurm: Path) -> None:
    """Slurm counts from 1 again when its state is lost; the other job writes elsewhere."""
    sweep = opened(tmp_path, options={"lag": 0, "sbatch": {"job-name": "a"}})
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text("7|7|N/A|RUNNING|None|(null)\n")
    assert len(find(sweep.folder, print).watch.live()) == 1
    (slurm / "output7").write_text("/home/user/other/logs/7.log")
    assert find(sweep.folder, print).watch.live() == ()
    assert find(sweep.folder, print).stop() == 0
    assert not (slurm / "cancelled").exists()
    assert opened(tmp_path, options={"lag": 0, "sbatch": {"job-name": "a"}}).submit(again=True) == (
        0,
    )


def test_a_link_in_a_folder_leads_to_no_other_sweep(tmp_path: Path, slurm: Path) -> None:
    """`stop` names it and ends nothing; the folder that its user names may be a link itself."""
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0"))
    link = tmp_path / "other" / "faq"
    link.parent.mkdir()
    link.symlink_to(sweep.folder)
    told = called("stop", link.parent, status=2).output
    assert f"{link}: is a link, and left out" in told
    assert f"{link.parent}: there is no sweep by jobs here" in told
    assert not (slurm / "cancelled").exists()
    assert called("stop", link).output == "1 job was ended\n"


def test_stop_keeps_submissions_that_slurm_says_nothing_of(tmp_path: Path, slurm: Path) -> None:
    """An array that squeue doesn't list yet may live where scontrol fails: `stop` says so, and
    ends it when it is called again.
    """
    sweep = opened(tmp_path, lag=60)
    assert sweep.submit(again=True) == (0,)
    (slurm / "silent").touch()
    told = called("stop", sweep.folder, status=2).output
    assert "it isn't known whether job 7 belongs to the sweep: scontrol: slurm_load_jobs" in told
    assert f"once Slurm answers, end them with hpml-bench stop {sweep.folder}" in told
    assert not (slurm / "cancelled").exists()
    (slurm / "silent").unlink()
    assert called("stop", sweep.folder).output == "1 job was ended\n"
    assert (slurm / "cancelled").read_text() == "--quiet -- 7\n"


def test_stop_keeps_submissions_of_jobs_that_take_long_to_end(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call finds a job that was cancelled and still ends."""
    monkeypatch.setattr("hpml_bench.sweep.jobs.STOP_SECONDS", 0.0)
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0"))
    (slurm / "slow").touch()
    assert called("stop", sweep.folder).output == "1 job was ended\n"
    assert (sweep.folder / SUBMITTED).exists()
    (slurm / "queue").write_text("")
    assert called("stop", sweep.folder).output == "there was no job to end\n"
    assert not (sweep.folder / SUBMITTED).exists()


def test_a_controller_that_does_not_answer_makes_no_job_absent(tmp_path: Path, slurm: Path) -> None:
    """Where a site rewrites comments, a listed array is the sweep's until Slurm says otherwise:
    its units aren't submitted again.
    """
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0", comment="(null)"))
    (slurm / "silent").touch()
    with pytest.raises(UserError, match=r"whether job 7 .*Unable to contact slurm controller"):
        sweep.watch.live()


def test_a_number_given_anew_while_a_process_waits_is_seen(tmp_path: Path, slurm: Path) -> None:
    """Slurm is asked at each look whose a job is, and once more before jobs are cancelled."""
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0", comment="(null)"))
    assert len(sweep.watch.live()) == 1
    (slurm / "output7").write_text("/home/user/other/logs/7.log")
    assert sweep.watch.live() == ()
    assert sweep.stop() == 0
    assert not (slurm / "cancelled").exists()


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not yet listed"])
@pytest.mark.parametrize("output", ["/home/user/train.log", "/home/user/x/logs/5.log", None])
@pytest.mark.parametrize("age", [0.0, 7200.0])
def test_no_folder_ends_another_job_of_the_user(
    age: float, output: str | None, listed: bool, tmp_path: Path, slurm: Path
) -> None:
    """Whatever it lists as submitted, with whatever lag and name of jobs: only a job that writes
    into this folder's logs is this folder's.
    """
    forged = {"lag": 3600, "sbatch": {"job-name": "train-llama"}}
    sweep = opened(tmp_path, options=forged)
    made = {"name": "5", "kind": "units", "units": [0], "first": 0, "at": time.time() - age}
    (sweep.folder / "submitted.json").write_text(json.dumps({"made": [made]}))
    if output is not None:
        (slurm / "output5").write_text(output)
    if listed:
        (slurm / "queue").write_text("5|5|N/A|PENDING|BadConstraints|train-llama\n")
    assert called("stop", sweep.folder).output
    assert find(sweep.folder, print).watch.jobs() == ()
    assert not (slurm / "cancelled").exists()


def test_a_site_may_demand_a_comment(tmp_path: Path, slurm: Path) -> None:
    """Then the profile gives it, and jobs are known by their numbers."""
    sweep = opened(tmp_path, options={"lag": 0, "sbatch": {"comment": "project=x"}})
    assert sweep.submit(again=True) == (0,)
    assert "#SBATCH --comment=project=x\n" in (slurm / "given7").read_text()
    (slurm / "queue").write_text(line(sweep, "7_0", comment="project=x"))
    assert sweep.submit(again=True) == ()


HOSTILE: list[Any] = [
    {"made": [{"name": "--user=root", "kind": "units", "units": [0], "first": 0, "at": 1e99}]},
    {"made": [{"name": "-u root", "kind": "units", "units": [0], "first": 0, "at": "now"}]},
    {"made": 3},
    [],
    "x",
    {"0": {"name": "--user=root", "at": 1e99, "began": ""}},
    {"0": 7},
    {"x": {}},
]


@pytest.mark.parametrize("content", [*map(json.dumps, HOSTILE), "{", ""])
def test_no_word_of_a_results_folder_reaches_slurm(
    content: str, tmp_path: Path, slurm: Path
) -> None:
    """A name that is no number would be an option of scancel; a file of another shape holds no
    submissions.
    """
    sweep = opened(tmp_path, lag=60)
    (sweep.folder / "submitted.json").write_text(content.replace("1e+99", str(time.time())))
    assert find(sweep.folder, print).stop() == 0
    assert not (slurm / "cancelled").exists()
    assert opened(tmp_path, lag=60).submit(again=True) == (0,)


def test_a_plan_of_another_folder_ends_no_jobs(tmp_path: Path, slurm: Path) -> None:
    """Such as of a copy: `stop` refuses it, `status` asks no engine about it, and run-all makes a
    plan of this folder's own.
    """
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0"))
    moved = tmp_path / "elsewhere" / "quickstart"
    moved.parent.mkdir()
    sweep.folder.rename(moved)
    told = called("stop", moved, status=2)
    assert (
        "its plan was made for another folder; run-all --on PROFILE makes one here" in told.output
    )
    (slurm / "squeue").write_text("#!/bin/bash\nexit 1\n")
    assert "its jobs, if any live, belong to that one" in called("status", moved).output
    assert not (slurm / "cancelled").exists()
    assert opened(moved.parent).plan.id != sweep.plan.id


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"steps": 3}, "steps is 3, and 100 in the suite"),
        ({"global_batch": 4}, "global_batch is 4, and 16 in the suite"),
        ({"backbone": 3}, "can't be read"),
        (None, "can't be read"),
    ],
)
def test_settings_that_are_not_the_suites_are_resolved_anew(
    changes: dict[str, Any] | None, wrong: str, tmp_path: Path, slurm: Path
) -> None:
    """Damaged by a crash, or planted: a job and who waits refuse them, and the next call removes
    them.
    """
    sweep, said = opened(tmp_path), list[str]()
    file = resolved(sweep)
    file.write_text("" if changes is None else json.dumps(json.loads(file.read_text()) | changes))
    told = f"{file}: {wrong}; remove it, and the next job resolves the open settings again"
    with pytest.raises(UserError) as refused:
        resolve_for_job(sweep.plan, sweep.folder, Limits())
    assert str(refused.value) == told
    with pytest.raises(UserError, match="remove it"):
        sweep.watch.refresh()
    JobSweep.open(*on_slurm(), sweep.folder, said.append)
    assert said == [f"{told} (it is removed now)"]
    assert not file.exists()


SETUP = {  # lines of the job -> what a dry run shows of them
    "module load cuda": "module load cuda",
    "export WANDB_API_KEY='a b'\"c\"d": "export WANDB_API_KEY='[redacted]'",
    "HF_TOKEN=hf_0123456789 login": "HF_TOKEN='[redacted]' login",
    "export MY_TOKEN=$OURS": "export MY_TOKEN=$OURS",
    "export A_TOKEN=$'hf_9876543210'": "export A_TOKEN='[redacted]'",
    "export B_TOKEN=${B_TOKEN:-hf_default}": "export B_TOKEN='[redacted]'",
    'export "C_TOKEN=hf of several words"': "export C_TOKEN='[redacted]'",
    'export D_TOKEN="$(cat ~/.token)" E_TOKEN=${MINE}': (
        'export D_TOKEN="$(cat ~/.token)" E_TOKEN=${MINE}'
    ),
}


def test_secrets_of_the_setup_stay_with_the_job(tmp_path: Path, slurm: Path) -> None:
    """Neither the plan nor a dry run holds them, nor the variables' values; what is given from
    elsewhere is shown.
    """
    sweep = opened(tmp_path, setup=[*SETUP], env={"OUR_KEY": "$no-variable", "NCCL_DEBUG": "INFO"})
    printed = sweep.script()
    assert "\nexport OUR_KEY='[redacted]'\nexport NCCL_DEBUG=INFO\n" in printed
    sweep.submit(again=True)
    script = (slurm / "given7").read_text()
    assert all(f"\n{given}\n" in script for given in (*SETUP, "export OUR_KEY='$no-variable'"))
    assert "\n{}\n".format("\n".join(SETUP.values())) in printed
    assert (read_plan(sweep.folder).profile.setup, read_plan(sweep.folder).profile.env) == ((), {})
    assert sweep.plan.profile.env["OUR_KEY"] == "$no-variable"


@pytest.mark.parametrize(
    "changes",
    [
        {"launcher": ["apptainer", "exec", "--env", "WANDB_API_KEY=abc", "image"]},
        {"options": {"sbatch": {"export": "ALL,HF_TOKEN=abc"}}},
    ],
)
def test_secrets_where_a_plan_would_hold_them_are_refused(changes: dict[str, Any]) -> None:
    """The sentence says where they belong."""
    with pytest.raises(
        UserError, match="is written down and has the value of a secret variable; give it under env"
    ):
        load_profile("slurm", changes.items())
