"""The numbers of an answer: methods with their score and costs, pairs with verdicts, set-up;
content of report.json.

Numbers are in the units that the page shows (per cent, seconds, megabytes), as the fields `unit`
say. Differences are of the first method less the second, of costs the factor first / second.
"""

import math
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from hpml_bench.records.numbers import beside, in_bytes, number, resolving, with_unit
from hpml_bench.suite.base import Frozen, Growing, Line

VERSION: Final = 1
"""Version of report.json; a field that is added keeps it, one that is removed or changes its
meaning does not.
"""
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
"""Name of a cost in addresses and classes: `time`, `memory` and `size` of suites, others of
other inputs.
"""
Relation = Literal["better", "worse", "equal", "open", "untested"]


def Short(key: str, default: Any = ...) -> Any:  # noqa: N802 - a field, as pydantic's Field
    """Return a field that is short in report.json, which repeats it by the thousand."""
    return Field(default, validation_alias=AliasChoices(key), serialization_alias=key)


class _Short(Frozen):
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)


class Values(_Short):
    """A method's values of one metric."""

    mean: float = Short("m")
    """Mean over the seeds that all methods share, else over the method's own."""
    low: float | None = Short("lo", None)
    high: float | None = Short("hi", None)
    """Ends of the mean's own 95 % interval; none under two seeds."""
    runs: tuple[float, ...] = ()
    """Value of each seed that the mean is over, by seed."""


class Method(_Short):
    """A method's place among the others, and its values."""

    name: Line
    kind: Line
    base: bool = False
    """Whether it trains nothing: the base model as it is."""
    rank_range: tuple[int, int] | None = Short("place", None)
    """Ranks by score that the verdicts leave possible, from 1; none without a test."""
    front: Literal["on", "off", "undecided"] | None = None
    """Place on the Pareto front over score and costs."""
    dominated_by: tuple[Line, ...] = Short("by", ())
    """Methods that are shown to be better in one of these and better or equal in the others."""
    seeds: int
    """Seeds with a compared run."""
    settings: tuple[tuple[Line, Line], ...] = ()
    """Title and value of what a suite sets for it: kind, learning rate, options."""
    values: dict[str, Values] = Short("v")
    """Values of `score`, and of the costs by their axes' id."""


class Pair(_Short):
    """The comparison of two methods on one metric, over the seeds both have."""

    a: Line
    b: Line
    verdict: Literal["different", "equivalent", "undecided", "untested"] = Short("v")
    winner: Line | None = Short("w")
    """The method that is shown to be better."""
    difference: float = Short("d")
    """Mean difference a - b; of costs the factor a / b."""
    ci_low: float | None = Short("lo", None)
    ci_high: float | None = Short("hi", None)
    """Ends of its 95 % interval, the widest where several tests decide; no page shows it."""
    decided_low: float | None = Short("wlo", None)
    decided_high: float | None = Short("whi", None)
    """Interval at the adjusted level of this pair; excludes 0 (a factor: 1) exactly when the
    verdict is `different`.
    """
    p: float | None = None
    p_adjusted: float | None = Short("ph", None)
    """p adjusted over the page; below 0.05 is a verdict."""
    need: int | None = None
    """Seeds, fixed before, that would decide with a chance of 80 % if the difference is as
    measured; none if over 10,000 or unknown.
    """
    shared: int = Short("n")
    """Seeds, or rows, that both have."""
    within_margin: bool = Short("small", False)
    """Whether it is shown to be both different and within the margin."""
    uncertain: bool = Short("skew", False)
    """Whether the noise looks skewed, where tests claim too much."""
    p_margin: float | None = None
    p_margin_adjusted: float | None = None
    """p of a difference as large as the margin or larger, alone and adjusted over the page."""
    detectable: float | None = Short("found", None)
    """Least true difference that so many seeds find with a chance of 80 %; of costs in per cent."""

    def resolving(self, digits: int) -> int:
        """Return `digits`, or decimals by which the difference and its interval don't print as
        0.
        """
        return resolving(self.difference, self.decided_low, self.decided_high, digits)

    def seen_from(
        self, name: str, *, ratio: bool = False
    ) -> tuple[float, float | None, float | None]:
        """Return difference (or factor) of `name` against the other, and its interval at its
        test's level.
        """
        low, high, d = self.decided_low, self.decided_high, self.difference
        if self.a == name:
            return d, low, high
        low, high = (None if end is None else 1 / end if ratio else -end for end in (high, low))
        return 1 / d if ratio else -d, low, high


