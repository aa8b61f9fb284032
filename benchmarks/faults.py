"""Faults of a sweep at random moments, here or on a cluster; what is left then, and what must be
equal.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from two_nodes import NODES, TwoNodes, slurm, until

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.jobs import ATTEMPTS, claims
from hpml_bench.records.load import load_records
from hpml_bench.records.points import read_points
from hpml_bench.records.run import RunRecord
from hpml_bench.system import heartbeat, temporary

SETTINGS = (
    "epochs=null",
    "steps=8",
    "train_samples=64",
    "validation_samples=32",
    "test_samples=64",
    "global_batch=8",
    "log_every=2",
    "warmup_steps=1",
    "latency_samples=2",
    "device=cpu",
    "world_size=2",
    "threads=1",
    "precision=fp32",
)
PROFILE = Path(__file__).parents[1] / "tests" / "slurm" / "slurm.yaml"
STALL_SECONDS = 8.0
MOST_CALLS = 12
# start of the name of torch's cache, which it makes for all processes of a user
TORCHS = "torchinductor_"
SEGMENTS = (
    "torch",
    "psm",
    "sem.mp-",
)  # how the segments of torch and multiprocessing begin; others aren't a sweep's
WAIT_SECONDS, CLUSTER_WAIT_SECONDS = (
    300.0,
    900.0,
)  # without a fault and without an end, after which a call is given up
LAST_SECONDS = 10.0  # for the kernel, and the fork server, to end what has lost its parent
BETWEEN = (2.0, 25.0)  # seconds from a fault of a cluster to the next
COMMENTS = ("project=x", "")  # comments that the site gives to jobs
STOPPED = (1.0, 15.0)  # seconds for which a process is stopped
AWAY = (
    0.0,
    40.0,
)  # seconds for which a node is lost or its link down: Slurm gives it up after about 30


@dataclass
class Sweep:
    """`run-all` on tiny settings, called as often as it takes, in a folder with a cache of its
    own.
    """

    room: Path
    methods: str
    seeds: int
    cluster: Any = None  # the TwoNodes whose jobs do it; None: this machine
    suite: str = "quickstart"  # name or file
    options: tuple[str, ...] = tuple(part for value in SETTINGS for part in ("--set", value))
    by_step: bool = False  # whether moments of faults are steps of the training, else seconds
    calls: int = 0
    resident_mb: dict[int, list[float]] = field(
        default_factory=dict
    )  # call -> the memory of its parent, all along
    descriptors: dict[int, list[float]] = field(default_factory=dict)  # likewise
    rng: random.Random = field(default_factory=random.Random)
    process: Any = None  # of the call under way

    def __post_init__(self) -> None:
        self.out, self.temporary, self.cache = (
            self.room / name for name in ("out", "tmp", "cache")
        )
        self.folder = self.out / Path(self.suite).stem
        self.temporary.mkdir(parents=True)

    def start(self) -> subprocess.Popen[str]:
        """Call it once, in a session of its own."""
        self.calls += 1
        command = [
            sys.executable,
            "-m",
            "hpml_bench",
            "run-all",
            self.suite,
            "--out",
            str(self.out),
            "--wandb",
            "off",
        ]
        command += ["--methods", self.methods, "--seeds", str(self.seeds)]
        command += ["--on", str(PROFILE)] if self.cluster else ["--stall", str(STALL_SECONDS)]
        command += self.options
        variables = {**os.environ, "HPML_BENCH_CACHE": str(self.cache)}
        variables |= {} if self.cluster else {"TMPDIR": str(self.temporary)}
        with (self.room / "said.log").open("a") as log:
            return subprocess.Popen(
                command,
                env=variables,
                start_new_session=True,
                text=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def moment(self, began: float) -> float:
        """Return the seconds since a call, or a fault, began; or the step of the training under
        way.
        """
        if not self.by_step:
            return time.monotonic() - began
        beats = (
            beat
            for run in self.folder.glob("*/")
            for beat in heartbeat.read(run)
            if psutil.pid_exists(beat.pid)
        )
        return max(
            (int(beat.where.split()[2]) for beat in beats if beat.where.startswith("training")),
            default=-1,
        )

    def choice(self, values: Iterable[Any]) -> Any:
        """Return one of these values, None where there is none."""
        found = sorted(values)
        return self.rng.choice(found) if found else None

    def wait(self, seconds: tuple[float, float]) -> None:
        time.sleep(self.rng.uniform(*seconds))

    def look(self, process: subprocess.Popen[str]) -> None:
        """Note the parent's memory and descriptors."""
        with suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            self.resident_mb.setdefault(self.calls, []).append(parent.memory_info().rss / 1e6)
            self.descriptors.setdefault(self.calls, []).append(parent.num_fds())


