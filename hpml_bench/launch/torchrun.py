"""One run when torchrun, not we, started the ranks: each rank comes here, and rank 0 commits the record."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from hpml_bench.config.suite import Suite
from hpml_bench.data.prepare import prepare
from hpml_bench.launch import outcome
from hpml_bench.launch.sweep import definite, make_folder
from hpml_bench.records import store
from hpml_bench.records.run import DONE, Outcome
from hpml_bench.system import environment
from hpml_bench.training import worker


def run_as_rank(suite: Suite, method: str, seed: int, out: Path, fresh: bool) -> bool:
    """Do the run as this rank; return whether it ended well.

    The allocator's variables can't be set any more, since this process was started by torchrun: the record says what
    they are.

    Raises:
        UserError: something asked for is wrong or can't be had.

    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", environment.PROCESS_ENVIRONMENT["CUDA_DEVICE_ORDER"])
    suite = definite(suite)
    (spec,) = suite.runs([method], [seed])
    folder = out / suite.name / spec.run_id
    there = store.settled(folder)
    if there is not None and there.status in DONE and not fresh:
        return True
    prepared = prepare(spec.settings)
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    main = os.environ["RANK"] == "0"
    if main:
        make_folder(out / suite.name)
        store.begin(folder)
    try:
        ended = worker.execute(spec, prepared, folder)
    except Exception as error:
        told = worker.run_error(error, int(os.environ["RANK"]))
        print(told.traceback, file=sys.stderr)
        ended = Outcome(status="failed", error=told)
    if main:
        store.write_atomically(out / suite.name / store.SUITE, suite.model_dump_json(indent=1))
        record = outcome.record(spec, prepared, ended, started, time.monotonic() - began)
        store.commit(folder, record.model_copy(update={"files": store.file_digests(folder)}))
    return ended.status in DONE
