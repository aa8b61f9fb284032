"""Soak test: random faults at random moments of tiny sweeps, which `run-all` completes with the undisturbed results.

    python benchmarks/soak.py --kills 100 --runs 200
    python benchmarks/soak.py --resume 40 [--suites quickstart,chat]
    python benchmarks/soak.py --cluster --faults 40 --runs 60 --comments 10

`--kills N`: N times a sweep of two runs is hit by one fault at a random moment from start to end, then `run-all` is
called until it is complete. `--runs N`: one sweep of N runs is hit again and again. `--resume N`: N runs, of every
method of these suites in turn, save their state every few steps and are killed once or twice; nothing is recorded.
Each time the results (points, predictions, metrics, but for times and memory) must be those of an undisturbed sweep bit
for bit, and no process, no listening socket and no temporary file may be left, in the results and the cache neither.

`--cluster`: one sweep by jobs is hit, on the Slurm of two nodes of tests/slurm/slurm.sh, which this script starts and
ends as root; no job or claim may be left either. Until `--comments N` faults have happened, the site replaces the
comment of each job that is submitted, by another or by none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from faults import BETWEEN, MOST_CALLS, SETTINGS, Sweep, content, disturb, leftovers, shared_memory
from two_nodes import TwoNodes, slurm

from hpml_bench.records.files import SET_ASIDE, write_atomically
from hpml_bench.records.jobs import ATTEMPTS, LOGS, read_jobs
from hpml_bench.records.load import load_records
from hpml_bench.records.run import FINAL

RESUMED = (
    *SETTINGS, "steps=24", "eval_every=8", "dropout=0.1", "micro_batch=2", "validation_samples=8", "test_samples=16",
)  # fmt: skip
SUITES: dict[str, tuple[str, ...]] = {
    "quickstart": (), "chat": ("select=best",), "regression": (), "tagging": (),
    "faq": ("steps=6", "train_samples=12", "validation_samples=2", "test_samples=2", "global_batch=4", "micro_batch=1",
            "eval_every=4", "latency_samples=1", "task.options.max_new_tokens=4"),
}  # fmt: skip
"""Suites whose runs go on from their states, with their own settings; faq's model has 135M parameters."""
MORE: dict[str, dict[str, Any]] = {
    "adalora": {"method": "peft", "lr": 1e-3, "options": {"type": "ADALORA", "tinit": 4, "tfinal": 8, "deltaT": 2}},
    "deft": {"method": "peft", "lr": 1e-3, "options": {"type": "DEFT"}},
    "ln_tuning": {"method": "peft", "lr": 1e-3, "options": {"type": "LN_TUNING"}},
    "qlora": {"lr": 1e-3},
    "muon": {"method": "full", "lr": 1e-3, "optimizer": "muon"},
    "adamw_8bit": {"method": "full", "lr": 1e-3, "optimizer": "adamw_8bit"},
    "lion": {"method": "lora", "lr": 1e-3, "optimizer": "lion"},
}
"""Methods that no suite has; the quickstart gets them."""
RECORDS = Path("reports/reference/soak")
OWN = "SOAK_HAS_OWN_SHARED_MEMORY"
GROWTH_MB = 16.0  # growth of a parent from the second to the last quarter of a call, which allocators keep
MORE_DESCRIPTORS = 4.0  # further open files of it; one kept by each run would be far more
LOOKS_OF_A_LONG_CALL = 3000  # a minute at least; in a shorter call the second quarter would still be start-up


def with_own_shared_memory() -> None:
    """Begin anew with shared memory of our own, where it may be mounted: other programs' would be taken for ours."""
    if os.geteuid() == 0 and shutil.which("unshare") and not os.environ.get(OWN):
        os.environ[OWN] = "1"
        mount = 'mount -t tmpfs tmpfs /dev/shm; exec "$@"'
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *sys.argv])  # noqa: S606


def undisturbed(sweep: Sweep) -> tuple[Sweep, float]:
    """Do a sweep without faults on this machine; return it, and its seconds."""
    began = time.monotonic()
    _, problems = disturb(random.Random(0), sweep, [])
    if problems or len(content(sweep.folder)) != len(sweep.methods.split(",")) * sweep.seeds:
        raise SystemExit(f"the undisturbed sweep did not end well: {problems}")
    return sweep, time.monotonic() - began


def ended(sweep: Sweep, truth: Sweep, events: list[dict[str, Any]], left: list[str]) -> dict[str, Any]:
    """Return what every record of a disturbed sweep holds; its runs may be some of the undisturbed one's."""
    found, expected = content(sweep.folder), content(truth.folder)
    equal = bool(found) and all(expected.get(name) == of for name, of in found.items())
    return {"events": events, "calls": sweep.calls, "left": left + leftovers(sweep), "equal": equal}