Fault = Callable[
    [Sweep], bool | str
]  # returns whether there was something to break, or the fault that it was


def still_there(process: subprocess.Popen[str]) -> list[str]:
    """Return the processes, itself apart, that live on a while after the call that started them
    ended.
    """
    deadline = time.monotonic() + LAST_SECONDS
    while True:
        alive = []
        for other in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.Error):
                if (
                    os.getsid(other.pid) == process.pid != other.pid
                    and other.status() != psutil.STATUS_ZOMBIE
                ):
                    alive.append(str(other))
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def servers(sweep: Sweep) -> list[Any]:
    """Return the fork server, if it has begun."""
    children = psutil.Process(sweep.process.pid).children()
    return [child for child in children if "forkserver" in " ".join(child.cmdline())]


def ranks(sweep: Sweep) -> list[Any]:
    return [rank for server in servers(sweep) for rank in server.children()]


def itself(sweep: Sweep) -> list[Any]:
    return [sweep.process]  # jobs go on without it


def struck(targets: Callable[[Sweep], list[Any]], number: signal.Signals, sweep: Sweep) -> bool:
    """Signal one of these processes."""
    with suppress(psutil.Error):
        for process in sweep.rng.sample(found := targets(sweep), min(1, len(found))):
            process.send_signal(number)
            return True
    return False


def interrupt(twice: bool, sweep: Sweep) -> bool:
    """Press Ctrl-C; `twice`: again before the books are closed, or after."""
    os.killpg(sweep.process.pid, signal.SIGINT)
    if twice:
        sweep.wait((0, 0.5))
        if sweep.process.poll() is None:
            os.killpg(sweep.process.pid, signal.SIGINT)
    return True


def cut_file(sweep: Sweep) -> bool | str:
    """Cut a file of some run at a random byte, as a crash of the machine might, which ends
    hpml-bench if it is there.

    As long as there is no file, it is only a kill.
    """
    if not sweep.cluster:
        sweep.process.kill()
        sweep.process.wait()
        still_there(
            sweep.process
        )  # else they might write to a file that is cut; one that stays is reported later
    names, folder = (RECORD, POINTS, PREDICTIONS), sweep.folder
    path = sweep.choice(
        path for name in names for path in folder.glob(f"*/{name}") if path.stat().st_size
    )
    if path is None:
        return False if sweep.cluster else "SIGKILL of hpml-bench"
    os.truncate(path, sweep.rng.randrange(path.stat().st_size))
    return True


FAULTS: dict[str, Fault] = {
    "SIGKILL of a rank": partial(struck, ranks, signal.SIGKILL),
    "SIGSTOP of a rank": partial(struck, ranks, signal.SIGSTOP),
    "SIGKILL of the fork server": partial(struck, servers, signal.SIGKILL),
    "SIGSTOP of the fork server": partial(struck, servers, signal.SIGSTOP),
    "SIGKILL of hpml-bench": partial(struck, itself, signal.SIGKILL),
    "Ctrl-C": partial(interrupt, False),
    "Ctrl-C twice": partial(interrupt, True),
    "a file cut": cut_file,
}


# Faults of jobs


def of_a_job(command: str, sweep: Sweep) -> bool:
    """Call a command of Slurm's for a running job; words of it may name the job and its node."""
    running = sweep.choice(
        (job, node) for job, (state, node) in TwoNodes.jobs().items() if state == "RUNNING"
    )
    if running is not None:  # it may have ended meanwhile
        words = [word.format(job=running[0], node=running[1]) for word in shlex.split(command)]
        subprocess.run(words, capture_output=True, check=False)
    return running is not None


