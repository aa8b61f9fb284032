"""Soak test: random faults at random moments of tiny sweeps, which `run-all` completes with the
undisturbed results.

    python benchmarks/soak.py --kills 100 --runs 200
    python benchmarks/soak.py --resume 40 [--suites quickstart,chat]
    python benchmarks/soak.py --cluster --faults 40 --runs 60 --comments 10
    python benchmarks/soak.py --each -n 2

`--kills N`: N times a sweep of two runs is hit by one fault at a random moment from start to end,
then `run-all` is called until it is complete. `--runs N`: one sweep of N runs is hit again and
again. `--resume N`: N runs, of every method of these suites in turn, save their state every few
steps and are killed once or twice; nothing is recorded. Each time the results (points, predictions,
metrics, but for times and memory) must be those of an undisturbed sweep bit for bit, and no process
and no temporary file may be left, in the results and the cache neither.

`--cluster`: one sweep by jobs is hit, on the Slurm of two nodes of tests/slurm/slurm.sh, which this
script starts and ends as root; no job or claim may be left either. Until `--comments N` faults have
happened, the site replaces the comment of each job that is submitted, by another or by none.
`--each`: each fault of docs/reliability.md once there, by the tests of tests/slurm, whose record is
written whatever comes of them.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from faults import BETWEEN, MOST_CALLS, SETTINGS, Sweep, content, disturb, leftovers, shared_memory
from two_nodes import TwoNodes, slurm

from hpml_bench.records.files import SET_ASIDE
from hpml_bench.records.jobs import ATTEMPTS, LOGS, read_jobs
from hpml_bench.records.load import load_records
from hpml_bench.records.run import FINAL
from hpml_bench.system.files import write_atomically

RESUMED = (
    *SETTINGS,
    "steps=24",
    "eval_every=8",
    "dropout=0.1",
    "micro_batch=2",
    "validation_samples=8",
    "test_samples=16",
)
SUITES: dict[str, tuple[str, ...]] = {
    "quickstart": (),
    "chat": ("select=best",),
    "regression": (),
    "tagging": (),
    "faq": (
        "steps=6",
        "train_samples=12",
        "validation_samples=2",
        "test_samples=2",
        "global_batch=4",
        "micro_batch=1",
        "eval_every=4",
        "latency_samples=1",
        "task.options.max_new_tokens=4",
    ),
}
"""Suites whose runs go on from their states, with their own settings; faq's model has 135M
parameters.
"""
MORE: dict[str, dict[str, Any]] = {
    "adalora": {
        "method": "peft",
        "lr": 1e-3,
        "options": {"type": "ADALORA", "tinit": 4, "tfinal": 8, "deltaT": 2},
    },
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
GROWTH_MB = (
    16.0  # growth of a parent from the second to the last quarter of a call, which allocators keep
)
MORE_DESCRIPTORS = 4.0  # further open files of it; one kept by each run would be far more
LOOKS_OF_A_LONG_CALL = (
    3000  # a minute at least; in a shorter call the second quarter would still be start-up
)


def with_own_shared_memory() -> None:
    """Begin anew with shared memory of our own, where it may be mounted: other programs' would
    be taken for ours.
    """
    if os.geteuid() == 0 and shutil.which("unshare") and not os.environ.get(OWN):
        os.environ[OWN] = "1"
        mount = 'mount -t tmpfs tmpfs /dev/shm; exec "$@"'
        os.execvp(  # noqa: S606
            "unshare", ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *sys.argv]
        )


def undisturbed(sweep: Sweep) -> tuple[Sweep, float]:
    """Do a sweep without faults on this machine; return it, and its seconds."""
    began = time.monotonic()
    _, problems = disturb(random.Random(0), sweep, [])
    if problems or len(content(sweep.folder)) != len(sweep.methods.split(",")) * sweep.seeds:
        said = (sweep.room / "said.log").read_text()[-4000:]
        raise SystemExit(f"the undisturbed sweep did not end well: {problems}\n{said}")
    return sweep, time.monotonic() - began


def hit(
    rng: random.Random, sweep: Sweep, truth: Sweep, moments: list[Any], **how: Any
) -> dict[str, Any]:
    """Hit a sweep at these moments; return what every record of one holds: its runs may be some
    of the undisturbed.
    """
    events, left = disturb(rng, sweep, moments, **how)
    found, expected = content(sweep.folder), content(truth.folder)
    equal = bool(found) and all(expected.get(name) == of for name, of in found.items())
    return {"events": events, "calls": sweep.calls, "left": left + leftovers(sweep), "equal": equal}


def bad(found: dict[str, Any]) -> bool:
    return not found["equal"] or bool(found["left"])


def resumed(room: Path, asked: argparse.Namespace) -> int:
    """Kill runs that go on from their states, and print how each ended; return the number of bad
    ones.
    """
    todo: list[tuple[str, Sweep]] = []
    wrong = parts = 0
    for name in asked.suites.split(","):
        suite = yaml.safe_load((Path(__file__).parent / "suites" / f"{name}.yaml").read_text())
        more = MORE if name == "quickstart" else {}
        suite["methods"] = {
            method: of for method, of in suite["methods"].items() if method != "none"
        } | more
        file = room / f"{name}.yaml"
        file.write_text(yaml.safe_dump(suite))
        options = (
            "--stall",
            "60",
            *(part for value in (*RESUMED, *SUITES[name]) for part in ("--set", value)),
        )
        whole = Sweep(
            room / f"whole-{name}", ",".join(suite["methods"]), 1, suite=str(file), options=options
        )
        undisturbed(whole)
        todo += [(method, whole) for method in suite["methods"]]
    for index in range(asked.resume):
        method, truth = todo[index % len(todo)]
        rng = random.Random(f"{asked.seed} {index}")
        saved = ("--checkpoint-steps", str(rng.choice((2, 4, 6))), "--retries", str(MOST_CALLS))
        options = (*truth.options, *saved)
        sweep = Sweep(
            room / f"run{index}", method, 1, suite=truth.suite, options=options, by_step=True
        )
        steps = int(
            [of for of in truth.options if of.startswith("steps=")][-1].removeprefix("steps=")
        )
        found = hit(
            rng,
            sweep,
            truth,
            sorted(rng.sample(range(3, steps + 1), 1 + index % 2)),
            only="SIGKILL",
        )
        wrong += bad(found)
        parts += any(record.segments for record in load_records(sweep.folder).records)
        how = "equal" if found["equal"] else "DIFFERS"
        killed = [event["fault"] for event in found["events"]]
        print(f"{sweep.folder.name} {method}, {killed}, {how}", *found["left"], flush=True)
        shutil.rmtree(sweep.room)
    print(f"{asked.resume} runs, {parts} went on from a state, {wrong} differ or left something")
    return wrong


def soak(room: Path, asked: argparse.Namespace, cluster: TwoNodes | None = None) -> dict[str, Any]:
    """Hit one sweep of many runs, on this machine or by jobs of a cluster, again and again;
    return what happened.
    """
    truth, _ = undisturbed(Sweep(room / "undisturbed", "head,lora", max(1, asked.runs // 2)))
    sweep = Sweep(room / "long", "head,lora", truth.seeds, cluster)
    if cluster is None:
        rng = random.Random(f"{asked.seed} soak")
        found = hit(rng, sweep, truth, [rng.uniform(0, 20) for _ in range(max(1, asked.runs // 8))])
        for before, of in (("", truth), ("disturbed_", sweep)):
            found[f"{before}parent_mb"] = quarters(max(of.resident_mb.values(), key=len))
            found[f"{before}parent_descriptors"] = quarters(max(of.descriptors.values(), key=len))
        return {"runs": 2 * truth.seeds, **found}
    rng = random.Random(asked.seed)
    moments = [rng.uniform(*BETWEEN) for _ in range(asked.faults)]
    found = hit(rng, sweep, truth, moments, comments=asked.comments)
    if bad(found):
        print((sweep.room / "said.log").read_text()[-4000:])
    runs, logs = content(sweep.folder), (sweep.folder / LOGS).glob("*.log")
    return {
        "runs": len(runs),
        "done": sum(value["ended"][0] in FINAL for value in runs.values()),
        "faults": dict(sorted(Counter(event["fault"] for event in found["events"]).items())),
        "faults with other comments": sum("comments" in event for event in found["events"]),
        "jobs that found their unit held": sum(
            "is held by job" in path.read_text() for path in logs
        ),
        "starts of jobs": dict(Counter(str(job.how) for job in read_jobs(sweep.folder))),
        "attempts left": len(list((sweep.folder / ATTEMPTS).glob("*/"))),
        "set aside": len(list((sweep.folder / SET_ASIDE).glob("*/"))),
        **found,
    }


def quarters(values: list[Any]) -> dict[str, float]:
    """Return the medians of the second and the last quarter, and how many values there are."""
    rest = values[max(1, len(values) // 4) :]
    size = max(1, len(rest) // 3)
    second, last = (
        statistics.median(rest[start : start + size] or rest) for start in (0, 2 * size)
    )
    return {
        "looks": len(values),
        "second_quarter": round(second, 1),
        "last_quarter": round(last, 1),
    }


def ended_badly(long: dict[str, Any]) -> bool:
    """Tell whether the long sweep differs, left something, or cost a parent memory or
    descriptors.
    """
    margins = {"parent_mb": GROWTH_MB, "parent_descriptors": MORE_DESCRIPTORS}
    courses = [
        (long[f"{of}{what}"], margin)
        for what, margin in margins.items()
        for of in ("", "disturbed_")
    ]
    whole = [
        (course, margin) for course, margin in courses if course["looks"] >= LOOKS_OF_A_LONG_CALL
    ]
    return bad(long) or any(
        of["last_quarter"] > of["second_quarter"] + margin for of, margin in whole
    )


def each(others: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Do the tests of tests/slurm; return how each ended, with the first line of why, and
    pytest's exit status.
    """
    root, found = Path(__file__).parents[1], []
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "cluster or cluster_slow",
            f"--junitxml={file.name}",
        ]
        status = subprocess.run(
            [*command, *others, str(root / "tests" / "slurm")], cwd=root, check=False
        ).returncode
        for case in ElementTree.parse(file.name).iter("testcase"):  # noqa: S314 - pytest wrote it just now
            why = {part.tag: part.get("message", "").splitlines()[0:1] for part in case}
            how = next((tag for tag in ("error", "failure", "skipped") if tag in why), "passed")
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            row = {"test": name, "how": how, "seconds": round(float(case.get("time", 0)), 1)}
            found.append(row if how == "passed" else row | {"why": "".join(why[how])})
    return {"passed": sum(row["how"] == "passed" for row in found), "tests": found}, status