def kills(room: Path, numbers: Iterable[int], seed: int) -> Iterator[dict[str, Any]]:
    """Hit a sweep of two runs once for each number; yield what happened."""
    truth, whole = undisturbed(Sweep(room / "undisturbed-1", "head,lora", 1))
    for index in numbers:
        rng = random.Random(f"{seed} {index}")
        sweep = Sweep(room / f"kill{index}", "head,lora", 1)
        yield {"round": index} | ended(sweep, truth, *disturb(rng, sweep, [rng.uniform(0, whole)]))
        shutil.rmtree(sweep.room)


def resumed(room: Path, asked: argparse.Namespace) -> int:
    """Kill runs that go on from their states, and print how each ended; return the number of bad ones."""
    todo: list[tuple[str, Sweep]] = []
    bad = parts = 0
    for name in asked.suites.split(","):
        suite = yaml.safe_load((Path(__file__).parent / "suites" / f"{name}.yaml").read_text())
        more = MORE if name == "quickstart" else {}
        suite["methods"] = {method: of for method, of in suite["methods"].items() if method != "none"} | more
        file = room / f"{name}.yaml"
        file.write_text(yaml.safe_dump(suite))
        options = ("--stall", "60", *(part for value in (*RESUMED, *SUITES[name]) for part in ("--set", value)))
        whole = Sweep(room / f"whole-{name}", ",".join(suite["methods"]), 1, suite=str(file), options=options)
        undisturbed(whole)
        todo += [(method, whole) for method in suite["methods"]]
    for index in range(asked.resume):
        method, truth = todo[index % len(todo)]
        rng = random.Random(f"{asked.seed} {index}")
        saved = ("--checkpoint-steps", str(rng.choice((2, 4, 6))), "--retries", str(MOST_CALLS))
        sweep = Sweep(
            room / f"run{index}", method, 1, suite=truth.suite, options=(*truth.options, *saved), by_step=True
        )
        steps = int([of for of in truth.options if of.startswith("steps=")][-1].removeprefix("steps="))
        moments = sorted(rng.sample(range(3, steps + 1), 1 + index % 2))
        found = ended(sweep, truth, *disturb(rng, sweep, moments, only="SIGKILL"))
        segments = [part for record in load_records(sweep.folder).records for part in record.segments]
        bad += not found["equal"] or bool(found["left"])
        parts += bool(segments)
        how = "equal" if found["equal"] else "DIFFERS"
        killed = [event["fault"] for event in found["events"]]
        print(f"{sweep.folder.name} {method}, {killed}, {len(segments)} parts, {how}", *found["left"], flush=True)
        shutil.rmtree(sweep.room)
    print(f"{asked.resume} runs, {parts} went on from a state, {bad} differ or left something")
    return bad


