"""The answer, `report.json`: each of its leaves recomputed from the runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audit.over_rows import interval_over_rows, wilson
from audit.rows import flat, most_frequent
from audit.statistics import Pair, compare_rows, mean_interval
from audit.study import TIME, Study
from audit.values import NUMBER, Audit, Json, Said, says

PEAK, OVER, SAVED = "peak_memory_mb", "peak_memory_over_setup_mb", "saved_bytes"
TITLES = {"time": "Training time", "memory": "Peak memory", "size": "Saved size"}
PACKAGED = Path(__file__).parents[1] / "tuning"
"""Records of the tunings of packaged suites."""
SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
TESTS = (
    "Scores: differences of the first less the second within seed and row, in a two-way analysis of variance and a "
    "paired t test over seeds; p is the larger, the interval the wider."
)
OVER_ROWS = (
    "Scores: differences within a row. Where all are one of two values: McNemar's exact test. Else Student's t, with "
    "what few rows can't show: rare rows that carry the difference."
)
TRAINS_NOTHING = frozenset(
    {"test_samples", "eval_batch", "eval_every", "log_every", "warmup_steps", "latency_samples", "device", "world_size",
     "threads"}
)  # fmt: skip
"""Settings in which a tuning may differ from the runs without a word."""


def compare_answer(audit: Audit, answer: Json, recomputed: Json) -> None:
    """Compare every leaf of an answer with what was recomputed; one that no rule is for is a problem."""
    expected = dict(leaves(recomputed))
    for path, shown in leaves(answer):
        audit.checked += 1
        if path not in expected:
            audit.problems.append(f"report.json | {path}: {shown!r} is covered by no rule")
            continue
        wanted = expected.pop(path)
        # a cost's detectable factor is solved as a logarithm, and compared as one
        solved = path.endswith(".found") and isinstance(shown, float) and isinstance(wanted, float)
        one, other = (math.log1p(shown / 100), math.log1p(wanted / 100)) if solved else (shown, wanted)
        if not same(one, other, near=0.0 if path.endswith((".p", ".ph")) else 1e-13):
            audit.problems.append(f"report.json | {path}: said {shown!r}, recomputed {wanted!r}")
    audit.problems += [f"report.json | {path}: missing, recomputed {wanted!r}" for path, wanted in expected.items()]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf of nested mappings and lists, empty ones among them."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{path}.{key}".strip("."))
    else:
        yield path, value


def same(shown: Any, expected: Any, near: float = 0.0) -> bool:
    """Whether a leaf is what was recomputed: real numbers to a relative 1e-6, or so near to 0; all else exactly."""
    if isinstance(expected, tuple):
        return isinstance(shown, str) and says(shown, *expected)
    if isinstance(expected, float) and isinstance(shown, float | int) and not isinstance(shown, bool):
        return math.isclose(shown, expected, rel_tol=1e-6, abs_tol=near)
    return type(shown) is type(expected) and shown == expected


def answer_of(study: Study) -> Json:
    """Return the answer as nested mappings and lists; a text that holds figures may be a pattern with its values."""
    metrics = [metric for metric in study.metrics if study.measured(metric)]
    axes = [axis for key in TITLES if (axis := axis_of(study, key))]
    tested = {"score": study.score} | {axis["tested"]: axis["tested"] for axis in axes if axis["tested"]}
    own = list(study.by_seed(study.score).values())
    shared, alike_in_seeds = len(study.shared(study.score)), len({frozenset(of) for of in own if of}) < 2
    failures = [
        {"method": run.spec["name"], "seed": run.seed, "status": run.record["status"]}
        for run in study.runs if run.record["status"] not in {"ok", "interrupted", "unsupported"}
    ]  # fmt: skip
    settings = study.newest.settings
    guessed = study.scale(study.score) * float(study.guess.scores.mean())
    below = [name for name, p in study.above_guessing.items() if p >= study.level("guess", study.looks)]
    seeds_and_rows = f"other seeds, {'other' if settings['vary_data'] else 'these'} training rows and other test rows"
    judged = f"other test rows{'' if study.range else ' of this range'}, these trained models"
    guess = {"text": guessing(study), "value": study.scale(study.score) * study.guess.chance, "below": below}
    if below and not set(study.methods) - set(below):
        guess["score"] = guessed
    return {
        "v": 1, "suite": study.newest.record["spec"]["suite"], "description": study.suite.get("description", ""),
        "model": settings["backbone"].partition("#")[0], "data": settings["dataset"]["name"],
        "rows": len(study.compared[0].scores), "rows_text": study.rows,
        "seeds": len({run.seed for run in study.compared}),
        "shared": None if study.over_rows or alike_in_seeds else shared if shared > 2 else 0,
        "runs": len(study.compared), "planned": len(study.compared) + len(failures), "tested": study.tested,
        "judged": judged if study.over_rows else seeds_and_rows, "chance": 5.0, "setup": setup(study),
        "score": score(study), "axes": axes, "methods": methods(study, metrics, [axis["id"] for axis in axes]),
        "pairs": {
            name: [pair_of(study, pair) for pair in study.pairs.values() if pair.metric == metric and pair.n]
            for name, metric in tested.items()
        },
        "under": {name: count for name in study.methods if (count := under_trained(study, name))}, "guess": guess,
        "failures": failures, "unranked": unranked(study), "untried": untried(study),
        "over": "row" if study.over_rows else "seed", "least": 3, "noun": "method", "lacking": "",
        "tests": OVER_ROWS if study.over_rows else TESTS, "look": study.looks, "untested": None,
    }  # fmt: skip


# Parts


def setup(study: Study) -> Json:
    """Return the circumstances of the runs."""
    run, tuning = study.newest, tuning_of(study)
    steps, ranks = run.settings["steps"], run.settings["world_size"] or 1
    on_gpu = str(run.settings["device"]).startswith("cuda")
    hardware = run.record["environment"].get("hardware", {})
    gpu = next((short(card.get("name", "GPU"), 40) for card in hardware.get("gpus", [])), "GPU")
    processor = short(hardware.get("cpu", ""), 40)
    cpu = f"{ranks} CPU process{'es' * (ranks != 1)}" + (f" on {processor}" if processor else "")
    rated = {of["spec"]["name"]: len(of["trials"]) for of in tuning["methods"] if of["trials"]}
    trials = sorted(set(rated.values()))
    rates = "learning rates not tuned" if "settings" in tuning else "tuning of learning rates not recorded"
    untuned = [name for name, runs in study.methods.items() if name not in rated and not all(r.untrained for r in runs)]
    if trials and untuned:
        rates = (
            f"learning rates of {len(untuned)} methods not tuned"
            if untuned[1:]
            else f"learning rate of {untuned[0]} not tuned"
        )
    elif trials:
        where = " in other settings" if tuned_elsewhere(study, tuning) else ""
        unequal = f"learning rates tuned unequally{where}, {trials[0]} to {trials[-1]} trials"
        rates = unequal if trials[1:] else f"learning rates tuned{where or ' alike'}, {trials[0]} trials each"
    return {
        "budget": f"{steps:,} steps" if steps else f"{run.settings['epochs']:g} epochs",
        "device": cpu if not on_gpu else gpu if ranks == 1 else f"{ranks} x {gpu}",
        "host": study.hosts[0] if len(study.hosts) == 1 else f"{len(study.hosts)} hosts" if study.hosts else "",
        "rates": rates,
        "memory": "memory: peak on one GPU" if on_gpu else "memory: peak of one process",
    }


def short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def tuning_of(study: Study) -> Json:
    """Return the folder's own tuning, else that of the suite that was tuned, beside it or packaged; else no trials."""
    name, own = str(study.newest.record["spec"]["suite"]).removesuffix("-tuned"), Path("tuning/trials.json")
    places = (study.folder / own, study.folder.parent / name / own, PACKAGED / f"{name}.json")
    path = next((place for place in places if place.exists()), None)
    found: Json = json.loads(path.read_text(encoding="utf-8")) if path else {"methods": []}
    return found


