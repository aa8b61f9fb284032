"""Plans: of runs, their order and limits and which of them remain; of tuning, its trials and what was chosen."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from hpml_bench.records.run import FAILED, FINAL, Metric, RunRecord, Status, in_words, protocol_id
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Digests, MethodSpec, RunSpec, Settings
from hpml_bench.suite.suite import packaged
from hpml_bench.system.files import read_model

STALL_SECONDS = 300.0
RETRIED: frozenset[Status] = frozenset({"failed", "killed", "timeout", "oom_host", "oom_cuda"})
"""The states after which another attempt may succeed; a run that diverged would diverge again."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sweep. They are not part of the protocol: runs under other limits can be compared."""

    stall: float = STALL_SECONDS  # seconds without progress on any rank after which a run is ended; 0 for no such limit
    run_timeout: float | None = None  # seconds after which a run is ended
    retries: int = 0  # further attempts at a run that ended in one of `RETRIED`
    max_hours: float | None = None  # hours after which no run begins; model and data must be prepared by then
    fail_fast: bool = False  # whether a sweep ends with the first run that did not end well
    checkpoint_minutes: float = 15.0
    """Minutes of training after which a run's state is saved, from which it goes on after a failure; 0 for never."""
    checkpoint_steps: int | None = None  # steps after which it is saved instead

    @property
    def checkpoints(self) -> bool:
        return self.checkpoint_minutes > 0 or self.checkpoint_steps is not None

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_hours is None else self.max_hours * 3600

    def ended(self, seconds: float) -> bool:
        """Return whether a sweep that has taken this many seconds may begin no further run."""
        return self.max_seconds is not None and seconds >= self.max_seconds


UNLIMITED = Limits()


@dataclass(frozen=True)
class RunState:
    """The fields of a run's record that decide whether it has to be done again."""

    spec: RunSpec
    status: Status
    started: str  # UTC, ISO 8601: two records of a run differ in it
    digests: Digests | None
    protocol_id: str | None
    call: int  # number of the call of `run-all` whose job made the run; 0 where no job did

    @classmethod
    def of(cls, record: RunRecord, spec: RunSpec | None = None) -> Self:
        """Return the state of a record; an equal `spec` that is in memory already saves that of the record."""
        return cls(spec or record.spec, record.status, record.started, record.digests, record.protocol_id, record.call)

    @property
    def run_id(self) -> str:
        return self.spec.run_id


@dataclass(frozen=True)
class Plan:
    """Resolved runs in units, each of which one process or job does in this order."""

    units: tuple[tuple[RunSpec, ...], ...]
    digests: Digests | None = None
    """Digests of model and data; None before they are prepared: then records on any are accepted."""
    since: int | None = None  # failures of this `run-all` call or later are final; None: failed runs are done again
    _protocols: dict[Digests, str] = field(default_factory=dict, repr=False, compare=False)
    """Digests -> protocol id of the plan's settings on them."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return tuple(spec for unit in self.units for spec in unit)

    def remaining(self, states: Iterable[RunState]) -> tuple[tuple[RunSpec, ...], ...]:
        settled = {state.run_id for state in states if self.settles(state)}
        return tuple(tuple(spec for spec in unit if spec.run_id not in settled) for unit in self.units)

    def settles(self, state: RunState) -> bool:
        """Whether a run need not be done again: it has ended, under the same protocol."""
        digests = self.digests or state.digests
        if digests is not None and digests not in self._protocols:
            self._protocols[digests] = protocol_id(state.spec.settings, digests)
        if state.protocol_id not in {None, None if digests is None else self._protocols[digests]}:
            return False
        failed = self.since is not None and state.status in FAILED and state.call >= self.since
        return state.status in FINAL or failed


SCHEMA_VERSION = 2
Sampler = Literal["qmc", "tpe"]
FOLDER = "tuning"  # folder beside the runs in a suite's results folder
RECORD = "trials.json"
NEAR = 3.0  # scores at rates within this factor of the best one show how much the choice matters


class Trial(Frozen):
    """One run of a tuning."""

    number: int  # position among the method's trials, from 0; trial 0 has the suite's rate
    lr: float
    seed: int  # the same for all methods at the same number, and never a seed of the comparison
    status: Status
    score: float | None
    """The task's headline metric on the validation rows after the last step; empty where the run did not end well."""
    loss: float | None  # mean loss over the same rows, in the task's unit
    seconds: float  # wall time of the whole run, start-up included
    samples: int | None  # training samples consumed: the budget, equal over methods but for early ends
    parameters: int | None  # parameters trained at this rate: 0 for `head`, whose trials differ by their seeds alone
    run_id: str

    @property
    def ended(self) -> tuple[float, float] | None:
        return None if self.status != "ok" or self.score is None or self.loss is None else (self.score, self.loss)


