"""Slurm's engine writes a script that shows all that is submitted, and believes squeue alone."""

import os
import shlex
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpml_bench.builtin.engines.slurm import Slurm
from hpml_bench.plugins.engine import JobBatch, make_engine
from hpml_bench.records.jobs import Job, JobPlan, Submission, Unit, UnitRun, plan_id
from hpml_bench.records.plan import Limits
from hpml_bench.suite.profile import Profile, load_profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

Answering = Callable[..., Path]
PLAN = plan_id(Path("/results"))


def engine(**changes: Any) -> Slurm:
    return Slurm(Profile.model_validate({"engine": "slurm", **changes}))


def batch(
    made: Slurm, folder: Path = Path("/results"), units: tuple[int, ...] = (0, 1, 2), **changes: Any
) -> JobBatch:
    """Return jobs of a plan of the quickstart."""
    tasks = (UnitRun(method="lora", seed=0),)
    plan = JobPlan(
        id=PLAN,
        suite=load_suite("quickstart"),
        profile=made.profile,
        units=(Unit(tasks=tasks),) * 5,
        limits=Limits(stall=300),
    )
    return JobBatch(
        plan, folder, units, ("work", str(folder / "plan.json"), "--unit", "{unit}"), **changes
    )


def owner(unit: int = 2) -> Job:
    return Job(
        engine="slurm",
        job=f"7_{unit}",
        restart=0,
        unit=unit,
        host="n",
        pid=3,
        began="2026-01-01T00:00:00Z",
    )


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """A function that puts stand-ins for Slurm's commands on the path; it returns the file of
    what they were asked.
    """
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def put(**answers: str) -> Path:
        for name, answer in answers.items():
            file = tmp_path / name
            file.write_text(
                f'#!/bin/bash\necho {name} "$@" >> '
                f"{shlex.quote(str(tmp_path / 'asked'))}\n{answer}\n"
            )
            file.chmod(0o755)
        return tmp_path / "asked"

    return put


# The script


def options(script: str) -> dict[str, str]:
    lines = [
        line.removeprefix("#SBATCH --")
        for line in script.splitlines()
        if line.startswith("#SBATCH --")
    ]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_a_script_has_all_that_the_profile_says() -> None:
    """Resources, limits, the engine's own options; a job is asked to end before its time limit."""
    made = engine(
        parallel=4,
        gpus_per_node=2,
        cpus_per_node=8,
        memory_per_node="64G",
        time="1:00:00",
        exclusive=True,
        setup=["module load cuda"],
        env={"NCCL_DEBUG": "a b"},
        scratch="/local/$SLURM_JOB_ID",
        options={"sbatch": {"partition": "gpu", "requeue": False}},
    )
    script = made.script(batch(made, units=(0, 1, 2, 4)))
    found = options(script)
    expected = {
        "array": "0-2,4%4",
        "nodes": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "8",
        "gpus-per-node": "2",
        "mem": "64G",
        "exclusive": "",
        "time": "1:00:00",
        "signal": "B:TERM@120",
        "partition": "gpu",
        "comment": f"{PLAN}:units",
        "open-mode": "append",
        "output": "/results/logs/%A_%a.log",
    }
    assert {key: found[key] for key in expected} == expected
    assert "requeue" not in found
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {"module load cuda", "export NCCL_DEBUG='a b'"} <= set(lines)
    assert lines[-1].startswith("exec ")
    short = engine(time="0:02:00")  # a job of two minutes is not asked to end as it begins
    assert options(short.script(batch(short)))["signal"] == "B:TERM@30"


