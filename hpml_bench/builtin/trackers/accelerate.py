"""MLflow, trackio and TensorBoard, through accelerate's trackers: history, final metrics, tables
and page.

A sweep is one experiment of MLflow, project of trackio or folder of TensorBoard, in which the
comparison is a run of its own. Without MLFLOW_TRACKING_URI, MLflow's database is in the results
folder, as TensorBoard's files are.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpml_bench.plugins.publishing import CERTIFICATES, PROXIES, Publisher, carry_out, group_of
from hpml_bench.records.run import RunRecord
from hpml_bench.system.errors import UserError

SERVICES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "mlflow": (
        (
            "MLFLOW_TRACKING_URI",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "MLFLOW_TRACKING_INSECURE_TLS",
            "MLFLOW_TRACKING_SERVER_CERT_PATH",
            "DATABRICKS_HOST",
            "DATABRICKS_TOKEN",
        ),
        {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        },
    ),
    "tensorboard": ((), {}),
    "trackio": (
        (
            "TRACKIO_DIR",
            "TRACKIO_SERVER_URL",
            "TRACKIO_SPACE_ID",
            "TRACKIO_WRITE_TOKEN",
            "HF_HOME",
            "XDG_CACHE_HOME",
        ),
        {"HF_HUB_DISABLE_TELEMETRY": "1"},
    ),
}
"""Environment of each service's helper: variables that it may read, and others as they are set
here.
"""
TO_THE_HUB = ("HF_TOKEN", "HF_ENDPOINT")
"""Variables that trackio gets for a Space."""
BATCH = 800
"""Values from which MLflow is sent them at once; it takes 1000, and one order has fewer than
200.
"""


class Accelerate(Publisher):
    """Publishes to one of `SERVICES`, which is its mode; runs are followed live."""

    services = tuple(SERVICES)

    @classmethod
    def choose_mode(cls, asked: str) -> str:
        """Return the service, or OFF for none.

        Raises UserError: its library isn't installed, or none is named.
        """
        if asked == "on":
            raise UserError(f"--track accelerate: name a service, one of {', '.join(SERVICES)}")
        if asked not in SERVICES:
            return cls.OFF
        lacking = [name for name in (asked, "accelerate") if find_spec(name) is None]
        if lacking:
            raise UserError(
                f"--track {asked}: {lacking[0]} is not installed; pip install {' '.join(lacking)}"
            )
        return asked

    def environment(self, place: str, home: Path) -> Mapping[str, str]:
        names, settings = SERVICES[place]
        hub = TO_THE_HUB if place == "trackio" and os.environ.get("TRACKIO_SPACE_ID") else ()
        given = {
            name: os.environ[name]
            for name in (*names, *hub, *PROXIES, *CERTIFICATES)
            if os.environ.get(name)
        }
        own = {"MLFLOW_TRACKING_URI": _database(home)} if place == "mlflow" else {}
        if place == "trackio" and not hub:
            own["HF_HUB_OFFLINE"] = "1"  # it would ask the hub for the user's name
        return {**own, **given, **settings, "CUDA_VISIBLE_DEVICES": ""}

    def sentence(self, records: Sequence[RunRecord], place: str, results_folder: Path) -> str:
        count, group = len(records), _plain(group_of(records[-1].spec))
        home, address = self.home(results_folder), os.environ.get("MLFLOW_TRACKING_URI", "")
        if place == "tensorboard":
            where = f"TensorBoard's files; see `tensorboard --logdir {shlex.quote(str(home))}`"
        elif place == "trackio":
            where = f"trackio's project {group}; see `trackio show --project {group}`"
        elif address:  # which may have a password
            host = urlsplit(address).hostname
            where = f"MLflow's experiment {group}{f' at {host}' if host else ''}"
        else:
            where = (
                f"MLflow's experiment {group}; see `mlflow ui --backend-store-uri "
                f"{_database(home.resolve())}`"
            )
        return f"{count} run{'s' * (count != 1)} and the comparison are in {where}"


def _database(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def _plain(name: str) -> str:
    """Return a name as services and file systems take it."""
    return re.sub(r"[^\w.-]", "-", name)[:200]


class Session:
    """Carries out orders with one of accelerate's trackers; a run's final metrics are
    `final/NAME` at its last step.
    """

    def __init__(self, service: str, home: Path) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(cpu=True)  # its log needs one
        self._service, self._home, self._kind = service, home, LOGGER_TYPE_TO_CLASS[service]
        self._tracker: Any = None
        self._step = 0
        self._waiting: list[tuple[str, float, int, int]] = []
        self._sent = 0.0

    def open(self, order: dict[str, Any]) -> None:
        """Begin a run, and remove what an earlier publication sent of it."""
        from transformers.utils.generic import flatten_dict

        group, name, self._step = _plain(order["group"]), _plain(order["name"]), 0
        flat = {key: value for key, value in flatten_dict(order["config"]).items() if value != {}}
        config = {
            key: value if isinstance(value, str | float | int) else str(value)
            for key, value in flat.items()
        }
        if self._service == "tensorboard":
            shutil.rmtree(self._home / name, ignore_errors=True)
            self._tracker = self._kind(name, self._home)
        elif self._service == "trackio":
            import trackio

            with suppress(ValueError):  # there is no such project yet
                for run in trackio.Api().runs(group):
                    if run.name == name and (run.config or {}).get("hpml_bench_id") == order["id"]:
                        run.delete()
            config |= {"hpml_bench_id": order["id"]}
            measured = {"auto_log_gpu": False, "auto_log_cpu": False}
            self._tracker = self._kind(group, name=name, config=config, embed=False, **measured)
        else:
            import mlflow

            earlier = f"tags.hpml_bench_id = '{order['id']}'"
            for run in mlflow.search_runs(
                experiment_names=[group], filter_string=earlier, output_format="list"
            ):
                mlflow.delete_run(run.info.run_id)
            tags = {
                "hpml_bench_id": order["id"],
                "mlflow.user": "",
                "mlflow.source.name": "hpml-bench",
            }
            self._tracker = self._kind(group, run_name=name, tags=tags)
        self._tracker.start()
        if self._service != "trackio":  # accelerate gives its configuration an entry too many
            self._tracker.store_init_configuration(config)

    def log(self, order: dict[str, Any]) -> None:
        self._log(order["values"], order["step"])

    def tables(self, order: dict[str, Any]) -> None:
        """Log the tables, for MLflow as CSV and for TensorBoard as text, and the page, for which
        that has no place.
        """
        import pandas as pd

        frames = {
            t["name"]: pd.DataFrame(t["rows"], columns=t["columns"], dtype=object)
            for t in order["tables"]
        }
        if self._service == "tensorboard":
            self._log({name: _markdown(frame) for name, frame in frames.items()}, 0)
        elif self._service == "trackio":
            import trackio

            self._log({name: trackio.Table(dataframe=frame) for name, frame in frames.items()}, 0)
            if order["page"]:
                trackio.log_artifact(order["page"], name="report", type="report")
        else:
            with (
                tempfile.TemporaryDirectory() as folder
            ):  # all at once, which is much faster than one by one
                for name, frame in frames.items():
                    frame.to_csv(Path(folder, f"{name}.csv"), index=False)
                if order["page"]:
                    shutil.copy(order["page"], folder)
                self._tracker.log_artifacts(folder)

    def close(self, order: dict[str, Any]) -> None:
        numbers = {
            f"final/{name}": value
            for name, value in order["summary"].items()
            if not isinstance(value, str)
        }
        facts = {name: value for name, value in order["summary"].items() if isinstance(value, str)}
        self._log(numbers, self._step)
        if self._service == "mlflow":
            import mlflow

            self._send()
            mlflow.set_tags(facts)
            mlflow.end_run("FAILED" if order["exit_code"] else "FINISHED")
        else:
            self._log(facts, self._step)
            self._tracker.finish()
        self._tracker = None

    def end(self) -> None:
        if self._tracker is not None:
            self.close({"summary": {}, "exit_code": 1})

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._step = max(self._step, step)
        if self._service == "mlflow":
            self._waiting += [
                (name, value, int(time.time() * 1000), step) for name, value in values.items()
            ]
            if len(self._waiting) > BATCH or time.monotonic() - self._sent > 1:
                self._send()
        elif values:  # accelerate before 1.14 doesn't tell trackio the step
            (self._tracker.tracker if self._service == "trackio" else self._tracker).log(
                values, step=step
            )

    def _send(self) -> None:
        """Send MLflow the waiting values in one request, of which one for each step would take
        minutes.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        metrics = [Metric(*value) for value in self._waiting]
        MlflowClient().log_batch(self._tracker.tracker.info.run_id, metrics)
        self._waiting, self._sent = [], time.monotonic()


def _markdown(frame: Any) -> str:
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    texts = (
        ["" if value is None else str(value).replace("|", "\\|") for value in row] for row in rows
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in texts)


if __name__ == "__main__":
    carry_out(lambda: Session(sys.argv[1], Path(sys.argv[2])))
