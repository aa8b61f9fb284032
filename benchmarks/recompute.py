"""Recomputation of every figure of a report from the records beside it; prints what disagrees.

    python benchmarks/recompute.py [-v] FOLDER [FOLDER...]

A second implementation, written from docs/methodology.md, docs/metrics.md and the files of a results folder alone. It
imports nothing of hpml_bench, so that a mistake there is not repeated here. It chooses the runs by itself, recomputes
tables, takeaways and the figures' descriptions from run.json, points.jsonl, predictions.parquet and suite.json, and
compares them with report.md: a figure agrees if it is what the recomputed value rounds to. What it has no check for is
printed too; -v adds the lines with digits that it passes over. Exit status: 0 all agree, 1 something doesn't, 2 a wrong
call. Where the methodology leaves something open, a comment here says so.
"""

from __future__ import annotations

import functools
import hashlib
import html
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Json = dict[str, Any]

HERE = Path(__file__).parent
SCORE, TIME = "test_accuracy", "train_seconds"
NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[−+-]?\d+)?"
INTERVAL = rf"\[({NUMBER}), ({NUMBER})\]"
MEAN = rf"({NUMBER})(?: ± ({NUMBER}))?"
BOLD = r"\*\*([^*]+)\*\*"
BOLDS = r"\*\*[^*]+\*\*(?:(?:, | and )\*\*[^*]+\*\*)*"
OTHER_RANKS = "on other ranks"
PHASES = ("first_step_seconds", "train_seconds", "evaluation_seconds", "inference_seconds")
COST_UNITS = {"s", "ms", "J", "MB", "samples/s", "tokens/s"}
COST_SHARES = {
    "communication_percent",
    "step_time_cv",
    "step_time_drift",
    "step_time_drift_low",
    "step_time_drift_high",
    "step_time_outliers",
    "slowest_rank_share",
}
MARKS = " †‡¶§*"


# The page, and what agrees with it


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    section: str
    caption: str
    header: list[str]
    rows: list[list[str]]


def plain(text: str) -> str:
    """Return Markdown without its escapes."""
    return re.sub(r"\\([^\w\s]|_)", r"\1", html.unescape(text).replace("\u200b", "")).strip()


