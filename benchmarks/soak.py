"""Soak test: random faults at random moments of tiny sweeps, which `run-all` completes with the undisturbed results.

    python benchmarks/soak.py --kills 100 --runs 200 --out reports/reference/soak/soak.json

`--kills N`: N times a sweep of two runs is hit by one fault at a random moment from start to end, then `run-all` is
called until it is complete. `--runs N`: one sweep of N runs is hit again and again. Each time the results (losses,
gradient norms, predictions, accuracy) must be those of an undisturbed sweep bit for bit, and no process, no listening
socket and no temporary file may be left, in the results and the cache neither.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, write_atomically
from hpml_bench.records.load import load_records
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system import heartbeat

SETTINGS = (
    "epochs=null", "steps=8", "train_samples=64", "validation_samples=32", "test_samples=64", "global_batch=8",
    "log_every=2", "warmup_steps=1", "latency_samples=2", "device=cpu", "world_size=2", "threads=1", "precision=fp32",
)  # fmt: skip
STALL_SECONDS = 8.0
MOST_CALLS = 12
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at only
OWN = "SOAK_HAS_OWN_SHARED_MEMORY"
SEGMENTS = ("torch", "psm", "sem.mp-")
"""How the segments begin that torch and multiprocessing make; others are another program's."""
GROWTH_MB = 16.0
"""By which a parent's memory may be greater in the last quarter of a call than in the second: what allocators keep."""
MORE_DESCRIPTORS = 4.0
"""By which a parent's descriptors may be more; one kept by each run would be far more of them."""
LOOKS_OF_A_LONG_CALL = 3000
"""A minute at least. In a shorter call the second quarter would still be start-up, and growth means nothing."""
WAIT_SECONDS = 300.0
LOOKS_FOR_SOCKETS = 10
"""Every so many looks the parent's sockets are noted: the kernel lists those of the whole machine for it."""
LAST_SECONDS = 10.0
"""For the kernel, and the fork server, to end what has lost its parent."""


@dataclass
class Sweep:
    """`run-all quickstart` on tiny settings into a folder, called as often as it takes, with a cache of its own."""

    out: Path
    temporary: Path
    methods: str
    seeds: int
    calls: int = 0
    resident_mb: dict[int, list[float]] = field(default_factory=dict)
    """The parent's memory, looked at all along, by call: each has a parent of its own."""
    descriptors: dict[int, list[float]] = field(default_factory=dict)
    """The parent's, likewise."""
    ports: set[tuple[int, int]] = field(default_factory=set)
    """At which parents listened: their process, and the port."""

    @property
    def folder(self) -> Path:
        """The results."""
        return self.out / "quickstart"

    @property
    def cache(self) -> Path:
        """What is fetched and prepared."""
        return self.out.parent / "cache"

    def start(self) -> subprocess.Popen[str]:
        """Call it once, in a session of its own."""
        self.calls += 1
        command = [sys.executable, "-m", "hpml_bench", "run-all", "quickstart", "--out", str(self.out)]
        command += ["--methods", self.methods, "--seeds", str(self.seeds), "--wandb", "off"]
        command += ["--stall", str(STALL_SECONDS), *(part for value in SETTINGS for part in ("--set", value))]
        return subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(self.temporary), "HPML_BENCH_CACHE": str(self.cache)},
            start_new_session=True,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def look(self, process: subprocess.Popen[str]) -> None:
        """Note the parent's memory, descriptors and, now and then, sockets."""
        try:
            parent = psutil.Process(process.pid)
            looks = self.resident_mb.setdefault(self.calls, [])
            looks.append(parent.memory_info().rss / 1e6)
            self.descriptors.setdefault(self.calls, []).append(parent.num_fds())
            if len(looks) % LOOKS_FOR_SOCKETS == 0:
                self.ports |= {(process.pid, at.laddr.port) for at in parent.net_connections("inet") if _listens(at)}
        except psutil.Error:
            return


def _listens(connection: Any) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN)


