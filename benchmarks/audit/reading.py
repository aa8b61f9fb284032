"""Reading of a results folder: its runs chosen, and all pairs tested."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from audit.runs import Run, compared_of, most, one_host, read_run
from audit.statistics import Comparison, Floats, Pair, compare_over_rows, compare_rows, erratic, holm, shaffer, share
from audit.study import Study


def read_study(folder: Path) -> Study:
    """Read a results folder, choose its runs and test all pairs."""
    read = [read_run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    runs = sorted((run for run in read if run), key=lambda run: run.started)
    ended = [run for run in runs if run.record["status"] == "ok"]
    compared = compared_of(ended)
    home = costed(compared)
    suite = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    over = "peak_memory_over_setup_mb"
    on_cpu = bool(home) and not home[0].record["environment"]["hardware"]["gpus"]
    # Where no run has it, the whole peak: the methodology doesn't say.
    memory = over if on_cpu and any(run.metric(over) is not None for run in home) else "peak_memory_mb"
    definitions = {item["name"]: item for run in compared for item in run.record["definitions"]}
    methods = by_method(compared, list(suite["methods"]))
    study = Study(suite, runs, compared, home, methods, definitions, memory)
    compare_all(study)
    return study


def costed(compared: list[Run]) -> list[Run]:
    """Return the runs that costs are of: alone, in one environment, each seed on one host, where these are enough."""
    quiet = [run for run in compared if not run.neighbours]
    here = at_home(quiet)
    home = one_host(here)
    if 2 * len(quiet) >= len(compared) and len(home) == len(here):
        return home
    seeds = [{run.seed for run in home if run.key[0] == key} for key in {run.key[0] for run in home}]
    sharing = any(len(one & other) >= 3 for one, other in itertools.combinations(seeds, 2))
    return home if sharing else at_home(compared)


def at_home(runs: list[Run]) -> list[Run]:
    """Return the runs in the environment that most share."""
    newest = {run.environment: run.started for run in runs}
    chosen = most((run.environment for run in runs), newest.__getitem__) if runs else ""
    return [run for run in runs if run.environment == chosen]


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
            own = sorted((run for run in runs if run.key[0] == key), key=lambda run: run.seed)
            alone = len(own) == 1 and own[0].answers_alike
            found[name] = [replace(own[0], seed=seed) for seed in sorted({run.seed for run in runs})] if alone else own
    return found


def compared_pair(study: Study, metric: str, first: str, second: str) -> tuple[Floats, Comparison, bool]:
    """Return two methods' differences by seed, their comparison, and whether they look like skewed noise.

    Over rows alone: by row or group, and whether few rows carry the mean.
    """
    if metric == study.score and study.over_rows:
        d = study.drawn[first] - study.drawn[second]
        made = compare_over_rows(d, study.difference_span, study.drawn.values())
        return d, made, study.range == 0 and carried_by_few(d)
    found = study.by_seed(metric)
    seeds = sorted(set(found[first]) & set(found[second]))
    values = [np.array([found[name][seed] for seed in seeds]) for name in (first, second)]
    if not seeds:
        return np.array([]), Comparison(math.nan, math.nan, 0), False
    if metric == study.score:
        drawn = [np.array([run.drawn for run in study.methods[m] if run.seed in seeds]) for m in (first, second)]
        table, d = drawn[0] - drawn[1], values[0] - values[1]
        few_rows = study.range == 0 and carried_by_few(table.mean(axis=0))
        return d, compare_rows(table, study.difference_span, study.binary), few_rows or erratic(d, values)
    logs = [np.log(x) for x in values]
    d, grid = logs[0] - logs[1], study.grid(metric) / min(map(np.min, values))
    variance = float(d.var(ddof=1)) + grid**2 / 12 if len(seeds) > 1 else math.nan
    return d, Comparison(float(d.mean()), variance, len(seeds)), erratic(d, logs)


def carried_by_few(differences: Floats) -> bool:
    """Whether few rows carry the mean of differences; equal ones nothing does."""
    return bool(np.ptp(differences)) and abs(float(stats.skew(differences))) > 3


def compare_all(study: Study) -> None:
    """Test all pairs of methods on the metrics that rank them, as one family."""
    for metric, both in itertools.product(study.metrics, itertools.combinations(study.methods, 2)):
        d, made, marked = compared_pair(study, metric, *both)
        scale = study.scale(metric) if metric == study.score else None
        study.pairs[metric, *both] = Pair(metric, *both, d, made, marked, study.sign(metric), scale)
    for metric in study.metrics:
        if metric != study.score or not study.over_rows:
            share([pair for pair in study.pairs.values() if pair.metric == metric], len(study.measured(metric)))
    tested = [pair for pair in study.pairs.values() if pair.n >= 3]
    for pair in tested:
        pair.p = pair.comparison.p_different
        if pair.comparison.spreads:
            pair.p_margin = pair.comparison.p_margin(study.log_margin(pair.metric))
    for metric in study.metrics:
        of = tested if study.of_two else study.tested_by(metric)
        measured = len({method for pair in of for method in (pair.first, pair.second)})
        p_values = [pair.p for pair in of]
        sharing = metric != study.score or not study.over_rows
        adjusted = holm(p_values) if study.of_two else shaffer(p_values, measured, sharing=sharing)
        for pair, p in zip(of, adjusted, strict=True):
            if pair.metric == metric:
                pair.p_holm = min(1.0, 0.05 * p / (study.level("different", study.looks) * study.share(metric)))
    spread = [pair for pair in tested if pair.comparison.spreads]
    for pair, p in zip(spread, holm([pair.p_margin for pair in spread]), strict=True):
        pair.p_margin_holm = min(1.0, 0.05 * p / study.level("equivalent", study.looks))