def as_bash_does(
    script: str, before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script whose last command is printed, after other commands."""
    printing = script.replace("exec ", f"{before}\nexec printf '%s\\n' ", 1)
    given = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", **variables}
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
    } | given
    return subprocess.run(
        ["bash"], input=printing, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("lines", "well"),
    [(["no-such-module load cuda"], False), (["true", "false", "true"], False), (["true"], True)],
)
def test_a_setup_line_that_fails_ends_the_job(lines: list[str], well: bool) -> None:
    """Else its runs would be done, and recorded as good, in an environment that nobody asked
    for.
    """
    made = engine(setup=lines)
    done = as_bash_does(made.script(batch(made)))
    assert (done.returncode == 0) == ("hpml_bench" in done.stdout) == well


@pytest.mark.parametrize(
    ("given", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "32"}, "4"),
        ({"SLURM_CPUS_ON_NODE": "32"}, "32"),
        ({}, ""),
    ],
)
def test_the_script_runs_the_unit_of_its_task(given: dict[str, str], cores: str) -> None:
    """As bash reads it: the job is named by array and task, its restarts count from 0, and it
    has the cores given.
    """
    made = engine()
    said = 'echo "$HPML_BENCH_JOB $HPML_BENCH_RESTART $HPML_BENCH_ENGINE $HPML_BENCH_CORES"'
    script = made.script(batch(made, Path("/with a space")))
    job, *words = as_bash_does(script, said, **given).stdout.splitlines()
    assert job == f"7_2 0 slurm {cores}"
    assert words[-6:] == ["-m", "hpml_bench", "work", "/with a space/plan.json", "--unit", "2"]


def test_a_container_stands_before_the_jobs_command() -> None:
    """The launcher's words as they are, then the interpreter that the profile names; before
    agents on nodes too.
    """
    launcher = ["apptainer", "exec", "--nv", "my image.sif"]
    made = engine(launcher=launcher, python="/opt/python")
    words = shlex.split(made.script(batch(made)).splitlines()[-1])
    assert words[:6] == ["exec", *launcher, "/opt/python"]
    assert words[-2:] == ["--unit", "$SLURM_ARRAY_TASK_ID"]
    assert made.over_nodes(["agent", "host:1"])[-6:] == [*launcher, "agent", "host:1"]


@pytest.mark.parametrize(
    ("sbatch", "told"),
    [
        ({"array": "0-3"}, "set by hpml-bench"),
        ({"Partition": "x"}, "can't be an option"),
        ({"partition": "x\n#SBATCH --uid=0"}, "can't be an option"),
        ({"clusters": "far,near"}, "clusters takes one name"),
    ],
)
def test_options_that_would_break_the_script_are_refused(
    sbatch: dict[str, str], told: str, tmp_path: Path
) -> None:
    """By name, when the profile is read.

    So is a path: after a backslash sbatch replaces no %A and %a, and all jobs would write into one
    file.
    """
    file = tmp_path / "p.yaml"
    file.write_text(f"engine: slurm\noptions: {{sbatch: {sbatch!r}}}".replace("'", '"'))
    with pytest.raises(UserError, match=told):
        load_profile(str(file))
    made = engine()
    with pytest.raises(UserError, match="backslash in a path"):
        made.script(batch(made, Path("/a\\b")))


# What Slurm says


def test_live_jobs_are_those_with_the_plans_comment(answering: Answering) -> None:
    """Jobs of others and ended ones don't count, and a report is of no unit.

    Where the comment has other words too, as a site may add and any user may write, the output
    decides.
    """
    lines = (
        f"7_0|7|0|RUNNING|None|{PLAN}:units",
        f"7_1|7|1|PENDING|Resources|project=x;{PLAN}:units;y",
        f"55|55|N/A|RUNNING|None|plots after {PLAN}:units are done",
        f"7_2|7|2|TIMEOUT|TimeLimit|{PLAN}:units",
        f"8|8|N/A|PENDING|Dependency|{PLAN}:report",
        "9_0|9|0|RUNNING|None|hpml-9876543210:units",
        "10|10|N/A|RUNNING|None|(null)",
        "11|11|N/A|RUNNING|None|a line",
        "and another|one",
    )
    output = "case ${@: -1} in 7) echo StdOut=/results/logs/7_1.log;; *) echo StdOut=/plots;; esac"
    asked = answering(
        squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND", scancel="true", scontrol=output
    )
    made = engine()
    plan = batch(made).plan
    assert [(job.name, job.unit, job.running, job.state) for job in made.live(plan)] == [
        ("7_0", 0, True, "RUNNING"),
        ("7_1", 1, False, "PENDING (Resources)"),
        ("8", None, False, "PENDING (Dependency)"),
    ]
    assert made.stop(plan) == 3
    assert "scancel --quiet -- 7 8\n" in asked.read_text()


def test_a_sweep_of_thousands_is_cancelled_by_its_arrays(
    answering: Answering, tmp_path: Path
) -> None:
    """Scancel asks the controller once for each name: five names for 5,000 tasks; some of an
    array are one name too.
    """
    places = [(7 + unit // 1000, unit % 1000) for unit in range(5000)]
    lines = [f"{array}_{task}|{array}|{task}|PENDING|None|{PLAN}:units" for array, task in places]
    (tmp_path / "queue").write_text("\n".join(lines))
    asked = answering(squeue=f"cat {tmp_path / 'queue'}", scancel="true")
    made = engine()
    plan = batch(made).plan
    assert made.stop(plan) == 5000
    assert asked.read_text().splitlines()[-1] == "scancel --quiet -- 7 8 9 10 11"
    live = made.live(plan)
    made.cancel([*live[1:4], live[5], live[1000], replace(live[0], name="20", group="20")])
    assert asked.read_text().splitlines()[-1] == "scancel -- 7_[1-3,5] 8_[0] 20"


@pytest.mark.parametrize(
    ("answer", "units", "dead"),
    [
        ("echo 7_2 RUNNING 0", (2,), set()),
        ("echo 7_2 PENDING 1", (2,), {2}),  # begun anew, or about to be
        ("echo 7_2 RUNNING 1", (2,), {2}),
        ("echo 7_2 COMPLETED 0", (2,), {2}),
        ("true", (2,), {2}),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", (2,), {2}),
        (
            "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
            (2,),
            set(),
        ),
        ("echo 7_0 RUNNING 0; echo 7_1 PENDING 1", (0, 1, 2), {1, 2}),
        ("echo 'Invalid job id specified' >&2; exit 1", (0, 1, 2), set()),
    ],
)
def test_an_owner_is_dead_only_where_slurm_knows_it(
    answer: str, units: tuple[int, ...], dead: set[int], answering: Answering
) -> None:
    """Also where squeue doesn't name it, asked once for all; a controller that doesn't answer
    breaks no claim.
    """
    asked = answering(squeue=answer)
    assert engine().dead_among([*map(owner, units)]) == {f"7_{unit}.0" for unit in dead}
    assert asked.read_text().count("squeue") == 1


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'Job 7 not found'; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
        ("exit 1", False),
    ],
)
def test_only_slurms_own_word_says_that_there_is_no_such_job(
    answer: str, known: bool, answering: Answering
) -> None:
    """Any other failure of scontrol leaves open whether a job that was submitted lives."""
    asked = answering(squeue="true", scontrol=answer, scancel="true")
    made = engine()
    refused = pytest.raises(UserError, match="isn't known whether job 7 belongs to the sweep")
    with nullcontext() if known else refused:
        assert made.stop(batch(made).plan, ["7"]) == 0
    assert "scancel" not in asked.read_text()


def test_a_thousand_units_and_more_are_several_arrays(answering: Answering) -> None:
    """Slurm's indexes end at 1,000 by default: an array for each thousand, with the numbers of its
    units.

    They wait for a good preparation, and a report for whatever end: one of half a sweep is wanted.
    """
    made = engine(parallel=50)
    many = batch(made, units=(0, 1, 999, 1000, 1001, 2345), prepared="8")
    parts = made.parts(many)
    scripts = [made.script(part) for part in parts]
    arrays = [options(script) for script in scripts]
    assert [array["array"] for array in arrays] == ["0-1,999%50", "0-1%50", "345%50"]
    assert (
        options(made.script(replace(parts[1], ended=("7",))))["dependency"]
        == "afterok:8,afterany:7"
    )
    report = options(made.script(batch(made, units=(), kind="report", ended=("9", "11"))))
    assert ("array" in report, report["dependency"]) == (False, "afterany:9,afterany:11")
    assert as_bash_does(scripts[2], SLURM_ARRAY_TASK_ID="345").stdout.splitlines()[-1] == "2345"
    answering(squeue=f"echo '9_345|9|345|RUNNING|None|{arrays[2]['comment']}'")
    assert [(job.name, job.unit) for job in made.live(many.plan)] == [("9_345", 2345)]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("echo 7", ""),
        ("echo '7;cluster'", ""),
        (r"printf 'Welcome to cluster 9!\n\n7\nYou have 3 jobs.'", ""),
        (r"printf 'sbatch: lua: time was set to 60\nSubmitted batch job 7'", ""),
        ("echo Welcome to cluster 9!", "sbatch answered 'Welcome to cluster 9!"),  # a job may run
        (
            # Slurm's words don't name its MaxArraySize
            "echo 'error: Invalid job array specification' >&2; exit 1",
            r"Invalid job array specification; .*options: \{array: N\}",
        ),
    ],
)
def test_a_jobs_number_is_found_among_what_a_site_prints(
    answer: str, told: str, answering: Answering, tmp_path: Path
) -> None:
    """A banner, or a wrapper's words; without one it is told in Slurm's words, with what to do
    if they don't say it.
    """
    answering(sbatch=answer)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        assert engine().submit(batch(engine(), tmp_path)) == "7"


@pytest.mark.parametrize("inside", [False, True])
def test_the_users_shell_changes_no_job(
    inside: bool, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables by which sbatch, squeue and scancel take other options; within a job also what
    that job was given.
    """
    answering(sbatch=f"env > {tmp_path / 'env'}; echo 7")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    of_all = (
        "SBATCH_PARTITION",
        "SBATCH_TIMELIMIT",
        "SQUEUE_FORMAT",
        "SCANCEL_INTERACTIVE",
        "SLURM_CONF",
    )
    of_job = ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE")
    for variable in (*of_all, *(of_job if inside else ("SLURM_CLUSTERS",))):
        monkeypatch.setenv(variable, "x")
    engine().submit(batch(engine(), tmp_path))
    seen = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    own = {
        variable
        for variable in seen
        if variable.startswith(("SBATCH_", "SQUEUE_", "SCANCEL_", "SLURM_"))
    }
    assert own == ({"SLURM_CONF"} if inside else {"SLURM_CONF", "SLURM_CLUSTERS"})


@pytest.mark.parametrize(
    ("reason", "partition", "refused"),
    [
        ("PartitionTimeLimit", "gpu", True),
        ("InvalidQOS", "gpu", True),
        ("PartitionTimeLimit", "gpu,long", False),
        ("Resources", "gpu", False),
    ],
)
def test_jobs_that_never_begin_are_known(
    reason: str, partition: str, refused: bool, answering: Answering
) -> None:
    """By their reason; where a job may begin in one of several partitions it is that of one of
    them.
    """
    answering(squeue=f"echo '7_0|7|0|PENDING|{reason}|{PLAN}:units'")
    made = engine(options={"sbatch": {"partition": partition}})
    (job,) = made.live(batch(made).plan)
    assert (job.reason, job.refused, job.stuck) == (reason, refused, refused)


def test_another_cluster_is_named_to_all_commands(answering: Answering) -> None:
    """Else squeue and scancel would look for its jobs in this one; squeue then writes a line of
    its own.
    """
    answer = (
        "echo CLUSTER: far; case $* in *Format*) echo 7_2 RUNNING 0;; *) echo "
        f"'7_2|7|2|RUNNING|None|{PLAN}:units';; esac"
    )
    asked = answering(squeue=answer, scancel="true")
    made = engine(options={"sbatch": {"clusters": "far", "job-name": "x"}})
    known = Submission(name="7", kind="units", units=(2,), first=0, at=0.0)
    plan = batch(made).plan.model_copy(update={"submitted": (known,)})
    assert options(made.script(batch(made)))["clusters"] == "far"
    (job,) = made.live(plan)
    made.cancel([job])
    assert made.stop(plan) == 1
    assert not made.dead(owner())
    assert all(" --clusters=far " in line for line in asked.read_text().splitlines())


# Runs over nodes


def test_a_run_over_nodes_is_one_step(
    answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step ends when a task fails, has the job's cores, and makes the scratch folder of its own
    node.

    The hosts are all nodes of the job, as scontrol writes out their list.
    """
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    words = engine(nodes=2, cpus_per_node=8).over_nodes(["agent", "host:1"])
    assert words[0] == "srun"
    assert words[-2:] == ["agent", "host:1"]
    assert {
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--kill-on-bad-exit=1",
        "--wait=60",
    } <= set(words)
    words = engine(nodes=2, scratch="$HERE/scratch").over_nodes(["sh", "-c", 'cd "$TMPDIR" && pwd'])
    monkeypatch.setenv("HERE", str(tmp_path))
    told = subprocess.run(
        words[words.index("bash") :], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == f"{tmp_path}/scratch"
    asked = answering(scontrol="echo n1; echo n2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    assert engine(nodes=2).hosts() == ("n1", "n2")
    assert asked.read_text() == "scontrol show hostnames n[1-2]\n"


@pytest.mark.parametrize(
    ("profile", "variables", "cores"),
    [
        ({}, {"SLURM_JOB_CPUS_PER_NODE": "2,1", "SLURM_CPUS_ON_NODE": "2"}, 1),
        ({}, {"SLURM_JOB_CPUS_PER_NODE": "72(x2),36(x3),48", "SLURM_CPUS_ON_NODE": "72"}, 36),
        ({}, {"SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_CPUS_PER_NODE": "8(x2)"}, 4),
        ({"cpus_per_node": 8}, {"SLURM_JOB_CPUS_PER_NODE": "64(x2)"}, 8),
        ({}, {}, None),
    ],
)
def test_a_step_asks_no_node_for_more_than_the_smallest_has(
    profile: dict[str, int],
    variables: dict[str, str],
    cores: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With whole nodes that differ srun would refuse the first one's count."""
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_JOB_CPUS_PER_NODE", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = engine(nodes=2, exclusive=True, **profile).over_nodes(["agent"])
    assert [word for word in words if "cpus-per-task" in word] == (
        [f"--cpus-per-task={cores}"] if cores else []
    )


def test_what_an_engine_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, before anything is planned: steps of runs over nodes, and Slurm's commands."""
    for engine_name, title in (("local", "this machine"), ("ray", "Ray")):
        with pytest.raises(UserError, match=f"nodes is 2, and {title} can't"):
            make_engine(Profile(engine=engine_name, nodes=2))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"sbatch, squeue, scancel, scontrol can't be found"):
        make_engine(Profile(engine="slurm", nodes=2)).check()
