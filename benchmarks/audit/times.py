"""Tables of times: until a target, the budget, steadiness, scaling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from audit.page import Table
from audit.reading import by_method
from audit.runs import OTHER_CHECKPOINTING, OTHER_RANKS, Run, checkpointing_key
from audit.statistics import mean_interval
from audit.study import Study
from audit.values import MEAN, Atom, Near, interval_cell, mean_cell
from audit.words import Cells, Row

PHASES = ("first_step_seconds", "train_seconds", "evaluation_seconds", "inference_seconds")


def validation(study: Study) -> str:
    """Return the name of the score's points on the validation rows."""
    return f"validation_{study.score.removeprefix('test_')}"


def best_means(study: Study) -> dict[str, float]:
    """Return each method's mean over the runs of the best validation score."""
    best = max if study.sign(study.score) > 0 else min
    found = {
        name: [best(series.values()) for run in runs if (series := run.series(validation(study)))]
        for name, runs in study.methods.items()
    }
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def base(study: Study) -> list[str]:
    """Return the methods that train nothing."""
    return [name for name, runs in study.methods.items() if all(run.untrained for run in runs)]


def start(study: Study) -> float:
    """Return where learning begins: at the base model's validation score, where it was run, else at chance."""
    untrained = [best for name, best in best_means(study).items() if name in base(study)]
    return untrained[0] if untrained else study.guess.chance


def noise(study: Study) -> float:
    """Return two standard errors of a score on the validation rows, by the median run's spread over the test rows."""
    spreads = [float(run.drawn.std(ddof=1)) for run in study.compared]
    run = study.compared[0]
    return 2 * float(np.median(spreads)) / math.sqrt(study.validation_rows * len(run.drawn) / len(run.scores))


def targets(study: Study) -> dict[str, float]:
    """Return the targets as shown: half, three and nine tenths of the way from the start to the best mean."""
    sign, scale, means = study.sign(study.score), study.scale(study.score), best_means(study)
    if not means:
        return {}
    chance = scale * start(study)
    way = max(sign * scale * value for value in means.values()) - sign * chance
    if scale == 100:
        # "Where that way is short": 20 points or less; the methodology doesn't say.
        step = 5.0 if way > 20 + 1e-9 else 1.0
    else:
        power = 10.0 ** math.floor(math.log10(way)) if way > 0 else 1.0
        step = (0.5 if way > 2 * power else 0.1) * power
    # Rounded towards the start, in the score's direction.
    found = {sign * step * math.floor((sign * chance + share * way) / step + 1e-9) for share in (0.5, 0.75, 0.9)}
    unit = "%" if scale == 100 else study.definitions[study.score]["unit"]
    least = max(1e-12, scale * noise(study))
    shown = sorted((target for target in found if sign * (target - chance) > least), key=lambda target: sign * target)
    return {f"{target:.6g} {unit}".strip(): target / scale for target in shown}


def until(study: Study, table: Table, row: Row) -> Cells:
    """Seconds of training steps, or samples, until a validation score."""
    seconds = table.name.startswith("seconds")
    runs = [run for run in study.methods[row["method"]] if run in study.home or not seconds]
    sign, wanted = study.sign(study.score), targets(study)
    found: Cells = dict.fromkeys(wanted, None)
    for target, level in wanted.items() if runs else ():
        values = []
        for run in runs:
            series = sorted(run.series(validation(study)).items())
            step = next((at for at, value in series if sign * (value - level) >= -1e-11), None)
            if step is not None:
                spent = sum(value for at, value in run.series("step_seconds").items() if at <= step)
                samples = step * run.settings["global_batch"]
                values.append(spent if seconds else float(samples))
        missing = f"never ({len(runs) - len(values)} of {len(runs)})" if len(values) < len(runs) else ""
        mean, never = mean_cell(values), r"(?:(?:,? )?(never \(\d+ of \d+\)))?"
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


def too_short(runs: list[Run]) -> bool:
    """Whether the interval of a method's mean drift leaves too much open, or a run has none."""
    known = [run for run in runs if "step_time_drift_low" in {kept["name"] for kept in run.record["definitions"]}]
    ends = [(run.metric("step_time_drift_low"), run.metric("step_time_drift_high")) for run in known]
    logs = np.array([(math.log1p(low), math.log1p(high)) for low, high in ends if low is not None and high is not None])
    if not known or len(logs) < len(known):
        return bool(known)
    half = math.sqrt(float((np.diff(logs, axis=1) ** 2).sum()) / 4) / len(logs)
    low, high = math.expm1(float(logs.mean()) - half), math.expm1(float(logs.mean()) + half)
    return low <= 0.05 and high >= -0.05 and (low < -0.1 or high > 0.1)


