"""Kills of runs at random moments, which go on from checkpoints: the results must be an undisturbed run's to the bit.

    python benchmarks/resume_faults.py --kills 40 [--suites quickstart,chat] [--seed 0]

Each of N runs on two ranks, of all methods of these suites in turn, saves its state every few steps. A SIGKILL hits a
rank, the fork server or hpml-bench at a random step; every second run is hit again in the part that went on. The
command is called until all are done. Prints a line for each and the numbers of kills, runs that went on and runs that
differ; the exit status is 1 if one differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import soak
import yaml

from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.load import load_records
from hpml_bench.records.points import read_points
from hpml_bench.records.run import RunRecord
from hpml_bench.system import heartbeat

STEPS = 24
SETTINGS = (
    *soak.SETTINGS, f"steps={STEPS}", "log_every=2", "eval_every=8", "dropout=0.1", "micro_batch=2",
    "validation_samples=8", "test_samples=16",
)  # fmt: skip
FAQ = (
    "steps=6", "train_samples=12", "validation_samples=2", "test_samples=2", "global_batch=4", "micro_batch=1",
    "eval_every=4", "latency_samples=1", "task.options.max_new_tokens=4",
)  # fmt: skip
OWN_SETTINGS = {"chat": ("select=best",), "faq": FAQ}
"""Settings of a suite beside the common ones; faq has a model of 135M parameters, a hundred times the others'."""
SUITES = ("quickstart", "chat", "regression", "tagging", "faq")
MOST_CALLS = 8
LONGEST = 0.2  # seconds after the begin of a step at which a kill may come
TIMES = ("step_seconds",)
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


@dataclass(frozen=True)
class Case:
    """A suite, in a file, and its settings here."""

    file: Path
    settings: tuple[str, ...]
    methods: tuple[str, ...]

    @classmethod
    def of(cls, name: str, folder: Path) -> Case:
        suite = yaml.safe_load((Path(__file__).parent / "suites" / f"{name}.yaml").read_text())
        more = MORE if name == "quickstart" else {}
        suite["methods"] = {method: of for method, of in suite["methods"].items() if method != "none"} | more
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(suite))
        return cls(path, (*SETTINGS, *OWN_SETTINGS.get(name, ())), tuple(suite["methods"]))

    @property
    def steps(self) -> int:
        return int([value for value in self.settings if value.startswith("steps=")][-1].removeprefix("steps="))

    def start(self, out: Path, methods: str, *options: str) -> subprocess.Popen[bytes]:
        """Call `run-all` in a session of its own."""
        command = [sys.executable, "-m", "hpml_bench", "run-all", str(self.file), "--out", str(out), "--wandb", "off"]
        command += ["--methods", methods, "--seeds", "1", *options]
        command += [part for value in self.settings for part in ("--set", value)]
        out.mkdir(parents=True, exist_ok=True)
        with (out / "said.log").open("ab") as log:
            return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)

    def content(self, out: Path) -> dict[str, Any]:
        """Return what the runs computed, by method."""
        folder = out / self.file.stem
        return {
            record.spec.method.name: content(folder / record.run_id, record) for record in load_records(folder).records
        }


def content(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return all of a run, in its folder, that must not differ from an undisturbed one's: no times and no memory."""
    points = read_points(folder)
    timed = {metric.name for metric in record.definitions if metric.depends_on_machine} | {"timed_steps"}
    return {
        "ended": (record.status, record.error),
        "points": [point.model_dump() for point in points if point.metric not in TIMES],
        "steps": [(p.step, p.tokens, p.real_tokens) for p in points if p.metric in TIMES],
        "predictions": record.files.get(PREDICTIONS),
        "metrics": {name: value for name, value in record.metrics.items() if name not in timed},
        "consumed": record.consumed,
        "checks": [(check.name, check.passed) for check in record.checks],
    }


@dataclass
class Disturbed:
    """Runs of a suite, each with the steps at which it is to be hit, and what was killed in it."""

    case: Case
    out: Path
    rng: random.Random
    moments: dict[str, list[int]]
    killed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def complete(self) -> None:
        """Call `run-all`, which tries runs again whose ranks were killed, until all are done."""
        for _ in range(MOST_CALLS):
            steps = ("--checkpoint-steps", str(self.rng.choice((2, 4, 6))), "--retries", str(MOST_CALLS))
            process = self.case.start(self.out, ",".join(self.moments), *steps)
            self._disturb(process)
            status = process.wait()
            soak.still_there(process)  # type: ignore[arg-type]
            if status == 0:
                return
        raise SystemExit(f"{list(self.moments)} aren't done after {MOST_CALLS} calls; see {self.out}/said.log")

    def _disturb(self, process: Any) -> None:
        """Kill one of a call's processes when a run is at its next moment, until the call ends."""
        hit: set[int] = set()
        while process.poll() is None:
            time.sleep(0.005)
            for run in (self.out / self.case.file.stem).glob("*/"):
                method = run.name.rpartition("-s")[0].replace("-", "_")
                moments = self.moments.get(method)  # None in the report's folders
                beats = [
                    beat for beat in heartbeat.read(run) if beat.where.startswith("training") and beat.pid not in hit
                ]
                if moments and any(int(beat.where.split()[2]) >= moments[0] for beat in beats):
                    hit |= {beat.pid for beat in beats}
                    time.sleep(self.rng.uniform(0, LONGEST))  # it may evaluate then, save, or be at its next step
                    targets = {f"rank {beat.rank}": beat.pid for beat in beats} | {"hpml-bench": process.pid}
                    for server in soak.servers(process):
                        targets["fork server"] = server.pid
                    name = self.rng.choice(sorted(targets))
                    with suppress(ProcessLookupError):
                        os.kill(targets[name], signal.SIGKILL)
                        self.killed[method].append(name)
                    moments.pop(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, differ, kills, resumed = random.Random(asked.seed), [], 0, 0  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="resume-", dir="/tmp", ignore_cleanup_errors=True) as name:
        cases = [Case.of(suite, Path(name)) for suite in asked.suites.split(",")]
        todo = [(case, method) for case in cases for method in case.methods]
        chosen = [todo[number % len(todo)] for number in range(asked.kills)]
        for (_, case), runs in groupby(enumerate(chosen), key=lambda item: (item[0] // len(todo), item[1][0])):
            numbers = {method: number for number, (_, method) in runs}
            room = Path(name) / f"{case.file.stem}-{min(numbers.values())}"
            if case.start(room / "whole", ",".join(numbers), "--checkpoint-minutes", "0").wait():
                raise SystemExit((room / "whole/said.log").read_text())
            expected = case.content(room / "whole")
            moments = {m: sorted(rng.sample(range(3, case.steps + 1), 1 + n % 2)) for m, n in numbers.items()}
            disturbed = Disturbed(case, room / "hit", rng, moments)
            disturbed.complete()
            found = case.content(room / "hit")
            for record in load_records(room / "hit" / case.file.stem).records:
                method = record.spec.method.name
                other = [part for part, true in expected[method].items() if found[method][part] != true]
                names, parts = disturbed.killed[method], [f"{part.first}-{part.last}" for part in record.segments]
                kills, resumed = kills + len(names), resumed + bool(parts)
                differ += [f"{case.file.stem} {method}"] if other else []
                said = f"DIFFERS in {other}" if other else "equal"
                print(f"{case.file.stem} {method}, killed {names}, steps {parts}, {said}", flush=True)
            shutil.rmtree(room)
    print(f"{asked.kills} runs, {kills} kills, {resumed} went on from a checkpoint, {len(differ)} differ: {differ}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
