"""One run from launch to record: real ranks, real DDP; settings that are refused, a selected
step, self-checks.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from helpers import skips, tiny
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.task import Task
from hpml_bench.records.load import load_record
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import Predictions, read_predictions
from hpml_bench.records.run import Consumed, Point, RunRecord
from hpml_bench.select.checks import RunFigures, self_checks
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system import gpus
from hpml_bench.system.errors import UserError
from hpml_bench.training.request import Place


@pytest.fixture(scope="module")
def record(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    folder = tmp_path_factory.mktemp("runs") / "lora"
    return tiny.run(tiny.spec(), prepared, folder, place=Place(in_sweep=1)), folder


def test_a_run_is_recorded_whole(record: tuple[RunRecord, Path]) -> None:
    """run.json holds what was returned and defines each metric; points, predictions and logs lie
    beside it, whole.
    """
    returned, folder = record
    assert returned.status == "ok", returned.error
    assert load_record(folder / "run.json") == returned
    assert {path.name for path in folder.iterdir()} >= {
        "points.jsonl",
        "predictions.parquet",
        "rank0.log",
        "rank1.log",
    }
    assert returned.order == 1
    assert returned.environment["threads"]["intra_op"] == returned.spec.settings.threads
    assert returned.environment["attention"] == {
        "implementation": "hpml_sdpa",
        "kernels": ["flash", "memory efficient", "math"],
    }
    assert returned.environment["residual"] == "float32"
    assert returned.protocol_id
    metrics, defined = returned.metrics, {metric.name for metric in returned.definitions}
    assert set(metrics) <= defined
    assert set(metrics) >= {
        "test_accuracy",
        "samples_per_second",
        "peak_memory_mb",
        "merged_latency_ms_p50",
    }
    predictions, points, consumed = read_predictions(folder), read_points(folder), returned.consumed
    assert predictions.index.tolist() == list(range(96)), "each row once"
    assert metrics["test_accuracy"] == pytest.approx(
        np.mean(predictions.reference == predictions.prediction)
    )
    assert [p.step for p in points if p.metric == "train_loss"] == [1, 2, 3, 4, 5, 6]
    assert max(p.step for p in points if p.metric == "validation_accuracy") == 6
    assert (consumed.steps, consumed.samples) == (6, 72)
    assert 72 * 4 <= consumed.real_tokens <= consumed.padded_tokens


def test_ranks_and_micro_batches_do_not_change_the_losses(
    prepared: Prepared, tmp_path: Path
) -> None:
    """One rank, three, and two with micro-batches: the same path, evaluated rows, and bytes that
    ranks exchange.
    """
    losses, facts = [], set()
    for changes in ({"world_size": 1}, {"world_size": 3}, {"world_size": 2, "micro_batch": 3}):
        folder = tmp_path / str(changes["world_size"])
        result = tiny.run(tiny.spec("full", **changes), prepared, folder)
        assert result.status == "ok", result.error
        losses.append([p.value for p in read_points(folder) if p.metric == "train_loss"])
        facts.add((result.metrics["test_accuracy"], result.metrics["allreduced_bytes_per_step"]))
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=2e-5)
    assert len(facts) == 1


def test_methods_consume_the_same(
    prepared: Prepared, record: tuple[RunRecord, Path], tmp_path: Path
) -> None:
    """At one seed every method sees the same samples in the same order."""
    other = tiny.run(tiny.spec("prompt_tuning"), prepared, tmp_path / "prompt")
    assert other.consumed == record[0].consumed


def test_a_bad_end_has_a_status(prepared: Prepared, tmp_path: Path) -> None:
    """A loss that is no number ends the run on all ranks together; a method may not run with a
    model.
    """
    for spec, status, says in (
        (tiny.spec("full", lr=1e30, clip_norm=None), "diverged", "at step"),
        (tiny.spec("prompt_tuning", max_length=64), "unsupported", "positions"),
    ):
        result = tiny.run(spec, prepared, tmp_path / status)
        assert (result.status, says in result.error.message) == (status, True)


WITHOUT_NAMES = """
set -e
for file in /etc/hosts /etc/nsswitch.conf; do [ ! -e $file ] || mount --bind /dev/null $file; done
exec "$@"
"""


def run_apart(
    folder: Path, how: list[str], probe: list[str], command: str
) -> subprocess.CompletedProcess[str]:
    """Run a command on a local suite in namespaces of its own; skip where there are none, as the
    probe tells.
    """
    inside = ["unshare", "--user", "--map-root-user", *how]
    tried = subprocess.run([*inside, *probe], capture_output=True, text=True, check=False)
    if tried.returncode != (2 if "getent" in probe else 0) or "mount" in tried.stderr:
        skips.only_as_root(tried.stderr or "localhost has an address without /etc/hosts")
    words = [
        sys.executable,
        "-m",
        "hpml_bench",
        *command.split(),
        str(tiny.local_suite(folder / "suite")),
    ]
    return subprocess.run(
        [*inside, *words, "--out", str(folder / "out"), "--wandb", "off"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.disks
def test_a_run_where_no_name_is_known(tmp_path: Path) -> None:
    """A bare system has no /etc/hosts: not even localhost has an address there."""
    how = ["--mount", "sh", "-c", WITHOUT_NAMES, "sh"]
    done = run_apart(tmp_path, how, ["getent", "hosts", "localhost"], "run head")
    assert done.returncode == 0, done.stderr


@pytest.mark.disks
def test_a_run_where_the_ranks_cannot_meet(tmp_path: Path) -> None:
    """Without a loopback interface a sweep ends with a sentence."""
    done = run_apart(tmp_path, ["--net"], ["true"], "run-all")
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("hpml-bench: no connection to 127.0.0.1")
    assert last.endswith("by which the ranks of a run meet; ip link set lo up (as root)")


FINALIZED = """
import os