def on_cluster(room: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the record of a sweep by jobs, on a cluster that is started for it."""
    cluster = TwoNodes(asked.number)
    if (why := cluster.up()) is not None:
        raise SystemExit(why)
    try:
        os.environ |= cluster.exports()
        return {"slurm": slurm("sinfo", "--version").split()[-1]} | soak(room, asked, cluster)
    finally:
        cluster.down()


def on_this_machine(
    room: Path, asked: argparse.Namespace, keep: Callable[[dict[str, Any]], None]
) -> int:
    """Hit one long sweep, and again and again one of two runs; keep the record as it grows, and
    return the bad ones.
    """
    segments, long = shared_memory(), soak(room, asked) if asked.runs else None
    record: dict[str, Any] = {
        "shared_memory_left": sorted(shared_memory() - segments),
        "kills": [],
        "soak": long,
    }
    keep(record)
    truth, whole = undisturbed(Sweep(room / "undisturbed-1", "head,lora", 1))
    for index in range(asked.kills):
        rng, sweep = (
            random.Random(f"{asked.seed} {index}"),
            Sweep(room / f"kill{index}", "head,lora", 1),
        )
        record["kills"].append({"round": index} | hit(rng, sweep, truth, [rng.uniform(0, whole)]))
        shutil.rmtree(sweep.room)
        record["shared_memory_left"] = sorted(shared_memory() - segments)
        keep(record)
    wrong = sum(map(bad, record["kills"])) + bool(record["shared_memory_left"])
    return wrong + bool(long and ended_badly(long))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", type=int, default=0, help="runs that go on from their states, and no others"
    )
    parser.add_argument("--suites", default=",".join(SUITES), help="of these runs")
    parser.add_argument(
        "--cluster", action="store_true", help="hit a sweep by jobs, and no other one"
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="do the tests of tests/slurm; other arguments are pytest's",
    )
    parser.add_argument("--faults", type=int, default=40, help="of a cluster")
    parser.add_argument(
        "--comments", type=int, default=10, help="of these with other comments of jobs"
    )
    parser.add_argument(
        "--number", type=int, default=90, help="of the cluster, where several are up at a time"
    )
    parser.add_argument("--out", type=Path)
    asked, others = parser.parse_known_args()
    if others and not asked.each:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if not (asked.resume or asked.cluster or asked.each):
        with_own_shared_memory()
    name, began = (
        "cluster-faults" if asked.each else "cluster" if asked.cluster else "soak",
        time.monotonic(),
    )
    out = asked.out or RECORDS / f"{name}.json"
    made = {
        "python": platform.python_version(),
        "torch": version("torch"),
        "hpml_bench": version("hpml-bench"),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
    }

    def keep(record: dict[str, Any]) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "seed": asked.seed,
            **made,
            "minutes": round((time.monotonic() - began) / 60, 1),
            **record,
        }
        write_atomically(out, json.dumps(whole, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        if asked.resume:
            raise SystemExit(bool(resumed(Path(folder), asked)))
        if asked.each:
            found, status = each(others)
            keep(found)
            print(f"{out}: {found['passed']} of {len(found['tests'])} passed")
            raise SystemExit(status)
        if asked.cluster:
            found = on_cluster(Path(folder), asked)
            keep(found)
            print(
                json.dumps(
                    {name: value for name, value in found.items() if name != "events"}, indent=1
                )
            )
            wrong = int(bad(found))
        else:
            wrong = on_this_machine(Path(folder), asked, keep)
    print(f"{out}: {wrong} sweeps with a difference, something left or memory or files lost")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
