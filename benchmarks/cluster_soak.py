"""Soak test of jobs: random faults at random moments of a sweep on a Slurm of two nodes, which ends as a local one.

    python benchmarks/cluster_soak.py --faults 40 --runs 60 --out reports/reference/soak/cluster.json

The Slurm is that of tests/slurm/slurm.sh, started and ended by this script as root. `run-all --on` is called until
the sweep is complete and all faults are spent; losses, gradient norms, predictions and accuracy must then be those of
an undisturbed local sweep bit for bit, and no job, claim or process may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soak
from two_nodes import NODES, TwoNodes, slurm, until

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, SET_ASIDE, write_atomically
from hpml_bench.records.jobs import ATTEMPTS, claims, read_jobs
from hpml_bench.records.run import DONE
from hpml_bench.system import heartbeat, temporary
from hpml_bench.system.text import utc_now

PROFILE = Path(__file__).parents[1] / "tests" / "slurm" / "slurm.yaml"
WITH = ("python", "torch", "hpml_bench", "slurm", "kernel", "cores")
"""With what the record was made."""
BETWEEN = (2.0, 25.0)
"""Seconds from a fault to the next."""
STOPPED = (1.0, 15.0)
"""Seconds for which a process is stopped."""
AWAY = (0.0, 40.0)
"""Seconds for which a node is lost or its link down: Slurm gives it up after about 30."""
MOST_SECONDS = 900.0
"""After so long without a fault and without an end a call is given up."""


@dataclass
class Sweep:
    """`run-all quickstart --on` on tiny settings, called as often as it takes."""

    room: Path
    seeds: int
    calls: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The results."""
        return self.room / "out" / "quickstart"

    def start(self) -> subprocess.Popen[bytes]:
        """Call it once."""
        self.calls += 1
        command = [sys.executable, "-m", "hpml_bench", "run-all", "quickstart", "--out", str(self.room / "out")]
        command += ["--methods", "head,lora", "--seeds", str(self.seeds), "--wandb", "off", "--on", str(PROFILE)]
        command += [part for value in soak.SETTINGS for part in ("--set", value)]
        with (self.room / "said.log").open("ab") as log:
            return subprocess.Popen(
                command, env={**os.environ, "HPML_BENCH_CACHE": str(self.room / "cache")}, start_new_session=True,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def running(self) -> dict[str, str]:
        """Return job -> node of those that run."""
        return {name: node for name, (state, node) in TwoNodes.jobs().items() if state == "RUNNING"}


@dataclass
class Scene:
    """What a fault may break."""

    rng: random.Random
    cluster: TwoNodes
    sweep: Sweep
    waiter: subprocess.Popen[bytes]

    def job(self) -> tuple[str, str] | None:
        """Return a running job and its node."""
        found = sorted(self.sweep.running().items())
        return self.rng.choice(found) if found else None

    def away(self) -> None:
        """Wait while a node is away."""
        time.sleep(self.rng.uniform(*AWAY))


Fault = Callable[[Scene], bool]
"""Returns whether there was something to break."""


def _of_a_job(*words: str) -> Fault:
    """Return a fault that calls a command of Slurm's for a running job."""

    def broken(scene: Scene) -> bool:
        found = scene.job()
        if found is not None:
            subprocess.run([*words, found[0]], capture_output=True, check=False)  # it may have ended meanwhile
        return found is not None

    return broken


def kill_job(scene: Scene) -> bool:
    """SIGKILL of a job's own process."""
    living = [job for job in claims(scene.sweep.folder) if job.host in NODES]
    return bool(living) and _kill(scene, living[0].host, living[0].pid)


def kill_rank(scene: Scene) -> bool:
    """SIGKILL of a rank."""
    rank = _rank(scene)
    return rank is not None and _kill(scene, *rank)


def stop_rank(scene: Scene) -> bool:
    """SIGSTOP of a rank, and some seconds later SIGCONT."""
    rank = _rank(scene)
    if rank is None or not _kill(scene, *rank, "STOP"):
        return False
    time.sleep(scene.rng.uniform(*STOPPED))
    _kill(scene, *rank, "CONT")
    return True


def _rank(scene: Scene) -> tuple[str, int] | None:
    """Return host and number of a rank's process."""
    for job in claims(scene.sweep.folder):
        for attempt in (scene.sweep.folder / ATTEMPTS).glob(f"*.{job.name}"):
            if beats := heartbeat.read(attempt):
                return job.host, scene.rng.choice(beats).pid
    return None


def _kill(scene: Scene, host: str, pid: int, name: str = "KILL") -> bool:
    try:
        scene.cluster.do("in", host, "kill", f"-{name}", str(pid))
    except RuntimeError:  # it has ended meanwhile
        return False
    return True


def remove_temporary(scene: Scene) -> bool:
    """Remove the temporary folder of a living process of the sweep: of run-all, of a job or of its ranks."""
    found = sorted(Path(tempfile.gettempdir()).glob(f"{temporary.PREFIX}*"))
    if found:
        shutil.rmtree(scene.rng.choice(found), ignore_errors=True)
    return bool(found)


def cut_file(scene: Scene) -> bool:
    """Cut a file of a recorded run to half of its length."""
    found = [path for name in (RECORD, POINTS, PREDICTIONS) for path in sorted(scene.sweep.folder.glob(f"*/{name}"))]
    if found:
        path = scene.rng.choice(found)
        os.truncate(path, path.stat().st_size // 2)
    return bool(found)


def stop_sweep(scene: Scene) -> bool:
    """`hpml-bench stop` in another terminal."""
    command = [sys.executable, "-m", "hpml_bench", "stop", str(scene.sweep.folder)]
    subprocess.run(command, capture_output=True, check=False)
    return True


def submit_twice(scene: Scene) -> bool:
    """The same run-all in another terminal, ended by Ctrl-C after a while."""
    other = scene.sweep.start()
    time.sleep(scene.rng.uniform(*BETWEEN))
    other.send_signal(signal.SIGINT)
    other.wait()
    return True


def preempt(scene: Scene) -> bool:
    """Give a node to a job of higher priority."""
    found = scene.job()
    if found is not None:
        slurm("sbatch", "-p", "high", f"--nodelist={found[1]}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    return found is not None


def lose_node(scene: Scene) -> bool:
    """End a node with all on it, and begin it anew."""
    return _node_away(scene, "lose")


def kill_slurmd(scene: Scene) -> bool:
    """Kill slurmd, while its jobs go on, and later begin the node anew."""
    return _node_away(scene, "kill")


def _node_away(scene: Scene, word: str) -> bool:
    node = scene.rng.choice(NODES)
    scene.cluster.do(word, node)
    scene.cluster.mark_down(node)
    scene.away()
    scene.cluster.do("back", node)
    _await_back(node)
    return True


def cut_link(scene: Scene) -> bool:
    """Part a node from the other and from the controller for a while."""
    node = scene.rng.choice(NODES)
    scene.cluster.do("link", node, "down")
    scene.away()
    scene.cluster.do("link", node, "up")
    _await_back(node)
    return True


def _await_back(node: str) -> None:
    """Wait until a node is up; one that Slurm has drained meanwhile is resumed, as an administrator does."""
    until(lambda: not any(sign in _state(node) for sign in ("down", "*")), f"{node} is back")
    if "drain" in _state(node):
        slurm("scontrol", "update", f"nodename={node}", "state=resume")


def _state(node: str) -> str:
    return slurm("sinfo", "--noheader", f"--nodes={node}", "--partition=low", "--format=%T").strip()


def end_waiter(number: signal.Signals) -> Fault:
    """Return a fault that ends run-all, whose jobs go on."""

    def broken(scene: Scene) -> bool:
        scene.waiter.send_signal(number)
        return True

    return broken


FAULTS: dict[str, Fault] = {
    "scontrol requeue": _of_a_job("scontrol", "requeue"),
    "scancel": _of_a_job("scancel"),
    "SIGTERM of a job": _of_a_job("scancel", "--batch", "--signal=TERM"),
    "SIGKILL of a job": kill_job,
    "SIGKILL of a rank": kill_rank,
    "preemption": preempt,
    "a node lost": lose_node,
    "slurmd killed": kill_slurmd,
    "a link down": cut_link,
    "SIGSTOP of a rank": stop_rank,
    "a temporary folder removed": remove_temporary,
    "a file cut": cut_file,
    "stop": stop_sweep,
    "a second run-all": submit_twice,
    "Ctrl-C of run-all": end_waiter(signal.SIGINT),
    "SIGKILL of run-all": end_waiter(signal.SIGKILL),
}


def disturb(rng: random.Random, cluster: TwoNodes, sweep: Sweep, faults: int) -> list[str]:
    """Call the sweep until it is complete and all faults are spent; return what went wrong or was left."""
    names = [list(FAULTS)[number % len(FAULTS)] for number in range(faults)]  # each about as often
    rng.shuffle(names)
    status, struck = 1, True
    while status != 0 or names or struck:  # a fault in a call that ends well may have broken what the next one mends
        if status == 0 and names:  # complete before all faults were spent: there must be something left to do
            shutil.rmtree(rng.choice(sorted(path.parent for path in sweep.folder.glob(f"*/{RECORD}"))))
        waiter, struck = sweep.start(), False
        scene = Scene(rng, cluster, sweep, waiter)
        due, given_up = time.monotonic() + rng.uniform(*BETWEEN), time.monotonic() + MOST_SECONDS
        while waiter.poll() is None:
            time.sleep(0.1)
            if time.monotonic() > given_up:
                waiter.kill()
                return [f"call {sweep.calls} was not done after {MOST_SECONDS:.0f} s"]
            if names and time.monotonic() >= due and FAULTS[names[-1]](scene):
                sweep.events.append({"fault": names.pop(), "call": sweep.calls, "at": utc_now()})
                print(f"{len(sweep.events)} of {faults}: {sweep.events[-1]['fault']}", flush=True)
                due, given_up = time.monotonic() + rng.uniform(*BETWEEN), time.monotonic() + MOST_SECONDS
                struck = True
        status = waiter.wait()
        if sweep.calls > 10 + 2 * faults:
            return [f"not complete after {sweep.calls} calls"]
    return leftovers(cluster, sweep)


def leftovers(cluster: TwoNodes, sweep: Sweep) -> list[str]:
    """Return the jobs, claims, processes and temporary files that a completed sweep left."""
    deadline = time.monotonic() + 60
    while (left := _left(cluster, sweep)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def _left(cluster: TwoNodes, sweep: Sweep) -> list[str]:
    left = [f"job {name} {state}" for name, (state, _) in TwoNodes.jobs().items()]
    left += [f"claim of {job.name} on unit {job.unit}" for job in claims(sweep.folder)]
    left += [str(path) for path in sweep.folder.rglob(".*.tmp")]
    for node in NODES:
        told = cluster.do("in", node, "ps", "-eo", "args")
        left += [f"{node}: {line}" for line in told.splitlines() if "hpml_bench" in line or "forkserver" in line]
    return left


def soaked(room: Path, cluster: TwoNodes, faults: int, runs: int, seed: int) -> dict[str, Any]:
    """Do a local sweep and a disturbed one on the cluster; return what happened."""
    seeds = max(1, runs // 2)
    local = soak.new_sweep(room, "local", "head,lora", seeds)
    _, problems = soak.disturb(random.Random(0), local, [])
    (room / "cluster").mkdir()
    sweep = Sweep(room / "cluster", seeds)
    left = disturb(random.Random(seed), cluster, sweep, faults)
    found = soak.content(sweep.folder)
    return {
        "runs": len(found),
        "done": sum(value[0] in DONE for value in found.values()),
        "equal": found == soak.content(local.folder),
        "faults": dict(sorted(Counter(event["fault"] for event in sweep.events).items())),
        "calls": sweep.calls,
        "starts of jobs": dict(Counter(str(job.how) for job in read_jobs(sweep.folder))),
        "attempts left": len(list((sweep.folder / ATTEMPTS).glob("*/"))),
        "set aside": len(list((sweep.folder / SET_ASIDE).glob("*/"))),
        "left": problems + left,
        "events": sweep.events,
    }


def main() -> None:
    """Do what is asked and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=90, help="of the cluster, where several are up at a time")
    parser.add_argument("--out", type=Path, default=Path("reports/reference/soak/cluster.json"))
    asked = parser.parse_args()
    cluster = TwoNodes(asked.number)
    if (why := cluster.up()) is not None:
        raise SystemExit(why)
    began = time.monotonic()
    try:
        os.environ |= cluster.exports()
        slurm_version = slurm("sinfo", "--version").split()[-1]
        with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
            record = soaked(Path(name), cluster, asked.faults, asked.runs, asked.seed)
            if record["left"] or not record["equal"]:
                print((Path(name) / "cluster" / "said.log").read_text()[-4000:])
    finally:
        cluster.down()
    minutes = round((time.monotonic() - began) / 60, 1)
    made = soak.blank(asked.seed) | {"slurm": slurm_version, "minutes": minutes}
    record = {name: made[name] for name in ("seed", *WITH, "minutes")} | record
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(asked.out, json.dumps(record, indent=1) + "\n")
    bad = not record["equal"] or record["left"]
    print(f"{asked.out}: {asked.faults} faults over {record['runs']} runs; {'NOT ' if bad else ''}as without them")
    raise SystemExit(int(bool(bad)))


if __name__ == "__main__":
    main()