def of_a_process(rank: bool, names: Sequence[str], sweep: Sweep) -> bool:
    """Send signals, with some seconds between them, to a job's own process or to a rank."""
    for job in claims(sweep.folder):
        beats = [heartbeat.read(path) for path in (sweep.folder / ATTEMPTS).glob(f"*.{job.name}")]
        pid = sweep.choice(beat.pid for found in beats for beat in found) if rank else job.pid
        if pid is None or job.host not in NODES:
            continue
        for number, name in enumerate(names):
            if number:
                sweep.wait(STOPPED)
            try:
                sweep.cluster.do("in", job.host, "kill", f"-{name}", str(pid))
            except RuntimeError:  # it has ended meanwhile
                return number > 0
        return True
    return False


def of_a_node(before: str, after: str, down: bool, sweep: Sweep) -> bool:
    """Call slurm.sh for a node, and again after a while; with `down` the controller learns that
    the node is down.
    """
    node = sweep.rng.choice(NODES)

    def state() -> str:
        return slurm(
            "sinfo", "--noheader", f"--nodes={node}", "--partition=low", "--format=%T"
        ).strip()

    sweep.cluster.do(*before.format(node).split())
    if down:
        sweep.cluster.mark_down(node)
    sweep.wait(AWAY)
    sweep.cluster.do(*after.format(node).split())
    until(lambda: not any(sign in state() for sign in ("down", "*")), f"{node} is back")
    if "drain" in state():  # as an administrator does
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    return True


def remove_temporary(sweep: Sweep) -> bool:
    """Remove the temporary folder of a living process of the sweep: of run-all, of a job or of
    its ranks.
    """
    found: set[Path] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(sweep.room) in " ".join([*process.cmdline(), *process.environ().values()]):
                found |= {Path(file.path).parent for file in process.open_files()}
    path = sweep.choice(sorted(path for path in found if path.name.startswith(temporary.PREFIX)))
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
    return path is not None


def stop_sweep(sweep: Sweep) -> bool:
    """`hpml-bench stop` in another terminal."""
    subprocess.run(
        [sys.executable, "-m", "hpml_bench", "stop", sweep.folder], capture_output=True, check=False
    )
    return True


def submit_twice(sweep: Sweep) -> bool:
    """The same run-all in another terminal, ended by Ctrl-C after a while."""
    other = sweep.start()
    sweep.wait(BETWEEN)
    other.send_signal(signal.SIGINT)
    other.wait()
    return True


PREEMPT = "sbatch -p high --nodelist={node} --exclusive --output=/dev/null --wrap='sleep 1'"
CLUSTER_FAULTS: dict[str, Fault] = {
    "scontrol requeue": partial(of_a_job, "scontrol requeue {job}"),
    "scancel": partial(of_a_job, "scancel {job}"),
    "SIGTERM of a job": partial(of_a_job, "scancel --batch --signal=TERM {job}"),
    "SIGKILL of a job": partial(of_a_process, False, ("KILL",)),
    "SIGKILL of a rank": partial(of_a_process, True, ("KILL",)),
    "preemption": partial(of_a_job, PREEMPT),
    "a node lost": partial(of_a_node, "lose {}", "back {}", True),
    "slurmd killed": partial(of_a_node, "kill {}", "back {}", True),
    "a link down": partial(of_a_node, "link {} down", "link {} up", False),
    "SIGSTOP of a rank": partial(of_a_process, True, ("STOP", "CONT")),
    "a temporary folder removed": remove_temporary,
    "a file cut": cut_file,
    "stop": stop_sweep,
    "a second run-all": submit_twice,
    "Ctrl-C of run-all": partial(struck, itself, signal.SIGINT),
    "SIGKILL of run-all": partial(struck, itself, signal.SIGKILL),
}


def content(folder: Path) -> dict[str, Any]:
    """Return what a sweep computed, by run; no times and no memory."""
    return {
        record.run_id: content_of(folder / record.run_id, record)
        for record in load_records(folder).records
    }