def with_defaults(settings: Json) -> Json:
    """Return recorded settings and the documented defaults of those that they lack."""
    section = SETTINGS.read_text(encoding="utf-8").partition("## `settings`: ")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| (?:`([^|]*)`|\*empty\*) \|", section, re.MULTILINE)
    found = {name: json.loads(text or "null") for name, text in rows} | settings
    if isinstance(found["optimizer"], str):
        found["optimizer"] = {"name": found["optimizer"], "options": {}}
    return found


def tuned_elsewhere(study: Study, tuning: Json) -> bool:
    """Return whether the tuning had other settings than the runs; an option that one lacks is taken to be alike."""
    there, here = with_defaults(tuning["settings"]), with_defaults(study.newest.settings)
    return any(not alike(there.get(key), value) for key, value in here.items() if key not in TRAINS_NOTHING)


def alike(one: Any, other: Any) -> bool:
    """Return whether two settings are equal, of plug-ins those options that both name."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(alike(one[key], other[key]) for key in one.keys() & other.keys())
    return bool(one == other)


def score(study: Study) -> Json:
    """Return the score by which methods are compared."""
    definition, scale = study.definitions[study.score], study.scale(study.score)
    unit = "%" if scale == 100 else definition["unit"]
    largest = max((abs(study.mean(study.score, name)) for name in study.measured(study.score)), default=1.0)
    digits = max(0, min(6, 2 - math.floor(math.log10(scale * largest)))) if largest > 0 else 2
    return {
        "id": study.score, "title": definition["title"], "unit": unit,
        "better": "lower" if study.sign(study.score) < 0 else "higher", "digits": 1 if unit == "%" else digits,
        "difference_unit": "points" if unit == "%" else unit, "margin": scale * study.margin(study.score),
    }  # fmt: skip


def axis_of(study: Study, key: str) -> Json | None:
    """Return a cost, if it was measured: of memory the whole peak where there is one."""
    name = {"time": TIME, "memory": PEAK if has(study, PEAK) else OVER, "size": SAVED}[key]
    if not has(study, name):
        return None
    exact = not study.definitions[name]["noisy"]
    stands = study.memory if key == "memory" else name
    tested = stands if stands in study.metrics and not exact else None
    of = {"key": key, "id": name, "title": TITLES[key]}
    return of | {"unit": shown_in(study, name)[1], "tested": tested, "exact": exact, "margin": study.margin(stands)}


def unranked(study: Study) -> str | None:
    """Return why no cost ranks methods, as the end of a sentence and sentences after it."""
    costs = [of for of in (TIME, study.memory) if has(study, of)]
    reasons = [why for why in map(study.unranked, costs) if not why.startswith("under two methods")]
    first, *more = dict.fromkeys(reasons) or [""]
    if not first or any(of in study.metrics for of in costs):
        return None
    return ". ".join([first, *(why[0].upper() + why[1:] for why in more)])


def has(study: Study, metric: str) -> bool:
    return metric in study.definitions and bool(study.measured(metric))


def shown_in(study: Study, metric: str) -> tuple[float, str]:
    """Return what a cost is multiplied by to be shown, and its unit: one for all methods."""
    unit = study.definitions[metric]["unit"]
    both = [PEAK, OVER] if unit == "MB" else [metric]
    largest = max(study.mean(m, name) for m in both if has(study, m) for name in study.measured(m))
    larger = {"s": (60, 600, "min"), "MB": (1000, 10_000, "GB")}
    size, least, name = larger.get(unit, (1, math.inf, unit))
    return (1e-6, "MB") if unit == "bytes" else (1 / size, name) if largest >= least else (1.0, unit)


def methods(study: Study, metrics: list[str], costs: list[str]) -> list[Json]:
    """Return the methods, those with a score first, the best mean first."""
    of = {"score": (study.score, study.scale(study.score))}
    of |= {name: (name, shown_in(study, name)[0]) for name in {*costs, OVER} if has(study, name)}
    sign = -study.sign(study.score)
    found = []
    for name, runs in study.methods.items():
        place, above = study.place(name, metrics) if study.tested and len(metrics) > 1 else ("–", [])
        untrained, kind = all(run.untrained for run in runs), runs[0].spec["method"]
        own = {key: found for key, found in of.items() if not (untrained and key == SAVED)}
        values = {key: value for key, (metric, by) in own.items() if (value := values_of(study, name, metric, by))}
        entry = {
            "name": name, "kind": kind, "base": untrained and kind == "none",
            "place": study.ranks(study.score, name) if study.tested else None,
            "front": None if place == "–" or len(study.methods) < 2 else place, "by": above,
            "seeds": len({run.folder for run in runs}), "settings": settings_of(study, name), "v": values,
        }  # fmt: skip
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
    bounds = own_interval(study, name) if metric == study.score else mean_interval(values, study.grid(metric))
    low, high = (max(least, bounds[0]), min(most, bounds[1])) if bounds else (math.nan, math.nan)
    mean = scale * float(np.mean(values))
    return {"m": mean, "lo": known(scale * low), "hi": known(scale * high), "runs": [scale * value for value in values]}


def own_interval(study: Study, name: str) -> tuple[float, float] | None:
    """Return a method's own interval of the score, for what its verdicts hold for."""
    shared, runs = study.shared(study.score), study.methods[name]
    if not study.over_rows:
        kept = [run.drawn for run in runs if run.seed in shared or len(shared) < 3]
        return compare_rows(np.array(kept, dtype=float), study.span, study.binary).interval
    if study.binary and len(runs) == 1 and "group" not in runs[0].predictions:
        return wilson(float(runs[0].scores.mean()), len(runs[0].scores))
    return interval_over_rows(study.drawn[name], study.span)


