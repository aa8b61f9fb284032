"""One run inside a rank, and the preparation of model and data. Everything heavy is imported here, once per sweep."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft  # noqa: F401 - imported here so that the fork server has it
import torch

from hpml_bench import environment, registry
from hpml_bench.checks import all_checks
from hpml_bench.data import Rows
from hpml_bench.distributed import Group, process_group
from hpml_bench.errors import Diverged, Unsupported, UserError
from hpml_bench.loop import Trained, Training, autocast, evaluate, total_steps, train
from hpml_bench.models import Classifier, build_classifier, untouched_parameters
from hpml_bench.prepare import prepare
from hpml_bench.probes import Evaluation, Probe, Run
from hpml_bench.records import Check, Metric, Outcome, Point, Prepared, RunError, RunSpec, Settings
from hpml_bench.store import OUTCOME, PREDICTIONS, PointWriter, read_points, read_predictions, write_atomically

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""


def prepare_to(settings_json: str, target: str) -> None:
    """Prepare model and data and write what was found, or the user's mistake, to a JSON file."""
    try:
        result: dict[str, Any] = {
            "prepared": prepare(Settings.model_validate_json(settings_json)).model_dump(mode="json")
        }
    except UserError as error:
        result = {"error": str(error)}
    write_atomically(Path(target), json.dumps(result))


