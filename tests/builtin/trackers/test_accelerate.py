"""MLflow, trackio and TensorBoard: read back from their own stores, the figures are those of the
page.

Without their libraries (`pip install '.[trackers]'`) the tests that need them are skipped.
"""

import csv
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hpml_bench
from helpers import made_records, skips
from helpers.commands import called
from hpml_bench.builtin.trackers.accelerate import Accelerate
from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.publishing import Publisher, group_of
from hpml_bench.plugins.tracker import make_trackers
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_records
from hpml_bench.records.points import PointWriter, iterate_points
from hpml_bench.records.run import Point

pytestmark = pytest.mark.usefixtures("home")
SERVICES = ("mlflow", "tensorboard", "trackio")
SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "planted-token-of-mlflow",
    "HF_TOKEN": "hf_PlantedPlantedPlanted",
}
needs = pytest.mark.skipif(not all(map(find_spec, SERVICES)), reason=skips.NO_TRACKERS)


class Found(NamedTuple):
    """What a service has: by run the values of each metric by step, settings and texts; tables,
    header first.
    """

    points: dict[str, dict[str, dict[int, float]]]
    config: dict[str, dict[str, str]]
    facts: dict[str, dict[str, str]]
    tables: dict[str, list[list[str]]]
    page: str | None
    names: list[str]


