"""Residents for tests: copies of the harness to be spoilt, and a resident that answers at once
without training.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil

import hpml_bench
from hpml_bench.gate.check import Request, request
from hpml_bench.gate.records import Rules
from hpml_bench.gate.sides import ComparedSides, Installation
from hpml_bench.suite.suite import load_suite

PACKAGE = Path(hpml_bench.__path__[0])
QUIET = {"steal": 0.0, "load": 0.0, "disturbed": None}
REDUCED = ("train_samples=64", "validation_samples=16", "test_samples=16")

FAKE = """
import json, sys, time

with open(__file__ + ".starts", "a+") as file:
    file.write(".")
    START = file.tell()  # 1 for the first process of this side
calls = 10 + EXTRA
counts = {"title": "operators", "unit": "calls", "value": calls}
counts |= {"tolerance": SLACK, "parts": {"aten::mm": calls}}
answers = {
    "describe": lambda **_: {"packages": {"torch": "1.2.3"}},
    "prepare": lambda **_: {},
    "load": lambda **_: time.sleep(PAUSE),
    "warm_up": lambda **_: {"lora": 0.04, "adapter": 0.04},
    "counts": lambda **_: {"operators_per_step": counts},
    "calibrate": lambda **_: {"matrix_product": 0.01},
    "run": lambda method, steps, first: (SECONDS * steps, 0.0),
    "hang": lambda **_: time.sleep(99),
    "stop_midway": lambda **_: (print('{"resu', end="", flush=True), time.sleep(99)),
}
print(json.dumps({"protocol": PROTOCOL}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({"result": answers[asked.pop("do")](**asked)}), flush=True)
"""


def fake(
    folder: Path, seconds: str = "0.04", label: str = "fake", **changes: float
) -> Installation:
    """Write a package whose resident takes so long for a step, and return its installation.

    `seconds` is a Python expression, which may use START: 1 in the side's first process, then 2, 3,
    ... `changes`: `extra` operators, another `protocol`, a `pause` of seconds when it loads, the
    `slack` of its count.
    """
    package = folder / "hpml_bench" / "gate"
    package.mkdir(parents=True)
    for init in (package, package.parent):
        (init / "__init__.py").touch()
    text = FAKE.replace("SECONDS", seconds)
    for name, value in ({"extra": 0, "protocol": 1, "pause": 0, "slack": 0} | changes).items():
        text = text.replace(name.upper(), str(value))
    (package / "resident.py").write_text(text)
    return Installation(label, sys.executable, folder)


def copy(folder: Path, label: str = "copy", **changes: tuple[str, str]) -> Installation:
    """Copy the harness, change files by name (text found once -> text instead), and return its
    installation.
    """
    target = folder / "hpml_bench"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    if not (PACKAGE / "suites").exists():  # in a wheel they lie in the package
        shutil.copytree(PACKAGE.parent / "benchmarks" / "suites", folder / "benchmarks" / "suites")
    for name, (old, new) in changes.items():
        path = target / f"{name}.py"
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}.py"
        path.write_text(text.replace(old, new))
    return Installation(label, sys.executable, folder)


def compared(reference: Installation, candidate: Installation) -> ComparedSides:
    return ComparedSides("revision", reference, candidate)


def asked(*methods: str, rules: Rules | None = None, minutes: float | None = None) -> Request:
    return request(
        load_suite("quickstart", REDUCED), list(methods) or ["lora"], rules or Rules(), minutes
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository of the test's own, as somebody."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def gone(pid: int) -> bool:
    """Tell whether a process has ended, read by its parent or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
