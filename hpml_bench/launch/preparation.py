"""Preparation of model and data in a process of its own, under a watchdog, which can end it
during a download.
"""

import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil

from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import reach
from hpml_bench.launch import fork_server
from hpml_bench.launch.watchdog import Watchdog
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.plan import Limits
from hpml_bench.suite.settings import Settings
from hpml_bench.system import processes, temporary
from hpml_bench.system.cache import check_space
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json
from hpml_bench.system.signals import Stop
from hpml_bench.training.products import Products

# seconds after which a preparation, or its fork server, that a signal has stopped is given up
STOPPED_SECONDS = 10
PREDICTION_SECONDS = (
    120  # seconds that a prediction of memory may take; of a model of 8 billion parameters some 15
)
SERVER_LOST = (
    255  # exit status that multiprocessing reports for a child whose fork server has ended
)
LEAST_SECONDS = 1e-3  # a limit of 0 would be none


def prepare(settings: Settings, max_seconds: float | None = None) -> Prepared:
    """Prepare model and data in a process of their own, which can be ended during a download.

    Raises UserError if a source isn't available, doesn't fit or takes too long, or the preparation
    was ended.
    """
    made = _result(
        settings, max_seconds, "hpml_bench.training.worker:prepared", settings.model_dump_json()
    )
    return Prepared.model_validate(made)


def products(settings: Settings, max_seconds: float | None = None) -> Products:
    """Time products of the backbone's shape, which is fetched, in a process of its own; errors
    as of `prepare`.
    """
    made = _result(
        settings,
        max_seconds,
        "hpml_bench.training.worker:timed_products",
        settings.model_dump_json(),
    )
    return Products.model_validate(made)


def predicted_memory(settings: Settings, predict: str, *arguments: Any) -> str | None:
    """Return the sentence of a function, MODULE:NAME, on methods that won't fit; None where it
    can't tell.
    """
    with suppress(UserError):
        return cast("str | None", _result(settings, PREDICTION_SECONDS, predict, *arguments))
    return None


def _result(settings: Settings, max_seconds: float | None, work: str, *arguments: Any) -> Any:
    """Return the result of a function, called in a fork; raises its UserError, or one on why
    there is no result.
    """
    check_space()
    reach(
        settings.backbone
    )  # a hub that can't be reached is reported before the fork server has imported torch
    most = None if max_seconds is None else max(max_seconds, LEAST_SECONDS)
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as name:
        target = Path(name) / OUTCOME  # the watchdog takes the work as done once this file exists
        with Watchdog(
            Path(name), Limits(stall=STOPPED_SECONDS, run_timeout=most), Stop(), stuck=_any_stopped
        ) as watch:
            code = _status(work, str(target), arguments)
        found = (
            None if watch.verdict else read_json(target)
        )  # a result that comes after a verdict is too late
    if found is None:
        how, again = f"ended with status {code}; see its messages above", "repeat the command"
        if watch.verdict and watch.verdict[1].kind == "RunTimeout":
            how = (
                f"was not done after {max_seconds:g} s (--max-hours); complete downloads are "
                f"kept: {again} "
            )
            how += "with more hours"
        elif watch.verdict:
            how = (
                f"was stopped by a signal, itself or its fork server, and given up after "
                f"{STOPPED_SECONDS} s; {again}"
            )
        elif code == SERVER_LOST:
            how = f"was ended with its fork server (perhaps for lack of memory); {again}"
        elif code < 0:
            how = f"was ended by signal {-code} (9 may be for lack of memory)"
        raise UserError(f"{settings.backbone}: the preparation of model and data {how}")
    if "error" in found:
        raise UserError(found["error"])
    return found["result"]


def _status(*arguments: Any) -> int:
    """Return the exit status of a fork that makes a call."""
    try:
        failed = fork_server.run(fork_server.call, arguments)
    except (EOFError, ConnectionError):
        return SERVER_LOST
    except BaseException:  # such as Ctrl-C: the server may still fork it, and must end too
        processes.end_fork_server()
        raise
    return failed[1] if failed else 0


def _any_stopped(seen: Collection[psutil.Process]) -> bool:
    """Return whether a signal has stopped the fork server, or what it started."""
    ours = (process.pid for process in seen if processes.alive(process))
    return any(map(processes.stopped, (processes.fork_server() or 0, *ours)))
