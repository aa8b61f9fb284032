"""The orders of the helper process, carried out with wandb."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hpml_bench.plugins.helper import carry_out

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
        os.environ["WANDB_CACHE_DIR"] = f"{os.environ['TMPDIR']}/cache"
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


if __name__ == "__main__":
    mode, home = sys.argv[1:]
    carry_out(lambda: Session(mode, str(Path(home).parent)))
