"""Ray's engine on a cluster of two nodes: results to the bit, and nothing left of what was killed.

Without Ray (`pip install '.[ray]'`) the tests that need a cluster are skipped.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner

from helpers import skips, tiny
from helpers.cli_process import Command
from helpers.commands import called
from helpers.waiting import until
from hpml_bench.builtin.engines.ray import do, resources_of_task
from hpml_bench.cli import main
from hpml_bench.records.jobs import Job, claims, read_jobs
from hpml_bench.suite.profile import Profile
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.errors import UserError


@pytest.fixture(scope="module")
def ray_profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two nodes with a core each; a profile that names their cluster."""
    pytest.importorskip("ray", reason=skips.NO_RAY)
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        try:
            made.add_node(num_cpus=1)
            profile = tmp_path_factory.mktemp("profile") / "ray.yaml"
            profile.write_text(
                yaml.safe_dump({"engine": "ray", "options": {"address": made.address}})
            )
            yield profile
        finally:
            made.shutdown()


def working(out: Path) -> tuple[Job, ...]:
    beats = [beat for folder in out.glob("*/attempts/*/") for beat in heartbeat.read(folder)]
    found = claims(out / "colours")
    return found if len(found) == 2 and sum("step" in beat.where for beat in beats) >= 2 else ()


def family(jobs: tuple[Job, ...]) -> set[psutil.Process]:
    own = [psutil.Process(job.pid) for job in jobs]
    return {*own, *(child for process in own for child in process.children(recursive=True))}


def gone(family: set[psutil.Process], seconds: float) -> bool:
    """Wait until no process is left; tell whether that came in time."""
    return until(lambda: not any(map(processes.alive, family)), seconds)


# Two nodes


@pytest.fixture(scope="module")
def one_rank_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of all tests': its runs last while a test looks at them."""
    return tiny.local_suite(
        tmp_path_factory.mktemp("suite"), steps=1000, eval_every=1000, world_size=1
    )


def test_a_sweep_over_two_nodes_is_a_local_one(
    one_rank_suite: Path, ray_profile: Path, room: Path
) -> None:
    """A seed on each at the same time, with the results of a sweep without Ray to the bit."""
    Command(one_rank_suite, room / "one").ends(0, 300)
    command = Command(one_rank_suite, room / "two", "--on", str(ray_profile))
    command.until(lambda: working(room / "two"), 240)
    raylets = {psutil.Process(job.pid).parent().parent().pid for job in working(room / "two")}  # type: ignore[union-attr]
    assert len(raylets) == 2, "each node has its raylet, which starts its workers"
    said = command.ends(0, 300)
    assert "2 jobs for 4 runs given to Ray" in said
    alone, beside = tiny.records(room / "one"), tiny.records(room / "two")
    assert tiny.scores(beside) == tiny.scores(alone)
    for record in beside.values():
        assert record.environment["where"]["engine"] == "ray"
        assert record.environment["where"]["unit"] == record.spec.seed
    said = Command(one_rank_suite, room / "two", "--on", str(ray_profile)).ends(0, 120)
    assert "4 of 4 runs are recorded already" in said
    assert "given to Ray" not in said


def test_a_worker_is_killed(one_rank_suite: Path, ray_profile: Path, room: Path) -> None:
    """Its job ends with it, which Ray alone would leave alive, and the unit is done again."""
    command = Command(one_rank_suite, room / "out", "--on", str(ray_profile))
    command.until(lambda: working(room / "out"), 240)
    job = working(room / "out")[0]
    killed = family((job,))
    assert len(killed) >= 3, "the job, its fork server, and a rank"
    psutil.Process(job.pid).parent().kill()  # type: ignore[union-attr]
    assert gone(killed, 5)
    status, said = command.ended(300)
    assert status == 0, said
    assert "no job; submitting them" in said
    assert [record.status for record in tiny.records(room / "out").values()] == ["ok"] * 4
    again = [found for found in read_jobs(room / "out/colours") if found.unit == job.unit]
    assert [found.how for found in again] == [None, "done"]


def test_ctrl_c_ends_the_tasks(one_rank_suite: Path, ray_profile: Path, room: Path) -> None:
    """They end as when they are asked to; status 130, and the cluster can be used again."""
    command = Command(one_rank_suite, room / "out", "--on", str(ray_profile))
    command.until(lambda: working(room / "out"), 240)
    shown = CliRunner().invoke(main, ["status", str(room / "out")])
    assert "2 running" in shown.output.splitlines()[0]
    left = family(working(room / "out"))
    os.killpg(command.process.pid, signal.SIGINT)
    assert "the same command goes on from here" in command.ends(130, 120)
    assert gone(left, 5)
    assert claims(room / "out/colours") == ()
    assert {job.how for job in read_jobs(room / "out/colours")} == {"interrupted"}


