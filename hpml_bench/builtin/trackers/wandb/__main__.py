"""Helper process: carries out orders, JSON lines from stdin, with wandb; writes errors to stdout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

import psutil

from hpml_bench.system.processes import kill

LAST_SECONDS = 30
"""Seconds that what is left may take after the last order, also where the orders broke off as the parent died."""
PROJECT = "hpml-bench"
SETTINGS: dict[str, Any] = {  # wandb collects nothing by itself
    **dict.fromkeys(("host", "program", "email", "username", "docker"), ""),
    **dict.fromkeys(
        ("disable_git", "disable_code", "disable_job_creation", "label_disable", "sagemaker_disable"), True
    ),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
    **dict.fromkeys(("save_code", "x_save_requirements", "symlink", "use_dot_wandb"), False),
    "silent": True,
    "console": "off",
    "reinit": "create_new",
    "init_timeout": 20.0,
    "login_timeout": 1.0,
    "finish_timeout": 20.0,
    "x_service_wait": 20.0,
    "x_graphql_retry_max": 3,
    "x_graphql_timeout_seconds": 10.0,
}


class Session:
    """Carries out orders, one after the other: `open`, `log`, `tables`, `close`."""

    def __init__(self, mode: str, directory: str) -> None:
        import wandb

        self._wandb: Any = wandb
        wanted = SETTINGS | {"mode": mode, "root_dir": directory}
        known = wandb.Settings.model_fields  # it differs between versions
        self._settings = {name: value for name, value in wanted.items() if name in known}
        self._run: Any = None
        self._at = -1
        self._step: int | None = None

    def open(self, order: dict[str, Any]) -> None:
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            **{name: order[name] for name in ("id", "group", "name", "job_type", "config")},
            settings=self._wandb.Settings(**self._settings),
        )
        self._run.define_metric("*", step_metric="step")
        self._at, self._step = -1, None

    def log(self, order: dict[str, Any]) -> None:
        """Log the values of one step."""
        # wandb's own step may only grow: it is ours while ours grows, and the next free one when a point comes late.
        if order["step"] != self._step:
            self._at, self._step = max(self._at + 1, order["step"]), order["step"]
        self._run.log({**order["values"], "step": order["step"]}, step=self._at)

    def tables(self, order: dict[str, Any]) -> None:
        """Log all tables at once."""
        make = self._wandb.Table
        content = {
            table["name"]: make(columns=table["columns"], data=table["rows"], allow_mixed_types=True)
            for table in order["tables"]
        }
        if content:
            self._run.log(content)

    def close(self, order: dict[str, Any]) -> None:
        """End the run with its final values."""
        self._run.log({}, commit=True)  # a row still open would overwrite the final values of the same name
        self._run.summary.update(order["summary"])
        self._run.finish(exit_code=order["exit_code"])
        self._run = None

    def end(self) -> None:
        """End an open run, and wandb."""
        if self._run is not None:
            self._run.finish(exit_code=1)
        self._wandb.teardown()


def main(mode: str, directory: str) -> NoReturn:
    """Carry out the orders."""
    orders, errors = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # neither wandb's output nor its own service may hold our pipes
        os.dup2(nothing, stream)
    signal.signal(signal.SIGALRM, _too_long)
    status = 0
    try:
        session = Session(mode, directory)
        for line in orders:
            order = json.loads(line)
            getattr(session, order["do"])(order)
        signal.alarm(LAST_SECONDS)
        session.end()
    except BaseException as error:  # also a SystemExit of wandb
        status = 1
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        with suppress(OSError):
            print(" ".join(text.split()), file=errors, flush=True)
    _end_children()
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(status)  # wandb's exit hooks would wait without end for data that can't be sent


def _too_long(*_: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)
    raise TimeoutError("what is left could not be sent in time")


def _end_children() -> None:
    """End wandb's own service, which would go on retrying."""
    children = psutil.Process().children(recursive=True)
    kill(children)
    psutil.wait_procs(children, timeout=5)


if __name__ == "__main__":
    main(*sys.argv[1:])