OF_RACES = frozenset({"rounds", "ended", "most_runs"})
"""Fields that answers of other sweeps are written without."""
WHERE_THERE = frozenset({"declared_looks", "checkpoints", "checkpoints_judged", "changed"})
"""Fields that answers without them are written without."""


class CheckpointPair(Frozen):
    """Two methods' checkpoints compared on other test rows: a claim on these trained models, not
    on the methods.
    """

    a: Line
    b: Line
    winner: Line | None
    """The method whose checkpoints are shown to score better; none where that is open."""
    difference: float
    """Mean difference a - b."""
    low: float | None
    high: float | None
    """Interval at the adjusted level of this pair; excludes 0 exactly where there is a winner."""
    p: float
    p_adjusted: float
    uncertain: bool = False
    """Whether few rows carry a difference that is shown, of a score whose range isn't known."""


class RoundOf(Frozen):
    """A declared look of a sweep that ends when it is decided."""

    seeds: int
    """Seeds of each method that was in the race."""
    methods: tuple[Line, ...]
    """Those in the race."""
    left: dict[Line, Line]
    """Method that left -> the one that is shown to beat it."""


class Score(Frozen):
    """The score by which methods are compared."""

    id: Line
    title: Line
    unit: Line
    better: Literal["higher", "lower"]
    digits: int = Field(ge=0)
    """Decimals of a score."""
    difference_unit: Line
    margin: float
    """Difference that counts as none."""

    def text(self, value: float, *, unit: bool = True) -> str:
        return with_unit(number(value, f".{self.digits}f"), self.unit if unit else "")


class Axis(Frozen):
    """A cost: a column of the table, an axis of the picture, a limit of the chooser."""

    key: Key
    id: Line
    title: Line
    unit: Line
    tested: Line | None
    """Metric whose verdicts rank the methods; none where the cost is exact or ranks nothing."""
    exact: bool = False
    """Whether the cost is the same in every run, so that any difference is real."""
    margin: float | None = None
    """Share that counts as no difference; none where none was declared."""

    @property
    def own_units(self) -> bool:
        """Whether each value is shown in a unit of its own: sizes of files, which span powers of
        ten.
        """
        return self.key == "size" and self.unit == "MB"

    def text(self, value: float, *, unit: bool = True, mean: float | None = None) -> str:
        """Return a cost in three digits, or in the decimals of its mean; sizes always with a
        unit.
        """
        if self.own_units:
            return in_bytes(1e6 * value)
        return with_unit(beside(value, value if mean is None else mean), self.unit if unit else "")


class Setup(Growing):
    """Circumstances of the runs, in a few words each."""

    later = ("lent",)

    budget: Line
    device: Line = ""
    host: Line = ""
    rates: Line = ""
    memory: Line = ""
    lent: Line | None = None
    """Earlier suites whose variance over seeds counts; left out where none does."""


class Guess(Growing):
    """An answer that needs no model."""

    later = ("score",)

    text: Line
    value: float | None
    below: tuple[Line, ...]
    """Methods that are not shown to score better."""
    score: float | None = None
    """Its score on the test rows, where no method is shown to score better; left out else."""


class Failure(Frozen):
    """A run that did not end well."""

    method: Line
    seed: int
    status: Line


