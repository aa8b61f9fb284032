"""Page over several suites: every leaf of its answer, from the suites' records.

What is said within a suite is its own recomputed answer's. Tests over suites are others than the
package's formulas: F of a two-way analysis of variance of the ranks, sums of signed rank
differences counted by convolution, and sums of binomial chances. The page is the first look at its
folder, whose share of the 5 % is 90.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import stats

from audit.answer import TITLES, answer_of
from audit.statistics import Floats, Json, holm
from audit.study import Study, read_study


@dataclass(frozen=True)
class OfSuite:
    """A suite among several: its records and its own answer."""

    study: Study
    answer: Json

    @cached_property
    def methods(self) -> dict[str, Json]:
        return {method["name"]: method for method in self.answer["methods"]}

    def cost(self, key: str, name: str) -> float | None:
        axis = next((axis["id"] for axis in self.answer["axes"] if axis["key"] == key), None)
        found = self.methods[name]["v"].get(axis)
        return found["m"] if found else None


@dataclass(frozen=True)
class Over:
    """The suites that are ranked, and the methods ranked in them."""

    suites: list[OfSuite]
    methods: list[str]

    @cached_property
    def ranks(self) -> Floats:
        """Rank of each method in each suite: [suites, methods]."""
        means = [[s.study.mean(s.study.score, name) for name in self.methods] for s in self.suites]
        rounded = np.array([[float(f"{mean:.10g}") for mean in row] for row in means])
        signs = np.array([-s.study.sign(s.study.score) for s in self.suites])
        return np.asarray(stats.rankdata(signs[:, None] * rounded, axis=1))

    @cached_property
    def least(self) -> int:
        """The fewest suites of which one pattern and its mirror image are rarer than a pair's
        share of 4.5 %.
        """
        pairs = len(self.methods) * (len(self.methods) - 1) // 2
        return next(n for n in itertools.count(1) if 2 * pairs < 0.045 * 2**n)

    @property
    def tested(self) -> bool:
        return len(self.suites) >= self.least

    @cached_property
    def intervals(self) -> list[tuple[float | None, float | None]]:
        """95 % of the mean ranks: Student's t over the suites, wide enough for a rank that no
        suite has; else none.
        """
        if not self.tested:
            return [(None, None)] * len(self.methods)
        n, k = self.ranks.shape
        error = np.maximum(self.ranks.std(axis=0, ddof=1) / np.sqrt(n), (k - 1) / n)
        half = np.maximum(stats.t.ppf(0.975, n - 1) * error, (k - 1) * (1 - 0.025 ** (1 / n)))
        mean = self.ranks.mean(axis=0)
        ends = zip(np.maximum(1, mean - half), np.minimum(k, mean + half), strict=True)
        found = [(float(low), float(high)) for low, high in ends]
        if k > 2 or (self.ranks == 1.5).any():
            return list(found)
        shares = [stats.binomtest(int((of > 1).sum()), n).proportion_ci() for of in self.ranks.T]
        return [(1 + float(share.low), 1 + float(share.high)) for share in shares]

    @cached_property
    def pairs(self) -> list[Json]:
        p, d = friedman(self.ranks), self.ranks.mean(axis=0)
        both = list(itertools.combinations(range(len(self.methods)), 2))
        own = [own_p(self.ranks[:, i] - self.ranks[:, j], len(self.methods)) for i, j in both]
        found = []
        for (i, j), one, adjusted in zip(both, own, holm(own), strict=True):
            scaled = min(1.0, max(p, adjusted) / (2 / 3))
            wins = self.tested and scaled < 0.05
            found.append(
                {
                    "a": self.methods[i],
                    "b": self.methods[j],
                    "v": ("different" if wins else "undecided") if self.tested else "untested",
                    "w": self.methods[min(i, j, key=d.__getitem__)] if wins else None,
                    "d": float(np.mean(self.ranks[:, i] - self.ranks[:, j])),
                    **dict.fromkeys(
                        ("lo", "hi", "wlo", "whi", "need", "p_margin", "p_margin_adjusted", "found")
                    ),
                    "p": one if self.tested else None,
                    "ph": scaled if self.tested else None,
                    "n": len(self.suites),
                    "small": False,
                    "skew": False,
                }
            )
        return found


def friedman(ranks: Floats) -> float:
    """Return the p of Friedman's test by Iman and Davenport: F of methods in an analysis of
    variance of the ranks.
    """
    n, k = ranks.shape
    off = ranks - (k + 1) / 2
    between, within = (
        n * float((off.mean(axis=0) ** 2).sum()),
        float(((off - off.mean(axis=0)) ** 2).sum()),
    )
    if within < 1e-12:
        return 0.0 if between else 1.0
    return float(stats.f.sf((n - 1) * between / within, k - 1, (k - 1) * (n - 1)))


def own_p(d: Floats, methods: int) -> float:
    """Return the p of a pair: that of signs, or twice the chance of so few suites far on the other
    side, if larger.

    Each suite is such a one with the chance at which gains of the mean elsewhere and losses of all
    places there cancel.
    """
    n, places = len(d), methods - 1
    against = int(np.count_nonzero(d * np.sign(d.sum()) < -places / 2))
    gain = abs(float(np.mean(d))) / places
    share = (against / n + gain) / (1 + gain)
    few = sum(stats.binom.pmf(k, n, share) for k in range(against + 1))
    return max(sign_patterns(d), min(1.0, 2 * float(few)) if against < n else 0.0)


def sign_patterns(d: Floats) -> float:
    """Return the share of the 2^n patterns of signs whose sum is as large; of ranks, twice a
    difference is whole.
    """
    steps = np.abs(np.rint(2 * d)).astype(int)
    chances = np.ones(1)
    for step in steps:
        either = np.zeros(2 * step + 1)
        either[0] += 0.5
        either[-1] += 0.5
        chances = np.convolve(chances, either)
    sums = np.arange(len(chances)) - steps.sum()
    return float(chances[np.abs(sums) >= abs(np.rint(2 * d).sum())].sum())


def read_over(folders: Sequence[Path]) -> Over:
    """Read suites and choose which of them, and which of their methods, are ranked.

    A suite that has the model, data and task of another, or no run, is not; nor a method without a
    score in one of them, or of different kinds.
    """
    found: dict[str, OfSuite] = {}
    for study in map(read_study, folders):
        if study.compared:
            last = study.newest
            source = json.dumps([last.settings[name] for name in ("backbone", "dataset", "task")])
            found.setdefault(source, OfSuite(study, answer_of(study)))
    suites = [*found.values()]
    of = {
        name: [suite.methods.get(name, {"v": {}}) for suite in suites]
        for suite in suites
        for name in suite.methods
    }
    scored = [name for name, found in of.items() if all("score" in method["v"] for method in found)]
    return Over(
        suites, [name for name in scored if len({method["kind"] for method in of[name]}) == 1]
    )


def answer_over(over: Over) -> Json:
    """Return the answer, as nested mappings and lists, without its words."""
    answers = [suite.answer for suite in over.suites]
    n = len(answers)
    late = {name: sum(answer["under"].get(name, 0) for answer in answers) for name in over.methods}
    keys = [
        key for key in TITLES if all(any(axis["key"] == key for axis in a["axes"]) for a in answers)
    ]
    axis = {"unit": "×", "tested": None, "exact": False, "margin": None}
    return {
        "v": 1,
        "suite": " + ".join(answer["suite"] for answer in answers),
        "rows": n,
        "seeds": n,
        "shared": None,
        "runs": sum(answer["runs"] for answer in answers),
        "planned": sum(answer["planned"] for answer in answers),
        "tested": len(over.pairs) if over.tested else 0,
        "chance": 5.0,
        "score": {
            "id": "mean_rank",
            "title": "mean rank",
            "unit": "",
            "better": "lower",
            "digits": 2,
            "difference_unit": "",
            "margin": 0.0,
        },
        "axes": [
            {"key": key, "id": f"relative_{key}", "title": TITLES[key], **axis} for key in keys
        ],
        "methods": [
            method_over(over, at, keys)
            for at in np.argsort(over.ranks.mean(axis=0), kind="stable").tolist()
        ],
        "pairs": {"score": over.pairs},
        "under": {name: count for name, count in late.items() if count},
        "guess": None,
        "failures": [failure for answer in answers for failure in answer["failures"]],
        "untried": [],
        "over": "suite",
        "least": over.least,
        "look": 1,
    }


def method_over(over: Over, at: int, keys: list[str]) -> Json:
    """Return a method: its ranks, its place by the verdicts, and its costs over those of each
    suite's cheapest.
    """
    name, first = over.methods[at], over.suites[0].methods[over.methods[at]]
    (low, high), won = (
        over.intervals[at],
        [p["w"] for p in over.pairs if p["w"] and name in {p["a"], p["b"]}],
    )
    ranks = over.ranks[:, at]
    values = {"score": {"m": float(ranks.mean()), "lo": low, "hi": high, "runs": ranks.tolist()}}
    for key in keys:
        costs = [
            {one: suite.cost(key, one) or np.inf for one in over.methods} for suite in over.suites
        ]
        factors = [of[name] / min(of.values()) for of in costs if np.isfinite(of[name])]
        if len(factors) == len(costs):
            values[f"relative_{key}"] = {
                "m": float(stats.gmean(factors)),
                "lo": None,
                "hi": None,
                "runs": factors,
            }
    place = [1 + sum(one != name for one in won), len(over.methods) - won.count(name)]
    return {
        "name": name,
        "kind": first["kind"],
        "base": first["base"],
        "place": place if over.tested else None,
        "front": None,
        "by": [],
        "seeds": len(over.suites),
        "v": values,
    }