def read_page(path: Path) -> tuple[list[Table], list[tuple[str, str]]]:
    """Read a report's tables, named by the bold line or the summary above them, and its other lines by section."""
    tables: list[Table] = []
    lines: list[tuple[str, str]] = []
    section, caption, within = "head", "", False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = [plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not within:
                tables.append(Table(section, caption, cells, []))
            elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                tables[-1].rows.append(cells)
        elif line.startswith("## "):
            section, caption = plain(line[3:]), ""
        elif found := re.fullmatch(r"\*\*([^*]+)\*\*|<details>\s*<summary>(.*)</summary>", line.strip()):
            caption = plain(found[1] or found[2])
        elif line.strip():
            lines.append((section, plain(line.removeprefix("- "))))
        within = line.startswith("|")
    return tables, lines


class Near(NamedTuple):
    """A number, and what drawing at random may add to it."""

    value: float
    noise: float = 0.0


Atom = str | int | float | Near | None
Cell = Atom | tuple[str, Sequence[Atom]]
"""What a cell must be, or a pattern and what its groups must be."""
Fact = tuple[str, str | None, Cell]
"""What is said of what, and what it must be."""


def number(text: str) -> tuple[float, float]:
    """Return a number as shown and one unit of its last digit."""
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").partition("e")
    power = int(exponent or 0)
    return float(mantissa) * 10.0**power, 10.0 ** (power - len(mantissa.partition(".")[2]))


def agree(shown: str | None, expected: Cell) -> bool:
    """Whether what is shown is what was recomputed."""
    if isinstance(expected, tuple) and not isinstance(expected, Near):
        found = re.fullmatch(expected[0], (shown or "").rstrip(MARKS))
        return found is not None and all(map(agree, found.groups(), expected[1]))
    if isinstance(expected, str):
        return (shown or "") == expected
    if isinstance(expected, int):
        return (shown or "").replace(",", "") == str(expected)
    value, noise = expected if isinstance(expected, Near) else (expected, 0.0)
    if value is None or not math.isfinite(value):
        return shown in {None, "", "–", "none"}
    return value == 0 if shown is None else rounds_to(shown.strip("≈%" + MARKS), value, noise)


def rounds_to(text: str, value: float, noise: float) -> bool:
    """Whether a value is what is shown, to half a unit of the last digit."""
    if text == "< 0.001":
        return 0 <= value < 0.001 + noise
    there, unit = number(text) if re.fullmatch(NUMBER, text) else (math.nan, 0.0)
    return abs(there - value) <= 0.51 * unit + 1e-9 * abs(value) + noise


def mean_cell(values: Sequence[float]) -> Cell:
    """Return "mean ± standard deviation"; without the second the values must be one, or equal."""
    if not values:
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    return MEAN, [mean, 0.0 if spread and spread <= 1e-9 * abs(mean) else spread]


def interval_cell(bounds: tuple[float, float] | None) -> Cell:
    """Return "[low, high]"."""
    return (INTERVAL, sorted(bounds)) if bounds else None


@dataclass
class Audit:
    """What was compared, what disagrees, and what could not be checked."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)

    def check(self, section: str, table: str, row: str, fact: Fact) -> None:
        """Compare what is said with what was recomputed."""
        column, shown, expected = fact
        self.checked[f"{section} | {table}"] += 1
        if not agree(shown, expected):
            value = expected[1] if isinstance(expected, tuple) and not isinstance(expected, Near) else expected
            self.problems.append(f"{section} | {table} | {row} | {column}: page {shown!r}, recomputed {value}")


# The runs


@dataclass(frozen=True, eq=False)
class Run:
    """One run as it lies on disk."""

    folder: Path
    record: Json
    points: list[Json]
    predictions: dict[str, Floats]
    """Columns by name; none where the file isn't the one that the record names."""
    spec: Json
    settings: Json
    seed: int
    protocol: str
    started: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Method, seed and protocol."""
        return json.dumps(self.spec, sort_keys=True), self.seed, self.protocol

    @property
    def environment(self) -> str:
        """What costs depend on, as one text; the fingerprint stands for the hardware."""
        kept = {name: value for name, value in self.record["environment"].items() if name != "hardware"}
        return json.dumps(kept, sort_keys=True)

    @property
    def right(self) -> Floats:
        """1 for each test row that was predicted right, else 0."""
        return np.where(self.predictions["label"] == self.predictions["prediction"], 1.0, 0.0)

    def metric(self, name: str) -> float | None:
        """Return a metric as recorded."""
        value = self.record["metrics"].get(name)
        return None if value is None else float(value)

    def series(self, name: str) -> dict[int, float]:
        """Return a series of the points, by step."""
        return {int(point["step"]): float(point["value"]) for point in self.points if point["metric"] == name}


def read_run(folder: Path) -> Run | None:
    """Read a run, if its record and the files that it names are there; predictions if they are those it names."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError:
        return None
    files = {name: folder / name for name in record.get("files", {})}
    if not all(path.exists() for path in files.values()):
        return None
    points = folder / "points.jsonl"
    lines = points.read_text(encoding="utf-8").splitlines() if points.exists() else []
    path, predictions = files.get("predictions.parquet"), {}
    if path and hashlib.sha256(path.read_bytes()).hexdigest() == record["files"][path.name]:
        frame = pd.read_parquet(path).sort_values("index", kind="stable")
        predictions = {str(name): frame[name].to_numpy(dtype=np.float64) for name in frame.columns}
    spec, protocol = record["spec"], str(record.get("protocol_id"))
    parts = (spec["method"], spec["settings"], int(spec["seed"]), protocol, str(record["started"]))
    return Run(folder, record, [json.loads(line) for line in lines], predictions, *parts)


def believed(run: Run) -> bool:
    """Whether the stored predictions hold every test row once and give the recorded scores."""
    rows = run.predictions
    if not rows or not np.array_equal(rows["index"], np.arange(run.settings["test_samples"] or len(rows["index"]))):
        return False
    f1 = []
    for label in range(len(run.record["label_names"])):
        there, said = rows["label"] == label, rows["prediction"] == label
        f1.append(2 * (there & said).sum() / max(there.sum() + said.sum(), 1))
    scores = {SCORE: run.right.mean(), "test_macro_f1": np.mean(f1), "test_loss": rows["loss"].mean()}
    recorded = {name: run.metric(name) for name in scores}
    return all(value is not None and abs(value - scores[name]) <= 1e-6 for name, value in recorded.items())


def most(values: Iterable[Any], prefer: Callable[[Any], Any]) -> Any:
    """Return the most frequent value; of equally many the one that is preferred."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], prefer(value)))


def consumed(run: Run, *names: str) -> tuple[Any, ...]:
    """Return what a run consumed."""
    return tuple(run.record["consumed"][name] for name in names)


def alike(run: Run, other: Run) -> bool:
    """Whether two runs' protocols differ in nothing but the number of ranks."""
    return run.record["digests"] == other.record["digests"] and (
        {**run.settings, "world_size": 0} == {**other.settings, "world_size": 0}
    )


def set_apart(runs: list[Run]) -> dict[Run, str]:
    """Return which runs that ended well are not compared, and why."""
    same = Counter(run.key for run in runs)
    why = {run: "records of one" for run in runs if same[run.key] > 1}
    single = [run for run in runs if run not in why]
    passed_all = [run for run in single if all(check["passed"] for check in run.record["checks"])]
    sound = [run for run in passed_all if believed(run)]
    why |= {run: "not believed" if run in passed_all else "invalid" for run in single if run not in sound}
    for protocol in {run.protocol for run in sound}:
        group = [run for run in sound if run.protocol == protocol]
        labels = most((run.predictions["label"].tobytes() for run in group), len)
        why |= {run: "not believed" for run in group if run.predictions["label"].tobytes() != labels}

    def left() -> list[Run]:
        return sorted((run for run in runs if run not in why), key=lambda run: run.started)

    newest = {run.protocol: run.started for run in left()}
    if left():
        # Of equally many the newest: the methodology doesn't say.
        chosen = most((run.protocol for run in left()), lambda protocol: newest[protocol])
        here = next(run for run in left() if run.protocol == chosen)
        others = [run for run in left() if run.protocol != chosen]
        why |= {run: OTHER_RANKS if alike(run, here) else "another protocol" for run in others}
    why |= {run: "not recorded" for run in left() if run.record["consumed"] is None}
    if left():
        budget = most((consumed(run, "steps", "samples") for run in left()), lambda value: value)
        why |= {run: "consumed other" for run in left() if consumed(run, "steps", "samples") != budget}
    names = ("real_tokens", "padded_tokens", "order")
    for seed in {run.seed for run in left()}:
        group = [run for run in left() if run.seed == seed]
        # Of equally many the fewest tokens: the methodology doesn't say.
        usual = most((consumed(run, *names) for run in group), lambda value: (-value[0], -value[1]))
        why |= {run: "consumed other" for run in group if consumed(run, *names) != usual}
    return why


# Statistics


def mean_interval(values: Sequence[float], grid: float) -> tuple[float, float] | None:
    """Return a 95 % interval of the mean of values on a grid."""
    if len(values) < 2:
        return None
    error = math.sqrt((float(np.var(values, ddof=1)) + grid**2 / 12) / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return float(np.mean(values)) - half, float(np.mean(values)) + half


@dataclass(frozen=True)
class Squares:
    """Mean squares of a table of n seeds x m rows, in the two-way random-effects analysis of variance."""

    seeds: float
    rows: float
    interaction: float
    n: int
    m: int

    def at(self, n: int) -> Squares:
        """Return what is expected of them at another number of seeds."""
        rows = self.rows + (n - self.n) * max(0.0, self.rows - self.interaction) / self.n
        return Squares(self.seeds, rows, self.interaction, n, self.m)

    def error(self) -> tuple[float, float]:
        """Return the standard error of the mean and its degrees of freedom."""
        n, m = self.n, self.m
        largest = max(self.seeds + self.rows - self.interaction, self.seeds, self.rows)
        variance = max(largest / (n * m), 1 / m**2)
        parts = ((self.seeds, n - 1), (self.rows, m - 1), (self.interaction, (n - 1) * (m - 1)))
        spread = sum((square / (n * m)) ** 2 / df for square, df in parts)
        return math.sqrt(variance), max(variance**2 / spread, n - 1) if spread else float(n - 1)


def tail(distance: float, error: float, df: float) -> float:
    """Return the one-sided p of a distance."""
    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stats.t.sf(distance / error, df))


def below(bound: float, df: float, centre: float) -> float:
    """Return F(bound) of the noncentral t; far out, where scipy has no value, of the normal approximation."""
    value = float(stats.nct.cdf(bound, df, centre)) if centre < 1000 else math.nan
    return value if math.isfinite(value) else float(stats.norm.cdf((bound - centre) / math.sqrt(1 + bound**2 / 2 / df)))


def power(centre: float, df: float, alpha: float) -> float:
    """Return the chance that a t with its centre there exceeds the one-sided critical value."""
    return 1 - below(float(stats.t.ppf(1 - alpha, df)), df, centre)


@functools.cache
def shift(critical: float, df: float) -> float:
    """Return the centre of the noncentral t that is below a critical value with a chance of 20 %."""
    high = critical + 2.0
    while below(critical, df, high) > 0.2:
        high *= 1.5
    return float(optimize.brentq(lambda centre: below(critical, df, float(centre)) - 0.2, 0.0, high, xtol=1e-10))


@dataclass(frozen=True)
class Comparison:
    """A mean over n seeds, and for a score over test rows too: what a verdict is made of."""

    mean: float
    variance: float
    """Of the seeds' values, that of the grid included."""
    n: int
    squares: Squares | None = None

    def errors(self, n: int) -> list[tuple[float, float]]:
        """Return standard error and degrees of freedom of each test at a number of seeds."""
        return [(math.sqrt(self.variance / n), n - 1.0), *([self.squares.at(n).error()] if self.squares else [])]

    def p(self, distance: float) -> float:
        """Return the one-sided p of a distance, the larger of the tests'."""
        return max(tail(distance, error, df) for error, df in self.errors(self.n))

    @property
    def p_different(self) -> float:
        """The two-sided p of no difference."""
        return min(1.0, 2 * self.p(abs(self.mean)))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, the widest of the tests'."""
        if self.n < 2 or self.variance == 0:
            return None
        half = max(float(stats.t.ppf(0.975, df)) * error for error, df in self.errors(self.n))
        return self.mean - half, self.mean + half

    def least(self, pairs: int) -> float:
        """Return the least true difference found with a chance of 80 % at Holm's first step."""
        critical = [(error, float(stats.t.ppf(1 - 0.02 / pairs, df)), df) for error, df in self.errors(self.n)]
        return max(error * shift(bound, df) for error, bound, df in critical)

    def decided(self, n: int, pairs: int, margin: float) -> bool:
        """Whether n seeds would tell, were the difference as measured."""
        errors, near = self.errors(n), margin - abs(self.mean)
        different = all(power(abs(self.mean) / error, df, 0.02 / pairs) >= 0.8 for error, df in errors)
        return different or (near > 0 and all(power(near / error, df, 0.01 / pairs) >= 0.9 for error, df in errors))

    def seeds_to_decide(self, pairs: int, margin: float) -> int | None:
        """Return the least number of seeds that decide, if any does."""
        if not self.decided(10**7, pairs, margin):
            return None
        low, high = 2, 3
        while not self.decided(high, pairs, margin):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.decided(middle, pairs, margin) else (middle, high)
        return high


def compare_rows(table: Floats) -> Comparison:
    """Return the comparison of a table of n seeds x m rows."""
    n, m = table.shape
    seeds, rows, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    if n < 2:
        return Comparison(mean, math.nan, n)
    rest = table - seeds[:, None] - rows[None, :] + mean
    squares = Squares(
        m * float(((seeds - mean) ** 2).sum()) / (n - 1),
        n * float(((rows - mean) ** 2).sum()) / (m - 1),
        float((rest**2).sum()) / ((n - 1) * (m - 1)),
        n,
        m,
    )
    return Comparison(mean, float(seeds.var(ddof=1)) + 1 / m**2 / 12, n, squares)


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p."""
    adjusted, least = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = least
    return adjusted


def sign_flips(d: Floats) -> Near:
    """Return the share of patterns of signs whose absolute sum is as large."""
    n, bound = len(d), abs(float(d.sum())) - 1e-9
    if n <= 16:
        return Near(float(np.mean(np.abs(np.array(list(itertools.product((-1.0, 1.0), repeat=n))) @ d) >= bound)))
    share = float(np.mean(np.abs(np.random.default_rng(0).choice((-1.0, 1.0), size=(20_000, n)) @ d) >= bound))
    return Near(max(share, 2.0 ** (1 - n)), 6 * math.sqrt(share * (1 - share) / 20_000) + 1e-4)


@dataclass
class Pair:
    """Two methods compared by one metric."""

    metric: str
    first: str
    second: str
    differences: Floats
    comparison: Comparison
    erratic: bool
    p: float = math.nan
    p_holm: float = math.nan
    p_margin: float = math.nan
    p_margin_holm: float = math.nan

    @property
    def n(self) -> int:
        """The number of shared seeds."""
        return len(self.differences)

    @property
    def better(self) -> str | None:
        """The method that is shown to be better."""
        ahead = self.comparison.mean > 0 if self.metric == SCORE else self.comparison.mean < 0
        return (self.first if ahead else self.second) if self.p_holm < 0.05 else None

    @property
    def equivalent(self) -> bool:
        """Whether a difference of the margin or more is rejected."""
        return self.p_margin_holm < 0.05

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.n < 3:
            return "not tested"
        if self.better:
            return f"{self.better} is better" + (", within the margin" if self.equivalent else "")
        return "equivalent" if self.equivalent else "undecided"


# What follows from the compared runs


@dataclass(eq=False)
class Study:
    """The runs of a folder, which of them are compared, and the verdicts."""

    folder: Path
    suite: Json
    runs: list[Run]
    unreadable: int
    apart: dict[Run, str]
    compared: list[Run]
    home: list[Run]
    """Those of the compared runs that costs are of."""
    methods: dict[str, list[Run]]
    definitions: dict[str, Json]
    memory: str
    pairs: dict[tuple[str, str, str], Pair] = field(default_factory=dict)

    @property
    def tested(self) -> int:
        """The number of pairs in the family."""
        return sum(pair.n >= 3 for pair in self.pairs.values())

    @property
    def metrics(self) -> tuple[str, str, str]:
        """The three metrics that are compared."""
        return SCORE, TIME, self.memory

    def margin(self, metric: str) -> float:
        """Return the margin of a metric."""
        margins: dict[str, float] = {"quality": 0.01, "cost": 0.05} | self.suite.get("margin", {})
        return margins["quality" if metric == SCORE else "cost"]

    def grid(self, metric: str) -> float:
        """Return the distance of the values that can be measured, where it is known."""
        return 1 / len(self.compared[0].right) if metric == SCORE else self.definitions[metric].get("grid") or 0.0

    def is_cost(self, metric: str) -> bool:
        """Return whether a metric depends on where a run ran."""
        return self.definitions[metric]["unit"] in COST_UNITS or metric in COST_SHARES

    def by_seed(self, metric: str) -> dict[str, dict[int, float]]:
        """Return a metric's values by method and seed; those of a cost are of one machine."""
        kept = set(self.home if self.is_cost(metric) else self.compared)
        return {
            name: {run.seed: value for run in runs if run in kept and (value := run.metric(metric)) is not None}
            for name, runs in self.methods.items()
        }

    def shared(self, metric: str) -> list[int]:
        """Return the seeds that all methods have that a metric was measured of."""
        seeds = [set(values) for values in self.by_seed(metric).values() if values]
        return sorted(set.intersection(*seeds)) if seeds else []

    def values(self, metric: str) -> dict[str, list[float]]:
        """Return the values that means are over: of the seeds that all methods have, if there are three or more."""
        shared = self.shared(metric)
        return {
            name: [values[seed] for seed in sorted(values) if len(shared) < 3 or seed in shared]
            for name, values in self.by_seed(metric).items()
        }

    def mean(self, metric: str, name: str) -> float:
        """Return a method's mean."""
        values = self.values(metric)[name]
        return float(np.mean(values)) if values else math.nan

    def measured(self, metric: str) -> list[str]:
        """Return the methods that a metric was measured of."""
        return [name for name, values in self.by_seed(metric).items() if values]

    def pair(self, metric: str, one: str, other: str) -> Pair:
        """Return a pair, in whichever order it is kept."""
        return self.pairs.get((metric, one, other)) or self.pairs[metric, other, one]

    def better(self, metric: str, one: str, other: str) -> bool:
        """Whether one method is shown to be better than another."""
        return self.pair(metric, one, other).better == one

    def rank(self, metric: str, name: str) -> str:
        """Return a method's rank."""
        measured = self.measured(metric)
        others = [other for other in measured if other != name]
        first = 1 + sum(self.better(metric, other, name) for other in others)
        last = len(measured) - sum(self.better(metric, name, other) for other in others)
        return "–" if name not in measured else str(first) if first == last else f"{first}–{last}"

    def place(self, name: str, metrics: Sequence[str]) -> tuple[str, list[str]]:
        """Return a method's place towards the Pareto front, and the methods that dominate it."""
        there = [other for other in self.methods if all(other in self.measured(metric) for metric in metrics)]
        others = [other for other in there if other != name]
        if name not in there:
            return "–", []

        def no_worse(metric: str, other: str) -> bool:
            pair = self.pair(metric, other, name)
            return pair.better == other or (pair.equivalent and pair.better is None)

        above = [
            other
            for other in others
            if any(self.better(m, other, name) for m in metrics) and all(no_worse(m, other) for m in metrics)
        ]
        ahead = all(any(self.better(metric, name, other) for metric in metrics) for other in others)
        return "off" if above else "on" if ahead and others else "undecided", above

    def named(self, text: str) -> list[str]:
        """Return the methods that a text names."""
        known = {*self.methods, *read_trials(self), *(str(run.spec["name"]) for run in self.runs)}
        pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        return re.findall(rf"(?<![\w.:+-])(?:{pattern})(?![\w:+-])", text)

    @functools.cache  # noqa: B019 - a study lives as long as the program
    def adjusted(self, what: str) -> dict[str, float]:
        """Return Holm's p of the families that stand apart from the page's, by pair or method."""
        ps: dict[str, float] = {}
        if what == "these rows":
            tested = [pair for pair in self.pairs.values() if pair.metric == SCORE and pair.n >= 3]
            ps = {f"{pair.first} − {pair.second}": over_seeds(pair).p_different for pair in tested}
        elif what == "one seed":
            both = map(" against ".join, itertools.combinations(self.methods, 2))
            ps = {name: mcnemar(self, name)[2] for name in both}
        else:
            guess = (self.compared[0].predictions["label"] == guessed(self)[0]).astype(np.float64)
            tables = {name: np.array([run.right - guess for run in runs]) for name, runs in self.methods.items()}
            made = {name: compare_rows(table) for name, table in tables.items() if len(table) >= 3}
            ps = {name: comparison.p(comparison.mean) for name, comparison in made.items()}
        return dict(zip(ps, holm(list(ps.values())), strict=True))


def read_study(folder: Path) -> Study:
    """Read a results folder, choose its runs and test all pairs."""
    read = [read_run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    runs = sorted((run for run in read if run), key=lambda run: run.started)
    ended = [run for run in runs if run.record["status"] == "ok"]
    apart = set_apart(ended)
    compared = [run for run in ended if run not in apart]
    newest = {run.environment: run.started for run in compared}
    chosen = most((run.environment for run in compared), newest.__getitem__) if compared else ""
    home = [run for run in compared if run.environment == chosen]
    suite = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    over = "peak_memory_over_setup_mb"
    on_cpu = bool(home) and not home[0].record["environment"]["hardware"]["gpus"]
    # Where no run has it, the whole peak: the methodology doesn't say.
    memory = over if on_cpu and any(run.metric(over) is not None for run in home) else "peak_memory_mb"
    definitions = {item["name"]: item for run in compared for item in run.record["definitions"]}
    methods = by_method(compared, list(suite["methods"]))
    study = Study(folder, suite, runs, read.count(None), apart, compared, home, methods, definitions, memory)
    compare_all(study)
    return study


def by_method(runs: list[Run], order: list[str]) -> dict[str, list[Run]]:
    """Return runs by method, in the suite's order; methods of one name are told apart by what differs."""
    found: dict[str, list[Run]] = {}
    specs = {run.key[0]: run.spec for run in sorted(runs, key=lambda run: run.spec["lr"])}
    items = {key: {"lr": spec["lr"], **dict(sorted(spec["options"].items()))} for key, spec in specs.items()}
    for wanted in [*order, *sorted({spec["name"] for spec in specs.values()} - set(order))]:
        alike = [key for key, spec in specs.items() if spec["name"] == wanted]
        for key in alike:
            differing = [f"{k}={v}" for k, v in items[key].items() if any(items[a].get(k) != v for a in alike)]
            name = wanted + (f" ({', '.join(differing)})" if differing else "")
            found[name] = sorted((run for run in runs if run.key[0] == key), key=lambda run: run.seed)
    return found


def compare_all(study: Study) -> None:
    """Test all pairs of methods on the three metrics, as one family."""
    for metric, (first, second) in itertools.product(study.metrics, itertools.combinations(study.methods, 2)):
        found = study.by_seed(metric)
        seeds = sorted(set(found[first]) & set(found[second]))
        values = [np.array([found[name][seed] for seed in seeds]) for name in (first, second)]
        if not seeds:
            made, d = Comparison(math.nan, math.nan, 0), np.array([])
        elif metric == SCORE:
            one, other = ([run.right for run in study.methods[m] if run.seed in seeds] for m in (first, second))
            made, d = compare_rows(np.array(one) - np.array(other)), values[0] - values[1]
        else:
            d = np.log(values[0]) - np.log(values[1])
            grid = study.grid(metric) / min(map(np.min, values))
            variance = float(d.var(ddof=1)) + grid**2 / 12 if len(seeds) > 1 else math.nan
            made, values = Comparison(float(d.mean()), variance, len(seeds)), [np.log(x) for x in values]
        study.pairs[metric, first, second] = Pair(metric, first, second, d, made, erratic(d, values))
    tested = [pair for pair in study.pairs.values() if pair.n >= 3]
    for pair in tested:
        pair.p = pair.comparison.p_different
        if pair.comparison.variance > 0:
            pair.p_margin = pair.comparison.p(log_margin(study, pair.metric) - abs(pair.comparison.mean))
    for pair, p in zip(tested, holm([pair.p for pair in tested]), strict=True):
        pair.p_holm = min(1.0, p / 0.8)
    spread = [pair for pair in tested if pair.comparison.variance > 0]
    for pair, p in zip(spread, holm([pair.p_margin for pair in spread]), strict=True):
        pair.p_margin_holm = min(1.0, p / 0.2)


def log_margin(study: Study, metric: str) -> float:
    """Return the margin in the terms of the comparison."""
    return study.margin(metric) if metric == SCORE else math.log1p(study.margin(metric))


def erratic(d: Floats, values: list[Floats]) -> bool:
    """Whether the seeds look like skewed noise of unequal spread."""
    if len(d) < 3 or np.ptp(d) == 0:
        return False
    low, high = sorted(float(np.std(x, ddof=1)) for x in values)
    return high >= 3 * low and abs(float(stats.skew(d))) > 1


def over_seeds(pair: Pair) -> Comparison:
    """Return the comparison of a score over seeds alone, on these very test rows."""
    return Comparison(pair.comparison.mean, pair.comparison.variance, pair.n)


def mcnemar(study: Study, name: str) -> tuple[int, int, float]:
    """Return how many rows only the first, and only the second, of two models gets right, and McNemar's exact p."""
    first, second = (study.methods[part][0].right for part in name.split(" against "))
    one, other = int((first > second).sum()), int((second > first).sum())
    return one, other, min(1.0, 2 * float(stats.binom.cdf(min(one, other), one + other, 0.5)))


def guessed(study: Study) -> tuple[int, float]:
    """Return the most frequent class in the test rows, and its share."""
    counts = np.bincount(study.compared[0].predictions["label"].astype(int))
    return int(counts.argmax()), float(counts.max() / counts.sum())


# Tables: what each column of a row must be


def metric_of(study: Study, header: str) -> tuple[str, float] | None:
    """Return the metric that a column is of, and what its values are multiplied by there."""
    title, _, unit = header.removesuffix(")").rpartition(" (") if header.endswith(")") else (header, "", "")
    for name, item in study.definitions.items():
        if item["title"].casefold() == title.casefold():
            factors = {item["unit"]: 1.0, "%": 1.0 if item["unit"] == "%" else 100.0}
            factors |= {"kB": 1e-3, "MB": 1e-6, "GB": 1e-9} if item["unit"] == "bytes" else {}
            return (name, factors[unit]) if unit in factors else None
    return None


def metric_in(study: Study, text: str) -> str:
    """Return which of the three metrics a caption or a sentence is about."""
    if re.search(r"training time|trained|time rank|rank: time", text, re.IGNORECASE):
        return TIME
    return study.memory if re.search("memory", text, re.IGNORECASE) else SCORE


def amounts(values: Iterable[int]) -> str:
    """Return a count, or the range of several."""
    low, high = min(values := list(values)), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def listed(items: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


Row = dict[str, str]
Cells = dict[str, Cell]


def means(study: Study, table: Table, row: Row) -> Cells:
    """Means and deviations of a method, with ranks and place where the table has them."""
    name = row["method"]
    place, above = study.place(name, study.metrics)
    cells: Cells = {
        "From": "this suite",
        "Seeds": len(study.methods[name]),
        "Samples trained on": amounts(run.record["consumed"]["samples"] for run in study.methods[name]),
        "Pareto front": place,
        "On the front": place,
        "Dominated by": ", ".join(above) or "–",
    }
    for header in table.header:
        if found := metric_of(study, header):
            cells[header] = mean_cell([found[1] * value for value in study.values(found[0])[name]])
        elif "rank" in header.lower():
            cells[header] = study.rank(metric_in(study, header), name)
    return cells


def with_interval(study: Study, metric: str, name: str, scale: float, rank: str = "") -> Cell:
    """Return "mean [low, high], rank"."""
    values = study.values(metric)[name]
    if not values:
        return None
    bounds = own_interval(study, metric, values) or (math.nan, math.nan)
    pattern = rf"({NUMBER}) (?:{INTERVAL}|–)(?:, rank (.+))?"
    return pattern, [scale * float(np.mean(values)), *(scale * bound for bound in bounds), rank]


def own_interval(study: Study, metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    """Return a mean's interval over seeds; that of an accuracy is cut at 0 and 100 %."""
    bounds = mean_interval(values, study.grid(metric))
    return (max(0.0, bounds[0]), min(1.0, bounds[1])) if bounds and metric == SCORE else bounds


def intervals(study: Study, table: Table, row: Row) -> Cells:
    """Means with intervals, and ranks."""
    cells: Cells = {}
    for header in table.header:
        if found := metric_of(study, header):
            ranked = found[0] in study.metrics
            rank = study.rank(found[0], row["method"]) if ranked else ""
            cells[header] = with_interval(study, found[0], row["method"], found[1], rank)
    return cells


def difference_cells(pair: Pair, first: str, made: Comparison) -> tuple[float, tuple[float, float] | None]:
    """Return a difference in points, or a factor, and its interval, as the first method's to the second's."""
    sign = 1 if pair.first == first else -1

    def shown(value: float) -> float:
        return 100 * sign * value if pair.metric == SCORE else math.exp(sign * value)

    bounds = made.interval
    return shown(made.mean), (shown(bounds[0]), shown(bounds[1])) if bounds else None


def could_have_found(study: Study, pair: Pair) -> Near:
    """Return the least difference that would have been found, in points or %, as near as a root is found."""
    if pair.n < 3 or pair.comparison.variance == 0:
        return Near(math.nan)
    least = pair.comparison.least(study.tested)
    if pair.metric == SCORE:
        return Near(100 * least if least <= 1 else math.nan)
    percent = 100 * math.expm1(min(least, 700))
    return Near(percent, 1e-5 * percent)


def deciding(study: Study, pair: Pair) -> Cell:
    """Return how many seeds would decide an undecided pair."""
    if pair.verdict != "undecided" or pair.comparison.variance == 0:
        return "–"
    needed = pair.comparison.seeds_to_decide(study.tested, log_margin(study, pair.metric))
    return "none" if needed is None else "> 10,000" if needed > 10_000 else needed


def pairs(study: Study, table: Table, row: Row) -> Cells:
    """All that is said of a pair by one metric."""
    first, second = re.split(r" [−/] ", row["Pair"])
    pair = study.pair(metric_in(study, table.caption), first, second)
    difference, interval = difference_cells(pair, first, pair.comparison)
    return {
        "Verdict": pair.verdict + (" ‡" if pair.erratic else ""),
        "Difference": difference,
        "Factor": difference,
        "95 % interval": interval_cell(interval),
        "p": pair.p,
        "p (Holm)": pair.p_holm,
        "p of the margin": pair.p_margin,
        "p of the margin (Holm)": pair.p_margin_holm,
        "Could have found": could_have_found(study, pair),
        "Seeds to decide": deciding(study, pair),
        "Seeds": pair.n,
    }


def these_rows(study: Study, _: Table, row: Row) -> Cells:
    """A pair by accuracy on these very test rows: paired t and sign flips over seeds."""
    first, second = row["Pair"].split(" − ")
    pair = study.pair(SCORE, first, second)
    made, d = over_seeds(pair), pair.differences * (1 if pair.first == first else -1)
    difference, interval = difference_cells(pair, first, made)
    adjusted = study.adjusted("these rows").get(f"{pair.first} − {pair.second}", math.nan)
    word = f"{first if difference > 0 else second} is higher" if adjusted < 0.05 else "undecided"
    return {
        "On these rows": word if pair.n >= 3 else "not tested",
        "Difference": difference,
        "95 % interval": interval_cell(interval),
        "p": made.p_different if pair.n >= 3 else None,
        "p (Holm)": adjusted,
        "Sign-flip p": sign_flips(d) if pair.n > 1 else None,
        "Least sign-flip p": 2.0 ** (1 - pair.n) if pair.n > 1 else None,
        "Seeds with first higher": float(np.mean((d > 0) + 0.5 * (d == 0))) if pair.n > 1 else None,
        "Seeds": pair.n,
    }


def beyond(study: Study, table: Table, row: Row) -> Cells:
    """Intervals over seeds beside those over seeds and rows, of a method or a pair."""
    first, _, second = row[table.header[0]].partition(" − ")
    if second:
        pair = study.pair(SCORE, first, second)
        mean, wide = difference_cells(pair, first, pair.comparison)
        narrow = difference_cells(pair, first, over_seeds(pair))[1]
        n = pair.n
    else:
        made = compare_rows(np.array([run.right for run in study.methods[first]]))
        mean, n, bounds = 100 * made.mean, made.n, made.interval
        wide = (100 * max(0.0, bounds[0]), 100 * min(1.0, bounds[1])) if bounds else None
        own = own_interval(study, SCORE, list(study.by_seed(SCORE)[first].values()))
        narrow = (100 * own[0], 100 * own[1]) if own else None
    return {
        "Seeds": n,
        "Accuracy (%) or points": mean,
        "95 % over seeds": interval_cell(narrow),
        "95 % over seeds and rows": interval_cell(wide),
    }


def one_seed(study: Study, _: Table, row: Row) -> Cells:
    """Wilson's interval of one seed's accuracy."""
    right = study.methods[row["method"]][0].right
    bounds = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    return {
        "Accuracy (%)": 100 * float(right.mean()),
        "95 % interval": interval_cell((100 * bounds.low, 100 * bounds.high)),
        "Test rows": len(right),
    }


def one_seed_pairs(study: Study, _: Table, row: Row) -> Cells:
    """McNemar's exact test of two models."""
    one, other, p = mcnemar(study, row["Pair"])
    adjusted = study.adjusted("one seed")[row["Pair"]]
    word = "these two models differ" if adjusted < 0.05 else "undecided"
    return {"Only first right": one, "Only second right": other, "p": p, "p (Holm)": adjusted, "Verdict": word}


def best_accuracies(study: Study) -> dict[str, float]:
    """Return each method's mean over the runs of the highest validation accuracy."""
    highest = {
        name: [max(series.values()) for run in runs if (series := run.series("validation_accuracy"))]
        for name, runs in study.methods.items()
    }
    return {name: float(np.mean(values)) for name, values in highest.items() if values}


def targets(study: Study) -> list[str]:
    """Return the targets: half, three and nine tenths of the way from chance to the best mean."""
    chance = 100 / len(study.compared[0].record["label_names"])
    way = 100 * max(best_accuracies(study).values(), default=math.nan) - chance
    # "Where that way is short": 20 points or less; the methodology doesn't say.
    step = 5 if way > 20 + 1e-9 else 1
    found = {int(step * ((chance + share * way + 1e-9) // step)) for share in (0.5, 0.75, 0.9)}
    return [f"{target} %" for target in sorted(found) if target > chance]


def until(study: Study, table: Table, row: Row) -> Cells:
    """Seconds of training steps, or samples, until a validation accuracy."""
    seconds = "seconds" in table.caption
    runs = [run for run in study.methods[row["method"]] if run in study.home or not seconds]
    found: Cells = dict.fromkeys(targets(study), None)
    for target in found if runs else ():
        values = []
        for run in runs:
            series = sorted(run.series("validation_accuracy").items())
            step = next((at for at, value in series if 100 * value >= number(target[:-2])[0] - 1e-9), None)
            if step is not None:
                spent = sum(value for at, value in run.series("step_seconds").items() if at <= step)
                values.append(spent if seconds else float(step * run.settings["global_batch"]))
        missing = f"never ({len(runs) - len(values)} of {len(runs)})" if len(values) < len(runs) else ""
        mean, never = mean_cell(values), r"(?:(?:, )?(never \(\d+ of \d+\)))?"
        parts: Sequence[Atom] = mean[1] if isinstance(mean, tuple) and not isinstance(mean, Near) else [None, None]
        found[target] = (rf"(?:{MEAN})?{never}", [*parts, missing])
    return found


def time_budget(study: Study, _: Table, row: Row) -> Cells:
    """Where the time of the runs went."""
    runs = (
        timed_runs(study)
        if row["method"] == "all"
        else [r for r in timed_runs(study) if r in study.methods[row["method"]]]
    )
    wall = sum(float(run.record["seconds"]) for run in runs)
    shares = [100 * sum(run.metric(name) or 0.0 for run in runs) / wall for name in PHASES]
    names = ("start (%)", "training (%)", "validation (%)", "test (%)")
    cells: Cells = dict(zip(names, shares, strict=True))
    return cells | {"runs": len(runs), "wall time (s)": wall, "rest (%)": 100 - sum(shares)}


def marks(run: Run) -> str:
    """Return what speaks against a steady state in a run."""
    low, high = run.metric("step_time_drift_low"), run.metric("step_time_drift_high")
    found = ""
    if low is not None and high is not None:
        found = "†" if low > 0.05 or high < -0.05 else ""
    return found + ("¶" if pause(run) > 0.2 else "")


def too_short(runs: list[Run]) -> tuple[float, float] | None:
    """Return the interval of a method's mean drift where it leaves too much open; NaN where a run has none."""
    known = [run for run in runs if "step_time_drift_low" in {kept["name"] for kept in run.record["definitions"]}]
    ends = [(run.metric("step_time_drift_low"), run.metric("step_time_drift_high")) for run in known]
    logs = np.array([(math.log1p(low), math.log1p(high)) for low, high in ends if low is not None and high is not None])
    if not known:
        return None
    if len(logs) < len(known):
        return math.nan, math.nan
    half = math.sqrt(float((np.diff(logs, axis=1) ** 2).sum()) / 4) / len(logs)
    low, high = math.expm1(float(logs.mean()) - half), math.expm1(float(logs.mean()) + half)
    return None if low > 0.05 or high < -0.05 or (low >= -0.1 and high <= 0.1) else (low, high)


def pause(run: Run) -> float:
    """Return the share of the time that one step took, if the variation is one step's."""
    return (run.metric("step_time_cv") or 0.0) / math.sqrt(run.metric("timed_steps") or 1)


def timed_runs(study: Study) -> list[Run]:
    """Return the runs that have all four phases."""
    return [run for run in study.home if all(run.metric(name) is not None for name in PHASES)]


def scaling(study: Study, _: Table, row: Row) -> Cells:
    """Speed-up and efficiency over numbers of ranks, over the seeds that each number has."""
    name, ranks = row["method"], int(row["ranks"])
    here = study.home[0]
    ended = [run for run in study.runs if run.record["status"] == "ok" and run.environment == here.environment]
    like = [run for run in ended if alike(run, here)]
    found: dict[int, dict[int, Run]] = {}
    for size in sorted({run.settings["world_size"] for run in like}):
        group = [run for run in like if run.settings["world_size"] == size]
        kept = by_method([run for run in group if run not in set_apart(group)], list(study.suite["methods"]))
        if name in kept:
            found[size] = {run.seed: run for run in kept[name]}
    shared = set.intersection(*map(set, found.values()))

    def mean(metric: str, size: int) -> float:
        values = [found[size][seed].metric(metric) for seed in shared]
        return float(np.mean([math.nan if value is None else value for value in values]))

    speed_up = mean("samples_per_second", ranks) / mean("samples_per_second", min(found))
    return {
        "ranks": ranks,
        "samples/s": mean("samples_per_second", ranks),
        "speed-up": speed_up,
        "efficiency (%)": 100 * speed_up / (ranks / min(found)),
        "all-reduced (bytes/step)": mean("allreduced_bytes_per_step", ranks) if ranks > 1 else None,
        "all-reduce time (ms)": mean("communication_ms", ranks) if ranks > 1 else None,
        "all-reduce share (%)": mean("communication_percent", ranks) if ranks > 1 else None,
    }


def used(study: Study, _: Table, row: Row) -> Cells:
    """What a method's runs consumed."""
    runs = study.methods[row["method"]]
    columns = {"Steps": "steps", "Samples": "samples", "Real tokens": "real_tokens", "Padded tokens": "padded_tokens"}
    cells: Cells = {header: amounts(consumed(run, name)[0] for run in runs) for header, name in columns.items()}
    return cells | {"Sample orders": " ".join(dict.fromkeys(consumed(run, "order")[0][:6] for run in runs))}


def passed(study: Study, table: Table, row: Row) -> Cells:
    """How many runs passed each self-check."""
    cells: Cells = {}
    for header in table.header[1:]:
        made = [
            c["passed"] for run in study.methods[row["method"]] for c in run.record["checks"] if c["name"] == header
        ]
        cells[header] = f"{sum(made)} of {len(made)}" if made else "–"
    return cells


def each_run(study: Study, table: Table, row: Row) -> Cells:
    """A compared run against its record."""
    name, run = next(
        (name, run) for name, runs in study.methods.items() for run in runs if run.folder.name == row["Run"]
    )
    cells: Cells = {
        "Seed": run.seed,
        "Order": run.record["order"],
        "Place": run.record.get("place"),
        "Wall time (s)": float(run.record["seconds"]) if run in study.home else None,
    }
    for header in table.header:
        if found := metric_of(study, header):
            counts = run in study.home or not study.is_cost(found[0])
            value = run.metric(found[0]) if counts else None
            cells[header] = None if value is None else found[1] * value
    return cells | {"method": name, "Run": run.folder.name}


def apart(study: Study, _: Table, row: Row) -> Cells:
    """How many runs of these methods, seeds and protocol are set apart for this kind of reason."""
    why = next((why for why in set(study.apart.values()) if why in row["Why it is not compared"]), "?")
    runs = [
        run
        for run, reason in study.apart.items()
        if run.spec["name"] in study.named(row["method"])
        and str(run.seed) in row["Seeds"].split(", ")
        and (run.protocol, reason) == (row["Protocol"], why)
    ]
    protocols: Cells = {"Protocol": runs[0].protocol if runs else "?", "Why it is not compared": (rf".*{why}.*", [])}
    return protocols | {"Seeds": ", ".join(map(str, sorted({run.seed for run in runs}))), "Runs": len(runs)}


def failed(study: Study, _: Table, row: Row) -> Cells:
    """How a run ended that did not end well."""
    log = row["Log"].partition("/")[0]
    run = next(run for run in study.runs if run.folder.name == log)
    error = run.record["error"] or {"kind": "–", "message": ""}
    reason = f"{error['kind']}: {error['message']}" if run.record["error"] else "–"
    return {
        "Seed": run.seed,
        "Status": run.record["status"],
        "Meaning": row["Meaning"],
        "Log": row["Log"],
        "Reason": (re.escape(reason) + r"(?: \(rank \d+\))?", []),
    }


def read_trials(study: Study) -> dict[str, list[Json]]:
    """Return the trials of each method: of the folder's own tuning, else of the packaged suite's."""
    own, suites = study.folder / "tuning" / "trials.json", HERE / "tuning" / f"{study.suite['name']}.json"
    path = own if own.exists() else suites
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"methods": []}
    return {entry["spec"]["name"]: entry["trials"] for entry in record["methods"]}


def best_trial(trials: list[Json]) -> Json:
    """Return the trial with the highest accuracy; of equals the lowest loss, then the first."""
    ended = [trial for trial in trials if trial["status"] == "ok"]
    return max(ended, key=lambda trial: (trial["accuracy"], -trial["loss"], -trial["number"]))


def tuned(study: Study, _: Table, row: Row) -> Cells:
    """The chosen rate against the record of the trials."""
    trials = read_trials(study)[row["method"]]
    best, ended = best_trial(trials), [trial for trial in trials if trial["status"] == "ok"]
    near = [100 * t["accuracy"] for t in ended if abs(math.log(t["lr"] / best["lr"])) <= math.log(3) + 1e-9]
    rates = sorted({float(run.spec["lr"]) for run in study.compared if run.spec["name"] == row["method"]})
    fixed = best["parameters"] == 0
    return {
        "Rate of the runs": None if fixed or not rates else (", ".join([f"({NUMBER})"] * len(rates)), rates),
        "Best rate": None if fixed else float(best["lr"]),
        "Validation accuracy (%)": 100 * best["accuracy"],
        "Within x3 of it (%)": None if fixed else (rf"({NUMBER})–({NUMBER})", [min(near), max(near)]),
        "Trials": len(trials),
        "Failed": len(trials) - len(ended),
        "Tuning (s)": float(sum(trial["seconds"] for trial in trials)),
    }


def method_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of a table of all methods."""
    return list(study.methods)


def pair_rows(study: Study, table: Table) -> list[str]:
    """Return the rows of a table of all pairs that share a seed."""
    metric = metric_in(study, table.caption)
    sign = "against" if "one seed" in table.caption else "−" if metric == SCORE else "/"
    return [f"{pair.first} {sign} {pair.second}" for pair in study.pairs.values() if pair.metric == metric and pair.n]


def timed_rows(study: Study, _: Table) -> list[str]:
    """Return the rows of the time budget."""
    return [*(name for name, runs in study.methods.items() if set(runs) & set(timed_runs(study))), "all"]


def run_rows(study: Study, _: Table) -> list[str]:
    """Return the first cells of the table of all runs."""
    return [name for name, runs in study.methods.items() for _ in runs]


def beyond_rows(study: Study, _: Table) -> list[str]:
    """Return the methods and pairs with an interval: of two seeds or more."""
    named = [name for name, runs in study.methods.items() if len(runs) > 1]
    shared = [pair for pair in study.pairs.values() if pair.metric == SCORE and pair.n > 1]
    return [*named, *(f"{pair.first} − {pair.second}" for pair in shared)]


RowCheck = Callable[[Study, Table, Row], Cells]
Rows = Callable[[Study, Table], list[str]]
TABLES: tuple[tuple[str, RowCheck, Rows | None], ...] = (
    ("Mean ± standard deviation over|One seed$|Pareto front over", means, method_rows),
    ("Training speed|The timed windows|Peak memory by phase|Inference|Parameters and", means, None),
    ("Published figures", means, None),
    ("Means with 95 % intervals", intervals, method_rows),
    ("Pairs by .*very test rows", these_rows, pair_rows),
    ("Pairs by", pairs, pair_rows),
    ("Accuracy beyond", beyond, beyond_rows),
    ("Accuracy of one seed", one_seed, method_rows),
    ("Pairs on one seed", one_seed_pairs, pair_rows),
    ("(Training seconds|Samples trained on) until", until, None),
    ("Where the time", time_budget, timed_rows),
    ("The same training on more ranks", scaling, None),
    ("What the compared runs consumed", used, method_rows),
    ("Arithmetic self-checks", passed, method_rows),
    ("All compared runs", each_run, run_rows),
    ("Runs set apart", apart, None),
    ("Runs that did not end well", failed, None),
    ("Learning rates by tuning", tuned, None),
)
MARKED = {"Throughput (samples/s)", "Timed steps"}
"""Columns in which the section on throughput marks what speaks against a steady state."""
COPIED = "Settings, ident|What the runs start|Environment of|What differs|Every metric|Published figures"
"""Tables, or rows of them, that only repeat what stands in a file, or that say how environments differ."""


def check_table(audit: Audit, table: Table, study: Study) -> None:
    """Check a table's cells by its caption, and that its rows are all there."""
    known = ((check, rows) for pattern, check, rows in TABLES if re.match(pattern, table.caption))
    check, rows = next(known, (None, None))
    if check is None or re.match(COPIED, table.caption):
        why = "repeats what stands in files" if re.match(COPIED, table.caption) else "no way to check this table"
        audit.unchecked[f"{table.section} | {table.caption}: {why}"] += 1
    if check is None:
        return
    if check is until:
        audit.check(table.section, table.caption, "header", ("targets", str(table.header[1:]), str(targets(study))))
    if found := re.match(r"Mean ± .* (\d+) seeds$", table.caption):
        seeds = len({run.seed for run in study.compared})
        audit.check(table.section, table.caption, "caption", ("seeds", found[1], seeds))
    if rows:
        there = sorted(row[0].rstrip(MARKS) for row in table.rows)
        audit.check(table.section, table.caption, "rows", ("names", str(there), str(sorted(rows(study, table)))))
    for cells in table.rows:
        row = dict(zip(table.header, [cells[0].rstrip(MARKS), *cells[1:]], strict=True))
        if row.get("From") == "document":
            continue
        try:
            expected_cells = check(study, table, row)
        except (KeyError, StopIteration, ValueError) as error:
            audit.check(table.section, table.caption, cells[0], ("row", cells[0], f"no such row ({error!r})"))
            continue
        for header in MARKED & set(row) if table.section == "Throughput" else ():
            here = [run for run in study.methods[row["method"]] if run in study.home]
            kept = {mark for run in here for mark in marks(run)} | ({"§"} if too_short(here) else set())
            shown, wanted = ("".join(mark for mark in "†§¶" if mark in where) for where in (row[header], kept))
            audit.check(table.section, table.caption, row["method"], ("marks", shown, wanted))
        for header in table.header[1:]:
            if header in expected_cells:
                audit.check(table.section, table.caption, cells[0], (header, row[header], expected_cells[header]))
            else:
                audit.unchecked[f"{table.section} | {table.caption} | {header}: no way to check this column"] += 1


# Sentences: what they say, and what it must be


class UnreadError(Exception):
    """A sentence, or a part of it, that is not understood."""


def leader(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Who leads by a metric, with what mean, and how each other method stands to it."""
    metric, rest = metric_in(study, re.sub(BOLD, "", found[0])), found.string[found.end() :]
    name, better = study.named(found[0])[0], 1 if metric == SCORE else -1
    measured = study.measured(metric)
    met = {
        n for key, pair in study.pairs.items() if key[0] == metric and pair.n >= 3 for n in (pair.first, pair.second)
    }
    unbeaten = [n for n in measured if n in met and not any(study.better(metric, o, n) for o in measured if o != n)]
    best = max(better * study.mean(metric, n) for n in unbeaten)
    own_seeds = metric in lacking_metrics(study) and len(study.shared(metric)) < 3
    if own_seeds:
        wins = {n: sum(study.better(metric, n, o) for o in measured if o != n) for n in unbeaten}
        open_ = [n for n in measured if not any(study.better(metric, o, n) for o in measured if o != n)]
        yield "unbeaten", str(sorted(study.named(found["first"] or found["second"]))), str(sorted(open_))
        yield "wins", str(wins.get(name)), str(max(wins.values()))
    alike = [n for n in unbeaten if own_seeds or math.isclose(better * study.mean(metric, n), best, rel_tol=1e-12)]
    yield "leader", str(name in alike), "True"
    ties = [n for n in measured if n != name and study.mean(metric, n) == study.mean(metric, name)]
    even = metric not in lacking_metrics(study)
    yield "as has", str(study.named(found["same"]) if found["same"] else []), str(ties if even else [])
    if "which has" in found[0] or found["value"]:
        yield "mean", found["mean"] or found["value"], study.mean(metric, name) * (100 if metric == SCORE else 1)
    if found["over"]:
        n = len(study.shared(metric))
        yield "seeds", found["over"], f"the {n} seeds that all methods share" if n > 2 else "its own seeds"
    pairs = {other: study.pair(metric, name, other) for other in measured if other != name}
    shown: dict[str, list[str]] = {}
    if part := re.search(
        rf"Equivalent to (?:it|them): ([^()]+(?:\(\w+=[^()]*\)[^()]*)*) \(within ({NUMBER})[^()]*\)", rest
    ):
        shown["equivalent"], rest = study.named(part[1]), rest.replace(part[0], "")
        yield "margin", part[2], 100 * study.margin(metric)
    if part := re.search(rf"{BOLD} is not tested against (.+?)[:,] that takes 3 shared seeds", rest):
        shown["not tested"], rest = study.named(part[2]), rest.replace(part[0], "")
    if part := re.search(rf"Not measured there: ({BOLDS})", rest):
        shown["not measured"], rest = study.named(part[1]), rest.replace(part[0], "")
    elsewhere = [other for other in study.methods if other not in measured]
    yield "not measured", str(shown.get("not measured", [])), str(elsewhere)
    for part in re.finditer(rf"{BOLD} \((\d+) seeds could have found ([^;]+); ([^()]+?) would decide([^()]*)\)", rest):
        shown.setdefault("undecided", []).append(part[1])
        yield from undecided(study, study.pair(metric, name, part[1]), part)
        rest = rest.replace(part[0], "")
    note = rf"(?: as (?:long|much) as {re.escape(f'**{name}**')})?( \((?:a difference )?within [^()]*\))?"
    for part in re.finditer(rf"{BOLD}(?: by| took)? ({NUMBER}) (?:points?|times) {INTERVAL}{note}", rest):
        shown.setdefault("better", []).append(part[1])
        yield from claimed(study.pair(metric, name, part[1]), name, part)
        rest = rest.replace(part[0], "")
    for kind in ("better", "equivalent", "undecided", "not tested"):
        stand = {other: "better" if pair.better == name else pair.verdict for other, pair in pairs.items()}
        expected = sorted(other for other, how in stand.items() if how == kind)
        yield kind, str(sorted(shown.get(kind, []))), str(expected)
    none = f"**{name}** is not shown to be better than any other"
    yield "says that it beats none", str(none in rest), str(not shown.get("better"))
    won = f"**{name}** is better than"
    if rest := re.sub(r"Undecided against|\band\b|[;:,.\s]", "", rest.replace(none, "").replace(won, "")):
        raise UnreadError(rest)


def claimed(pair: Pair, name: str, part: re.Match[str]) -> Iterator[Fact]:
    """Yield what is said in "A by 3.0 points [1.1, 5.0]" or "A took 1.86 times [1.72, 2.02] that"."""
    other = pair.second if pair.first == name else pair.first
    difference, bounds = difference_cells(pair, name if pair.metric == SCORE else other, pair.comparison)
    low, high = sorted(bounds or (math.nan, math.nan))
    for label, shown, value in zip(
        ("difference", "low", "high"), part.groups()[1:4], (difference, low, high), strict=True
    ):
        yield f"{label} to {part[1]}", shown, value
    yield f"margin to {part[1]}", str(bool(part[5])), str(pair.equivalent)


def undecided(study: Study, pair: Pair, part: re.Match[str]) -> Iterator[Fact]:
    """Yield what is said in "A (5 seeds could have found 3.6 points; 9 would decide)"."""
    yield f"seeds with {part[1]}", part[2], pair.n
    least = re.match(NUMBER, part[3])
    yield f"could have found of {part[1]}", least[0] if least else "none", could_have_found(study, pair)
    yield (
        f"to decide {part[1]}",
        part[4].replace("about ", "").replace("no number of seeds up to 10,000", "none"),
        deciding(study, pair),
    )
    if rows := re.search(rf"on ({NUMBER}) test rows", part[5]):
        yield "test rows", rows[1], len(study.compared[0].right)


def front(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield each method's place towards the Pareto front over the metrics that are named."""
    metrics = [metric_in(study, name) for name in re.split(r", | and | against ", found["metrics"])]
    places = {name: study.place(name, metrics) for name in study.methods}
    if "places of all methods are undecided" in found["places"]:
        yield "places", "undecided", ", ".join({place for place, _ in places.values()})
        return
    shown = dict.fromkeys(study.methods, "–")
    for part in found["places"].rstrip(".").split("; "):
        word = next(word for word in ("off", "on", "undecided", "not placed") if part.startswith(word))
        text = part
        for dominated in re.finditer(r" \(dominated by ((?:[^()]|\([^()]*\))+)\)", part):
            name = study.named(part[: dominated.start()])[-1]
            yield f"dominates {name}", str(study.named(dominated[1])), str(places[name][1])
            text = text.replace(dominated[0], "")
        shown |= dict.fromkeys(study.named(text), "–" if word == "not placed" else word)
    for name, (place, _) in places.items():
        yield name, shown[name], place


def guessing(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield what guessing gives, and in the takeaways who is not shown to be better than it."""
    classes, (_, share) = len(study.compared[0].record["label_names"]), guessed(study)
    yield "share", found[1], 100 * share
    yield "macro-F1", found[2], 2 * share / (1 + share) / classes
    yield "chance", found[3], 100 / classes
    if found[4]:
        yield "not shown to be better", str(study.named(found[4])), str(no_better_than_guessing(study))


def no_better_than_guessing(study: Study) -> list[str]:
    """Return the methods that are not shown to be better than guessing."""
    better = [name for name, p in study.adjusted("guess").items() if p < 0.05]
    return [name for name in study.methods if name not in better]


def under_trained(study: Study) -> str:
    """Return the methods with a run whose validation loss is lowest at last and fell by over 2 %."""
    parts = []
    for name, runs in study.methods.items():
        losses = [[value for _, value in sorted(run.series("validation_loss").items())] for run in runs]
        count = sum(len(loss) > 1 and loss[-1] == min(loss) and loss[-1] < 0.98 * loss[-2] for loss in losses)
        parts += [f"**{name}** ({count} of {len(runs)} runs)"] if count else []
    return listed(parts)


def between(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield between which means a metric lies where no pair is tested."""
    metric = metric_in(study, found[1])
    means_ = {name: study.mean(metric, name) * (100 if metric == SCORE else 1) for name in study.measured(metric)}
    for shown, name, end in zip(found.groups()[1::2], found.groups()[2::2], (min, max), strict=True):
        yield "end", shown, end(means_.values())
        yield f"mean of {name}", shown, means_[name]
    yield "tested pairs", "0", sum(pair.n >= 3 for pair in study.pairs.values() if pair.metric == metric)


def never_run(study: Study) -> int:
    """Return how many methods x seeds of suite.json have no record, but for those that can't be read."""
    planned = {(name, seed) for name in study.suite["methods"] for seed in range(study.suite["seeds"])}
    there = {(run.record["spec"]["method"]["name"], run.seed) for run in study.runs}
    return max(0, len(planned - there) - study.unreadable)


def head(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the facts at the head of the page."""
    facts = dict(re.findall(r"\*\*([^*]+):\*\* ([^·]*[^·\s])", found.string))
    run = study.compared[-1] if study.compared else study.runs[-1]
    length = f"{run.settings['steps']} steps" if run.settings["steps"] else f"{run.settings['epochs']} epochs"
    counts = {
        "compared": len(study.compared),
        OTHER_RANKS: sum(why == OTHER_RANKS for why in study.apart.values()),
        "set apart": sum(why != OTHER_RANKS for why in study.apart.values()),
        "not ok": sum(run.record["status"] != "ok" for run in study.runs),
        "unreadable": study.unreadable,
        "without a record": never_run(study),
    }
    shown = [f"{count} {word}" for word, count in counts.items() if count or word == "compared"]
    yield "Runs", facts["Runs"], ", ".join(shown)
    yield "Methods", facts["Methods"], len(study.methods)
    yield "Seeds", facts["Seeds"], len({run.seed for run in study.compared})
    yield "Protocol", facts["Protocol"], str(run.record["protocol_id"])
    yield "Model", facts["Model"], run.settings["backbone"].partition("#")[0]
    yield "Task", facts["Task"], run.settings["task"]["name"]
    rows, batch = run.settings["train_samples"], run.settings["global_batch"]
    budget = rf"{length} of {batch} from ({NUMBER}|all).* training rows"
    yield "Budget", facts["Budget"], (budget, [rows]) if rows else (budget.replace("(", "(?:"), [])
    yield "Device", facts["Device"].partition(" x ")[0], run.settings["world_size"]


BARS = {
    "set-up": "host_setup_mb",
    "training": "host_train_mb",
    "evaluation": "host_evaluation_mb",
    "median": "latency_ms_p50",
    "p99": "latency_ms_p99",
    "median, merged": "merged_latency_ms_p50",
    "p99, merged": "merged_latency_ms_p99",
}
CURVES = {
    "Training loss": "train_loss",
    "Validation loss": "validation_loss",
    "Validation accuracy": "validation_accuracy",
    "Gradient norm before clipping": "grad_norm",
}


def figure(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the values in a figure's description."""
    kind, body = found["kind"], found["body"]
    parts = body.partition(". On the front: ")[0].rstrip(".").split("; ")
    if not study.compared:
        parts = []
    for part in parts:
        name = study.named(part)[0]
        shown = part.removeprefix(name).strip()
        if dots := re.fullmatch(r"Dot plot of (.+) by method, mean and 95 % interval", kind):
            metric, scale = metric_of(study, dots[1]) or (SCORE, 100.0)
            yield part, shown, with_interval(study, metric, name, scale)
        elif scatter := re.fullmatch(r"Scatter of (.+) against (.+)", kind):
            axes = [metric_of(study, axis) or (SCORE, 100.0) for axis in (scatter[2], scatter[1])]
            pattern = rf"({NUMBER}), ({NUMBER})"
            yield part, shown, (pattern, [scale * study.mean(metric, name) for metric, scale in axes])
        elif curve := re.fullmatch(r"Line chart of (.+) against step", kind):
            series = [points for run in study.methods[name] if (points := run.series(CURVES[curve[1]]))]
            value = float(np.mean([points[max(points)] for points in series]))
            yield part, shown.removeprefix("ends at "), 100 * value if shown.endswith("%") else value
        elif kind.startswith("Line chart of validation accuracy against learning rate"):
            best = best_trial(read_trials(study)[name])
            yield part, shown, (rf"({NUMBER}) % at ({NUMBER})", [100 * best["accuracy"], float(best["lr"])])
        elif kind.startswith("Bar chart of") and shown.rpartition(" ")[0] in BARS:
            yield part, shown.rpartition(" ")[2], study.mean(BARS[shown.rpartition(" ")[0]], name)
        else:
            raise UnreadError(part)
    if scatter := re.fullmatch(r"Scatter of (.+) against (.+)", kind):
        metrics = [metric_in(study, axis) for axis in scatter.groups()]
        on = [name for name in study.methods if study.place(name, metrics)[0] == "on"]
        yield "on the front", body.partition(". On the front: ")[2].rstrip("."), ", ".join(on) or "unknown"


def unsteady(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield which runs bear a mark, and why; of windows too short to tell the methods."""
    if found[1] == "§":
        for name, runs in study.methods.items():
            interval = too_short([run for run in runs if run in study.home])
            clause = re.search(rf"(?<!\S){re.escape(name)} \(([^()]*)\)", found[2])
            yield f"windows of {name}", str(clause is not None), str(interval is not None)
            if clause and interval and not math.isnan(interval[0]):
                drift_of = (
                    rf"drift \[\+?({NUMBER}) %, \+?({NUMBER}) %\] over its runs",
                    [100 * end for end in interval],
                )
                yield f"drift of {name}", clause[1], drift_of
        return
    for name, runs in study.methods.items():
        marked = {str(run.seed): run for run in runs if run in study.home and found[1] in marks(run)}
        part = re.search(rf"(?<!\S){re.escape(name)} \(((?:seed|\d)[^()]*)\)", found[2])
        said = dict(re.findall(r"seed (\d+): ([^;]+)", part[1] if part else ""))
        yield f"seeds of {name}", ", ".join(said), ", ".join(marked)
        for seed, run in marked.items():
            ends = [100 * (run.metric(f"step_time_drift_{end}") or math.nan) for end in ("low", "high")]
            drifting = (rf"drift \[\+?({NUMBER}) %, \+?({NUMBER}) %\]", ends)
            paused = (rf"one step took about ({NUMBER}) % of the time", [100 * pause(run)])
            if found[1] == "¶" or not math.isnan(ends[0]):
                yield f"{name}, seed {seed}", said.get(seed), paused if found[1] == "¶" else drifting


def uncertain(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the methods whose difference is claimed though the noise is skewed and of unequal spread."""
    claims = [pair for pair in study.pairs.values() if pair.erratic and (pair.better or pair.equivalent)]
    expected = sorted({name for pair in claims for name in (pair.first, pair.second)})
    yield "methods", str(sorted(set(study.named(found.string)))), str(expected)


def over_which(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield over which seeds the means of some metrics are."""
    titles = {kept["title"].casefold(): name for name, kept in study.definitions.items()}
    for title in re.split(r", | and ", found[1]):
        shared = study.shared(titles[title.casefold()])
        which = f"seeds {', '.join(map(str, shared))}" if len(shared) > 2 else "each method's own seeds"
        yield title, found[2], which


def lacking(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield which seeds a method lacks."""
    seeds = {run.seed for run in study.compared} - {run.seed for run in study.methods[found[1]]}
    yield "seeds", found[2], ", ".join(map(str, sorted(seeds)))


def lack_seeds(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield over how many seeds the means of the metrics are in which methods lack some."""
    for name in re.split(r", | and ", found[1]):
        n = len(study.shared(metric_in(study, name)))
        yield name, found[2], f"the {n} that all share" if n > 2 else "its method's own seeds"


def lacking_metrics(study: Study) -> list[str]:
    """Return the metrics in which methods lack seeds that others have."""
    return [m for m in study.metrics if len({tuple(values) for values in study.by_seed(m).values() if values}) > 1]


def few_seeds(study: Study) -> str:
    """Return the fewest seeds of a tested pair, where they are under five."""
    least = min((pair.n for pair in study.pairs.values() if pair.n >= 3), default=9)
    return str(least) if least < 5 else ""


def training_share(study: Study) -> float:
    """Return the share of wall time that training and evaluation took, in %."""
    spent = sum(run.metric(name) or 0.0 for run in timed_runs(study) for name in PHASES[1:])
    return 100 * spent / sum(float(run.record["seconds"]) for run in timed_runs(study))


Says = Callable[[Study, "re.Match[str]"], Iterator[Fact]]


def groups(expected: Callable[[Study], Sequence[Atom]]) -> Says:
    """Return a check of a sentence's groups."""

    def says(study: Study, found: re.Match[str]) -> Iterator[Fact]:
        for place, (shown, value) in enumerate(zip(found.groups(), expected(study), strict=True), 1):
            yield f"figure {place}", shown, value

    return says


SENTENCES: tuple[tuple[str, Says], ...] = (
    (
        rf"(?:No method is shown to be better by [\w -]+ than (?P<first>{BOLDS})"
        rf"(?:, which has (?P<mean>{NUMBER})[ %\w]*?"
        r"(?: over (?P<over>the \d+ seeds that all methods share))?)?"
        rf"(?:, as has (?P<same>{BOLDS}))?(?=[;.])"
        r"|(?P<second>\*\*[^*]+\*\*) (?:has the highest (?:mean )?accuracy|trained fastest|needed the least memory)"
        rf"(?: on average)?: (?P<value>{NUMBER})(?: %| s| MB)?)",
        leader,
    ),
    (r"The Pareto front over (?P<metrics>[^:]+): (?P<places>.*)", front),
    (r"(?P<metrics>Accuracy against [^:]+): (?P<places>(?:the places|on |off |undecided ).*)", front),
    (
        rf"Guessing the most frequent class gets ({NUMBER}) % of the test rows right \(macro-F1 ({NUMBER})\); chance "
        rf"is ({NUMBER}) %\.(?: Not shown to be better than that[^:]*: (.+)\.)?$",
        guessing,
    ),
    (
        r"Under-trained: the validation loss was lowest at the last step, and over 2 % below .* for (.*); with more "
        r"steps ranks may turn\.$",
        groups(lambda study: [under_trained(study)]),
    ),
    (rf"(\w[\w -]+) lies between ({NUMBER})[ %\w]* \({BOLD}\) and ({NUMBER})[ %\w]* \({BOLD}\); no pair has", between),
    (
        r"Methods lack seeds in ([^:]+): .* and each mean is over (the \d+ that all share|its method's own seeds)",
        lack_seeds,
    ),
    (
        r"Costs are of the runs in the environment that most share; (\d+) of (\d+) compared runs ran on other hardware",
        groups(lambda study: [len(study.compared) - len(study.home), len(study.compared)]),
    ),
    (
        r"Better and equivalent are verdicts of one family of (\d+) tested pairs: .* held to 5 %\. Scores .* later "
        r"steps ask less\.(?: (\d+) seeds are few.*)?$",
        groups(lambda study: [study.tested, few_seeds(study)]),
    ),
    (
        r"No method is called better than another: the runs have (one seed|\d+ seeds), and a verdict needs",
        groups(lambda study: [{1: "one seed"}.get(n := len({run.seed for run in study.compared}), f"{n} seeds")]),
    ),
    (r"Of uncertain level: ", uncertain),
    (r"([†§¶]) (.*%.*)", unsteady),
    (rf"Only {BOLD} has comparable runs", groups(lambda study: [", ".join(study.methods)])),
    (r"(Every run) that ended well was set apart", groups(lambda study: ["" if study.compared else "Every run"])),
    (r"\*\*Model:\*\*", head),
    (r"!\[(?P<kind>[^:;]*?)[:.] (?:Best: )?(?P<body>.*)\]\([^()]+\)$", figure),
    (r"(.+) lacks seeds? ([\d, ]+)\.$", lacking),
    (r"Means of (.+) are over (seeds [\d, ]+|each method's own seeds)\.$", over_which),
    (rf"Training and evaluation are ({NUMBER}) % of it\.", groups(lambda study: [training_share(study)])),
    (r"p99 of (\d+) examples", groups(lambda study: [study.compared[0].settings["latency_samples"]])),
    (rf"For other seeds on these ({NUMBER}) test rows alone", groups(lambda study: [len(study.compared[0].right)])),
    (
        rf"Better: p \(Holm\) below 5 %.* difference of ({NUMBER}) points? of a score, ({NUMBER}) % of a cost or more"
        r".* all (\d+) pairs",
        groups(lambda study: [100 * study.margin(SCORE), 100 * study.margin(TIME), study.tested]),
    ),
    (
        r"The compared runs come from (\d+) env",
        groups(lambda study: [len({run.environment for run in study.compared})]),
    ),
    (r"Protocol (\w+): runs are compared only", groups(lambda study: [(study.compared or study.runs)[-1].protocol])),
    (
        r"Rates were tried on the (\d+) validation rows, never on the test rows: (\d+) trials a method",
        groups(
            lambda study: [
                study.runs[-1].settings["validation_samples"],
                most(map(len, read_trials(study).values()), int),
            ]
        ),
    ),
)


def check_line(audit: Audit, section: str, text: str, study: Study) -> None:
    """Check what a line says; a takeaway that is not understood is named."""
    matches = ((says, re.match(pattern, text, re.IGNORECASE)) for pattern, says in SENTENCES)
    says, found = next(((says, found) for says, found in matches if found), (None, None))
    if says and found:
        try:
            for fact in says(study, found):
                audit.check(section, "text", text[:60], fact)
        except (UnreadError, LookupError, ValueError, RuntimeError) as error:
            audit.unchecked[f"{section} | text | {text[:60]}: not understood: {error!r}"] += 1
    elif section == "Key takeaways":
        audit.unchecked[f"{section} | text | {text}: not a known sentence"] += 1
    elif re.search(r"\d", text):
        audit.passed_over.append(f"{section}: {text}")


def check_all_said(audit: Audit, lines: list[tuple[str, str]], study: Study) -> None:
    """Check that the takeaways leave out nothing that they must say."""
    takeaways = [text for section, text in lines if section == "Key takeaways"]
    if len(study.methods) < 2:
        return
    expected = {
        "Not shown to be better than that": bool(no_better_than_guessing(study)),
        "The Pareto front over": any(study.place(name, study.metrics)[0] in {"on", "off"} for name in study.methods),
        "Under-trained:": bool(under_trained(study)),
        "Costs are of": len(study.home) < len(study.compared),
        "one family of": study.tested > 0,
        "No method is called better": study.tested == 0,
        "Of uncertain level": any(pair.erratic and (pair.better or pair.equivalent) for pair in study.pairs.values()),
    }
    for words, wanted in expected.items():
        said = any(words in text for text in takeaways)
        audit.check("Key takeaways", "said", words, ("said", str(said), str(wanted)))
    lacking_in = [text.partition(":")[0] for text in takeaways if text.startswith("Methods lack seeds in")]
    said_of = sorted(metric_in(study, name) for text in lacking_in for name in re.split(r" in |, | and ", text)[1:])
    audit.check("Key takeaways", "said", "lack seeds", ("in", str(said_of), str(sorted(lacking_metrics(study)))))
    leads = sum(re.match(SENTENCES[0][0], text) is not None for text in takeaways)
    tested = {pair.metric for pair in study.pairs.values() if pair.n >= 3}
    audit.check("Key takeaways", "said", "leaders", ("number", str(leads), len(tested)))


def check_all_shown(audit: Audit, tables: list[Table], study: Study) -> None:
    """Check that no table is missing that must be there, and that all other runs are listed."""
    captions = [table.caption for table in tables]
    for words, metric in (("accuracy", SCORE), ("training time", TIME), ("peak memory", study.memory)):
        wanted = len(study.compared) > len(study.methods) and any(
            p.n for p in study.pairs.values() if p.metric == metric
        )
        shown = any(re.match(rf"Pairs by {words}.*\)$", caption) for caption in captions)
        audit.check("Which differences are real", "tables", words, ("shown", str(shown), str(wanted)))
    counts = {"Runs set apart": 0, "Runs that did not end well": 0}
    for table in tables:
        for words in counts:
            if table.caption.startswith(words):
                place = table.header.index("Runs") if "Runs" in table.header else -1
                counts[words] += sum(int(row[place]) if place >= 0 else 1 for row in table.rows)
    section, ended = "Failures and runs set apart", sum(run.record["status"] == "ok" for run in study.runs)
    listed_apart = sum(why != OTHER_RANKS for why in study.apart.values())
    audit.check(section, "runs", "set apart", ("number", str(counts["Runs set apart"]), listed_apart))
    audit.check(
        section, "runs", "not ok", ("number", str(counts["Runs that did not end well"]), len(study.runs) - ended)
    )


# Records against points


def check_record(audit: Audit, run: Run) -> None:
    """Check a run's metrics against its points, as far as these tell."""
    for label, shown, value in recorded(run):
        audit.checked["Records | metrics against points and predictions"] += 1
        if shown is None or abs(shown - value) > 1e-6 * max(abs(value), 1e-12):
            audit.problems.append(f"Records | {run.folder.name} | {label}: record {shown}, recomputed {value}")


def recorded(run: Run) -> Iterator[tuple[str, float | None, float]]:
    """Yield metrics as recorded and recomputed."""
    m, options = run.metric, run.settings
    path = run.folder / "points.jsonl"
    same = hashlib.sha256(path.read_bytes()).hexdigest() == run.record["files"].get("points.jsonl")
    yield "SHA-256 of points.jsonl", float(same), 1.0
    seconds, losses, norms = (list(run.series(name).values()) for name in ("step_seconds", "train_loss", "grad_norm"))
    steps = run.record["consumed"]["steps"]
    for name in ("step_seconds", "train_loss"):
        yield f"steps of {name}", float(list(run.series(name)) == list(range(1, steps + 1))), 1.0
    yield "samples", float(run.record["consumed"]["samples"]), float(steps * options["global_batch"])
    yield TIME, m(TIME), sum(seconds)
    yield "train_loss", m("train_loss"), float(np.mean(losses[-20:]))
    yield "grad_norm", m("grad_norm"), float(np.mean(norms))
    trained = (m("trainable_parameters") or 0) + (m("head_parameters") or 0)
    yield "grad_norm_per_sqrt_parameter", m("grad_norm_per_sqrt_parameter"), float(np.mean(norms)) / math.sqrt(trained)
    whole = (m("total_parameters") or 0) - (m("head_parameters") or 0)
    yield "trainable_percent", m("trainable_percent"), 100 * (m("trainable_parameters") or 0) / whole
    yield "inference rate", m("inference_samples_per_second"), len(run.right) / (m("inference_seconds") or math.nan)
    for name, values in run.record["per_rank"].items():
        over = {kept["name"]: kept["over_ranks"] for kept in run.record["definitions"]}[name]
        if over in {"max", "sum"} and None not in values:
            yield f"{name} of the ranks", m(name), float(max(values) if over == "max" else sum(values))
    yield from steady(run, [point for point in run.points if point["metric"] == "step_seconds"])


def steady(run: Run, points: list[Json]) -> Iterator[tuple[str, float | None, float]]:
    """Yield what is said of the timed steps; more of it where the points hold each rank's seconds and the tokens."""
    m, timed = run.metric, points[run.settings["warmup_steps"] :]
    s = np.array([point["value"] for point in timed], dtype=np.float64)
    samples = len(timed) * run.settings["global_batch"]
    if not timed:
        return
    yield "timed_steps", m("timed_steps"), float(len(timed))
    for percent in (50, 90, 99):
        yield f"step_ms_p{percent}", m(f"step_ms_p{percent}"), 1000 * float(np.percentile(s, percent))
    yield "samples in the timed window", (m("samples_per_second") or 0) * (m("timed_seconds") or 0), float(samples)
    if len(timed) > 1:
        yield "step_time_cv", m("step_time_cv"), float(s.std() / s.mean())
    if not all(point.get("ranks") and point.get("tokens") for point in timed):
        return
    ranks = np.array([point["ranks"] for point in timed], dtype=np.float64).sum(axis=0)
    tokens = np.array([point["tokens"] for point in timed], dtype=np.float64)
    yield "steps that are not what the ranks' seconds give", float(unlike_ranks(run, points)), 0.0
    yield "padded tokens", float(consumed(run, "padded_tokens")[0]), float(sum(point["tokens"] for point in points))
    yield "timed_seconds", m("timed_seconds"), float(s.sum())
    if all(point.get("real_tokens") for point in timed):
        yield "real tokens", float(consumed(run, "real_tokens")[0]), float(sum(p["real_tokens"] for p in points))
        yield "tokens_per_second", m("tokens_per_second"), float(sum(p["real_tokens"] for p in timed) / s.sum())
    yield "padded_tokens_per_second", m("padded_tokens_per_second"), float(tokens.sum() / s.sum())
    yield "slowest_rank_share", 1 + (m("slowest_rank_share") or 0), float(s.sum() / ranks.mean())
    per = s / tokens
    low, high = np.percentile(per, [25, 75])
    yield "step_time_outliers", m("step_time_outliers"), float((per > high + 3 * (high - low)).sum())
    if 4 <= len(timed) // 3 <= 300:
        for name, value in zip(("", "_low", "_high"), drift(s, tokens), strict=True):
            yield f"step_time_drift{name}", 1 + (m(f"step_time_drift{name}") or 0), value


def unlike_ranks(run: Run, points: list[Json]) -> int:
    """Return how many steps' seconds are not the growth of the slowest rank's time since the ranks last met."""
    met = {run.settings["warmup_steps"], *run.series("validation_loss")}
    since, wrong = np.zeros(len(points[0]["ranks"])), 0
    for step, point in enumerate(points, 1):
        before, since = since.max(), since + np.array(point["ranks"])
        wrong += abs(since.max() - before - point["value"]) > 1e-6
        if step in met or step % run.settings["log_every"] == 0:
            since = np.zeros(len(since))
    return int(wrong)


def drift(s: Floats, tokens: Floats) -> tuple[float, float, float]:
    """Return how many times longer a step of the last third takes than one of the first, with its 95 % interval.

    The methodology's 1.48 is taken for 1.4826, one over the upper quartile of the normal distribution.
    """
    n, kept, line = len(s) // 3, np.full(len(s), True), tokens
    if np.ptp(tokens) > 0:
        for _ in range(2):
            slope, start = np.polyfit(tokens[kept], s[kept], 1)
            line = start + slope * tokens
            off = np.abs(s - line - np.median(s - line))
            kept = off <= 3 * np.median(off) / stats.norm.ppf(0.75)
    ratio = np.log(s / (line if (line > 0).all() else tokens))
    pairs_ = np.sort((ratio[-n:, None] - ratio[None, :n]).ravel())
    k = max(1, math.floor(n**2 / 2 - 1.96 * math.sqrt(n**2 * (2 * n + 1) / 12)))
    return float(np.exp(np.median(pairs_))), float(np.exp(pairs_[k - 1])), float(np.exp(pairs_[-k]))


def audit_page(study: Study, page: Path) -> Audit:
    """Check a page, and the compared runs' records against their points."""
    audit = Audit()
    tables, lines = read_page(page)
    for table in tables:
        check_table(audit, table, study)
    for section, text in lines:
        check_line(audit, section, text, study)
    check_all_said(audit, lines, study)
    check_all_shown(audit, tables, study)
    for run in study.compared:
        check_record(audit, run)
    return audit


def main(arguments: list[str]) -> int:
    """Check the pages of folders and print what was found."""
    folders = [Path(name) for name in arguments if name != "-v"]
    if not folders or not all((folder / name).exists() for folder in folders for name in ("report.md", "suite.json")):
        print(__doc__)
        return 2
    wrong = False
    for folder in folders:
        audit = audit_page(read_study(folder), folder / "report.md")
        for table, count in audit.checked.items():
            print(f"{count:5} checked: {table}")
        for line, count in audit.unchecked.items():
            print(f"{count:5} not checked: {line}")
        for line in audit.passed_over if "-v" in arguments else []:
            print(f"no check for: {line}")
        for line in audit.problems:
            print(f"DISAGREES: {line}")
        print(f"{folder}: {audit.checked.total()} figures checked, {len(audit.problems)} disagree")
        wrong |= bool(audit.problems)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