class PageSummary(Frozen):
    """Everything that the first screen says; the methods by score, best mean first."""

    v: Literal[1] = VERSION
    suite: Line
    description: Line
    model: Line
    data: Line
    rows: int
    rows_text: Line
    """Number of test rows, and of their groups if they have some, in words."""
    seeds: int
    shared: int | None
    """Seeds that all methods share, where methods lack some; 0 if under three, so that each mean
    is over its own.
    """
    runs: int
    """Compared runs."""
    planned: int
    """Runs of the suite that were tried."""
    tested: int
    """Pairs tested on this page."""
    judged: Line
    """What differs between seeds and between rows: scope of the verdicts on the score."""
    chance: float
    """Most per cent of such pages with a wrong verdict."""
    setup: Setup
    score: Score
    axes: tuple[Axis, ...]
    methods: tuple[Method, ...]
    pairs: dict[str, tuple[Pair, ...]]
    """Pairs by `score` and by the metrics that axes name as tested."""
    under: dict[Line, int]
    """Runs per method that were still improving when their budget ended."""
    guess: Guess | None
    failures: tuple[Failure, ...]
    unranked: Line | None
    """Why costs rank nothing; none where they do."""
    untried: tuple[Line, ...] = ()
    """Methods without a compared run."""
    over: Literal["seed", "suite", "data set", "row"] = "seed"
    """What is repeated: the seeds of a suite; suites, or data sets, of which each gives a method
    one rank; or the rows of a data set, so that `need` and `n` of pairs count rows.
    """
    least: int = 3
    """Seeds, suites or data sets that two methods must share for a test."""
    noun: Literal["method", "system"] = "method"
    """What is compared: fine-tuning methods, or systems whose scores were given."""
    lacking: Line = ""
    """Which systems lack how many of the rows, as a sentence; empty where none does."""
    tests: Line = ""
    """How pairs of scores are tested, as sentences."""
    declared_looks: int = 0
    """Looks that were declared before the first one, which have equal shares of `chance`; 0
    where none were.
    """
    checkpoints: tuple[CheckpointPair, ...] = ()
    """Pairs by score for these checkpoints on other test rows, where few seeds show more of them
    than of methods.
    """
    checkpoints_judged: Line = ""
    """What those pairs hold for; empty where there are none."""
    changed: Line = ""
    """Which declarations were made after the first look, as sentences; empty where none was."""
    rounds: tuple[RoundOf, ...] = ()
    """The declared looks that were taken, of methods that race."""
    ended: Line = ""
    """Why the race has ended, as a sentence without its end; empty while it goes on, and for
    other sweeps.
    """
    most_runs: int = 0
    """Runs of such a sweep were all methods to have the most seeds that were declared; 0 for
    other sweeps.
    """
    look: int = 1
    """Number, from 1, of the look at these results, each of which has its share of `chance`."""
    untested: Line | None = None
    """Why no pair of scores is tested, where it isn't for few seeds; none where pairs are."""

    @model_serializer(mode="wrap")
    def _written(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = whole(self)
        left_out = {key for key in WHERE_THERE if not written[key]} | (
            set() if self.most_runs else OF_RACES
        )
        return {key: value for key, value in written.items() if key not in left_out}

    # Lookups

    @property
    def ranks(self) -> bool:
        """Whether the score is a mean rank over suites or data sets."""
        return self.over in {"suite", "data set"}

    @cached_property
    def gap_digits(self) -> int:
        """Decimals of differences: one more than those of scores if any difference of rounded
        scores is off.

        And as many as it takes so that no difference that is shown, nor an end of its interval,
        prints as 0.
        """
        digits, pairs = self.score.digits, self.pairs.get("score", ())
        values = [
            (self.value(pair.a, "score"), self.value(pair.b, "score"), pair.difference)
            for pair in pairs
        ]
        rounded = [
            round(p, digits) - round(q, digits) - d
            for p, q, d in values
            if p is not None and q is not None
        ]
        digits += any(abs(off) > 0.05 * 10**-digits for off in rounded)
        return max(
            [digits, *(pair.resolving(digits) for pair in pairs if pair.verdict == "different")]
        )

    def gap_text(self, value: float, *, unit: bool = True, digits: int | None = None) -> str:
        """Return a difference of scores, with one digit more than scores where their roundings
        would belie it.
        """
        text, of = (
            number(value, f".{self.gap_digits if digits is None else digits}f"),
            self.score.difference_unit,
        )
        one = of == "points" and text in {"1", "1.0", "1.00"}
        return with_unit(text, ("point" if one else of) if unit else "")

    @property
    def margin_text(self) -> str:
        """The margin of equality as declared: a rounded one would claim more, or less."""
        margin, most = self.score.margin, self.gap_digits + 6
        exact = (
            digits
            for digits in range(1, most)
            if math.isclose(round(margin, digits), margin, rel_tol=1e-9)
        )
        return self.gap_text(margin, digits=next(exact, most))

    @cached_property
    def by_name(self) -> dict[str, Method]:
        return {method.name: method for method in self.methods}

    @cached_property
    def number(self) -> dict[str, int]:
        """Numbers of the methods in the table, from 1."""
        return {method.name: at for at, method in enumerate(self.methods, 1)}

    @cached_property
    def numbered(self) -> bool:
        """Whether methods are named by their numbers in the table: over seven of them, or long
        names.
        """
        return len(self.methods) > 7 or any(len(method.name) > 20 for method in self.methods)

    def axis(self, key: Key) -> Axis | None:
        return next((axis for axis in self.axes if axis.key == key), None)

    def value(self, name: str, metric: str) -> float | None:
        found = self.by_name[name].values.get(metric)
        return None if found is None else found.mean

    @cached_property
    def _pairs(self) -> dict[tuple[str, str, str], Pair]:
        of = [(metric, pair) for metric, pairs in self.pairs.items() for pair in pairs]
        return {
            (metric, *names): pair
            for metric, pair in of
            for names in ((pair.a, pair.b), (pair.b, pair.a))
        }

    def pair(self, metric: str, one: str, other: str) -> Pair | None:
        """Return a tested or untested pair on a metric, in whichever order it was compared."""
        return self._pairs.get((metric, one, other))

    def relation(self, by: str, one: str, other: str) -> Relation:
        """Return how a method stands to another by `score` or a cost's key, as the verdicts say."""
        axis = self.axis(by)
        if axis is not None and axis.exact:
            p, q = self.value(one, axis.id), self.value(other, axis.id)
            return (
                "untested"
                if p is None or q is None
                else "better"
                if p < q
                else "worse"
                if p > q
                else "equal"
            )
        pair = self.pair(
            "score" if by == "score" else (axis.tested if axis else None) or "", one, other
        )
        if pair is None or pair.verdict == "untested":
            return "untested"
        if pair.winner:
            return "better" if pair.winner == one else "worse"
        return "equal" if pair.verdict == "equivalent" else "open"

    def related(self, name: str, relation: Relation, by: str = "score") -> tuple[str, ...]:
        others = (method.name for method in self.methods if method.name != name)
        return tuple(other for other in others if self.relation(by, name, other) == relation)

    def _having(self, by: str) -> list[str]:
        """Return the methods that have a score or cost; a base model saves nothing."""
        axis = self.axis(by)
        metric = "score" if by == "score" else axis.id if axis else ""
        return [
            m.name for m in self.methods if metric in m.values and not (m.base and by == "size")
        ]

    def best(self, by: str) -> tuple[str, ...]:
        """Return the methods that were tested by a score or cost, and that none is shown to
        beat.
        """
        if by not in self._best:
            names = self._having(by)
            stands = {
                one: {self.relation(by, one, other) for other in names if other != one}
                for one in names
            }
            self._best[by] = tuple(
                name for name, to in stands.items() if to - {"untested"} and "worse" not in to
            )
        return self._best[by]

    @cached_property
    def _best(self) -> dict[str, tuple[str, ...]]:
        return {}

    def winner(self, by: str) -> str | None:
        """Return the method that is shown to be better by a score or cost than each other that
        has it; None if none.
        """
        best = self.best(by)
        rivals = [name for name in self._having(by) if name not in best]
        alone = (
            len(best) == 1
            and rivals
            and all(self.relation(by, best[0], other) == "better" for other in rivals)
        )
        return best[0] if alone else None

    @cached_property
    def top(self) -> tuple[str, ...]:
        """Methods that none is shown to beat by score, of those that were tested; best mean
        first.
        """
        return self.best("score")

    @cached_property
    def decided(self) -> bool:
        return any(pair.verdict != "untested" for pairs in self.pairs.values() for pair in pairs)

    @cached_property
    def tested_by_score(self) -> frozenset[str]:
        return frozenset(
            n for c in self.pairs.get("score", ()) if c.verdict != "untested" for n in (c.a, c.b)
        )

    def unproven(self, name: str) -> bool:
        """Return whether a method is not shown to beat guessing, or the base model where that is
        among the methods.
        """
        if self.guess and name in self.guess.below:
            return True
        bases = [method.name for method in self.methods if method.base]
        if name in bases:
            return self.winner("score") != name
        return any(self.relation("score", name, base) != "better" for base in bases)