class Canary:
    def __del__(self, open=open, place=os.environ.get("CANARY"), rank=os.environ.get("RANK")):
        # of the rank itself, and of no helper that multiprocessing or torch has started
        if place and rank and b"-m\\0hpml_bench\\0" in open("/proc/self/cmdline", "rb").read():
            with open(f"{place}/{rank}", "w") as file:
                file.write(open("/proc/self/cmdline").read() + str(os.getpid()))

canary = Canary()
"""
"""Module `sitecustomize`: a rank whose interpreter is finalized leaves a file."""


def test_a_run_under_torchrun(tmp_path: Path) -> None:
    """One record is committed; no rank finalizes the interpreter, in which a thread of gloo may
    end it by SIGABRT.
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "ranks").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(FINALIZED)
    path = os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "CANARY": str(tmp_path / "ranks")}
    environment.pop("RANK", None)  # of a process group that another test has made in this process
    control = [sys.executable, "-m", "hpml_bench", "--help"]
    subprocess.run(control, env=environment | {"RANK": "control"}, check=True, capture_output=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # as --standalone, but that no name needs to be known: localhost isn't in a bare system without
    # /etc/hosts
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        "--local-addr",
        "127.0.0.1",
    ]
    sets = ["train_samples=32", "test_samples=20", "validation_samples=20", "epochs=1"]
    options = [part for value in sets for part in ("--set", value)]
    done = subprocess.run(
        [*command, "-m", "hpml_bench", "run", "lora", "--out", str(tmp_path), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = tmp_path.glob("quickstart/*/run.json")
    content = json.loads(record.read_text())
    assert content["status"] == "ok"
    assert content["spec"]["settings"]["world_size"] == 2
    finalized = {file.name: file.read_text() for file in (tmp_path / "ranks").iterdir()}
    assert finalized.keys() == {"control"}, finalized


OF_BF16 = {"trained_weights": "bfloat16"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch": 4}, "micro_batch 4 does not divide a rank's share of global_batch, 6"),
        ({"weights": "bfloat16"}, "weights bfloat16 need precision bf16, not fp32"),
        (OF_BF16, "trained_weights bfloat16 need precision bf16, not fp32"),
        (
            OF_BF16 | {"precision": "auto", "weights": "float16"},
            "trained_weights bfloat16 need precision bf16, not fp16",
        ),
        (
            OF_BF16 | {"precision": "bf16", "sharding": "fsdp"},
            "sharding takes one type of trained weights",
        ),
        (
            {"precision": "fp16", "sharding": "fsdp"},
            "take bf16",
        ),  # ranks would skip different steps
        (
            {"quantization": {"name": "int8", "compute_dtype": "bfloat16"}},
            "options of nf4",
        ),  # they would have no effect
        ({"quantization": "fp4"}, "nf4"),
        (
            {"select": "best"},
            "give eval_every",
        ),  # five evaluations by default, without answers of language models
        *(
            ({"eval_every": 2} | changes, "go together")
            for changes in ({"select": "early"}, {"patience": 2}, {"select": "best", "patience": 2})
        ),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    """One sentence each, when they are read."""
    with pytest.raises(ValueError, match=said):
        tiny.settings(**changes)


def test_settings_that_a_machine_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch that doesn't divide its ranks' share, tf32 on a CPU, bf16 on an old card;
    what `auto` is.
    """
    with pytest.raises(UserError, match="micro_batch 5 does not divide"):
        resolve_devices(tiny.settings(micro_batch=5, world_size=None))
    with pytest.raises(
        UserError, match="precision is tf32, which GPUs have from compute capability"
    ):
        resolve_devices(tiny.settings(precision="tf32"))
    for weights, precision in (("bfloat16", "bf16"), ("float16", "fp16")):
        assert (
            resolve_devices(tiny.settings(weights=weights, precision="auto")).precision == precision
        )
    card = {"name": "T4", "memory_mb": 16_000, "capability": "7.5", "index": 0, "uuid": "GPU-1"}
    monkeypatch.setattr(gpus, "visible_gpus", lambda: (card,))
    for changes in ({"precision": "bf16"}, {"precision": "auto", "weights": "bfloat16"}):
        with pytest.raises(
            UserError, match=r"precision is bf16, which GPUs have from .* 8.0 on; use fp32, or fp16"
        ):
            resolve_devices(tiny.settings(device="cuda", world_size=1, **changes))


# Runs whose step was selected: they are, to the bit, runs that ended there


def found(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return what a run's model was: its predictions, what was measured of it at the end, and
    its saved files.
    """
    assert record.status == "ok", record.error
    predictions = read_predictions(folder)
    assert predictions is not None
    at_end = [
        m.name
        for m in record.definitions
        if m.group in {"quality", "language", "forgetting", "merging"}
    ]
    files = {
        path.name: path.read_bytes()
        for path in (folder / "saved").iterdir()
        if path.suffix == ".safetensors"
    }
    metrics = {
        name: record.metrics[name]
        for name in at_end
        if name in record.metrics and "seconds" not in name
    }
    return {"losses": predictions.loss.tolist(), "files": files} | metrics | {"train_loss": None}


@pytest.mark.parametrize(
    ("select", "method", "world"),
    [({"select": "best"}, "full", 1), ({"select": "early", "patience": 3}, "lora", 2)],
)
def test_the_run_is_one_that_ended_there(
    select: dict[str, Any], method: str, world: int, tmp_path: Path
) -> None:
    """Test rows, forgetting, merging and files are, to the bit, of a run with as many steps at
    the same rates.
    """
    (tmp_path / "general.txt").write_text(
        "\n".join(f"w{i} w{i + 7} w{3 * i}" for i in range(20)) + "\n"
    )
    options = {
        "scorer": "exact",
        "max_new_tokens": 2,
        "retention": f"path:{tmp_path / 'general.txt'}",
    }
    steady = {
        "world_size": world,
        "schedule": "constant",
        "lr_warmup": 0.0,
        "eval_every": 4,
        "dropout": 0.1,
    }

    def run(name: str, **changes: Any) -> tuple[RunRecord, dict[str, Any]]:
        settings = tiny.task_settings(tmp_path, "causal_lm", **steady | changes)
        settings = settings.model_copy(update={"task": TaskSpec(name="causal_lm", options=options)})
        spec = tiny.spec(method, lr=2e-2).model_copy(update={"settings": settings})
        folder = tmp_path / name
        if world > 1:
            record = tiny.run(spec, prepare(settings), folder, save_to=folder / "saved")
        else:
            with mock.patch.object(
                Task, "best_step", lambda _, scores: min(scores, key=lambda of: abs(of - 8))
            ):
                record = tiny.execute(
                    tiny.request(spec, prepare(settings), folder, save_to=folder / "saved")
                )
        return record, found(folder, record)

    chosen, own = run("chosen", steps=40, **select)
    assert chosen.consumed is not None
    step = int(chosen.metrics["selected_step"] or 0)
    assert step < chosen.consumed.steps  # so that something was left behind
    assert (chosen.consumed.steps < 40, chosen.consumed.planned) == (
        (True, 40) if world > 1 else (False, None)
    )
    assert all(check.passed for check in chosen.checks)
    _, other = run("other", steps=step)
    assert own == other
    assert own["forgetting"] != 0


# The arithmetic self-checks: each passes on a sound run and fails on the fault it is there for


def predictions(*index: int) -> Predictions:
    """Return the predictions of these four rows, three of them right."""
    return Predictions(np.array(index), np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1]), np.zeros(4))


def sound() -> dict[str, Any]:
    """Return the figures of a run of 6 steps of 12 that adds up."""
    seconds, losses = [0.5, 0.25, 0.25, 0.25, 0.25, 0.25], [3.0, 2.0, 1.0, 1.0, 0.5, 0.5]
    points = [Point(metric="step_seconds", step=i, value=v) for i, v in enumerate(seconds, 1)]
    points += [Point(metric="train_loss", step=i, value=v) for i, v in enumerate(losses, 1)]
    metrics = {
        "samples_per_second": 48.0,
        "train_seconds": 1.75,
        "train_seconds_second_clock": 1.753,
    }
    return {
        "metrics": metrics | {"train_loss": 8 / 6, "test_accuracy": 0.75},
        "points": points,
        "consumed": Consumed(steps=6, samples=72, real_tokens=700, padded_tokens=720, order="o"),
        "settings": tiny.settings(),
        "predictions": predictions(0, 1, 2, 3),
        "test_rows": 4,
        "task": SequenceClassification(SequenceClassification.Options(), ("a", "b")),
        "parameters": {"trainable": 10, "in the optimizer": 10, "with a gradient": 10},
    }


def failed(**changes: Any) -> list[str]:
    return [
        check.name for check in self_checks(RunFigures(**(sound() | changes))) if not check.passed
    ]


METRICS = sound()["metrics"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        *(
            ({"metrics": METRICS | {metric: value}}, check)
            for metric, value, check in (
                ("samples_per_second", 96.0, "throughput"),
                ("samples_per_second", None, "throughput"),
                ("train_seconds", 1.25, "training time"),
                ("train_seconds_second_clock", 1.72, "second clock"),
                ("train_seconds_second_clock", None, "second clock"),
                ("train_loss", 0.5, "training loss"),
                ("test_accuracy", 0.76, "accuracy"),
            )
        ),
        # a rate over all steps, the first included, that fits its own seconds
        (
            {"metrics": METRICS | {"samples_per_second": 72 / 1.75, "timed_seconds": 1.75}},
            "throughput",
        ),
        ({"predictions": predictions(0, 1, 2, 2)}, "predictions"),
        ({"consumed": sound()["consumed"].model_copy(update={"samples": 73})}, "budget"),
        ({"parameters": sound()["parameters"] | {"with a gradient": 9}}, "parameters"),
    ],
)
def test_a_figure_that_contradicts_its_source_fails(changes: dict[str, Any], check: str) -> None:
    """Metrics that their points don't give, a row predicted twice, other samples than steps x
    batch, lost gradients.
    """
    assert failed(**changes) == [check]


def test_a_lost_step_and_time_that_no_step_has_are_found() -> None:
    """A tenth of a second between the clocks, but not 1 % and 1 ms a window; a step without its
    point.
    """
    assert failed() == []
    points = [p for p in sound()["points"] if not (p.metric == "train_loss" and p.step == 3)]
    assert "every step" in failed(points=points)
    points = [
        p.model_copy(update={"value": 0.15}) if (p.step, p.value) == (6, 0.25) else p
        for p in sound()["points"]
    ]
    metrics = sound()["metrics"] | {"train_seconds": 1.65, "samples_per_second": 60 / 1.15}
    assert failed(points=points, metrics=metrics) == ["second clock"]
    assert (
        failed(metrics=sound()["metrics"] | {"train_seconds_second_clock": 1.75 + 0.0175 + 0.004})
        == []
    )