def pause(run: Run) -> float:
    """Return the share of the time that one step took, if the variation is one step's."""
    return (run.metric("step_time_cv") or 0.0) / math.sqrt(run.metric("timed_steps") or 1)


def timed_runs(study: Study) -> list[Run]:
    """Return the runs that have all four phases."""
    return [run for run in study.home if all(run.metric(name) is not None for name in PHASES)]


def scaling(study: Study, table: Table, row: Row) -> Cells:
    """Speed-up and efficiency over numbers of ranks and nodes, over the seeds that each has."""
    name = row["method"]
    like = [*study.home, *(run for run, why in study.apart.items() if why == OTHER_RANKS)]
    found: dict[tuple[int, int], dict[int, Run]] = {}
    for other in sorted({run.size for run in like}):
        group = [run for run in like if run.size == other and not run.neighbours]
        kept = by_method(group, list(study.suite["methods"]))
        if name in kept:
            found[other] = {run.seed: run for run in kept[name]}
    shared = set.intersection(*map(set, found.values()))
    # CSV has the ranks alone: a method's rows stand by ranks, then by nodes.
    size = sorted(found)[[cells for cells in table.rows if cells[0] == name].index([*row.values()])]
    ranks = size[0]

    def mean(metric: str, size: tuple[int, int] = size) -> float:
        values = [found[size][seed].metric(metric) for seed in shared]
        return float(np.mean([math.nan if value is None else value for value in values]))

    base_size = min(found)
    gains = [math.log(rate(found[size][seed]) / rate(found[base_size][seed])) for seed in shared]
    speed_up, bounds = factor(gains)
    crossing = {"within nodes (bytes/step)": "within_nodes_bytes_per_step",
                "between nodes (bytes/step)": "between_nodes_bytes_per_step"}  # fmt: skip
    return {
        "ranks": ranks,
        "seeds": len(shared),
        "samples/s": mean("samples_per_second"),
        "95 % interval": interval_cell(bounds) if size != base_size else None,
        "speed-up": speed_up,
        "efficiency (%)": 100 * speed_up / (ranks / base_size[0]),
        "all-reduced (bytes/step)": mean("allreduced_bytes_per_step") if ranks > 1 else None,
        "all-reduce time (ms)": mean("communication_ms") if ranks > 1 else None,
        "all-reduce share (%)": mean("communication_percent") if ranks > 1 else None,
        **{column: mean(metric) if size[1] > 1 else None for column, metric in crossing.items() if column in row},
    }


def rate(run: Run) -> float:
    """Return a run's samples/s."""
    return run.metric("samples_per_second") or math.nan


def factor(logs: list[float]) -> tuple[float, tuple[float, float] | None]:
    """Return the geometric mean of factors by their logarithms, and its interval; of one there is none."""
    bounds = mean_interval(logs, 0.0)
    return math.exp(float(np.mean(logs))), (math.exp(bounds[0]), math.exp(bounds[1])) if bounds else None


def checkpointing(study: Study, _: Table, row: Row) -> Cells:
    """Time and memory of runs that differ in nothing but gradient checkpointing."""
    own = {checkpointing_key(run): run for run in study.methods[row["method"]] if run in study.home}
    others = [run for run, why in study.apart.items() if why == OTHER_CHECKPOINTING and checkpointing_key(run) in own]
    pairs = [
        sorted((run, own[checkpointing_key(run)]), key=lambda run: bool(run.settings.get("gradient_checkpointing")))
        for run in others
    ]

    def values(metric: str, side: int) -> list[float]:
        found = [pair[side].metric(metric) for pair in pairs]
        return [math.nan if value is None else value for value in found]

    (kept, again), (most, least) = (
        [float(np.mean(values(name, side))) for side in (0, 1)] for name in ("train_seconds", "peak_memory_mb")
    )
    longer = zip(values("train_seconds", 0), values("train_seconds", 1), strict=True)
    ratio, bounds = factor([math.log(after / before) for before, after in longer])
    saved = [a - b for a, b in zip(values("peak_memory_mb", 0), values("peak_memory_mb", 1), strict=True)]
    return {
        "seeds": len(pairs),
        "time, kept (s)": kept,
        "time, computed again (s)": again,
        "ratio": ratio,
        "95 % interval of the ratio": interval_cell(bounds),
        "peak, kept (MB)": most,
        "peak, computed again (MB)": least,
        "saved (MB)": most - least,
        "95 % interval of saved (MB)": interval_cell(mean_interval(saved, 0.0)),
    }
