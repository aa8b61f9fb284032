"""Software and services: packages, torch and the GPUs it sees, the network, trackers, clusters'
engines.

torch is imported by a process of its own (`training/torch_report.py`), since it may crash or take
long.
"""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
import threading
from functools import cache
from importlib.metadata import metadata, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpml_bench.doctor.machine import Result
from hpml_bench.system import network
from hpml_bench.system.packages import PACKAGE, install_extras, installed, lacks, requirements
from hpml_bench.system.text import shortened

if TYPE_CHECKING:
    from hpml_bench.suite.registry import Kind

PURPOSES = {
    "gguf": "models in GGUF files",
    "quant": "qlora, quantization and adamw_8bit",
    "ray": "jobs by Ray",
    "rouge": "the scorer rouge_l",
    "trackers": "--track",
    "trl": "the suite trainers",
    "tune": "tune --sampler tpe",
}
"""Purposes of the extras for users; the metadata says which extras there are, and what they
need.
"""
DISPENSABLE = frozenset({"wandb"})  # dependencies that quickstart runs without
NVML = "the driver (NVML)"
TORCH_SECONDS = 80.0  # time limit of the report, below that of all checks
UNFIT = "see the line dependencies, or install in a new environment"
_once = threading.Lock()
HUB_SECONDS, INDEX_SECONDS = 4.0, 8.0  # time limits of an answer
INDEX = (
    "--timeout",
    "3",
    "--retries",
    "0",
    "--no-input",
    "--no-cache-dir",
    "--disable-pip-version-check",
)
NO_ANSWER = "No matching distribution"  # what pip says where the index doesn't answer


def python() -> Result:
    tested = re.findall(
        r"Python :: (3\.\d+)$", "\n".join(metadata(PACKAGE).get_all("Classifier", [])), re.MULTILINE
    )
    found = f"Python {platform.python_version()}, {PACKAGE} {version(PACKAGE)}"
    if tested and ".".join(platform.python_version_tuple()[:2]) not in tested:
        return Result(
            "warn", found, f"the tests use Python {tested[0]} to {tested[-1]}: take one of these"
        )
    return Result("ok", found)


def dependencies() -> Result:
    needed = requirements()[""]
    missing = [need for need in needed if installed(need.name) is None]
    old = [need for need in needed if need not in missing and lacks(need)]
    if missing or old:
        bad = any(need.name not in DISPENSABLE for need in missing)
        least = {
            need: f"{str(need.specifier).removeprefix('>=')} or newer" for need in [*missing, *old]
        }
        found = ", ".join(
            f"{need.name} {installed(need.name) or 'is missing'} ({why})"
            for need, why in least.items()
        )
        return Result("fail" if bad else "warn", found, "pip install --upgrade . in the clone")
    return Result(
        "ok",
        (
            f"all {len(needed)} are installed, at or above the lowest versions that the tests "
            f"pass with"
        ),
    )


def extras() -> Result:
    known = requirements()
    lacking = sorted(extra for extra in PURPOSES if any(map(lacks, known.get(extra, ()))))
    if not lacking:
        return Result("ok", f"all are installed: {', '.join(PURPOSES)}")
    # extras have nothing to do with each other: most users need one of them, or none
    each = "\n".join(f"for {PURPOSES[extra]}: {install_extras(extra)}" for extra in lacking)
    return Result("warn", f"not installed: {', '.join(lacking)}", each)


def quickstart() -> Result:
    """Read the suite quickstart, resolve its settings for this machine, and look for its
    embedded model.
    """
    from hpml_bench.data.sources import fetch, weight_files
    from hpml_bench.suite.devices import resolve_suite
    from hpml_bench.suite.suite import load_suite

    settings = resolve_suite(load_suite("quickstart")).settings
    weight_files(fetch(settings.backbone).folder_or_file)
    return Result(
        "ok",
        (
            f"the suite and its model are complete; {settings.world_size} processes on "
            f"{settings.device}"
        ),
    )


def torch() -> Result:
    report = torch_report()
    broken = report.get("torch_error") or report.get("worker_error")
    if broken:
        return Result("fail", f"can't be imported: {broken}", UNFIT)
    if report.get("worker"):
        return Result(
            "ok", f"torch {report['torch']}, transformers, PEFT and datasets can be imported"
        )
    if report["status"] is None:
        return Result(
            "warn",
            "not imported in time",
            "repeat the command: a first import reads some GB from the disk",
        )
    if report["status"] > 0:
        return Result("fail", f"can't be imported: {report['stderr']}", UNFIT)
    by = signal.Signals(-report["status"])
    advice = (
        "see the line memory"
        if by == signal.SIGKILL
        else "install a torch for this processor and driver"
    )
    return Result("fail", f"importing it ended its process by {by.name}", advice)


def gpus() -> Result:
    """Compare the GPUs that torch sees with those that the driver shows."""
    from hpml_bench.system.gpus import MIG, unused_accelerator, visible_gpus

    shown, report = visible_gpus(), torch_report()
    sizes = [
        "memory not known" if mb is None else f"{mb / 1000:,.1f} GB"
        for mb in (gpu["memory_mb"] for gpu in shown)
    ]
    names = (
        ", ".join(f"{gpu['name']} ({size})" for gpu, size in zip(shown, sizes, strict=True))
        or "none"
    )
    if "gpus" not in report:
        return Result(
            "warn", f"{NVML} shows {names}; torch: {report.get('gpus_error', 'no answer')}"
        )
    seen = report["gpus"]
    bare = [
        {gpu["uuid"].removeprefix("GPU-").removeprefix(MIG) for gpu in gpus}
        for gpus in (shown, seen)
    ]
    if bare[0] != bare[1]:
        names += (
            f", torch {report['torch']} sees {', '.join(gpu['name'] for gpu in seen) or 'none'}"
        )
        advice = (
            "install a torch for this GPU and driver (https://pytorch.org), or use --device cpu"
        )
        return Result("warn", f"{NVML} shows {names}", advice)
    if "cuda_error" in report:
        found = f"{names}; products fail there: {report['cuda_error']}"
        return Result("warn", found, "free the GPU, or use --device cpu")
    without = unused_accelerator() or "none; runs are on the CPU"
    return Result("ok", f"{names}; torch and {NVML} agree" if shown else without)