def known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def pair_of(study: Study, pair: Pair) -> Json:
    """Return all that is said of a pair."""
    own = pair.comparison.interval or (math.nan, math.nan)
    tested = pair.n > 2 and pair.comparison.spreads
    wide = pair.comparison.accepted(study.decided_at(pair)) if tested else None
    verdict = "different" if pair.better else "equivalent" if pair.equivalent else "undecided"
    ends = [*map(known, map(pair.shown, own)), *(map(pair.shown, wide) if wide else (None, None))]
    return {
        "a": pair.first, "b": pair.second, "v": verdict if pair.n > 2 else "untested", "w": pair.better,
        "d": pair.shown(pair.comparison.mean), **dict(zip(("lo", "hi", "wlo", "whi"), ends, strict=True)),
        "p": known(pair.p), "ph": known(pair.p_holm), "need": study.seeds_to_decide(pair),
        "n": len(study.compared[0].scores) if study.over_rows and pair.metric == study.score else pair.n,
        "small": bool(pair.better and pair.equivalent),
        "skew": bool(pair.erratic and (pair.better or pair.equivalent)), "p_margin": known(pair.p_margin),
        "p_margin_adjusted": known(pair.p_margin_holm), "found": found(study, pair) if tested else None,
    }  # fmt: skip


