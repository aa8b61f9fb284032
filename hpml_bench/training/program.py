"""Training by a program that isn't ours: the files that it gets, its run under a guard, and its
costs from outside.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from hpml_bench.data.draw import training_rows
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.schedule import total_steps
from hpml_bench.system import cgroups, child, gpus, heartbeat, processes
from hpml_bench.system.errors import ProgramFailed, ProgramMemoryError
from hpml_bench.system.files import end_of, read_json
from hpml_bench.system.text import sanitize
from hpml_bench.training.request import RunRequest
from hpml_bench.training.saving import save_tokenizer

OUT = "out"
LOOK_SECONDS = 1.0
SHAREGPT = {
    "user": "human",
    "assistant": "gpt",
}  # role -> ShareGPT's name of it, where that is another
LAUNCH = re.compile(
    r"(RANK|WORLD_SIZE|(LOCAL|GROUP|ROLE)_\w+|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+|GLOO_SOCKET_IFNAME|PYTHONSAFEPATH)$"
)
"""Variables by which our ranks meet, for one of which a program would take itself; and the fork
server's, with which a script would import nothing from its own folder.
"""
TAIL = 600  # characters of a log's last lines in an error
Form = Literal["messages", "sharegpt"]


def write_files(request: RunRequest, folder: Path, form: Form) -> dict[str, str]:
    """Write what a program reads into a folder; return its paths and numbers by the placeholders
    of a command.
    """
    spec, prepared = request.spec, request.prepared
    rows = {"train": training_rows(prepared, spec.settings, spec.seed)}
    rows["validation"] = Rows(Path(prepared.data) / "validation", prepared.pad_id)
    steps = total_steps(spec.settings, len(rows["train"]))
    values = {"seed": str(spec.seed), "steps": str(steps), "lr": f"{spec.method.lr:g}"}
    for name in ("model", OUT):
        (folder / name).mkdir(parents=True)
        values[name] = str(folder / name)
    task = make_task(spec.settings.task, prepared.label_names, prepared.facts)
    save_tokenizer(spec, prepared, task, folder / "model")  # with the task's chat template
    for file in Path(prepared.backbone).iterdir():
        if not (folder / "model" / file.name).exists():
            (folder / "model" / file.name).symlink_to(file.resolve())
    for split, of in rows.items():
        values[split] = str(folder / f"{split}.jsonl")
        lines = (
            json.dumps(as_line(turns, form), ensure_ascii=False) + "\n"
            for turns in of.column("turns")
        )
        Path(values[split]).write_text("".join(lines), encoding="utf-8")
    return values


def as_line(turns: str, form: Form) -> dict[str, Any]:
    """Return a prepared row's conversation as TRL reads it (`messages`) or as ShareGPT has it
    (`conversations`).
    """
    roles, contents, weights, fields, tools = json.loads(turns)
    found: list[dict[str, Any]] = []
    for place, (role, content) in enumerate(zip(roles, contents, strict=True)):
        turn = {"role": role, "content": content}
        if form == "sharegpt":
            turn = {"from": SHAREGPT.get(role, role), "value": content}
        more = json.loads(fields[place]) if fields and fields[place] else {}
        found.append(
            turn | more | ({"weight": 0} if weights and not weights[place] else {})
        )  # 0: not learnt
    line = {"conversations" if form == "sharegpt" else "messages": found}
    return line | ({"tools": json.loads(tools)} if tools else {})


def run_program(
    words: Sequence[str], folder: Path, log: Path, device: str, threads: int
) -> dict[str, float]:
    """Run a command under a guard, its output into `log`; return its costs by metrics. Raises
    ProgramFailed.
    """
    report, kills, joules = folder / "guard.json", cgroups.oom_kills(), _joules(device)
    environment = {name: value for name, value in os.environ.items() if not LAUNCH.match(name)}
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    guard = child.module(
        "hpml_bench.system.processes", str(os.getpid()), str(report), str(folder), *words
    )
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - the suite's user allowed it
            [sys.executable, *guard],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    usage = Usage(process.pid, log, device)
    try:
        while process.poll() is None:
            usage.look()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
    finally:
        process.terminate()
        process.wait()
    ended = read_json(report) or {"error": f"its guard was ended ({process.returncode})"}
    peak = max(usage.peak_mb, ended.get("largest_mb", 0.0))
    if problem := _problem(ended, folder / OUT):
        tail = tail_of(log)
        memory = "MemoryError" in tail or (
            ended.get("status") == -signal.SIGKILL and cgroups.oom_kills() > kills
        )
        reached = f"; its memory had reached {peak:,.0f} MB" if memory else ""
        kind = ProgramMemoryError if memory else ProgramFailed
        last = (
            f": {tail.rpartition(' | ')[2]}" if tail and ended.get("status") else ""
        )  # a terminal cuts the rest
        raise kind(
            f"the command {problem}{reached}{last}; {log.name} "
            + (f"ends: {tail}" if tail else "is empty")
        )
    costs = {
        "program_seconds": ended["seconds"],
        "program_memory_mb": peak,
        "program_gpu_mb": usage.gpu_mb,
    }
    tokens = (read_json(folder / OUT / "consumed.json") or {}).get("tokens")
    reported = {"program_tokens": float(tokens)} if isinstance(tokens, int | float) else {}
    return costs | {"program_joules": _joules(device) - joules} | reported


def _problem(ended: dict[str, Any], out: Path) -> str:
    """Return how a program failed, as the rest of a sentence; empty if it did well."""
    if "error" in ended:
        return f"can't be run: {ended['error']}"
    status, left = ended["status"], ended["left"]
    if status:
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status < 0
            else f"ended with status {status}"
        )
        return f"{how} after {ended['seconds']:.1f} s"
    if left:
        return (
            f"left processes behind, which were ended ({', '.join(left)}): its work may not have "
            f"been done"
        )
    return "" if any(out.iterdir()) else "ended well and left nothing in {out}"


def _joules(device: str) -> float:
    return (
        sum(gpus.gpu_joules(gpu["uuid"]) for gpu in gpus.visible_gpus())
        if device == "cuda"
        else gpus.rapl_joules()
    )


class Usage:
    """Memory (MB) and work of a guard's processes, looked at from outside; new output or CPU
    time is a heartbeat.
    """

    def __init__(self, guard: int, log: Path, device: str) -> None:
        self.peak_mb, self.gpu_mb = 0.0, math.nan
        self._guard, self._log, self._gpus = (
            guard,
            log,
            gpus.visible_gpus() if device == "cuda" else (),
        )
        self._seconds, self._written = 0.0, -1

    def look(self) -> None:
        seconds, resident = 0.0, 0
        guard = processes.identify(self._guard)
        for process in [guard, *guard.children(recursive=True)] if guard else ():
            with suppress(psutil.Error):
                seconds += sum(process.cpu_times()[:4])  # also of its children that have ended
                resident += process.memory_info().rss if process != guard else 0
        self.peak_mb = max(self.peak_mb, resident / 1e6)
        for gpu in self._gpus:
            used = gpus.reading(
                gpu["uuid"], lambda nvml, card: nvml.nvmlDeviceGetMemoryInfo(card).used / 1e6
            )
            self.gpu_mb = float(np.nanmax([used, self.gpu_mb]))
        written = self._log.stat().st_size
        if seconds - self._seconds > heartbeat.BUSY_CPU * LOOK_SECONDS or written > self._written:
            heartbeat.beat(f"its command: {tail_of(self._log)[-80:]}")
        self._seconds, self._written = seconds, written


def tail_of(log: Path) -> str:
    """Return the last lines of a log as one."""
    lines = end_of(log, 4 * TAIL).replace("\r", "\n").splitlines()
    return " | ".join(sanitize(line) for line in lines[-20:] if line.strip())[-TAIL:]
