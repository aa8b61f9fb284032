"""Descriptions of the figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from audit.scores import with_interval
from audit.study import Study
from audit.takeaways import UnreadError
from audit.times import validation
from audit.trials import score
from audit.values import NUMBER, Fact
from audit.words import metric_in, metric_of

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
            metric, scale = named_metric(study, dots[1])
            yield part, shown, with_interval(study, metric, name, scale)
        elif scatter := re.fullmatch(r"Scatter of (.+) against (.+)", kind):
            axes = [named_metric(study, axis) for axis in (scatter[2], scatter[1])]
            pattern = rf"({NUMBER}), ({NUMBER})"
            yield part, shown, (pattern, [scale * study.mean(metric, name) for metric, scale in axes])
        elif curve := re.fullmatch(r"Line chart of (.+) against step", kind):
            points_of, scale = drawn(study, curve[1])
            series = [points for run in study.methods[name] if (points := run.series(points_of))]
            value = float(np.mean([points[max(points)] for points in series]))
            yield part, shown.removeprefix("ends at ").partition(" ")[0], scale * value
        elif re.fullmatch(r"Line chart of validation .+ against learning rate", kind):
            best = study.tuning.best(name)
            pattern = rf"({NUMBER})(?: \S+)? at ({NUMBER})"
            yield part, shown, (pattern, [study.tuning.scale * score(best), float(best["lr"])])
        elif kind.startswith("Bar chart of") and shown.rpartition(" ")[0] in BARS:
            yield part, shown.rpartition(" ")[2], study.mean(BARS[shown.rpartition(" ")[0]], name)
        elif bars := re.fullmatch(r"Bar chart of (.+) by method", kind):
            metric, scale = named_metric(study, bars[1])
            yield part, shown, scale * study.mean(metric, name)
        else:
            raise UnreadError(part)
    if scatter := re.fullmatch(r"Scatter of (.+) against (.+)", kind):
        metrics = [metric_in(study, axis) for axis in scatter.groups()]
        on = [name for name in study.methods if study.place(name, metrics)[0] == "on"]
        yield "on the front", body.partition(". On the front: ")[2].rstrip("."), ", ".join(on) or "unknown"


def named_metric(study: Study, header: str) -> tuple[str, float]:
    """Return the metric that an axis is of, and what its values are multiplied by."""
    found = metric_of(study, header)
    if found is None:
        raise UnreadError(header)
    return found


def drawn(study: Study, title: str) -> tuple[str, float]:
    """Return the points that a curve is of, and what their values are multiplied by."""
    if title == f"Validation {study.title}":
        return validation(study), study.scale(study.score)
    if title in CURVES:
        return CURVES[title], 1.0
    found = next((name for name, item in study.definitions.items() if item["title"].casefold() == title.casefold()), "")
    if not found:
        raise UnreadError(title)
    return found, study.scale(found)