def content_of(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return all of a run, in its folder, that must not differ from an undisturbed one's,
    whatever nodes it is on.
    """
    points = read_points(folder)
    timed = {metric.name for metric in record.definitions if metric.depends_on_machine} | {
        "timed_steps"
    }
    predictions = folder / PREDICTIONS
    return {
        "ended": (record.status, record.error),
        "points": [point.model_dump() for point in points if point.metric != "step_seconds"],
        "steps": [(p.step, p.tokens, p.real_tokens) for p in points if p.metric == "step_seconds"],
        "predictions": predictions.read_bytes() if predictions.exists() else None,
        "metrics": {
            n: value
            for n, value in record.metrics.items()
            if n not in timed and "_nodes_bytes" not in n
        },
        "consumed": record.consumed,
        "checks": [(check.name, check.passed) for check in record.checks],
    }


def disturb(
    rng: random.Random, sweep: Sweep, moments: Sequence[float], comments: int = 0, only: str = ""
) -> tuple[list[dict[str, Any]], list[str]]:
    """Call the sweep until it is complete, a fault after each of `moments` (seconds of calls since
    the last).

    During the first `comments` of them the cluster's site replaces jobs' comments. `only`: a word
    of the faults' names. Return the faults, each kind about as often, and what was left of a call
    that had ended.
    """
    faults, patience = (
        (CLUSTER_FAULTS, CLUSTER_WAIT_SECONDS) if sweep.cluster else (FAULTS, WAIT_SECONDS)
    )
    chosen = [name for name in faults if only in name]
    names = rng.sample(chosen * (1 + len(moments) // len(chosen)), len(moments))
    events: list[dict[str, Any]] = []
    left: list[str] = []
    todo, status, touched = list(zip(moments, names, strict=True)), 1, False
    while (status != 0 or todo or touched) and sweep.calls < MOST_CALLS + 2 * len(moments):
        if (
            status == 0 and todo
        ):  # complete before all faults were spent: there must be something left to do
            shutil.rmtree(
                rng.choice(sorted(path.parent for path in sweep.folder.glob(f"*/{RECORD}")))
            )
        site = set_comments(rng, sweep, len(events) < comments)
        process, touched = sweep.start(), False
        sweep.rng, sweep.process, began, last = rng, process, time.monotonic(), time.monotonic()
        while process.poll() is None and time.monotonic() < last + patience:
            sweep.look(process)
            time.sleep(0.1 if sweep.cluster else 0.02)
            if todo and sweep.moment(began) >= todo[0][0] and (done := faults[todo[0][1]](sweep)):
                name = done if isinstance(done, str) else todo[0][1]
                events.append(
                    {
                        "fault": name,
                        "seconds": round(time.monotonic() - began, 2),
                        "call": sweep.calls,
                    }
                )
                events[-1] |= {} if site is None else {"comments": site}
                site = set_comments(rng, sweep, len(events) < comments)
                todo, began, last = todo[1:], time.monotonic(), time.monotonic()
                touched = (
                    sweep.cluster is not None
                )  # a call that ends well may have left what the next one mends
        if process.poll() is None:
            left.append(f"call {sweep.calls} was not done after {patience:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if not sweep.by_step:
            todo[:1] = [(moment - (time.monotonic() - began), name) for moment, name in todo[:1]]
        left += [f"call {sweep.calls}: {name}" for name in still_there(process)]
    if status != 0:
        left.append(f"not complete after {sweep.calls} calls")
    return events, left


def set_comments(rng: random.Random, sweep: Sweep, replaced: bool) -> str | None:
    """Let a sweep's cluster replace the comments of jobs, or leave them; return the one that it
    gives.
    """
    site = rng.choice(COMMENTS) if replaced else None
    if sweep.cluster:
        sweep.cluster.do("comments", *([] if site is None else [site]))
    return site


def leftovers(sweep: Sweep) -> list[str]:
    """Return the temporary files, jobs, claims and processes of nodes that a completed sweep
    left.
    """
    deadline = time.monotonic() + (
        60 if sweep.cluster else 0
    )  # jobs end after run-all has seen their last record
    while True:
        here = [path for path in sweep.temporary.iterdir() if not path.name.startswith(TORCHS)]
        found = [*here, *sweep.out.rglob(".*.tmp"), *sweep.cache.rglob(".new.*")]
        found += [] if sweep.cluster else sweep.out.rglob(heartbeat.PATTERN)
        left = [*map(str, found)]
        if sweep.cluster is not None:
            left += [f"job {name} {state}" for name, (state, _) in TwoNodes.jobs().items()]
            left += [f"claim of {job.name} on unit {job.unit}" for job in claims(sweep.folder)]
            for node in NODES:
                lines = sweep.cluster.do("in", node, "ps", "-eo", "args").splitlines()
                left += [
                    f"{node}: {line}"
                    for line in lines
                    if "hpml_bench" in line or "forkserver" in line
                ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


def shared_memory() -> set[str]:
    """Return the names of the segments there are, of those that a sweep could make."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(SEGMENTS)}  # noqa: S108