def found(study: Study, pair: Pair) -> float | None:
    """Return the least difference that a pair's seeds would find, of costs in per cent; none beyond the range."""
    least = pair.comparison.detectable(study.first_level(pair.metric, study.looks))
    if pair.scale is None:
        return 100 * math.expm1(least)
    return pair.scale * least if least <= (study.range or math.inf) else None


def settings_of(study: Study, name: str) -> list[list[str]]:
    """Return what is set for a method: kind, rate, optimizer and options."""
    spec = study.methods[name][0].spec
    trials = next((len(of["trials"]) for of in tuning_of(study)["methods"] if of["spec"]["name"] == name), 0)
    tuned = f", tuned in {trials} trial{'s' * (trials != 1)}" if trials else ""
    texts = []
    for key, value in spec["options"].items():
        several = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value
        texts.append(f"{key} = {'none' if value is None else several}")
    optimizer = [["Optimizer", spec["optimizer"]["name"]]] if spec.get("optimizer") else []
    rate = ["Learning rate", f"{spec['lr']:g}{tuned}"]
    return [["Kind", spec["method"]], rate, *optimizer, ["Options", ", ".join(texts) or "none"]]


def guessing(study: Study) -> Said:
    """Return what guessing gives, in words."""
    run = study.compared[0]
    reference, names = run.predictions["reference"], run.record["label_names"]
    if study.score == "test_accuracy":
        share = most_frequent(reference)[1]
        return (
            rf"Guessing the most frequent class gets ({NUMBER}) % of the test rows right \(macro-F1 ({NUMBER})\); "
            rf"chance is ({NUMBER}) %\.",
            [100 * share, 2 * share / (1 + share) / len(names), 100 / len(names)],
        )
    if study.score == "test_rmse":
        text = rf"Guessing the mean of the test rows, ({NUMBER}), for each of them has an RMSE of ({NUMBER})\."
        return text, [float(reference.mean()), study.guess.chance]
    if study.score == "test_f1":
        outside = [index for index, name in enumerate(names) if name == "O"]
        text = (
            rf"Tagging nothing gets ({NUMBER}) % of the words of the test rows right and finds no entity: its F1 is 0\."
        )
        return text, [100 * float(np.isin(flat(reference), outside).mean())]
    if study.score == "test_loss":
        text = rf"Guessing every token by how often it occurs in these rows has a loss of ({NUMBER}) nats/token\."
        return text, [study.guess.chance]
    if "said_choices" in run.predictions:
        text, figures = rf"Choosing at random is right in ({NUMBER})% of the test rows on average\.", []
        if run.settings["task"]["options"].get("question"):
            text = rf"Guessing the most frequent class gets ({NUMBER})% of the test rows right; chance is ({NUMBER})%\."
            figures = [100 * float(study.guess.scores.mean())]
        return text, [*figures, 100 * study.guess.chance]
    return "An empty answer scores 0."


def under_trained(study: Study, name: str) -> int:
    """Return how many runs of a method have their lowest validation loss at last, over 2 % below the one before."""
    losses = [[value for _, value in sorted(run.series("validation_loss").items())] for run in study.methods[name]]
    return sum(len(loss) > 1 and loss[-1] == min(loss) and loss[-1] < 0.98 * loss[-2] for loss in losses)


def untried(study: Study) -> list[str]:
    """Return the methods without a compared run: those that were tried first, then those of the suite without a run."""
    compared = {run.spec["name"] for run in study.compared}
    well = [run for run in study.runs if run.record["status"] == "ok" and run not in study.compared]
    tried = [run.spec["name"] for run in (*(run for run in study.runs if run.record["status"] != "ok"), *well)]
    return list(dict.fromkeys(name for name in (*tried, *study.suite["methods"]) if name not in compared))
