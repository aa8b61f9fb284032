"""Records against the points of their steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from audit.runs import Run
from audit.values import Audit, Floats, Json


def check_record(audit: Audit, run: Run) -> None:
    """Check a run's metrics against its points, as far as these tell."""
    for label, shown, value in recorded(run):
        audit.checked["Records | metrics against points and predictions"] += 1
        if shown is None or abs(shown - value) > 1e-6 * max(abs(value), 1e-12):
            audit.problems.append(f"Records | {run.folder.name} | {label}: record {shown}, recomputed {value}")


def recorded(run: Run) -> Iterator[tuple[str, float | None, float]]:
    """Yield metrics as recorded and recomputed; times and scores are checked where runs are chosen."""
    m = run.metric
    trained, head = m("trainable_parameters") or 0, m("head_parameters") or 0
    yield "trainable_percent", m("trainable_percent"), 100 * trained / ((m("total_parameters") or 0) - head)
    if "score" in run.predictions:
        yield "scores of the rows", float(np.abs(run.predictions["score"] - run.scores).max() > 1e-9), 0.0
    yield "inference rate", m("inference_samples_per_second"), len(run.scores) / (m("inference_seconds") or math.nan)
    if m("forgetting") is not None:
        yield "forgetting", m("retention_loss"), (m("forgetting") or 0) + (m("base_retention_loss") or 0)
    if not run.untrained:
        norm = float(np.mean(list(run.series("grad_norm").values())))
        yield "train_loss", m("train_loss"), float(np.mean(list(run.series("train_loss").values())[-20:]))
        yield "grad_norm", m("grad_norm"), norm
        yield "grad_norm_per_sqrt_parameter", m("grad_norm_per_sqrt_parameter"), norm / math.sqrt(trained + head)
    over = {metric["name"]: metric["over_ranks"] for metric in run.record["definitions"]}
    for name, values in run.record["per_rank"].items():
        if over[name] in {"max", "sum"} and None not in values:
            yield f"{name} of the ranks", m(name), float(max(values) if over[name] == "max" else sum(values))
    yield from steady(run, [point for point in run.points if point["metric"] == "step_seconds"])


def steady(run: Run, points: list[Json]) -> Iterator[tuple[str, float | None, float]]:
    """Yield what is said of the timed steps; more of it where the points hold each rank's seconds and the tokens."""
    m, timed = run.metric, [p for p in points[run.settings["warmup_steps"] :] if not p.get("again")]
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
    yield "timed_seconds", m("timed_seconds"), float(s.sum())
    if all(point.get("real_tokens") for point in timed):
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