def inherited(ports: set[tuple[int, int]]) -> list[int]:
    """Return those of the ports at which a process of their owner's session still listens, whoever has it now."""
    found = set()
    for at in filter(_listens, psutil.net_connections("inet") if ports else ()):
        port = at.laddr.port  # type: ignore[union-attr]  # one that listens has an address
        with suppress(ProcessLookupError, PermissionError):
            if at.pid and (os.getsid(at.pid), port) in ports:
                found.add(port)
    return sorted(found)


def session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the living processes that a call started, itself apart."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process.pid != other.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def still_there(process: subprocess.Popen[str]) -> list[str]:
    """Return the processes that live on a while after the call that started them ended."""
    deadline = time.monotonic() + LAST_SECONDS
    while (alive := session(process)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [_told(other) for other in alive]


def _told(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} child of {process.ppid()}: {' '.join(process.cmdline())[:120]}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone by now)"


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the children of the fork server."""
    return [child for server in servers(process) for child in server.children()]


def servers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the fork server, if it has begun."""
    try:
        return [p for p in psutil.Process(process.pid).children() if "forkserver" in " ".join(p.cmdline())]
    except psutil.Error:
        return []


def hit(rng: random.Random, targets: list[psutil.Process], number: signal.Signals) -> bool:
    """Send a signal to one of these; return whether there was one."""
    targets = sorted(targets, key=lambda process: process.pid)
    if not targets:
        return False
    try:
        rng.choice(targets).send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def interrupt(process: subprocess.Popen[str]) -> bool:
    """Press Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)
    return True


def kill(process: subprocess.Popen[str]) -> bool:
    """End hpml-bench itself."""
    process.kill()
    return True


def interrupt_twice(rng: random.Random, process: subprocess.Popen[str]) -> bool:
    """Press Ctrl-C, and again before the books are closed, or after."""
    interrupt(process)
    time.sleep(rng.uniform(0, 0.5))
    return process.poll() is not None or interrupt(process)


def truncate(rng: random.Random, process: subprocess.Popen[str], folder: Path) -> str:
    """End hpml-bench, and cut a file of some run at a random byte, as a crash of the machine might.

    Returns:
        The fault that it was: as long as there is no file, only a kill.

    """
    process.kill()
    process.wait()
    still_there(process)  # else they might write what is cut; one that stays is told after the call
    names = (RECORD, POINTS, PREDICTIONS)
    files = sorted(path for name in names for path in folder.glob(f"*/{name}") if path.stat().st_size)
    if not files:
        return "SIGKILL of hpml-bench"
    path = rng.choice(files)
    os.truncate(path, rng.randrange(path.stat().st_size))
    return "a file cut"


FAULTS: dict[str, Callable[[random.Random, subprocess.Popen[str], Path], bool | str]] = {
    "SIGKILL of a rank": lambda rng, process, _: hit(rng, ranks(process), signal.SIGKILL),
    "SIGSTOP of a rank": lambda rng, process, _: hit(rng, ranks(process), signal.SIGSTOP),
    "SIGKILL of the fork server": lambda rng, process, _: hit(rng, servers(process), signal.SIGKILL),
    "SIGSTOP of the fork server": lambda rng, process, _: hit(rng, servers(process), signal.SIGSTOP),
    "SIGKILL of hpml-bench": lambda _, process, __: kill(process),
    "Ctrl-C": lambda _, process, __: interrupt(process),
    "Ctrl-C twice": lambda rng, process, _: interrupt_twice(rng, process),
    "a file cut": truncate,
}


def content(folder: Path) -> dict[str, Any]:
    """Return what a sweep computed, by run; nothing that is timed."""
    found: dict[str, Any] = {}
    for record in load_records(folder).records:
        points = [p for p in read_points(folder / record.run_id) if "loss" in p.metric or "norm" in p.metric]
        predictions = read_predictions(folder / record.run_id)
        metrics = {name: record.metrics.get(name) for name in ("test_accuracy", "test_loss")}
        table = None if predictions is None else [np.asarray(p).tolist() for p in vars(predictions).values()]
        found[record.run_id] = (record.status, points, table, metrics, record.consumed)
    return found


def disturb(rng: random.Random, sweep: Sweep, moments: list[float]) -> tuple[list[dict[str, Any]], list[str]]:
    """Call the sweep until it is complete, a fault after each of `moments` (seconds of calls since the last).

    Returns:
        The faults, and what was left of a call after it had ended.

    """
    events: list[dict[str, Any]] = []
    left: list[str] = []
    todo = list(moments)
    status = 1
    while (status != 0 or todo) and sweep.calls < MOST_CALLS + 2 * len(moments):
        if status == 0:  # complete before all faults were spent: there must be something left to do
            shutil.rmtree(rng.choice(sorted(path.parent for path in sweep.folder.glob("*/run.json"))))
        process = sweep.start()
        began, deadline = time.monotonic(), time.monotonic() + WAIT_SECONDS
        name = rng.choice(list(FAULTS)) if todo else ""
        while process.poll() is None and time.monotonic() < deadline:
            sweep.look(process)
            time.sleep(0.02)
            if name and time.monotonic() - began >= todo[0] and (done := FAULTS[name](rng, process, sweep.folder)):
                events.append(
                    {
                        "fault": done if isinstance(done, str) else name,
                        "seconds": round(time.monotonic() - began, 2),
                        "call": sweep.calls,
                    }
                )
                began, todo = time.monotonic(), todo[1:]
                name = rng.choice(list(FAULTS)) if todo else ""
        if process.poll() is None:
            left.append(f"call {sweep.calls} was not done after {WAIT_SECONDS:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        todo[:1] = [moment - (time.monotonic() - began) for moment in todo[:1]]
        left += [f"call {sweep.calls}: {name}" for name in still_there(process)]
    if status != 0:
        left.append(f"not complete after {sweep.calls} calls")
    return events, left


def leftovers(sweep: Sweep) -> list[str]:
    """Return the temporary files and listening sockets that a completed sweep left."""
    found = [*sweep.temporary.iterdir(), *sweep.out.rglob(".*.tmp"), *sweep.out.rglob(heartbeat.PATTERN)]
    found += sweep.cache.rglob(".new-*")
    return [*map(str, found), *(f"something listens at port {port}" for port in inherited(sweep.ports))]


def shared_memory() -> set[str]:
    """Return the names of the segments there are, of those that a sweep could make."""
    return {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(SEGMENTS)}


def with_own_shared_memory() -> None:
    """Begin anew with shared memory of our own, where it may be mounted: other programs' would be taken for ours."""
    if os.geteuid() == 0 and shutil.which("unshare") and not os.environ.get(OWN):
        os.environ[OWN] = "1"
        mount = 'mount -t tmpfs tmpfs /dev/shm; exec "$@"'
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *sys.argv])  # noqa: S606


