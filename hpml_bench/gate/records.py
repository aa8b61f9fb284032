"""Records of the gate, which are JSON; fields of the first trials are read too: `tainted`,
`put_in`, `receipt`.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from hpml_bench.suite.base import Frozen

SCHEMA_VERSION = 2  # schema of a report. Version 1 has `tainted` for `disturbed`.
PROTOCOL = 1
"""Protocol of residents: counted up when requests or answers change. Versions that differ in it
can't be compared. A self-test's own request (`delay`) never goes to another version.
"""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FOUR = Field(min_length=4, max_length=4)
Mode = Literal["revision", "environment", "baseline", "self-test"]
Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE"]


class Rules(Frozen):
    """The decision rule, fixed before anything is measured."""

    null: float = Field(
        default=0.01, ge=0
    )  # slowdown that is let through: FAIL needs the lower bound above it
    target: float = Field(
        default=0.03, gt=0
    )  # slowdown that must not pass: PASS needs the upper bound below it
    alpha: float = Field(
        default=0.01, gt=0, lt=1
    )  # family-wise false-alarm rate over methods and looks
    beta: float = Field(default=0.05, gt=0, lt=1)  # chance to miss the target slowdown
    looks: tuple[int, ...] = (12, 16, 24)  # numbers of process pairs after which verdicts are tried

    @model_validator(mode="after")
    def _can_decide(self) -> "Rules":
        if self.null >= self.target:
            raise ValueError(
                f"the slowdown let through ({self.null:.2%}) must be below the target "
                f"({self.target:.2%})"
            )
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 1:
            raise ValueError(f"looks must be rising numbers of pairs, not {self.looks}")
        return self


class Side(Frozen):
    """One of the two compared versions."""

    label: (
        str  # name that the user gave: a git ref, `working tree`, an interpreter, a baseline's file
    )
    revision: str | None = None  # commit, where there is one
    dirty: bool = False  # whether there were uncommitted changes
    python: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Block(Frozen):
    """Four timed pieces of training by one process pair, in the order run; A is the reference, B
    the candidate.

    Several blocks make a round, over which `steal`, `load` and `disturbed` are known.
    """

    pair: int
    method: str
    order: Literal["ABBA", "BAAB"]
    steps: int  # optimizer steps in each piece
    seconds: Annotated[tuple[Seconds, ...], FOUR]  # wall time of each piece, less `waited`
    waited: Annotated[tuple[float, ...], FOUR] = (0.0, 0.0, 0.0, 0.0)
    """Seconds in which the piece could have run but other processes had its core, by the
    kernel's count.
    """
    steal: float  # share of the machine's CPU time that the host took away meanwhile
    load: float  # average number of other runnable processes meanwhile
    disturbed: str | None = Field(
        default=None, validation_alias=AliasChoices("disturbed", "tainted")
    )
    """Why this block doesn't count and was repeated; judged from steal, load and throttling,
    never from `seconds`.
    """


class TimedRun(Frozen):
    """One run by itself, in a process of its own, for a stored baseline or against one."""

    seconds: dict[str, tuple[Seconds, ...]]
    """Method -> time of each piece of training, less the time in which others had the core."""
    steps: dict[str, int]  # method -> optimizer steps in each piece
    calibration: tuple[
        dict[str, Seconds], ...
    ]  # seconds of each kind of reference work, before, within and after
    steal: float
    load: float
    disturbed: str | None = Field(
        default=None, validation_alias=AliasChoices("disturbed", "tainted")
    )
    """Why this run doesn't count; judged as a block's is."""


class MethodCount(Frozen):
    """A quantity without noise, counted on both sides."""

    method: str
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    unit: str
    reference: Finite
    candidate: Finite
    tolerance: float = 0.0  # relative increase that is allowed
    grew: tuple[
        str, ...
    ] = ()  # parts that grew, by name, where they are known: operators, parameters, buckets

    @property
    def change(self) -> float | None:
        if self.candidate == self.reference:
            return 0.0
        return self.candidate / self.reference - 1 if self.reference else None


class Verdict(Frozen):
    """Verdict on one metric of one method."""

    method: str
    metric: str  # `step_time`, or a count's name
    status: Status
    estimate: float | None = None  # relative change of the candidate: +0.03 is 3 % more
    lower: float | None = None
    upper: float | None = None
    p: float | None = None  # p of the test against the null slowdown, Holm-adjusted over methods
    mde: float | None = (
        None  # smallest slowdown that this many pairs would have found with the stated power
    )
    pairs: int = 0
    detail: str  # one sentence


class CheckReport(Frozen):
    """Everything a check measured and concluded."""

    schema_version: int = SCHEMA_VERSION
    mode: Mode
    suite: str
    methods: tuple[str, ...]
    rules: Rules
    reference: Side
    candidate: Side
    environment: dict[str, Any] = Field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    runs: tuple[TimedRun, ...] = ()  # against a baseline: the runs made now
    reference_runs: tuple[TimedRun, ...] = ()  # against a baseline: the stored ones
    counts: tuple[MethodCount, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    pairs: int = 0
    notes: tuple[str, ...] = ()
    started: str  # UTC, ISO 8601
    seconds: float


class CheckTrial(Frozen):
    """One trial of the gate itself, in a file of its own."""

    session: str = ""  # session, one for each folder of trials; numbers begin anew in each
    number: int
    # slowdown to inject into the candidate's steps, as a share of their time; 0: an A/A trial
    slowdown: float
    planned: int = 0  # A/A trials requested by the call that made it; 0: not recorded
    injected: dict[str, float] = Field(
        default_factory=dict, validation_alias=AliasChoices("injected", "put_in")
    )
    """Method -> slowdown really injected: the delay's seconds over a step of the other side."""
    report: CheckReport = Field(validation_alias=AliasChoices("report", "receipt"))


class TrialStarted(Frozen):
    """Line that is written before a trial starts, so that a missing trial is noticed."""

    session: str
    number: int
    slowdown: float
    started: str  # UTC, ISO 8601
