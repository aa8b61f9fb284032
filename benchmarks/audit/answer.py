"""The answer, `report.json`: each of its figures, names and verdicts recomputed from the runs."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from audit.over_rows import interval_over_rows
from audit.statistics import Json, Pair, compare_rows, mean_interval
from audit.study import TIME, Study, compared_checkpoints

PEAK, OVER, SAVED = "peak_memory_mb", "peak_memory_over_setup_mb", "saved_bytes"
TITLES = {"time": "Training time", "memory": "Peak memory", "size": "Saved size"}
WORDS = re.compile(
    r"(description|model|data|rows_text|judged|checkpoints_judged|setup|tests|noun|lacking|unranked|untested)(\..*)?"
    r"|guess\.text|methods\.\d+\.settings\b.*"
)
"""Leaves that are sentences about the settings and the figures beside them, to which tests of
the pages hold them.
"""


def compared(answer: Json, recomputed: Json) -> tuple[int, list[str]]:
    """Return how many leaves an answer has, words apart, and a line for each that isn't what was
    recomputed.
    """
    checked, problems, expected = 0, [], dict(leaves(recomputed))
    for path, shown in leaves(answer):
        if WORDS.fullmatch(path):
            continue
        checked += 1
        if path not in expected:
            problems.append(f"report.json | {path}: {shown!r} is covered by no rule")
            continue
        wanted = expected.pop(path)
        # a cost's detectable factor is solved as a logarithm, and compared as one
        solved = path.endswith(".found") and isinstance(shown, float) and isinstance(wanted, float)
        one, other = (
            (math.log1p(shown / 100), math.log1p(wanted / 100)) if solved else (shown, wanted)
        )
        if not same(one, other, near=0.0 if path.endswith((".p", ".ph")) else 1e-13):
            problems.append(f"report.json | {path}: said {shown!r}, recomputed {wanted!r}")
    missing = [
        f"report.json | {path}: missing, recomputed {wanted!r}" for path, wanted in expected.items()
    ]
    return checked, problems + missing


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf of nested mappings and lists, empty ones among them."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{path}.{key}".strip("."))
    else:
        yield path, value


def same(shown: Any, expected: Any, near: float = 0.0) -> bool:
    """Whether a leaf is what was recomputed: real numbers to a relative 1e-6, or so near to 0;
    all else exactly.
    """
    if (
        isinstance(expected, float)
        and isinstance(shown, float | int)
        and not isinstance(shown, bool)
    ):
        return math.isclose(shown, expected, rel_tol=1e-6, abs_tol=near)
    return type(shown) is type(expected) and shown == expected


def answer_of(study: Study) -> Json:
    """Return the answer as nested mappings and lists, without its words."""
    metrics = [metric for metric in study.metrics if study.measured(metric)]
    axes = [axis for key in TITLES if (axis := axis_of(study, key))]
    tested = {"score": study.score} | {
        axis["tested"]: axis["tested"] for axis in axes if axis["tested"]
    }
    own = list(study.by_seed(study.score).values())
    shared, alike_in_seeds = (
        len(study.shared(study.score)),
        len({frozenset(of) for of in own if of}) < 2,
    )
    failures = [
        {"method": run.spec["name"], "seed": run.seed, "status": run.record["status"]}
        for run in study.runs
        if run.record["status"] not in {"ok", "interrupted", "unsupported"}
    ]
    guessed = study.scale(study.score) * float(study.guess.scores.mean())
    below = [
        name for name, p in study.above_guessing.items() if p >= study.level("guess", study.looks)
    ]
    guess = {"value": study.scale(study.score) * study.guess.chance, "below": below}
    if below and not set(study.methods) - set(below):
        guess["score"] = guessed
    checkpoints = compared_checkpoints(study)
    return {
        "v": 1,
        "suite": study.newest.record["spec"]["suite"],
        "rows": len(study.compared[0].scores),
        "seeds": len({run.seed for run in study.compared}),
        "tested": study.tested,
        "chance": 5.0,
        "shared": None if study.over_rows or alike_in_seeds else shared if shared > 2 else 0,
        "runs": len(study.compared),
        "planned": len(study.compared) + len(failures),
        "score": score(study),
        "axes": axes,
        "methods": methods(study, metrics, [axis["id"] for axis in axes]),
        "pairs": {
            name: [
                pair_of(study, pair)
                for pair in study.pairs.values()
                if pair.metric == metric and pair.n
            ]
            for name, metric in tested.items()
        },
        "under": {name: count for name in study.methods if (count := under_trained(study, name))},
        "guess": guess,
        "failures": failures,
        "untried": untried(study),
        "over": "row" if study.over_rows else "seed",
        "least": 3,
        "look": study.looks,
        **({"declared_looks": study.declared_looks} if study.declared_looks else {}),
        **({"checkpoints": checkpoints} if checkpoints else {}),
    }


def score(study: Study) -> Json:
    definition, scale = study.definitions[study.score], study.scale(study.score)
    unit = "%" if scale == 100 else definition["unit"]
    largest = max(
        (abs(study.mean(study.score, name)) for name in study.measured(study.score)), default=1.0
    )
    digits = max(0, min(6, 2 - math.floor(math.log10(scale * largest)))) if largest > 0 else 2
    return {
        "id": study.score,
        "title": definition["title"],
        "unit": unit,
        "better": "lower" if study.sign(study.score) < 0 else "higher",
        "digits": 1 if unit == "%" else digits,
        "difference_unit": "points" if unit == "%" else unit,
        "margin": scale * study.margin(study.score),
    }


def axis_of(study: Study, key: str) -> Json | None:
    """Return a cost, if it was measured: of memory the whole peak where there is one."""
    name = {"time": TIME, "memory": PEAK if has(study, PEAK) else OVER, "size": SAVED}[key]
    if not has(study, name):
        return None
    exact = not study.definitions[name]["noisy"]
    stands = study.memory if key == "memory" else name
    tested = stands if stands in study.metrics and not exact else None
    of = {"key": key, "id": name, "title": TITLES[key]}
    return of | {
        "unit": shown_in(study, name)[1],
        "tested": tested,
        "exact": exact,
        "margin": study.margin(stands),
    }


def has(study: Study, metric: str) -> bool:
    return metric in study.definitions and bool(study.measured(metric))


def shown_in(study: Study, metric: str) -> tuple[float, str]:
    """Return what a cost is multiplied by to be shown, and its unit: one for all methods."""
    unit = study.definitions[metric]["unit"]
    both = [PEAK, OVER] if unit == "MB" else [metric]
    largest = max(study.mean(m, name) for m in both if has(study, m) for name in study.measured(m))
    larger = {"s": (60, 600, "min"), "MB": (1000, 10_000, "GB")}
    size, least, name = larger.get(unit, (1, math.inf, unit))
    return (
        (1e-6, "MB") if unit == "bytes" else (1 / size, name) if largest >= least else (1.0, unit)
    )


def methods(study: Study, metrics: list[str], costs: list[str]) -> list[Json]:
    """Return the methods, those with a score first, the best mean first."""
    of = {"score": (study.score, study.scale(study.score))}
    of |= {name: (name, shown_in(study, name)[0]) for name in {*costs, OVER} if has(study, name)}
    sign = -study.sign(study.score)
    found = []
    for name, runs in study.methods.items():
        place, above = (
            study.place(name, metrics) if study.tested and len(metrics) > 1 else ("–", [])
        )
        untrained, kind = all(run.untrained for run in runs), runs[0].spec["method"]
        own = {key: found for key, found in of.items() if not (untrained and key == SAVED)}
        values = {
            key: value
            for key, (metric, by) in own.items()
            if (value := values_of(study, name, metric, by))
        }
        entry = {
            "name": name,
            "kind": kind,
            "base": untrained and kind == "none",
            "place": study.ranks(study.score, name) if study.tested else None,
            "front": None if place == "–" or len(study.methods) < 2 else place,
            "by": above,
            "seeds": len({run.folder for run in runs}),
            "v": values,
        }
        # ten digits: means that differ in their last bits alone are equal
        order = float(f"{sign * values['score']['m']:.10g}") if "score" in values else math.inf
        found.append((order, entry))
    return [entry for _, entry in sorted(found, key=lambda one: one[0])]


def values_of(study: Study, name: str, metric: str, scale: float) -> Json | None:
    """Return a method's mean, its interval and the runs' values."""
    values = study.values(metric)[name]
    if not values:
        return None
    least, most = study.bounds(metric)  # where intervals are cut; no cost is below 0
    least = least if metric == study.score else max(least, 0.0)
    bounds = (
        own_interval(study, name)
        if metric == study.score
        else mean_interval(values, study.grid(metric))
    )
    low, high = (max(least, bounds[0]), min(most, bounds[1])) if bounds else (math.nan, math.nan)
    mean = scale * float(np.mean(values))
    return {
        "m": mean,
        "lo": known(scale * low),
        "hi": known(scale * high),
        "runs": [scale * value for value in values],
    }


def own_interval(study: Study, name: str) -> tuple[float, float] | None:
    """Return a method's own interval of the score, for what its verdicts hold for."""
    shared, runs = study.shared(study.score), study.methods[name]
    if not study.over_rows:
        kept = [run.drawn for run in runs if run.seed in shared or len(shared) < 3]
        return compare_rows(
            np.array(kept, dtype=float), study.span, study.binary, study.weights
        ).interval
    if study.binary and len(runs) == 1 and "group" not in runs[0].predictions:
        found = stats.binomtest(int(runs[0].scores.sum()), len(runs[0].scores)).proportion_ci(
            method="wilson"
        )
        return float(found.low), float(found.high)
    return interval_over_rows(study.drawn[name], study.span, study.weights)


