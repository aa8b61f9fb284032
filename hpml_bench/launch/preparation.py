"""Preparation of model and data in a process of its own, which is watched and can be ended during a download."""

import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import psutil

from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import reach
from hpml_bench.launch import fork_server
from hpml_bench.suite.settings import Settings
from hpml_bench.system import processes, temporary
from hpml_bench.system.cache import check_space
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json
from hpml_bench.training.products import Products

STOPPED_SECONDS = 10  # seconds after which a preparation, or its fork server, that a signal has stopped is given up
PREDICTION_SECONDS = 120  # seconds that a prediction of memory may take; of a model of 8 billion parameters some 15
SERVER_LOST = 255  # exit status that multiprocessing reports for a child whose fork server has ended

End = Literal["over", "late", "stopped"]  # why the wait for the preparation ended; stopped: by a signal


def prepare(settings: Settings, max_seconds: float | None = None) -> Prepared:
    """Prepare model and data in a process of their own, which can be ended during a download.

    Raises UserError if a source isn't available, doesn't fit or takes too long, or the preparation was ended.
    """
    return Prepared.model_validate(_done(settings, fork_server.prepare, max_seconds)["prepared"])


def products(settings: Settings, max_seconds: float | None = None) -> Products:
    """Time products of the backbone's shape, which is fetched, in a process of its own; errors as of `prepare`."""
    return Products.model_validate(_done(settings, fork_server.measure, max_seconds)["products"])


def predicted_memory(settings: Settings, predict: Callable[[str, str], None]) -> str | None:
    """Return the sentence that `predict` leaves in its child on methods that won't fit; None where it can't tell."""
    try:
        return cast("str | None", _done(settings, predict, PREDICTION_SECONDS)["sentence"])
    except UserError:
        return None


def _done(settings: Settings, work: Callable[[str, str], None], max_seconds: float | None) -> dict[str, Any]:
    """Let a child do some work, and return its result; raises its UserError, or one on why there is no result."""
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    check_space()
    reach(settings.backbone)  # a hub that can't be reached is reported before the fork server has imported torch
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as name:
        target = Path(name) / "result.json"
        end, code, result = _in_child(settings, work, target, deadline)
    if result is None:
        how, again = f"ended with status {code}; see its messages above", "repeat the command"
        if end == "late":
            how = f"was not done after {max_seconds:g} s (--max-hours); complete downloads are kept: {again} "
            how += "with more hours"
        elif end == "stopped":
            how = f"was stopped by a signal, itself or its fork server, and given up after {STOPPED_SECONDS} s; {again}"
        elif code == SERVER_LOST:
            how = f"was ended with its fork server (perhaps for lack of memory); {again}"
        elif code < 0:
            how = f"was ended by signal {-code} (9 may be for lack of memory)"
        raise UserError(f"{settings.backbone}: the preparation of model and data {how}")
    if "error" in result:
        raise UserError(result["error"])
    return result


def _in_child(
    settings: Settings, work: Callable[[str, str], None], target: Path, deadline: float
) -> tuple[End, int, dict[str, Any] | None]:
    """Do the work in a child, and end all it started; return why the wait ended, exit status and result."""
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=work, args=(settings.model_dump_json(), str(target)))
    family: set[psutil.Process] = set()
    waited = False

    def begin() -> None:
        with suppress(EOFError, ConnectionError):  # the server has ended
            child.start()

    def over(seconds: float) -> bool:
        starting.join(seconds)
        if child.pid is not None and not starting.is_alive():
            child.join(seconds)
        return not starting.is_alive() and (child.pid is None or not child.is_alive())

    fork_server.start_fork_server()  # one that multiprocessing starts itself would not ignore Ctrl-C
    with processes.subreaper(), temporary.as_temporary():
        # multiprocessing waits for the server's answer without limit, until the server is ended
        starting = threading.Thread(target=begin, name="start", daemon=True)
        starting.start()
        try:
            end = _wait(over, deadline, family)
            result = read_json(target)  # read before its processes are ended: pip's end would become its error
            waited = True
        finally:
            family |= processes.descendants()
            if not waited or child.pid is None:  # the server may still fork the child, and must end too
                processes.end_fork_server()
            while starting.is_alive():
                processes.end_fork_server()
                starting.join(0.1)
            processes.terminate(family | processes.descendants())
    if child.pid is None:
        return end, SERVER_LOST, None
    child.join(1.0)
    if child.is_alive():  # it has ended, but a stopped server doesn't report it
        processes.end_fork_server()
        child.join()
    return end, child.exitcode or 0, result


def _wait(over: Callable[[float], bool], deadline: float, family: set[psutil.Process]) -> End:
    """Wait until `over`, the deadline has passed, or a signal has stopped the fork server or what it started.

    `over` waits for so many seconds and returns whether the work is over; processes seen are added to `family`.
    """
    polls = 0
    while polls < STOPPED_SECONDS:
        left = deadline - time.monotonic()
        if over(max(0.0, min(1.0, left))):
            return "over"
        if left <= 0:
            return "late"
        now = processes.descendants()
        family |= now
        polls = polls + 1 if any(map(processes.stopped, [processes.fork_server() or 0, *(p.pid for p in now)])) else 0
    return "stopped"