class TunedMethod(Frozen):
    """The trials of one method."""

    spec: MethodSpec  # the method as in the suite, with its rate before tuning
    low: float
    high: float  # rates were drawn from `low` to `high`, evenly in log
    trials: tuple[Trial, ...]
    better: Literal["higher", "lower"]  # which scores are better

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def rated(self) -> bool:
        return any(trial.parameters != 0 for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The trial with the best score, among equals the lowest loss, then the first; None if none ended well."""
        sign = 1 if self.better == "higher" else -1
        ended = [(sign * result[0], -result[1], trial) for trial in self.trials if (result := trial.ended)]
        return max(ended, key=lambda entry: entry[:2])[2] if ended else None

    @property
    def best_score(self) -> float | None:
        return self.best.score if self.best else None

    @property
    def chosen(self) -> float:
        """The best trial's rate; the suite's own where no trial ended well or no parameter is trained at it."""
        return self.best.lr if self.best and self.rated else self.spec.lr

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest one tried, so that a better one may lie beyond."""
        tried = sorted({trial.lr for trial in self.trials})
        return self.rated and self.best is not None and len(tried) > 2 and self.best.lr in (tried[0], tried[-1])

    @property
    def seconds(self) -> float:
        return sum(trial.seconds for trial in self.trials)

    @property
    def near(self) -> tuple[float, float] | None:
        """Lowest and highest score of the trials that ended well at a rate within a factor of three of the best one."""
        if self.best is None:
            return None
        slack = 1 + 1e-9
        close = [t for t in self.trials if 1 / (NEAR * slack) <= t.lr / self.best.lr <= NEAR * slack]
        values = [trial.ended[0] for trial in close if trial.ended]
        return min(values), max(values)


class TuningRecord(Frozen):
    """A tuning: its fixed settings, and every trial."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    suite: str
    sampler: Sampler
    factor: float  # the range reaches from the suite's rate divided by this to the rate times this, for every method
    settings: Settings
    """The suite's settings; trials skip only intermediate evaluations and latencies, which train nothing."""
    validation_rows: int  # number of validation rows on which trials were compared
    digests: dict[str, str]  # SHA-256 of weights, tokenizer and data, as in the comparison's records
    environment: dict[str, Any] = Field(default_factory=dict)
    headline: Metric  # the task's metric by which trials are ranked, on the validation rows
    methods: tuple[TunedMethod, ...]

    def in_words(self, score: float) -> str:
        """Return a score with its title and unit: `accuracy 88.7%`."""
        return f"{in_words(self.headline.title, self.headline.format, score)} {self.headline.unit}".strip()


def find(results: Path, suite: str) -> TuningRecord | None:
    """Return a folder's tuning record: its own, for a suite `NAME-tuned` that of NAME beside it, or a packaged one."""
    original = suite.removesuffix("-tuned")
    places = (
        results / FOLDER / RECORD,
        results.parent / original / FOLDER / RECORD,
        packaged("tuning_records", "benchmarks/tuning") / f"{original}.json",
    )
    found = (read_model(path, TuningRecord) for path in places)
    return next((record for record in found if record is not None and record.suite == original), None)
