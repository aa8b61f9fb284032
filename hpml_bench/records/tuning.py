"""Record of a tuning, as plain JSON: written after every trial, read by the report without
Optuna.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hpml_bench.records.run import Metric, Status, in_words
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.suite.suite import packaged
from hpml_bench.system.files import read_model

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
    """The task's headline metric on the validation rows after the last step; empty where the run
    did not end well.
    """
    loss: float | None  # mean loss over the same rows, in the task's unit
    seconds: float  # wall time of the whole run, start-up included
    samples: (
        int | None
    )  # training samples consumed: the budget, equal over methods but for early ends
    parameters: (
        int | None
    )  # parameters trained at this rate: 0 for `head`, whose trials differ by their seeds alone
    run_id: str

    @property
    def ended(self) -> tuple[float, float] | None:
        return (
            None
            if self.status != "ok" or self.score is None or self.loss is None
            else (self.score, self.loss)
        )


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
        """The trial with the best score, among equals the lowest loss, then the first; None if
        none ended well.
        """
        sign = 1 if self.better == "higher" else -1
        ended = [
            (sign * result[0], -result[1], trial)
            for trial in self.trials
            if (result := trial.ended)
        ]
        return max(ended, key=lambda entry: entry[:2])[2] if ended else None

    @property
    def best_score(self) -> float | None:
        return self.best.score if self.best else None

    @property
    def chosen(self) -> float:
        """The best trial's rate; the suite's own where no trial ended well or no parameter is
        trained at it.
        """
        return self.best.lr if self.best and self.rated else self.spec.lr

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest one tried, so that a better one may lie
        beyond.
        """
        tried = sorted({trial.lr for trial in self.trials})
        return (
            self.rated
            and self.best is not None
            and len(tried) > 2
            and self.best.lr in (tried[0], tried[-1])
        )

    @property
    def seconds(self) -> float:
        return sum(trial.seconds for trial in self.trials)

    @property
    def near(self) -> tuple[float, float] | None:
        """Lowest and highest score of the trials that ended well at a rate within a factor of
        three of the best one.
        """
        if self.best is None:
            return None
        slack = 1 + 1e-9
        close = [
            t for t in self.trials if 1 / (NEAR * slack) <= t.lr / self.best.lr <= NEAR * slack
        ]
        values = [trial.ended[0] for trial in close if trial.ended]
        return min(values), max(values)


class TuningRecord(Frozen):
    """A tuning: its fixed settings, and every trial."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    suite: str
    sampler: Sampler
    # the range reaches from the suite's rate divided by this to the rate times this, for every
    # method
    factor: float
    settings: Settings
    """The suite's settings; trials skip only intermediate evaluations and latencies, which train
    nothing.
    """
    validation_rows: int  # number of validation rows on which trials were compared
    digests: dict[
        str, str
    ]  # SHA-256 of weights, tokenizer and data, as in the comparison's records
    environment: dict[str, Any] = Field(default_factory=dict)
    headline: Metric  # the task's metric that ranks trials, on the validation rows
    methods: tuple[TunedMethod, ...]

    def in_words(self, score: float) -> str:
        """Return a score with its title and unit: `accuracy 88.7%`."""
        shown = in_words(self.headline.title, self.headline.format, score)
        return f"{shown} {self.headline.unit}".strip()


def find(results: Path, suite: str) -> TuningRecord | None:
    """Return a folder's tuning record: its own, for a suite `NAME-tuned` that of NAME beside it,
    or a packaged one.
    """
    original = suite.removesuffix("-tuned")
    places = (
        results / FOLDER / RECORD,
        results.parent / original / FOLDER / RECORD,
        packaged("tuning_records", "benchmarks/tuning") / f"{original}.json",
    )
    found = (read_model(path, TuningRecord) for path in places)
    return next(
        (record for record in found if record is not None and record.suite == original), None
    )
