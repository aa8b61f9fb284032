"""Files that commands open: who may have written each, how large it may be, what is checked.

`generate_docs.py` writes docs/files.md from this table, and tests/hostile/test_opened.py makes
hostile files for each of its rows.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple

from hpml_bench.comparison.inputs import MOST_BYTES as MOST_TABLE
from hpml_bench.data.sources import MOST_CONFIG
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.suite.yaml import MAX_BYTES as MAX_SUITE
from hpml_bench.system.files import MAX_LOG_BYTES, MAX_RECORD_BYTES
from hpml_bench.system.parquet import MOST_VALUES
from hpml_bench.verify.files import MOST_LOOKED_AT

OURS = "a command of hpml-bench, or whoever gave the folder"
JSON_BYTES = f"{MAX_RECORD_BYTES:,} bytes"
USER = "the user, or whoever gave the file"


class Opened(NamedTuple):
    """A kind of file that commands open."""

    pattern: str  # of a path: within a results folder, or of a file that a user names
    holds: str
    written_by: str
    most: str  # bound of what is read
    check: str


RESULTS = (
    Opened("suite.json", "the suite as it was run", OURS, JSON_BYTES, "its model"),
    Opened(
        "plan.json",
        "a sweep by jobs",
        OURS,
        JSON_BYTES,
        "its model; the folder's own id",
    ),
    Opened(
        "submitted.json",
        "submissions to an engine",
        OURS,
        JSON_BYTES,
        "its model",
    ),
    Opened(
        "resolved.json",
        "settings that jobs resolved",
        OURS,
        JSON_BYTES,
        "its model; equal to the suite's where that decides",
    ),
    Opened(
        "definite.json",
        "measurements that decide open settings",
        OURS,
        JSON_BYTES,
        "its fields",
    ),
    Opened("verified.json", "verdicts of `verify`", OURS, JSON_BYTES, "its fields"),
    Opened(
        ".lock-holder.json",
        "the process that holds the lock",
        OURS,
        JSON_BYTES,
        "its fields",
    ),
    Opened(".lock", "nothing; it is locked", OURS, "not read", "no link"),
    Opened(
        "claims/*/owner.json",
        "the job that holds a unit",
        OURS,
        JSON_BYTES,
        "its model",
    ),
    Opened("jobs/*.json", "state of a job", OURS, JSON_BYTES, "its model"),
    Opened("running/*.json", "a run under way", OURS, JSON_BYTES, "its model"),
    Opened(
        "*/run.json",
        "the record of a run",
        OURS,
        JSON_BYTES,
        "its model; 32 levels, integers of 64 bits; its ids",
    ),
    Opened(
        "*/points.jsonl",
        "points of a run",
        OURS,
        f"{MOST_BYTES:,} bytes, 10,000 characters a line",
        "SHA-256 in the record; in a checkpoint that of its beginning",
    ),
    Opened(
        "*/predictions.parquet",
        "answers of a run",
        OURS,
        f"{MOST_BYTES:,} bytes, {MOST_VALUES:,} values",
        "SHA-256 in the record; its columns",
    ),
    Opened(
        "*/heartbeat-rank*",
        "what a rank does",
        OURS,
        JSON_BYTES,
        "its fields; the process is as old",
    ),
    Opened("*/rank*.log", "what a rank prints", OURS, f"the last {MAX_LOG_BYTES:,} bytes", "none"),
    Opened(
        "*/checkpoints/*/*.safetensors",
        "a part of a checkpoint",
        OURS,
        "the size that its head gives",
        "CRC-32; all files of one checkpoint, of this run, its ranks and its points",
    ),
    Opened("*/kept/*", "trained parts", OURS, "hashed in pieces", "SHA-256 in the record"),
    *(
        Opened(
            pattern,
            "a part of the report",
            OURS,
            f"{MOST_LOOKED_AT:,} bytes",
            "`verify` compares it with the records",
        )
        for pattern in ("report.*", "figures/*", "tables/*")
    ),
)
"""Files within a results folder; links are not followed."""
GIVEN = (
    Opened("SUITE.yaml, PROFILE.yaml", "a suite, a profile", USER, f"{MAX_SUITE:,} bytes", "YAML"),
    Opened("--baseline FILE", "saved runs", USER, JSON_BYTES, "its model"),
    Opened(
        "compare *.csv, *.tsv, *.jsonl",
        "scores of others",
        USER,
        f"{MOST_TABLE:,} bytes",
        "columns, numbers, rows",
    ),
    Opened("compare *.parquet", "scores of others", USER, f"{MOST_VALUES:,} values", "the same"),
    Opened(
        "MODEL/config.json",
        "a model's shape",
        USER,
        f"{MOST_CONFIG:,} bytes",
        "a mapping; no code of its own",
    ),
    Opened(
        "MODEL/*.safetensors", "weights", USER, "mapped into memory", "the head; no file outside"
    ),
    Opened(
        "data *.csv, *.json, *.parquet",
        "rows",
        USER,
        "decoded in batches to the cache's disk",
        "columns, encoding",
    ),
)
"""Files that a user names; links are followed."""


def row_of(path: str) -> Opened | None:
    """Return the row of a path within a results folder; None where there is none."""
    return next((row for row in RESULTS if fnmatchcase(path, row.pattern)), None)