def precision() -> Result:
    """Say how many times as fast as the slowest precision the others are, the fastest first."""
    parts = []
    for where, key in (("CPU", "cpu"), ("GPU", "cuda")):
        if seconds := torch_report().get(key):
            slowest, *others = sorted(seconds, key=lambda name: -seconds[name])
            times = [
                f"{name} {seconds[slowest] / seconds[name]:.2g} times" for name in reversed(others)
            ]
            parts.append(f"{where}: products in {' and '.join(times)} as fast as in {slowest}")
    return (
        Result("ok", "; ".join(parts))
        if parts
        else Result("warn", "not measured", "see the line torch")
    )


def torch_report() -> dict[str, Any]:
    """Return the report, made once, with its process's `status` (None: too slow) and last line
    of `stderr`.
    """
    with _once:
        return _report()


@cache
def _report() -> dict[str, Any]:
    from hpml_bench.system import child

    command = [sys.executable, *child.module("hpml_bench.training.torch_report")]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TORCH_SECONDS, check=False)  # noqa: S603
        status, output, messages = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:  # with what was printed until it was killed
        status, output, messages = None, late.stdout or b"", late.stderr or b""
    last = messages.decode(errors="replace").strip().splitlines()[-1:]
    found: dict[str, Any] = {"status": status, "stderr": "".join(last)}
    for line in output.splitlines(keepends=True):
        found |= (
            json.loads(line) if line.endswith(b"\n") else {}
        )  # else its process ended meanwhile
    return found


def loopback() -> Result:
    if problem := network.no_loopback():
        return Result("fail", problem, network.LOOPBACK_ADVICE)
    return Result("ok", "processes of this machine can connect to each other")


def hub() -> Result:
    """Ask the hub with the client that downloads use."""
    from huggingface_hub import constants, get_session, get_token

    from hpml_bench.system.text import first_line

    if constants.HF_HUB_OFFLINE:
        return Result(
            "ok", "not asked, since HF_HUB_OFFLINE is set: hub: sources come from its cache alone"
        )
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        advice = (
            "use path: and embedded: sources, or fill the hub's cache elsewhere and set "
            "HF_HUB_OFFLINE=1"
        )
        return Result(
            "warn",
            f"offline: {constants.ENDPOINT} can't be reached ({first_line(error, 150)})",
            advice,
        )
    token = "a token is set" if get_token() else "no token: gated models need HF_TOKEN"
    return Result("ok", f"{constants.ENDPOINT} answers; {token}")


def package_index() -> Result:
    """Ask the index with pip, which knows the user's index, proxy and certificates."""
    from hpml_bench.system import child

    if find_spec("pip") is None:
        return Result(
            "warn",
            f"there is no pip in {sys.executable}",
            "wheel: sources need it: python -m ensurepip",
        )
    advice = "wheel: sources, as of the suite minilm, need it: see pip config list"
    try:
        status, output = child.run_pip(
            child.pip_command("index", "versions", "pip", *INDEX), INDEX_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Result(
            "warn", f"offline: the package index is silent for {INDEX_SECONDS:g} s", advice
        )
    if status:
        others = [
            line
            for line in output.splitlines()
            if line.startswith("ERROR") and NO_ANSWER not in line
        ]
        why = f" ({shortened(others[0], 200)})" if others else ""
        return Result("warn", f"offline: pip gets no answer from the package index{why}", advice)
    return Result("ok", "the package index answers pip")


def trackers() -> Result:
    """Say in which mode runs would be published, and why not online."""
    kinds, broken = _plugins("trackers")
    found, advice = [], []
    for name, tracker in kinds.items():
        if tracker.services:  # on only where a command names one
            continue
        mode = tracker.choose_mode("auto")
        if mode == tracker.OFF:
            found.append(f"{name}: off")
            continue
        reason, _, what = (tracker.obstacle() or "with a key and a route").partition("; ")
        found.append(f"{name}: {mode}, {reason}")
        advice += [f"to publish live: {what}"] if what else []
    return Result("warn" if broken else "ok", "; ".join([*found, *broken]), "; ".join(advice))


def engines() -> Result:
    kinds, broken = _plugins("engines")
    lacking = {name: kind.lacks() for name, kind in kinds.items()}
    here = ", ".join(name for name, lack in lacking.items() if not lack)
    others = [f"not {name}: {lack.partition('; ')[0]}" for name, lack in lacking.items() if lack]
    return Result("warn" if broken else "ok", "; ".join([here, *others, *broken]))


def _plugins(kind: Kind) -> tuple[dict[str, Any], list[str]]:
    """Return the plug-ins of a kind by name, and errors of those, by other packages, that can't
    be used.
    """
    from hpml_bench.suite import registry
    from hpml_bench.system.errors import UserError

    found, broken = {}, []
    for name in registry.names(kind):
        try:
            found[name] = registry.plugin(kind, name)
        except UserError as error:
            broken.append(str(error))
    return found, broken
