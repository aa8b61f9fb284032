"""Records as a tidy pandas frame: one row per run, one column per metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.records.load import load_records
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = ("run_id", "suite", "method", "seed", "status", "protocol_id", "order", "started", "seconds")


def load_results(folder: Path | str) -> pd.DataFrame:
    """Return the runs recorded under a suite's results folder: one row per run, oldest first.

    Columns: run_id, suite, method, seed, status, protocol_id, order, started (UTC timestamp), seconds, and one per
    metric (NaN where a run didn't measure it). Units and definitions are in run.json and in the report's glossary.

    Raises:
        UserError: there is no such folder.

    """
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder} is not a folder of results; give the folder that run-all wrote, such as reports/quickstart"
        )
    import pandas as pd

    records = load_records(Path(folder)).records
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics if name not in RUN_COLUMNS))
    specs = [{"suite": run.spec.suite, "method": run.spec.method.name, "seed": run.spec.seed} for run in records]
    rows = [run.metrics | spec | {name: getattr(run, name) for name in RUN_COLUMNS if name not in spec}
            for run, spec in zip(records, specs, strict=True)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*RUN_COLUMNS, *metrics])
    frame[metrics] = frame[metrics].astype("float64")
    frame["started"] = pd.to_datetime(frame["started"], utc=True, errors="coerce", format="ISO8601")
    return frame
