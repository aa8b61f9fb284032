"""The record of a run: frozen, validated, written to disk as JSON."""

from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from hpml_bench.suite.base import Frozen, Growing, Line
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.settings import Digests, RunSpec, Settings, identity
from hpml_bench.suite.suite import Margin, Until
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import digest, map_texts

RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$"  # pattern of an id, which is a folder's name too
SCHEMA_VERSION = 2
"""Counts up when a default changes, since ids leave defaults out, and when a field changes its
meaning.
"""

Status = Literal[
    "ok",
    "failed",
    "unsupported",
    "invalid",
    "diverged",
    "timeout",
    "killed",
    "interrupted",
    "oom_host",
    "oom_cuda",
]
FINAL: frozenset[str] = frozenset(
    {"ok", "unsupported"}
)  # the states of runs that are not done again
FAILED: frozenset[str] = frozenset(get_args(Status)) - FINAL - {"interrupted"}
"""The states of runs that failed: not of one that its user ended, nor of a method that can't run
with the model.
"""


class Metric(Frozen):
    """A measured quantity, declared by the probe that owns it and stored with each run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: Line
    unit: Line
    better: Literal["higher", "lower", "neither"]
    over_ranks: Literal["sum", "mean", "max", "same", "rank0"]
    """How the ranks' values become one; `same`: they are equal on all ranks."""
    over_steps: Literal["mean", "sum", "last", "max", "percentile", "once"]
    """How the steps' values become the run's one value."""
    phase: Literal["setup", "train", "validation", "test", "inference", "run"]
    format: str = ".3g"
    """Python format specification for tables."""
    grid: float | None = Field(default=None, gt=0)
    """Distance of the values that can be measured, in `unit`, where it is known (a page of
    memory).
    """
    group: str = Field(default="other", pattern=r"^[a-z0-9-]+$")
    """The table of the report that shows it: quality, time, throughput, memory, parameters,
    inference, ...
    """
    depends_on_machine: bool = False
    """Whether another machine gives another value: a time, a rate, memory, energy."""
    noisy: bool = True
    """Whether its values are noisy even if a few seeds happen to agree; not for an exact count."""
    bounds: tuple[float | None, float | None] = (None, None)
    """Smallest and largest possible value; None for no such bound."""
    definition: Line
    """What exactly is measured, in one or two sentences; printed in the glossary."""

    @classmethod
    def define(
        cls, name: str, title: str, unit: str, better: Any, form: str, definition: str, **more: Any
    ) -> "Metric":
        """Return a metric that is measured once per run and equal on all ranks, unless `more`
        says otherwise.
        """
        how: dict[str, Any] = {"over_ranks": "same", "over_steps": "once", "format": form} | more
        return cls(name=name, title=title, unit=unit, better=better, definition=definition, **how)


class Point(Frozen):
    """One value of one metric at one step, after reduction over ranks: a line of points.jsonl."""

    metric: str
    step: int
    value: float | None
    ranks: tuple[float, ...] | None = None
    """Each rank's own value, where they are kept: the seconds of a step."""
    tokens: int | None = None
    """Padded tokens of the step over all ranks, beside its seconds."""
    real_tokens: int | None = None
    """The same without padding."""
    again: bool = False
    """Whether the step warmed up again, after its run went on from a checkpoint."""


class Consumed(Frozen):
    """Steps, samples and tokens that a run consumed, summed over ranks."""

    steps: int
    samples: int
    real_tokens: int
    """Tokens of the texts, before a method adds virtual ones."""
    padded_tokens: int
    """The same with padding."""
    order: str
    """SHA-256 of the numbers of the prepared rows in the order they were trained on, or would be
    to the last step.
    """
    planned: int | None = None
    """Steps without an early end, where `select: early` allows one."""


class Check(Frozen):
    """One arithmetic self-check of a run."""

    name: str
    passed: bool
    detail: str


class Declared(Growing):
    """Declarations of the suite when a run was made, before its results were known."""

    later: ClassVar[tuple[str, ...]] = ("looks", "prior")

    seeds: int
    """Seeds of each method."""
    margin: Margin
    until: Until | None = None
    """Question at whose answer the sweep ends, and its looks; None for other sweeps."""
    looks: int | None = None
    """Number of looks at growing numbers of seeds, where it was declared."""
    prior: Prior | None = None
    """Variance over seeds that earlier suites lend, from `run-all --prior`; left out where there
    is none.
    """