def test_the_command_is_killed(one_rank_suite: Path, ray_profile: Path, room: Path) -> None:
    """Ray ends its tasks, the kernel their jobs; the same command takes the dead jobs' claims
    and does the rest.
    """
    command = Command(one_rank_suite, room / "out", "--on", str(ray_profile))
    command.until(lambda: working(room / "out"), 240)
    left = family(working(room / "out"))
    command.process.kill()
    command.ended()
    assert gone(left, 30)
    Command(one_rank_suite, room / "out", "--on", str(ray_profile)).ends(0, 300)
    assert [record.status for record in tiny.records(room / "out").values()] == ["ok"] * 4


# What a task takes

NODES: list[dict[str, float]] = [
    {"CPU": 32, "GPU": 4, "memory": 64e9},
    {"CPU": 16, "GPU": 4, "memory": 64e9},
    {"x": 1},
]


@pytest.mark.parametrize(
    ("asked", "nodes", "found"),
    [
        ({}, NODES, (16, 4, None, False)),  # not alone on the larger one
        ({}, NODES[:1], (32, 4, None, True)),
        ({"cpus_per_node": 8, "gpus_per_node": 1}, NODES, (8, 1, None, False)),
        ({"cpus_per_node": 32, "gpus_per_node": 0}, NODES, (32, 0, None, False)),
        (
            {"cpus_per_node": 8, "gpus_per_node": 1, "exclusive": True},
            NODES[:1],
            (32, 1, None, True),
        ),
        ({"memory_per_node": "2G"}, NODES[:1], (32, 4, 2**31, True)),
    ],
)
def test_a_task_takes_what_profiles_say(
    asked: dict[str, Any], nodes: list[dict[str, float]], found: Any
) -> None:
    """Or all that every node has: a unit has a node to itself where the nodes are alike."""
    need, alone = resources_of_task(Profile(engine="ray", **asked), nodes)
    assert (*need.values(), alone) == found


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"gpus_per_node": 5}, NODES),
        ({"cpus_per_node": 33}, NODES),
        ({"memory_per_node": "1T"}, NODES),
        ({}, []),
        (
            {"cpus_per_node": 32, "gpus_per_node": 8},
            [*NODES, {"CPU": 1, "GPU": 8}],
        ),  # there, but not on one node
    ],
)
def test_what_no_node_has_is_refused(asked: dict[str, Any], nodes: list[dict[str, float]]) -> None:
    """Ray would wait for such a node without end."""
    with pytest.raises(UserError, match="no node of Ray's cluster has the resources of a job"):
        resources_of_task(Profile(engine="ray", **asked), nodes)


def test_a_machine_without_ray_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; nothing is written."""
    monkeypatch.setitem(sys.modules, "ray", None)
    found = called("run-all", "quickstart", "--on", "ray", "--out", tmp_path / "out", status=2)
    assert "pip install 'ray" in found.output
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    """In a sentence with its address."""
    pytest.importorskip("ray", reason=skips.NO_RAY)
    profile = tmp_path / "ray.yaml"
    profile.write_text("engine: ray\noptions: {address: '127.0.0.1:9'}\n")
    said = Command(Path("quickstart"), tmp_path / "out", "--on", str(profile)).ends(2, 300)
    assert "Ray's cluster at 127.0.0.1:9 can't be reached" in said


# A task, without Ray


def test_a_job_has_the_profiles_lines_and_folder(tmp_path: Path) -> None:
    """Its status is the task's, and what it prints is added to the log; after one that failed it
    isn't begun.

    It then has that one's status.
    """
    profile = Profile(
        engine="ray", setup=("export PLANTED=1",), scratch=f"{tmp_path}/$PART", time="1:00:00"
    )
    shown = (
        "import os; print(os.environ['PLANTED'], os.environ['TMPDIR'], 'HPML_BENCH_UNTIL' in "
        "os.environ); exit(3)"
    )
    told = profile.model_dump(mode="json")
    for _ in range(2):
        assert do(["-c", shown], {}, str(tmp_path / "logs/job.log"), told, None) == 3
    assert (tmp_path / "logs/job.log").read_text() == f"1 {tmp_path}/$PART True\n" * 2
    assert do(["-c", "raise SystemExit(5)"], {}, str(tmp_path / "log"), {"engine": "ray"}, 4) == 4


def test_a_job_is_asked_to_end_before_its_time_limit(tmp_path: Path) -> None:
    """And killed at the limit, if it doesn't."""
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(7)); print(1); "
        "time.sleep(60)"
    )
    began = time.monotonic()
    assert (
        do(["-c", script], {}, str(tmp_path / "logs/a"), {"engine": "ray", "time": "0:00:04"}, None)
        == 7
    )
    assert 2.5 < time.monotonic() - began < 30
    script = script.replace("lambda *_: exit(7)", "signal.SIG_IGN")
    status = do(
        ["-c", script], {}, str(tmp_path / "logs/b"), {"engine": "ray", "time": "0:00:04"}, None
    )
    assert status == -signal.SIGKILL