@pytest.fixture(autouse=True)
def planted(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Secrets in the environment, and databases in the test's own folder."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio-data"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def of_mlflow(store: Path, group: str) -> Found:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{store}")
    client = mlflow.MlflowClient()
    points: dict[str, Any] = {}
    config, facts, tables, page, names = {}, {}, {}, None, []
    database = sqlite3.connect(store)
    for run in mlflow.search_runs(experiment_names=[group], output_format="list"):
        name = run.data.tags["mlflow.runName"]
        names.append(name)
        points[name] = {}  # from its database: a request for each metric takes minutes
        query = "select key, step, value from metrics where run_uuid = ?"
        for key, step, value in database.execute(query, [run.info.run_id]):
            points[name].setdefault(key, {})[step] = value
        config[name], facts[name] = run.data.params, run.data.tags
        for file in client.list_artifacts(run.info.run_id):
            tables[Path(file.path).stem] = []
            if file.path not in {"answer.csv", "report.html"}:
                continue
            path = Path(client.download_artifacts(run.info.run_id, file.path))
            if path.suffix == ".csv":
                tables[path.stem] = [*csv.reader(path.read_text().splitlines())]
            else:
                page = path.read_text()
    return Found(points, config, facts, tables, page, names)


def of_trackio(group: str) -> Found:
    """Return what its database has; another process, since the library takes its folder at
    import.
    """
    code = (
        "import json, sys, trackio; from trackio.sqlite_storage import SQLiteStorage as S; g = "
        "sys.argv[1];runs = list(trackio.Api().runs(g));print(json.dumps([[r.name, S.get_logs(g, "
        "r.name, run_id=r.id), r.config] for r in runs], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, group], check=True, capture_output=True, text=True
    )
    points, config, facts, tables, names = {}, {}, {}, {}, []
    for name, logs, settings in json.loads(done.stdout.splitlines()[-1]):
        names.append(name)
        points[name], facts[name], config[name] = (
            {},
            {},
            {key: str(value) for key, value in settings.items()},
        )
        for entry in logs:
            step = entry.pop("step")
            for key, value in entry.items():
                if isinstance(value, dict):
                    rows = value["_value"]
                    tables[key] = (
                        [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
                    )
                elif isinstance(value, str):
                    facts[name][key] = value
                else:
                    points[name].setdefault(key, {})[step] = value
    pages = [
        path
        for path in Path(os.environ["TRACKIO_DIR"]).rglob("*")
        if path.is_file() and path.suffix != ".db"
    ]
    texts = [path.read_text(errors="ignore") for path in pages]
    return Found(
        points,
        config,
        facts,
        tables,
        next((text for text in texts if "<html" in text), None),
        names,
    )


def of_tensorboard(folder: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points, config, facts, tables, names = {}, {}, {}, {}, []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        names.append(place.name)
        read = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
        read.Reload()
        points[place.name] = {
            key: {e.step: e.value for e in read.Scalars(key)} for key in read.Tags()["scalars"]
        }
        facts[place.name] = {}
        for key in read.Tags()["tensors"]:
            text = read.Tensors(key)[-1].tensor_proto.string_val[0].decode()
            if text.startswith("| "):
                lines = [
                    line.removeprefix("| ").removesuffix(" |").split(" | ")
                    for line in text.splitlines()
                ]
                tables[key.removesuffix("/text_summary")] = [lines[0], *lines[2:]]
            else:
                facts[place.name][key.removesuffix("/text_summary")] = text
        (settings,) = place.glob("*/hparams.yml")
        import yaml

        config[place.name] = {
            key: str(value) for key, value in yaml.safe_load(settings.read_text()).items()
        }
    return Found(points, config, facts, tables, None, names)


def report(folder: Path, service: str) -> str:
    done = called("report", folder, "--format", "html,md", "--track", service)
    return done.output


def found(service: str, folder: Path) -> Found:
    group = group_of(load_records(folder).records[-1].spec)
    if service == "mlflow":
        return of_mlflow(folder / "mlflow" / "mlflow.db", group)
    return of_trackio(group) if service == "trackio" else of_tensorboard(folder / "tensorboard")


@needs
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_figures_of_the_page(service: str, tmp_path: Path) -> None:
    """Each run's history, final metrics and settings, and the answer's figures of report.json;
    nothing twice.
    """
    folder = made_records.write(tmp_path / "example", made_records.sweep(("lora", "full"), 2))
    said = report(folder, service)
    of = found(service, folder)
    page, answer = (
        (folder / "report.html").read_text(),
        json.loads((folder / "report.json").read_text()),
    )
    sent = load_records(folder).records
    report(folder, service)
    assert len(found(service, folder).names) == 5, "what it has isn't sent again"
    made_records.write(
        folder, [made_records.record("lora", 0, started="2026-02-02T00:00:00+00:00")]
    )
    report(folder, service)
    assert found(service, folder).names.count("comparison") == 1, "it is replaced"
    assert "4 runs and the comparison are in" in said
    assert sorted(of.names) == sorted(["comparison", *(record.run_id for record in sent)])
    close = {"rel": 1e-6} if service == "tensorboard" else {"rel": 1e-12}  # its files have 32 bits
    for record in sent:
        values = {name: value for name, value in record.metrics.items() if value is not None}
        final = {name: [*of.points[record.run_id][f"final/{name}"].values()] for name in values}
        assert final == {name: [pytest.approx(value, **close)] for name, value in values.items()}
        course = {
            p.step: p.value
            for p in iterate_points(folder / record.run_id)
            if p.metric == "train_loss"
        }
        assert of.points[record.run_id]["train_loss"] == pytest.approx(course, **close)
        assert of.facts[record.run_id]["status"] == "ok"
        assert of.facts[record.run_id]["protocol_id"] == record.protocol_id
        assert of.config[record.run_id]["method.name"] == record.spec.method.name
        assert of.config[record.run_id]["settings.steps"] == "100"
    head, *rows = of.tables["answer"]
    score, time_, memory = (
        head.index(of) for of in ("accuracy (%)", "training time (s)", "peak memory (MB)")
    )
    shown = {row[0]: [float(row[at]) for at in (score, time_, memory)] for row in rows}
    axes = ("score", "train_seconds", "peak_memory_mb")
    assert shown == {of["name"]: [of["v"][axis]["m"] for axis in axes] for of in answer["methods"]}
    assert {"summary", "pairs_test_accuracy", "runs"} <= set(of.tables)
    assert of.page == (None if service == "tensorboard" else page)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for value in (*SECRETS.values(), str(Path(hpml_bench.__file__).parent)):
        assert value.encode() not in written


@needs
@pytest.mark.parametrize("service", SERVICES)
def test_a_run_is_followed(service: str, tmp_path: Path) -> None:
    """Points arrive while the run goes on; ended, it is there whole, once, and is not sent
    again.
    """
    record = made_records.record("lora", 0)
    folder = tmp_path / record.run_id
    RunFolder(folder).begin()
    (tracker,) = make_trackers({service: "on"})
    with tracker.follow(record.spec, folder, tmp_path):
        writer = PointWriter(folder)
        writer.write(
            [Point(metric="train_loss", step=step, value=1 / (step + 1)) for step in range(50)]
        )
        writer.close()
        RunFolder(folder).commit(record)
    table = Table(name="answer", caption="", columns=("method",), rows=(("lora",),))
    tracker.publish(tmp_path, [record], lambda: [table], None)
    of = found(service, tmp_path)
    assert sorted(of.names) == ["comparison", record.run_id]
    assert of.points[record.run_id]["train_loss"] == pytest.approx(
        {s: 1 / (s + 1) for s in range(50)}, rel=1e-6
    )
    assert of.facts[record.run_id]["status"] == "ok"


@needs
@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_a_dead_server_leaves_the_results_as_they_are(
    fault: str, swept: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep computes the same to the bit where nobody listens or answers; each failure is a
    sentence.
    """
    monkeypatch.setattr(Publisher, "run_seconds", 5.0)
    monkeypatch.setattr(Publisher, "sweep_seconds", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if fault == "refused":
            server.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        said = swept(tmp_path / "out", "--track", "mlflow")
    assert said.count("mlflow: live publishing stopped, the results are not affected") == 1
    assert said.count("mlflow: publishing failed, the results are not affected") == 1
    assert not any(value in said for value in SECRETS.values())


def test_a_service_without_its_library_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has the command that installs it, and no folder is made."""
    monkeypatch.setattr(
        "hpml_bench.builtin.trackers.accelerate.find_spec",
        lambda name: name == "accelerate" or None,
    )
    for command in (
        ["run-all", "quickstart"],
        ["run-all", "quickstart", "--parallel", "2"],
        ["run", "lora"],
    ):
        done = called(
            *command, "--out", tmp_path / "out", "--track", "tensorboard,mlflow", status=2
        )
        assert (
            "--track tensorboard: tensorboard is not installed; pip install tensorboard"
            in done.output
        )
    assert not (tmp_path / "out").exists()


def test_where_the_runs_are_is_said_without_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each service's own command shows them; of a server the host alone is named."""
    records = [made_records.record()]
    group = group_of(records[0].spec)

    def said(service: str) -> str:
        return Accelerate(service).sentence(records, service, tmp_path)

    assert said("tensorboard").endswith(f"see `tensorboard --logdir {tmp_path}/tensorboard`")
    assert said("trackio").endswith(f"see `trackio show --project {group}`")
    assert said("mlflow").endswith(
        f"see `mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow/mlflow.db`"
    )
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", "https://someone:planted-password@tracking.example/path"
    )
    assert (
        said("mlflow")
        == f"1 run and the comparison are in MLflow's experiment {group} at tracking.example"
    )