def start(spec_json: str, prepared_json: str, folder_name: str) -> None:
    """Run as one rank of a group that the elastic launcher started: own log file, own error file."""
    folder = Path(folder_name)
    rank = os.environ["RANK"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides
    _die_with_parent()
    _log_to(folder / f"rank{rank}.log")
    try:
        execute(RunSpec.model_validate_json(spec_json), Prepared.model_validate_json(prepared_json), folder)
    except BaseException as error:
        traceback.print_exc()
        write_atomically(folder / f"error-rank{rank}.json", run_error(error, int(rank)).model_dump_json())
        raise SystemExit(1) from None


def execute(spec: RunSpec, prepared: Prepared, folder: Path) -> Outcome:
    """Do a run as one rank of the group described in the environment; rank 0 writes points, predictions and outcome."""
    began = time.monotonic()
    torch.set_num_threads(spec.settings.threads or 1)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
    with process_group(spec.settings) as group:
        try:
            outcome = _measured(spec, prepared, folder, group, began)
        except Unsupported as reason:  # raised alike on all ranks, as the next two are
            outcome = _ended("unsupported", reason)
        except Diverged as reason:
            outcome = _ended("diverged", reason)
        except UserError as reason:
            outcome = _ended("failed", reason)
        if group.main:
            write_atomically(folder / OUTCOME, outcome.model_dump_json())
        return outcome


def _measured(spec: RunSpec, prepared: Prepared, folder: Path, group: Group, began: float) -> Outcome:
    """Build, train, evaluate and measure."""
    settings = spec.settings
    train_rows, validation, test = (
        Rows(Path(prepared.data) / split, prepared.pad_id) for split in ("train", "validation", "test")
    )
    module = registry.get("methods", spec.method.method)
    classifier = build_classifier(
        Path(prepared.backbone), settings, spec.method, len(prepared.label_names), spec.seed
    ).to(group.device)
    trainable = _trainable(classifier)
    torch.manual_seed(spec.seed * 1000 + group.rank)  # dropout differs between ranks, as it must
    probes = {name: registry.get("probes", name) for name in registry.names("probes")}
    measures: dict[str, Probe] = {name: module.Measure() for name, module in probes.items()}
    writer = PointWriter(folder) if group.main else None

    def write(points: list[Point]) -> None:
        if writer:
            writer.write(points)

    job = Training(
        classifier, spec.method, module, settings, spec.seed, group, train_rows, validation, [*measures.values()], write
    )
    if hasattr(module, "before_train"):
        batches = (train_rows.batch(indices).to(group.device) for indices in job.order())
        with autocast(settings):
            module.before_train(classifier.encoder, batches, total_steps(settings, len(train_rows)))
    run = Run(settings, group, classifier, module, test, folder, began)
    for measure in measures.values():
        measure.start(run)
    trained = train(job)
    evaluation = evaluate(classifier, test, settings, group, job.probes, write, "test", job.steps)
    if writer:
        writer.close()
        _write_predictions(folder, evaluation)
    definitions = tuple(metric for probe in probes.values() for metric in probe.metrics)
    local = {name: value for measure in measures.values() for name, value in measure.stop().items()}
    metrics, per_rank = reduce_over_ranks(definitions, local, group)
    return Outcome(
        status="ok",
        environment=environment.describe(),
        definitions=definitions,
        metrics=metrics,
        per_rank=per_rank,
        consumed=trained.consumed,
        checks=_checks(folder, spec, metrics, trained, len(test), trainable) if group.main else (),
    )


def reduce_over_ranks(
    definitions: tuple[Metric, ...], local: dict[str, float | None], group: Group
) -> tuple[dict[str, float | None], dict[str, tuple[float | None, ...]]]:
    """Return each metric's value over the ranks, and the ranks' own values where they differ by nature.

    What no rank could measure is left out.
    """
    values = [local.get(metric.name) for metric in definitions]
    row = torch.tensor([math.nan if value is None else float(value) for value in values], dtype=torch.float64)
    table = group.gather(row).numpy()  # [world, metrics]
    metrics: dict[str, float | None] = {}
    per_rank: dict[str, tuple[float | None, ...]] = {}
    reductions: dict[str, Callable[[np.ndarray], float]] = {"sum": np.sum, "mean": np.mean, "max": np.max}
    for metric, column in zip(definitions, table.T, strict=True):
        reduce = reductions.get(metric.over_ranks)
        chosen = column if reduce else column[:1]  # `same` and `rank0`
        if np.isnan(chosen).all():
            continue
        reduced = float(reduce(chosen) if reduce else chosen[0])
        metrics[metric.name] = reduced if math.isfinite(reduced) else None
        if len(chosen) > 1:
            per_rank[metric.name] = tuple(float(value) if math.isfinite(value) else None for value in chosen)
    return metrics, per_rank


def _checks(
    folder: Path, spec: RunSpec, metrics: Mapping[str, float | None], trained: Trained, rows: int, trainable: int
) -> tuple[Check, ...]:
    """Check the run's figures against what lies on disk."""
    predictions = read_predictions(folder)
    assert predictions is not None  # noqa: S101 - written by this process just now
    parameters = {"trainable": trainable, "in the optimizer": trained.optimized, "with a gradient": trained.reached}
    return all_checks(metrics, read_points(folder), trained.consumed, spec.settings, predictions, rows, parameters)


def _trainable(classifier: Classifier) -> int:
    """Return the number of trainable parameters; refuse a model in which one would never get a gradient.

    DDP would wait for it.
    """
    untouched = untouched_parameters(classifier)
    if untouched:
        raise Unsupported(f"no gradient reaches {len(untouched)} trained parameters, among them {untouched[0]}")
    return sum(p.numel() for p in classifier.parameters() if p.requires_grad)


def _write_predictions(folder: Path, evaluation: Evaluation) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "index": np.arange(len(evaluation.labels), dtype=np.int32),
            "label": evaluation.labels.astype(np.int32),
            "prediction": evaluation.predictions.astype(np.int32),
            "loss": evaluation.losses.astype(np.float32),
        }
    )
    pq.write_table(table, folder / PREDICTIONS)


def _ended(status: str, reason: Exception) -> Outcome:
    error = RunError(kind=type(reason).__name__, message=str(reason))
    return Outcome.model_validate({"status": status, "error": error, "environment": environment.describe()})


def run_error(error: BaseException, rank: int) -> RunError:
    """Return what a record says of an exception."""
    return RunError(
        kind=type(error).__name__,
        message=str(error)[:2000] or type(error).__name__,
        rank=rank,
        traceback="".join(traceback.format_exception(error))[-20_000:],
    )


def _die_with_parent() -> None:
    """Let the kernel end this rank when the fork server ends, which ends with our parent, however that dies."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        raise SystemExit("the parent has ended")


def _log_to(path: Path) -> None:
    """Send this process's standard output and error to a file, C++ included."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True)
