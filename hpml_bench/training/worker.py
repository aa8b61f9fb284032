"""Worker: one run inside a rank, and the preparation of model and data. Imports all heavy
libraries, once per sweep.
"""

import atexit
import faulthandler
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import peft  # noqa: F401 - imported here so that the fork server has it
import torch

from hpml_bench.data.prepare import prepare
from hpml_bench.data.sources import resolve_model
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.probe import Probe
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.points import PointWriter, read_points
from hpml_bench.records.predictions import read_predictions, write_predictions
from hpml_bench.records.run import Check, Metric, Outcome, RunError, Status
from hpml_bench.select.checks import RunFigures, self_checks
from hpml_bench.suite import registry
from hpml_bench.suite.settings import Settings
from hpml_bench.system import environment, errors, heartbeat, processes
from hpml_bench.system.errors import Diverged, Unsupported, UserError
from hpml_bench.system.files import write_atomically
from hpml_bench.system.redaction import redacted_error
from hpml_bench.system.text import shortened
from hpml_bench.training import products
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.checkpoint import Checkpoints, Ended, heed_requests
from hpml_bench.training.distributed import check_gpus, lacked_memory, over_nodes, process_group
from hpml_bench.training.kernels import attention_of, watch_residual
from hpml_bench.training.request import RunRequest
from hpml_bench.training.saving import save_trained
from hpml_bench.training.trainer import Trained, make_trainer, trial_steps
from hpml_bench.training.trial import unused_parameters

LOST_PEER_SECONDS = 1.0
"""Time that a rank waits to end after it lost a peer, so that a killed one, which leaves no
error, ends first.
"""


def prepared(settings_json: str) -> dict[str, Any]:
    """Check the GPUs, prepare model and data, and return the result for JSON."""
    os.environ["TOKENIZERS_PARALLELISM"] = (
        "true"  # there are no ranks yet; forks of this process have none
    )
    settings = Settings.model_validate_json(settings_json)
    if settings.device == "cuda":
        check_gpus(settings.world_size or 1)
    return prepare(settings).model_dump(mode="json")


def timed_products(settings_json: str) -> dict[str, Any]:
    """Time products of the backbone's shape, and return the result for JSON."""
    settings = Settings.model_validate_json(settings_json)
    folder = resolve_model(settings.backbone).folder_or_file
    return products.measure_for(settings, folder, settings.threads or 1).model_dump()


