"""Run whose ranks torchrun started: each calls `run_as_rank`, and rank 0, or one that fails, commits the record."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hpml_bench.data.prepare import prepare
from hpml_bench.launch import outcome
from hpml_bench.plugins.method import check_methods
from hpml_bench.records.folder import ResultsFolder, RunFolder, make_folder
from hpml_bench.records.jobs import refuse_if_worked_on
from hpml_bench.records.plan import Plan, RunState
from hpml_bench.records.run import DONE
from hpml_bench.report.model_card import write_card
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.resolve import Findings, resolve
from hpml_bench.system import environment
from hpml_bench.system.text import utc_now
from hpml_bench.training import worker
from hpml_bench.training.distributed import check_gpus
from hpml_bench.training.request import RunRequest


def run_as_rank(suite: Suite, method: str, seed: int, out: Path, fresh: bool, save: Path | None = None) -> bool:
    """Do the run as this rank; return whether it ended well. A rank that raises ends its process here.

    The allocator's variables can't be set any more, since torchrun started this process; the record has their values.
    Raises UserError if a setting is invalid, torch can't compute on this rank's GPU, a source isn't available, or jobs
    work in the results folder.
    """
    environment.set_cuda_environment()
    rank = int(os.environ["RANK"])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    suite, notes = resolve(suite, Findings(out / suite.name), here)
    (spec,) = suite.runs([method], [seed])
    check_methods([spec.method], spec.settings)
    if spec.settings.device == "cuda":
        check_gpus(here, own=int(os.environ["LOCAL_RANK"]))
    results = ResultsFolder(out / suite.name)
    refuse_if_worked_on(results.path)
    there = results.run_folder(spec).record()
    if there is not None and Plan(()).settles(RunState.of(there)) and not fresh and save is None:
        return True
    prepared = prepare(spec.settings)
    prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
    started, began = utc_now(), time.monotonic()
    main = rank == 0
    if main:
        make_folder(results.path)
    if main and save is not None:
        results.set_aside([spec], print)
    own = results.begin(spec) if main else RunFolder(results.path / spec.run_id)
    save_to = None if save is None else save.resolve()
    request = RunRequest(spec=spec, prepared=prepared, folder=own.path, save_to=save_to)
    if main:
        own.begin()
        results.write_suite(suite.model_dump_json(indent=1))
    try:
        ended = worker.execute(request)
    except Exception as error:
        own.path.mkdir(parents=True, exist_ok=True)
        worker.leave_error(error, own.path, rank)
        if own.record() is None:  # the first rank here commits it; torchrun then ends the others
            ended = outcome.outcome(own.path, outcome.ExitEvidence())
            own.commit(outcome.record(request, ended, started, time.monotonic() - began))
        worker.end_at_once()
    if main:
        record = own.commit(outcome.record(request, ended, started, time.monotonic() - began))
        if save is not None and record.status == "ok":
            write_card(record, save)
    return ended.status in DONE