class RunError(Frozen):
    """Reason why a run did not end well."""

    kind: str
    message: str
    rank: int | None = None
    traceback: str | None = None


class Segment(Frozen):
    """The part of a run that one start of its ranks did, up to its last checkpoint or the end."""

    hosts: tuple[str, ...]
    started: str
    """UTC, ISO 8601."""
    first: int
    """Its first step."""
    last: int
    seconds: float
    """Wall time to its last checkpoint, or to the end of the training, start-up of the ranks
    included.
    """
    warmup_seconds: float = 0.0
    """Time of the steps that warmed up again, which are in the training time and not in the
    timed window.
    """
    repeated_steps: int = 0
    """Steps that the start before did behind its last checkpoint, and this one did again."""
    repeated_seconds: float = 0.0
    """Time that these had taken, which is in no metric."""


class Outcome(Frozen):
    """Outcome of a run, as the ranks report it to their parent."""

    status: Status
    error: RunError | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    headline: str | None = None
    """Name of the headline metric, by which methods are ranked and tuned."""
    definitions: tuple[Metric, ...] = ()
    metrics: dict[str, float | None] = Field(default_factory=dict)
    per_rank: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    consumed: Consumed | None = None
    checks: tuple[Check, ...] = ()
    segments: tuple[Segment, ...] = ()
    """Its parts, where it went on from a checkpoint."""
    unused_checkpoints: tuple[Line, ...] = ()
    """Why checkpoints of earlier starts weren't used, a clause each, the newest first."""


def headline_in_words(run: Any) -> str:
    """Return a record's headline metric with its title; empty where it has none."""
    value = run.metrics.get(run.headline or "")
    defined = next((metric for metric in run.definitions if metric.name == run.headline), None)
    return (
        "" if value is None or defined is None else in_words(defined.title, defined.format, value)
    )


def wall_seconds_of(run: Any) -> float:
    """Return a run's wall time in seconds, with that of its earlier segments."""
    return float(run.seconds + sum(segment.seconds for segment in run.segments[:-1]))


class RunRecord(Outcome):
    """Record of a run, run.json: its commit point, written atomically by the parent alone."""

    schema_version: int = SCHEMA_VERSION
    run_id: str = Field(pattern=RUN_ID)
    spec: RunSpec
    protocol_id: str | None = None
    digests: Digests | None = None
    label_names: tuple[str, ...] = ()
    notes: dict[str, str] = Field(default_factory=dict)
    """Facts of the task worth printing, such as the best possible accuracy."""
    order: int | None = None
    """Position of the run in the sweep that made it, from 1."""
    place: int | None = None
    """Place of its method among those of its seed in that sweep, from 1."""
    declared: Declared | None = None
    """Declarations that decide verdicts; None in older records, and where no sweep did this run."""
    earlier_attempts: tuple[str, ...] = ()
    """Status and reason of each earlier attempt at this run in the same call (`--retries`)."""
    neighbours: tuple[str, ...] | None = None
    """Runs of the same sweep by other jobs on the same host meanwhile; None where no job did
    this run.
    """
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files that belong to the record, by name: points and predictions."""
    kept: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of its trained parts, by path within their folder, where they were kept; they may
    be removed.
    """
    started: str
    """Time of its start; UTC, ISO 8601."""
    seconds: float
    """Wall time of the whole run as its parent saw it, start-up included; of its last start."""
    saved: int = 0
    """Step of the checkpoint from which another attempt goes on; 0 where there is none."""

    @property
    def call(self) -> int:
        """Number of the call of `run-all` whose job made the run; 0 where no job did."""
        return Environment.read(self.environment).where.get("call") or 0

    wall_seconds = property(wall_seconds_of)
    shown = property(headline_in_words)


def in_words(title: str, form: str, value: float) -> str:
    """Return a metric's title with a value in its format, or in a plain one where Python doesn't
    know the format.
    """
    try:
        return f"{title} {value:{form}}"
    except ValueError:
        return f"{title} {value:.3g}"


def protocol_id(settings: Settings, digests: Digests) -> str:
    """Return the id that two runs must share to be compared."""
    # Covers every setting and the digests of weights, tokenizer and data. Of a `path:` only the
    # content counts, which the digests cover: the same files in another folder are the same
    # protocol.
    placeless = map_texts(
        identity(settings), lambda text: "path:" if text.startswith("path:") else text
    )
    return digest([placeless, digests.model_dump(mode="json")], 12)
