"""Files that commands open: who may have written each, how large it may be, what is checked.

`generate_docs.py` writes docs/files.md from this table, and tests/hostile/test_opened.py makes
hostile files for each of its rows.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple

from hpml_bench.comparison import inputs
from hpml_bench.data.files import LONGEST_LINE, MOST_JSON, MOST_TAGGED
from hpml_bench.data.sources import MOST_CONFIG, MOST_TOKENIZER
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.suite.yaml import MAX_BYTES as MAX_SUITE
from hpml_bench.system.files import MAX_LOG_BYTES, MAX_RECORD_BYTES
from hpml_bench.system.parquet import MOST_DECODED, MOST_FILE
from hpml_bench.verify.files import MOST_LOOKED_AT

OURS = "a command of hpml-bench, or whoever gave the folder"
JSON_BYTES = f"{MAX_RECORD_BYTES:,} bytes"
TABLE = f"{inputs.MOST_ROWS:,} rows, {inputs.MOST_CELLS:,} values"
USER = "the user, or whoever gave the file"


class Opened(NamedTuple):
    """A kind of file that commands open."""

    pattern: str  # of a path: within a results folder, or of a file that a user names
    holds: str
    written_by: str
    most: str  # bound of what is read
    check: str
    named_by: tuple[str, ...] = ()  # commands that need it: they name one that can't be used
    ignored: str = ""  # why what can't be used counts as missing, or which of it does


def _json(
    pattern: str,
    holds: str,
    check: str = "its fields",
    named_by: tuple[str, ...] = (),
    ignored: str = "",
) -> Opened:
    return Opened(pattern, holds, OURS, JSON_BYTES, check, named_by, ignored)


ON_RECORDS = ("report", "compare", "verify")
TRAINING = ("run-all", "run")
REMOVED = "removed before a run begins"
RESULTS = (
    _json(
        "suite.json",
        "the suite as it was run",
        "its model",
        ("status",),
        "a report does without the suite's title and order; `run-all` writes it anew",
    ),
    _json(
        "plan.json",
        "a sweep by jobs",
        "its model; the folder's own id",
        ("status", "stop", "run-all"),
    ),
    _json(
        "submitted.json",
        "submissions to an engine",
        "its model",
        (),
        "the engine lists its jobs itself",
    ),
    _json(
        "resolved.json",
        "settings that jobs resolved",
        "its model; equal to the suite's where that decides",
        ("status",),
    ),
    _json(
        "definite.json",
        "measurements that decide open settings",
        "its fields",
        (),
        "they are measured again",
    ),
    _json("verified.json", "verdicts of `verify`", "its fields", (), "`verify` writes it anew"),
    _json(
        ".lock-holder.json",
        "the process that holds the lock",
        "its fields",
        (),
        "it only names the holder in an error",
    ),
    Opened(".lock", "nothing; it is locked", OURS, "not read", "no link", ("run-all",)),
    _json(
        "claims/*/owner.json",
        "the job that holds a unit",
        "its model",
        ("status", "stop", "run-all"),
        "what is no job's record holds no unit",
    ),
    _json("jobs/*.json", "state of a job", "its model", (), "only tells of a job that has begun"),
    _json("running/*.json", "a run under way", "its model", (), "no run is under way there"),
    Opened(
        "running/*.came",
        "runs that have begun beside one",
        OURS,
        JSON_BYTES,
        "ids of runs",
        ("work",),
        "a line that is no run's id is left out",
    ),
    Opened(
        "logs/*",
        "what a job prints",
        OURS,
        f"the last {MAX_LOG_BYTES:,} bytes",
        "none",
        (),
        "its last line is only shown",
    ),
    _json(
        "*/run.json",
        "the record of a run",
        "its model; 32 levels, integers of 64 bits; its ids",
        (*ON_RECORDS, "run-all"),
    ),
    Opened(
        "*/points.jsonl",
        "points of a run",
        OURS,
        f"{MOST_BYTES:,} bytes, no holes, 10,000 characters a line",
        "SHA-256 in the record; in a checkpoint that of its beginning",
        (*ON_RECORDS, "run-all"),
    ),
    Opened(
        "*/predictions.parquet",
        "answers of a run",
        OURS,
        f"{MOST_FILE:,} bytes, {MOST_DECODED:,} bytes decoded",
        "SHA-256 in the record; its columns",
        (*ON_RECORDS, "run-all"),
    ),
    Opened(
        "*/heartbeat-rank*",
        "what a rank does",
        OURS,
        JSON_BYTES,
        "its fields; the process is as old",
        (),
        "no rank is at work there",
    ),
    Opened(
        "*/rank*.log",
        "what a rank prints",
        OURS,
        f"the last {MAX_LOG_BYTES:,} bytes",
        "none",
        (),
        f"only shown; {REMOVED}",
    ),
    _json("*/outcome.json", "how a run ended", "its model", (), REMOVED),
    _json("*/error-rank*.json", "the error of a rank", "its model", (), REMOVED),
    _json("*/command/*", "what a run's own program tells", "its fields", (), REMOVED),
    Opened(
        "*/checkpoints/*/*.safetensors",
        "a part of a checkpoint",
        OURS,
        "the size that its head gives",
        "CRC-32; all files of one checkpoint, of this run, its ranks and its points",
        (),
        "the log names it, and the run goes on from an older one, or starts anew",
    ),
    Opened(
        "*/kept/*",
        "trained parts",
        OURS,
        "hashed in pieces",
        "SHA-256 in the record",
        (),
        "a run whose parts aren't those of its record has none to give",
    ),
    Opened(
        "*.answers.jsonl",
        "answers of a server so far",
        OURS,
        f"{MOST_BYTES:,} bytes",
        "its fields; of this run",
        (),
        "the rows are asked again",
    ),
    _json(
        "*/agreement.json",
        "how a server's answers differ from those of a run",
        "its fields",
        (),
        "a page then doesn't tell of it",
    ),
    _json(
        "tuning/trials.json",
        "trials of `tune`",
        "its model; of this suite",
        (),
        "the page then says that no tuning is recorded; `tune` does the trials again",
    ),
    *(
        Opened(
            pattern,
            "a part of the report",
            OURS,
            f"{MOST_LOOKED_AT:,} bytes",
            "`verify` compares it with the records",
            ("verify",),
            "`report` writes it anew",
        )
        for pattern in ("report.*", "figures/*", "tables/*")
    ),
)
"""Files within a results folder; links are not followed."""
GIVEN = (
    Opened(
        "SUITE.yaml, PROFILE.yaml",
        "a suite, a profile",
        USER,
        f"{MAX_SUITE:,} bytes",
        "YAML",
        ("run-all",),
    ),
    Opened("--baseline FILE", "saved runs", USER, JSON_BYTES, "its model", ("check",)),
    Opened(
        "compare *.csv, *.tsv",
        "scores of others",
        USER,
        f"{inputs.MOST_TABLE:,} bytes, {TABLE}",
        "columns, numbers, rows",
        ("compare",),
    ),
    Opened(
        "compare *.jsonl",
        "scores of others",
        USER,
        f"{inputs.MOST_TABLE:,} bytes, {inputs.LONGEST_LINE:,} characters a line, {TABLE}",
        "the same",
        ("compare",),
    ),
    Opened(
        "compare *.json",
        "a list of scores of others, or samples of lm_eval",
        USER,
        f"{inputs.MOST_LIST:,} bytes, {TABLE}",
        "the same",
        ("compare",),
    ),
    Opened(
        "compare *.parquet",
        "scores of others",
        USER,
        f"{MOST_FILE:,} bytes, {MOST_DECODED:,} bytes decoded, {TABLE}",
        "the same",
        ("compare",),
    ),
    Opened(
        "MODEL/config.json",
        "a model's shape",
        USER,
        f"{MOST_CONFIG:,} bytes",
        "a mapping; no code of its own",
        TRAINING,
    ),
    Opened(
        "MODEL/*.json, *.jinja, *.model, *.txt",
        "a tokenizer, a chat template",
        USER,
        f"{MOST_TOKENIZER:,} bytes",
        "by transformers; no code of its own",
        TRAINING,
    ),
    Opened(
        "MODEL/*.safetensors",
        "weights",
        USER,
        "mapped into memory",
        "the head; no file outside",
        TRAINING,
    ),
    Opened(
        "SAVED/run_spec.json",
        "how a model was trained that `run --save` wrote",
        USER,
        JSON_BYTES,
        "its model",
        ("score",),
    ),
    Opened(
        "data *.csv, *.tsv, *.tab, *.jsonl, *.parquet",
        "rows",
        USER,
        f"decoded in batches to the cache's disk; a first line of {LONGEST_LINE:,} bytes",
        "columns, encoding",
        TRAINING,
    ),
    Opened("data *.json", "rows", USER, f"{MOST_JSON:,} bytes", "columns, encoding", TRAINING),
    Opened(
        "data *.conll, *.bio, *.iob, *.txt",
        "a word and its tag a line",
        USER,
        f"{MOST_TAGGED:,} bytes",
        "tags, encoding",
        TRAINING,
    ),
)
"""Files that a user names; links are followed."""
CACHE = (
    Opened(
        "hashes/*",
        "the SHA-256 of a large file",
        "a command of hpml-bench",
        JSON_BYTES,
        "path, size and time stamp of the file",
        (),
        "the file is hashed again",
    ),
    Opened(
        "prepared/*/manifest.json",
        "files and counts of tokenised rows",
        "a command of hpml-bench",
        JSON_BYTES,
        "SHA-256 of each file",
        (),
        "the rows are tokenised again",
    ),
)
"""Files of our own in the user's cache."""


def row_of(path: str) -> Opened | None:
    """Return the row of a path within a results folder; None where there is none."""
    return next((row for row in RESULTS if fnmatchcase(path, row.pattern)), None)
