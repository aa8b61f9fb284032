"""Kills of runs at random moments, which go on from checkpoints: the results must be an undisturbed run's to the bit.

    python benchmarks/resume_faults.py --kills 40 [--suite quickstart] [--seed 0]

Each of N runs on two ranks, of the methods of all suites in turn, saves its state every few steps. A SIGKILL hits a
rank, the fork server or hpml-bench at a random step; every second run is hit again in the part that went on. Then the
command is called until the run is done. Prints a line for each and the numbers of kills, runs that went on and runs
that differ; the exit status is 1 if one differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import soak
import yaml

from hpml_bench.records.load import load_records
from hpml_bench.system import heartbeat

STEPS = 24
SETTINGS = (*soak.SETTINGS, f"steps={STEPS}", "log_every=2", "eval_every=6", "dropout=0.1", "micro_batch=2")
MOST_CALLS = 8
MORE: dict[str, dict[str, Any]] = {
    "adalora": {"method": "peft", "lr": 1e-3, "options": {"type": "ADALORA", "tinit": 4, "tfinal": 8, "deltaT": 2}},
    "deft": {"method": "peft", "lr": 1e-3, "options": {"type": "DEFT"}},
    "ln_tuning": {"method": "peft", "lr": 1e-3, "options": {"type": "LN_TUNING"}},
    "qlora": {"lr": 1e-3},
    "muon": {"method": "full", "lr": 1e-3, "optimizer": "muon"},
    "adamw_8bit": {"method": "full", "lr": 1e-3, "optimizer": "adamw_8bit"},
    "lion": {"method": "lora", "lr": 1e-3, "optimizer": "lion"},
}
"""Methods that the suite lacks."""


def suite_with_all(name: str, folder: Path) -> Path:
    suite = yaml.safe_load((Path(__file__).parent / "suites" / f"{name}.yaml").read_text())
    suite["methods"] = {method: of for method, of in suite["methods"].items() if method != "none"} | MORE
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


def start(suite: Path, out: Path, methods: str, seeds: int, *options: str) -> subprocess.Popen[bytes]:
    """Call `run-all` in a session of its own."""
    command = [sys.executable, "-m", "hpml_bench", "run-all", str(suite), "--out", str(out), "--wandb", "off", *options]
    command += ["--methods", methods, "--seeds", str(seeds)]
    command += [part for value in SETTINGS for part in ("--set", value)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "said.log").open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)


def kill_at(step: int, folder: Path, process: Any, rng: random.Random) -> str | None:
    """Kill one of a call's processes once a rank has begun a step; return which one, None where the call ended."""
    while process.poll() is None:
        beats = [beat for run in folder.glob("*/") for beat in heartbeat.read(run) if beat.where.startswith("training")]
        if any(int(beat.where.split()[2]) >= step for beat in beats):
            targets = {f"rank {beat.rank}": beat.pid for beat in beats} | {"hpml-bench": process.pid}
            for found in soak.servers(process):
                targets["fork server"] = found.pid
            name: str = rng.choice(sorted(targets))
            with suppress(ProcessLookupError):
                os.kill(targets[name], signal.SIGKILL)
                return name
            return None
        time.sleep(0.002)
    return None


def disturb(suite: Path, out: Path, method: str, rng: random.Random, twice: bool) -> list[str]:
    """Do a run with one kill or two, and call it until it is done; return what was killed."""
    killed, moments = [], sorted(rng.sample(range(3, STEPS + 1), 1 + twice))
    for _ in range(MOST_CALLS):
        process = start(suite, out, method, 1, "--checkpoint-steps", str(rng.choice((2, 4, 6))))
        if moments and (name := kill_at(moments.pop(0), out / suite.stem, process, rng)):
            killed.append(name)
        status = process.wait()
        soak.still_there(process)  # type: ignore[arg-type]
        if status == 0:
            return killed
    raise SystemExit(f"{method} isn't done after {MOST_CALLS} calls; see {out}/said.log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--suite", default="quickstart")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, differ, kills, resumed = random.Random(asked.seed), [], 0, 0  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="resume-", dir="/tmp", ignore_cleanup_errors=True) as name:
        suite = suite_with_all(asked.suite, Path(name))
        methods = list(yaml.safe_load(suite.read_text())["methods"])
        if start(suite, Path(name) / "whole", ",".join(methods), 1, "--checkpoint-minutes", "0").wait():
            raise SystemExit((Path(name) / "whole/said.log").read_text())
        expected = soak.content(Path(name) / "whole" / suite.stem)
        for number in range(asked.kills):
            method, out = methods[number % len(methods)], Path(name) / str(number)
            names = disturb(suite, out, method, rng, twice=number % 2 == 1)
            (record,) = load_records(out / suite.stem).records
            same = soak.content(out / suite.stem)[record.run_id] == expected[record.run_id]
            kills, resumed = kills + len(names), resumed + bool(record.segments)
            differ += [] if same else [method]
            parts = [f"{part.first}-{part.last}" for part in record.segments]
            print(f"{number}: {method}, killed {names}, steps {parts}, {'equal' if same else 'DIFFERS'}", flush=True)
    print(f"{asked.kills} runs, {kills} kills, {resumed} went on from a checkpoint, {len(differ)} differ: {differ}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
