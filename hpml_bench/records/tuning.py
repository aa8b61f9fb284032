"""What a tuning found, as plain JSON: written after every trial, read by the report without Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from hpml_bench.config.base import Frozen
from hpml_bench.config.settings import MethodSpec, Settings
from hpml_bench.config.suite import packaged
from hpml_bench.records.files import read_json
from hpml_bench.records.run import Status

SCHEMA_VERSION = 1
Sampler = Literal["qmc", "tpe"]
FOLDER = "tuning"
"""Beside the runs in a suite's results folder."""
RECORD = "trials.json"
NEAR = 3.0
"""Rates within this factor of the best one tell how much the choice matters."""


class Trial(Frozen):
    """One run of a tuning."""

    number: int
    """Place among the method's trials, from 0: the rate the suite had."""
    lr: float
    seed: int
    """The same for all methods at the same number, and never a seed of the comparison."""
    status: Status
    accuracy: float | None
    """Share of the validation rows that are right after the last step; empty where the run did not end well."""
    loss: float | None
    """Mean cross-entropy over the same rows, in nats."""
    seconds: float
    """Wall time of the whole run, start-up included."""
    samples: int | None
    """Training samples consumed: the budget, equal over methods."""
    parameters: int | None
    """Parameters that the rate reaches: 0 for `head`, whose trials show what the seed alone does."""
    run_id: str

    @property
    def merit(self) -> tuple[float, float]:
        """What is maximised: accuracy, and of equals the lower loss. A run that did not end well is worst of all."""
        if self.status != "ok" or self.accuracy is None or self.loss is None:
            return (-1.0, 0.0)
        return (self.accuracy, -self.loss)


class TunedMethod(Frozen):
    """The trials of one method."""

    spec: MethodSpec
    """The method as the suite has it, its rate before tuning included."""
    low: float
    high: float
    """Bounds of the range that rates were drawn from, evenly in log."""
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """How the suite calls it."""
        return self.spec.name

    @property
    def rated(self) -> bool:
        """Whether the rate reaches any parameter."""
        return any(trial.parameters != 0 for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The best trial, of equals the first; None where none ended well."""
        ended = [trial for trial in self.trials if trial.merit[0] >= 0]
        return max(ended, key=lambda trial: trial.merit) if ended else None

    @property
    def chosen(self) -> float:
        """The best trial's rate; the suite's own where no trial tells."""
        return self.best.lr if self.best and self.rated else self.spec.lr

    @property
    def at_edge(self) -> bool:
        """Whether no rate beyond the best one was tried on one side, so that a better one may lie there."""
        tried = sorted({trial.lr for trial in self.trials})
        return self.rated and self.best is not None and len(tried) > 2 and self.best.lr in (tried[0], tried[-1])

    @property
    def seconds(self) -> float:
        """What tuning the method cost."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def near(self) -> tuple[float, float] | None:
        """Lowest and highest accuracy of the trials whose rate is within a factor of three of the best one."""
        if self.best is None:
            return None
        slack = 1 + 1e-9
        close = [t for t in self.trials if 1 / (NEAR * slack) <= t.lr / self.best.lr <= NEAR * slack]
        values = [trial.accuracy or 0.0 for trial in close]
        return min(values), max(values)


class TuningRecord(Frozen):
    """A tuning: what was held equal, and every trial."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    suite: str
    sampler: Sampler
    factor: float
    """The range reaches from the suite's rate divided by this to the rate times this, for every method."""
    settings: Settings
    """The suite's; trials leave out only the evaluations along the way and the latencies, which train nothing."""
    digests: dict[str, str]
    """SHA-256 of weights, tokenizer and data, as in the comparison's records."""
    environment: dict[str, Any] = Field(default_factory=dict)
    methods: tuple[TunedMethod, ...]


def load(path: Path) -> TuningRecord | None:
    """Return a tuning's record, or None where there is none that can be read."""
    try:
        return TuningRecord.model_validate(read_json(path))
    except ValidationError:
        return None


def find(results: Path, suite: str) -> TuningRecord | None:
    """Return the tuning that belongs to a results folder.

    Its own, or for the suite `NAME-tuned` that a tuning wrote, that of NAME beside it; else the one a packaged suite
    comes with.
    """
    original = suite.removesuffix("-tuned")
    places = (
        results / FOLDER / RECORD,
        results.parent / original / FOLDER / RECORD,
        packaged("tuning_records", "benchmarks/tuning") / f"{original}.json",
    )
    found = (load(path) for path in places)
    return next((record for record in found if record is not None and record.suite == original), None)