def known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def pair_of(study: Study, pair: Pair) -> Json:
    own = pair.comparison.interval or (math.nan, math.nan)
    tested = pair.n > 2 and pair.comparison.spreads
    first = study.first_level(pair.metric, study.looks)
    # the level at which it is decided; of a pair that is nowhere near, or far beyond, its first
    level = first if pair.p_holm >= 1 or pair.p == 0 else 0.05 * pair.p / pair.p_holm
    wide = pair.comparison.accepted(level) if tested else None
    found, most = None, (pair.scale and study.range) or math.inf
    if (
        tested and (least := pair.comparison.detectable(first)) <= most
    ):  # what its seeds would find, in the range
        found = pair.scale * least if pair.scale else 100 * math.expm1(least)
    verdict = "different" if pair.better else "equivalent" if pair.equivalent else "undecided"
    # no difference is beyond the score's range
    cut = [
        min(max(end, -most), most) if math.isfinite(end) else end for end in (*own, *(wide or ()))
    ]
    ends = [known(pair.shown(end)) for end in cut] + ([] if wide else [None, None])
    return {
        "a": pair.first,
        "b": pair.second,
        "v": verdict if pair.n > 2 else "untested",
        "w": pair.better,
        "d": pair.shown(pair.comparison.mean),
        **dict(zip(("lo", "hi", "wlo", "whi"), ends, strict=True)),
        "p": known(pair.p),
        "ph": known(pair.p_holm),
        "need": study.seeds_to_decide(pair),
        "n": len(study.compared[0].scores)
        if study.over_rows and pair.metric == study.score
        else pair.n,
        "small": bool(pair.better and pair.equivalent),
        "skew": bool(pair.erratic and (pair.better or pair.equivalent)),
        "p_margin": known(pair.p_margin),
        "p_margin_adjusted": known(pair.p_margin_holm),
        "found": found,
    }


def under_trained(study: Study, name: str) -> int:
    """Return how many runs of a method have their lowest validation loss at last, over 2 % below
    the one before.
    """
    losses = [
        [value for _, value in sorted(run.series("validation_loss").items())]
        for run in study.methods[name]
    ]
    return sum(
        len(loss) > 1 and loss[-1] == min(loss) and loss[-1] < 0.98 * loss[-2] for loss in losses
    )


def untried(study: Study) -> list[str]:
    """Return the methods without a compared run: those that were tried first, then those of the
    suite without a run.
    """
    compared = {run.spec["name"] for run in study.compared}
    well = [run for run in study.runs if run.record["status"] == "ok" and run not in study.compared]
    tried = [
        run.spec["name"]
        for run in (*(run for run in study.runs if run.record["status"] != "ok"), *well)
    ]
    return list(
        dict.fromkeys(name for name in (*tried, *study.suite["methods"]) if name not in compared)
    )