def new_sweep(room: Path, name: str, methods: str, seeds: int) -> Sweep:
    """Return a sweep into a folder of its own."""
    (room / name / "tmp").mkdir(parents=True)
    return Sweep(room / name / "out", room / name / "tmp", methods, seeds)


def kills(room: Path, numbers: Iterable[int], seed: int) -> Iterator[dict[str, Any]]:
    """Hit a sweep of two runs once for each number; yield what happened."""
    undisturbed = new_sweep(room, "undisturbed", "head,lora", 1)
    began = time.monotonic()
    _, problems = disturb(random.Random(0), undisturbed, [])
    whole, expected = time.monotonic() - began, content(undisturbed.folder)
    if problems or len(expected) != 2:
        raise SystemExit(f"the undisturbed sweep did not end well: {problems}")
    for index in numbers:
        rng = random.Random(f"{seed} {index}")
        sweep = new_sweep(room, f"kill{index}", "head,lora", 1)
        events, left = disturb(rng, sweep, [rng.uniform(0, whole)])
        left += leftovers(sweep)
        yield {
            "round": index,
            "events": events,
            "calls": sweep.calls,
            "left": left,
            "equal": content(sweep.folder) == expected,
        }
        shutil.rmtree(sweep.out.parent)


def soak(room: Path, runs: int, seed: int) -> dict[str, Any]:
    """Hit one sweep of `runs` runs again and again; return what happened."""
    seeds = max(1, runs // 2)
    undisturbed = new_sweep(room, "long-undisturbed", "head,lora", seeds)
    _, problems = disturb(random.Random(0), undisturbed, [])
    rng = random.Random(f"{seed} soak")
    sweep = new_sweep(room, "long", "head,lora", seeds)
    events, left = disturb(rng, sweep, [rng.uniform(0, 20) for _ in range(max(1, runs // 8))])
    return {
        "runs": len(content(sweep.folder)),
        "events": events,
        "calls": sweep.calls,
        "left": problems + left + leftovers(sweep),
        "equal": content(sweep.folder) == content(undisturbed.folder),
        "parent_mb": quarters(undisturbed.resident_mb[1]),
        "disturbed_parent_mb": quarters(max(sweep.resident_mb.values(), key=len)),
        "parent_descriptors": quarters(undisturbed.descriptors[1]),
        "disturbed_parent_descriptors": quarters(max(sweep.descriptors.values(), key=len)),
    }


def quarters(values: list[Any]) -> dict[str, float]:
    """Return the medians of the second and the last quarter, and how many values there are."""
    rest = values[max(1, len(values) // 4) :]
    return {"looks": len(values), "second_quarter": _median(rest, 0), "last_quarter": _median(rest, 2)}


def grows(course: dict[str, float], margin: float) -> bool:
    """Tell whether a parent's course rose by more than may be, in a call that was long enough to say so."""
    long = course["looks"] >= LOOKS_OF_A_LONG_CALL
    return long and course["last_quarter"] > course["second_quarter"] + margin


def ended_badly(long: dict[str, Any]) -> bool:
    """Tell whether the long sweep differs, left something, or cost a parent memory or descriptors."""
    margins = {"parent_mb": GROWTH_MB, "parent_descriptors": MORE_DESCRIPTORS}
    courses = {name: margin for key, margin in margins.items() for name in (key, f"disturbed_{key}")}
    risen = any(grows(long[name], margin) for name, margin in courses.items() if name in long)  # old records lack some
    return not long["equal"] or bool(long["left"]) or risen


def _median(values: list[Any], third: int) -> float:
    size = max(1, len(values) // 3)
    return round(float(statistics.median(values[third * size : (third + 1) * size] or values)), 1)


def main() -> None:
    """Do what is asked and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no further kill begins after so long")
    parser.add_argument("--go-on", action="store_true", help="keep what --out holds, and do what it lacks")
    parser.add_argument("--out", type=Path, default=Path("reports/reference/soak/soak.json"))
    asked = parser.parse_args()
    with_own_shared_memory()
    began, segments = time.monotonic(), shared_memory()
    record = json.loads(asked.out.read_text()) if asked.go_on and asked.out.exists() else blank(asked.seed)
    before, rounds = record["minutes"], record["kills"]

    def keep() -> None:
        record["minutes"] = round(before + (time.monotonic() - began) / 60, 1)
        record["shared_memory_left"] = sorted(shared_memory() - segments)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(asked.out, json.dumps(record, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        if asked.runs and not record["soak"]:
            record["soak"] = soak(Path(name), asked.runs, record["seed"])
            keep()
        for entry in kills(Path(name), range(len(rounds), asked.kills), record["seed"]):
            rounds.append(entry)
            keep()
            if time.monotonic() > began + 60 * asked.minutes:
                break
    bad = [entry for entry in rounds if not entry["equal"] or entry["left"]]
    if record["soak"] and ended_badly(record["soak"]):
        bad.append(record["soak"])
    if record["shared_memory_left"]:
        bad.append({"shared_memory_left": record["shared_memory_left"]})
    print(
        f"{asked.out}: {len(rounds)} kills, {len(bad)} of all with a difference, something left or memory or files lost"
    )
    raise SystemExit(1 if bad else 0)


def blank(seed: int) -> dict[str, Any]:
    """Return a record in which nothing was done yet."""
    return {
        "seed": seed,
        "python": platform.python_version(),
        "torch": version("torch"),
        "hpml_bench": version("hpml-bench"),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "minutes": 0.0,
        "shared_memory_left": [],
        "kills": [],
        "soak": None,
    }


if __name__ == "__main__":
    main()