def start(request_json: str, beats: str, launched: float) -> None:
    """Run a RunRequest as one rank: own log and error file; `launched`: time.monotonic() of the
    parent's launch.
    """
    request, rank = RunRequest.model_validate_json(request_json), os.environ["RANK"]
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole terminal group; the parent decides
    log = os.open(request.folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    faulthandler.register(heartbeat.STACK_SIGNAL, file=sys.stderr, all_threads=True)
    heartbeat.begin(Path(beats), int(rank))
    heed_requests()
    try:
        execute(request, launched)
    except Ended:  # asked to end, with its state saved: no failure
        return
    except BaseException as error:
        leave_error(error, request.folder, int(rank))
        end_at_once()


def leave_error(error: BaseException, folder: Path, rank: int) -> None:
    """Print an exception and write it to this rank's error file; after a moment where it lost a
    peer.
    """
    record = run_error(error, rank)
    print(record.traceback, file=sys.stderr)
    if errors.lost_peer(record.message):
        time.sleep(LOST_PEER_SECONDS)
    write_atomically(folder / f"error-rank{rank}.json", record.model_dump_json())


def end_at_once(status: int = 1) -> NoReturn:
    """End this process as it is, where it failed without leaving its process group (see
    `process_group`).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end(status: int) -> NoReturn:
    """End this process, which has left its process group, without finalizing the interpreter."""
    # a thread of gloo that asks for the interpreter's lock, to release a collective's last tensor,
    # while that is finalized, is ended inside a destructor: the process ends by SIGABRT, "terminate
    # called without ..."
    atexit._run_exitfuncs()
    end_at_once(status)


def execute(request: RunRequest, launched: float | None = None) -> Outcome:
    """Execute a run as one rank of the environment's group; rank 0 writes points, predictions
    and outcome.
    """
    began, settings = time.monotonic(), request.spec.settings
    torch.set_num_threads(settings.threads or 1)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
    # torch takes a first step that fp16 skips for a wrong order of calls
    warnings.filterwarnings(
        "ignore", message=r"Detected call of .lr_scheduler\.step", category=UserWarning
    )
    heartbeat.beat("joining the process group")
    with process_group(settings) as group:
        nodes = over_nodes(group)
        heartbeat.beat("building the model")
        try:
            outcome = _measured(request, group, began, launched, nodes)
        except (Unsupported, Diverged, UserError) as reason:  # raised alike on all ranks
            of_kind: dict[type, Status] = {Unsupported: "unsupported", Diverged: "diverged"}
            error = RunError(kind=type(reason).__name__, message=redacted_error(str(reason)))
            status, described = of_kind.get(type(reason), "failed"), environment.of_run(nodes)
            outcome = Outcome(status=status, error=error, environment=described)
        if group.main:
            write_atomically(request.folder / OUTCOME, outcome.model_dump_json())
        return outcome


def _measured(
    request: RunRequest,
    group: Group,
    began: float,
    launched: float | None,
    nodes: environment.NodeLayout | None,
) -> Outcome:
    spec, prepared, folder = request.spec, request.prepared, request.folder
    probes = {name: registry.plugin("probes", name)() for name in registry.names("probes")}
    writer, method = PointWriter(folder) if group.main else None, make_method(spec.method)
    if not request.try_out:
        method.prepare(request, group)
    with heartbeat.busy():
        run = replace(
            assemble(spec, prepared, group, method), folder=folder, began=began, launched=launched
        )
    if unused := unused_parameters(run.model):  # DDP would wait for ever for their gradients
        raise Unsupported(
            f"no gradient reaches {len(unused)} trained parameters, among them {unused[0]}"
        )
    # before a probe merges the method into the model
    attention = attention_of(run.model)
    trainable = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    if request.try_out:
        trial_steps(run)
        return Outcome(status="ok")
    probes = {
        name: probe for name, probe in probes.items() if run.method.trains or not probe.of_training
    }
    for name, probe in probes.items():
        heartbeat.beat(f"starting probe {name}")
        probe.start(run)
    here = environment.of_hosts(nodes)
    checkpoints = Checkpoints(request, group, here, began, writer)
    trainer = make_trainer(
        run, [*probes.values()], writer.write if writer else lambda _: None, checkpoints
    )
    residual = watch_residual(run.model)
    trained = trainer.train()
    heartbeat.beat("evaluating test")
    evaluation = trainer.evaluate(run.test, "test", run.steps)
    if writer:
        writer.close()
        write_predictions(folder, evaluation.predictions, run.task.scores(evaluation.predictions))
    if request.save_to and group.main:  # before a probe merges the method into the model
        heartbeat.beat("saving what was trained")
        with heartbeat.busy():
            save_trained(run.model, run.method, spec, prepared, request.save_to)
    definitions, local = _stopped(probes, method)
    metrics, per_rank = reduce_over_ranks(definitions, local, group)
    numerics = {"attention": attention, "residual": residual.dtype}
    described = environment.of_run(nodes) | numerics
    segments = checkpoints.segments(trained.steps) if checkpoints.begun else ()
    if segments:  # costs are compared on one host: with runs whose parts were all there
        described["hosts"] = sorted({host for segment in segments for host in segment.hosts})
    return Outcome(
        status="ok",
        environment=described,
        segments=segments,
        unused_checkpoints=checkpoints.unused,
        headline=run.task.headline,
        definitions=definitions,
        metrics=metrics,
        per_rank=per_rank,
        consumed=trained.consumed,
        checks=_checks(folder, run, metrics, trained, trainable) if group.main else (),
    )


def _stopped(
    probes: dict[str, Probe], method: Method
) -> tuple[tuple[Metric, ...], dict[str, float | None]]:
    definitions = tuple(metric for probe in probes.values() for metric in probe.definitions())
    local: dict[str, float | None] = {}
    for name, probe in probes.items():
        heartbeat.beat(f"ending probe {name}")
        local |= probe.stop()
    if (
        not method.trains
    ):  # a training that didn't happen cost nothing, which would win every comparison
        of_training = {m.name for m in definitions if m.phase == "train" or m.group == "memory"} - {
            *method.measured
        }
        local = {name: value for name, value in local.items() if name not in of_training}
    return definitions, local


def reduce_over_ranks(
    definitions: tuple[Metric, ...], local: dict[str, float | None], group: Group
) -> tuple[dict[str, float | None], dict[str, tuple[float | None, ...]]]:
    """Return the value over the ranks of each metric that one could measure, and the ranks' own
    where they differ.
    """
    values = [local.get(metric.name) for metric in definitions]
    row = torch.tensor(
        [math.nan if value is None else float(value) for value in values], dtype=torch.float64
    )
    table = group.gather(row).numpy()  # [world, metrics]
    metrics: dict[str, float | None] = {}
    per_rank: dict[str, tuple[float | None, ...]] = {}
    reductions: dict[str, Callable[[np.ndarray], float]] = {
        "sum": np.sum,
        "mean": np.mean,
        "max": np.max,
    }
    for metric, column in zip(definitions, table.T, strict=True):
        reduce = reductions.get(metric.over_ranks)
        chosen = column if reduce else column[:1]  # `same` and `rank0`
        if np.isnan(chosen).all():
            continue
        reduced = float(reduce(chosen) if reduce else chosen[0])
        metrics[metric.name] = reduced if math.isfinite(reduced) else None
        if len(chosen) > 1:
            per_rank[metric.name] = tuple(
                float(value) if math.isfinite(value) else None for value in chosen
            )
    return metrics, per_rank


def _checks(
    folder: Path,
    run: Assembly,
    metrics: Mapping[str, float | None],
    trained: Trained,
    trainable: int,
) -> tuple[Check, ...]:
    predictions = read_predictions(folder)
    assert predictions is not None  # noqa: S101 - written by this process just now
    parameters = {
        "trainable": trainable,
        "in the optimizer": trained.optimized,
        "with a gradient": trained.reached,
    }
    points, rows = read_points(folder), len(run.test)
    settings, consumed = run.settings, trained.consumed
    return self_checks(
        RunFigures(metrics, points, consumed, settings, predictions, rows, run.task, parameters)
    )


def run_error(error: BaseException, rank: int) -> RunError:
    """Return an exception in the form of a record; for lack of memory, with the peak that was
    reached.
    """
    message = "; ".join(
        [
            shortened(redacted_error(str(error)), 2000) or type(error).__name__,
            *getattr(error, "__notes__", []),
        ]
    )
    kind = type(error).__name__
    if errors.without_cublas_handle(message) and lacked_memory(error):
        kind = "OutOfMemoryError"  # by which the parent, which reads this record, tells it too
    else:
        # NVML's errors say of what they are by their class
        message += errors.hint(f"{kind}: {message}")
    record = RunError(
        kind=kind,
        message=message,
        rank=rank,
        traceback=redacted_error("".join(traceback.format_exception(error)))[-20_000:],
    )
    status = errors.status_of(record.kind, record.message)
    if status == "failed" or isinstance(
        error, errors.ProgramFailed
    ):  # whose memory its message has
        return record
    if status == "oom_cuda":
        peak, what = torch.cuda.max_memory_allocated() / 1e6, "allocated on the GPU"
    else:
        peak, what = processes.memory_mb(os.getpid(), "VmHWM") or 0, "resident"
    return record.model_copy(update={"message": f"peak of {peak:,.0f} MB {what}; {record.message}"})