def soak(room: Path, runs: int, seed: int) -> dict[str, Any]:
    """Hit one sweep of `runs` runs again and again; return what happened."""
    truth, _ = undisturbed(Sweep(room / "undisturbed", "head,lora", max(1, runs // 2)))
    rng = random.Random(f"{seed} soak")
    sweep = Sweep(room / "long", "head,lora", truth.seeds)
    moments = [rng.uniform(0, 20) for _ in range(max(1, runs // 8))]
    return {
        "runs": 2 * truth.seeds,
        **ended(sweep, truth, *disturb(rng, sweep, moments)),
        "parent_mb": quarters(truth.resident_mb[1]),
        "disturbed_parent_mb": quarters(max(sweep.resident_mb.values(), key=len)),
        "parent_descriptors": quarters(truth.descriptors[1]),
        "disturbed_parent_descriptors": quarters(max(sweep.descriptors.values(), key=len)),
    }


def soak_of_jobs(room: Path, cluster: TwoNodes, asked: argparse.Namespace) -> dict[str, Any]:
    """Hit one sweep by jobs of a cluster again and again; return what happened."""
    truth, _ = undisturbed(Sweep(room / "undisturbed", "head,lora", max(1, asked.runs // 2)))
    rng = random.Random(asked.seed)
    sweep = Sweep(room / "cluster", "head,lora", truth.seeds, cluster)
    moments = [rng.uniform(*BETWEEN) for _ in range(asked.faults)]
    common = ended(sweep, truth, *disturb(rng, sweep, moments, asked.comments, asked.minutes))
    if common["left"] or not common["equal"]:
        print((sweep.room / "said.log").read_text()[-4000:])
    found, logs = content(sweep.folder), (sweep.folder / LOGS).glob("*.log")
    return {
        "runs": len(found),
        "done": sum(value["ended"][0] in FINAL for value in found.values()),
        "faults": dict(sorted(Counter(event["fault"] for event in common["events"]).items())),
        "faults with other comments": sum("comments" in event for event in common["events"]),
        "jobs that found their unit held": sum("is held by job" in path.read_text() for path in logs),
        "starts of jobs": dict(Counter(str(job.how) for job in read_jobs(sweep.folder))),
        "attempts left": len(list((sweep.folder / ATTEMPTS).glob("*/"))),
        "set aside": len(list((sweep.folder / SET_ASIDE).glob("*/"))),
        **common,
    }


def quarters(values: list[Any]) -> dict[str, float]:
    """Return the medians of the second and the last quarter, and how many values there are."""
    rest = values[max(1, len(values) // 4) :]
    size = max(1, len(rest) // 3)
    second, last = (statistics.median(rest[start : start + size] or rest) for start in (0, 2 * size))
    return {"looks": len(values), "second_quarter": round(second, 1), "last_quarter": round(last, 1)}


def ended_badly(long: dict[str, Any]) -> bool:
    """Tell whether the long sweep differs, left something, or cost a parent memory or descriptors."""
    risen = False
    for what, margin in {"parent_mb": GROWTH_MB, "parent_descriptors": MORE_DESCRIPTORS}.items():
        for course in (long[what], long[f"disturbed_{what}"]):
            long_enough = course["looks"] >= LOOKS_OF_A_LONG_CALL
            risen |= long_enough and course["last_quarter"] > course["second_quarter"] + margin
    return not long["equal"] or bool(long["left"]) or risen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no further fault begins after so long")
    parser.add_argument("--resume", type=int, default=0, help="runs that go on from their states, and no others")
    parser.add_argument("--suites", default=",".join(SUITES), help="of these runs")
    parser.add_argument("--cluster", action="store_true", help="hit a sweep by jobs, and no other one")
    parser.add_argument("--faults", type=int, default=40, help="of a cluster")
    parser.add_argument("--comments", type=int, default=10, help="of these with other comments of jobs")
    parser.add_argument("--number", type=int, default=90, help="of the cluster, where several are up at a time")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.resume:
        with tempfile.TemporaryDirectory(prefix="soak-") as name:
            raise SystemExit(1 if resumed(Path(name), asked) else 0)
    out = asked.out or RECORDS / ("cluster.json" if asked.cluster else "soak.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    bad = on_cluster(asked, out) if asked.cluster else on_this_machine(asked, out)
    print(f"{out}: {bad} sweeps with a difference, something left or memory or files lost")
    raise SystemExit(1 if bad else 0)


def on_cluster(asked: argparse.Namespace, out: Path) -> int:
    """Write the record of a sweep by jobs; return the number of bad ones."""
    cluster = TwoNodes(asked.number)
    if (why := cluster.up()) is not None:
        raise SystemExit(why)
    began = time.monotonic()
    try:
        os.environ |= cluster.exports()
        made = blank(asked.seed) | {"slurm": slurm("sinfo", "--version").split()[-1]}
        with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
            record = soak_of_jobs(Path(name), cluster, asked)
    finally:
        cluster.down()
    made["minutes"] = round((time.monotonic() - began) / 60, 1)
    own = ("seed", "python", "torch", "hpml_bench", "slurm", "kernel", "cores", "minutes")
    write_atomically(out, json.dumps({name: made[name] for name in own} | record, indent=1) + "\n")
    print(json.dumps({name: value for name, value in record.items() if name != "events"}, indent=1))
    return int(not record["equal"] or bool(record["left"]))


def on_this_machine(asked: argparse.Namespace, out: Path) -> int:
    """Write the record of sweeps of this machine; return the number of bad ones."""
    with_own_shared_memory()
    began, segments = time.monotonic(), shared_memory()
    record = blank(asked.seed)

    def keep() -> None:
        record["minutes"] = round((time.monotonic() - began) / 60, 1)
        record["shared_memory_left"] = sorted(shared_memory() - segments)
        write_atomically(out, json.dumps(record, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        if asked.runs:
            record["soak"] = soak(Path(name), asked.runs, asked.seed)
            keep()
        for entry in kills(Path(name), range(asked.kills), asked.seed):
            record["kills"].append(entry)
            keep()
            if time.monotonic() > began + 60 * asked.minutes:
                break
    bad = sum(not entry["equal"] or bool(entry["left"]) for entry in record["kills"])
    return bad + bool(record["shared_memory_left"]) + bool(record["soak"] and ended_badly(record["soak"]))


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
