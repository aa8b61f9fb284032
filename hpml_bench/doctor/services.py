"""Services: the loopback between ranks, the Hugging Face hub, the package index, trackers, clusters' engines."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpml_bench.doctor.check import Found
from hpml_bench.system import network

if TYPE_CHECKING:
    from hpml_bench.suite.registry import Kind

HUB_SECONDS = 4.0
INDEX_SECONDS = 8.0
"""Time limits of an answer: a name server may not answer at all."""
INDEX = ("--timeout", "3", "--retries", "0", "--no-input", "--no-cache-dir", "--disable-pip-version-check")
NO_ANSWER = "No matching distribution"
"""What pip says where the index doesn't answer."""


def loopback() -> Found:
    """Connect to this machine, as ranks do."""
    if problem := network.no_loopback():
        return Found("fail", problem, network.LOOPBACK_ADVICE)
    return Found("ok", "processes of this machine can connect to each other")


def hub() -> Found:
    """Ask the hub with the client that downloads use."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return Found("ok", "not asked, since HF_HUB_OFFLINE is set: hub: sources come from its cache alone")
    problem = _hub_problem(constants.ENDPOINT)
    if problem:
        return Found(
            "warn",
            f"offline: {constants.ENDPOINT} can't be reached ({problem})",
            "use path: and embedded: sources, or fill the hub's cache elsewhere and set HF_HUB_OFFLINE=1",
        )
    token = "a token is set" if get_token() else "no token: gated models need HF_TOKEN"
    return Found("ok", f"{constants.ENDPOINT} answers; {token}")


def package_index() -> Found:
    """Ask the index with pip, which knows the user's index, proxy and certificates."""
    from hpml_bench.system import child

    if find_spec("pip") is None:
        return Found("warn", f"there is no pip in {sys.executable}", "wheel: sources need it: python -m ensurepip")
    advice = "wheel: sources, as of the suite minilm, need it: see pip config list"
    try:
        status, output = child.run_pip(child.pip_command("index", "versions", "pip", *INDEX), INDEX_SECONDS)
    except subprocess.TimeoutExpired:
        return Found("warn", f"offline: the package index is silent for {INDEX_SECONDS:g} s", advice)
    if status:
        others = [line for line in output.splitlines() if line.startswith("ERROR") and NO_ANSWER not in line]
        why = f" ({others[0][:200]})" if others else ""
        return Found("warn", f"offline: pip gets no answer from the package index{why}", advice)
    return Found("ok", "the package index answers pip")


def trackers() -> Found:
    """Say in which mode runs would be published, and why not online."""
    from hpml_bench.plugins.tracker import Tracker

    kinds, broken = _plugins("trackers")
    found, advice = [], []
    for name, tracker in kinds.items():
        mode = tracker.choose_mode("auto")
        if mode == Tracker.OFF:
            found.append(f"{name}: off")
            continue
        reason, _, what = (tracker.obstacle() or "with a key and a route").partition("; ")
        found.append(f"{name}: {mode}, {reason}")
        advice += [f"to publish live: {what}"] if what else []
    return Found("warn" if broken else "ok", "; ".join([*found, *broken]), "; ".join(advice))


def engines() -> Found:
    """Say which engines can start jobs here, and what the others lack."""
    kinds, broken = _plugins("engines")
    lacking = {name: kind.lacks() for name, kind in kinds.items()}
    here = ", ".join(name for name, lack in lacking.items() if not lack)
    others = [f"not {name}: {lack.partition('; ')[0]}" for name, lack in lacking.items() if lack]
    return Found("warn" if broken else "ok", "; ".join([here, *others, *broken]))


def _plugins(kind: Kind) -> tuple[dict[str, Any], list[str]]:
    """Return the plug-ins of a kind by name, and errors of those, by other packages, that can't be used."""
    from hpml_bench.suite import registry
    from hpml_bench.system.errors import UserError

    found, broken = {}, []
    for name in registry.names(kind):
        try:
            found[name] = registry.plugin(kind, name)
        except UserError as error:
            broken.append(str(error))
    return found, broken


def _hub_problem(address: str) -> str | None:
    """Return why an address doesn't answer; None if it does, in whatever way."""
    from huggingface_hub import get_session

    from hpml_bench.system.text import first_line

    problems: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(address, timeout=HUB_SECONDS)
            problems.append(None)
        except Exception as error:
            problems.append(first_line(error, 150))

    thread = threading.Thread(target=ask, daemon=True)  # a DNS lookup has no time limit
    thread.start()
    thread.join(HUB_SECONDS)
    return problems[0] if problems else f"silent for {HUB_SECONDS:g} s"
