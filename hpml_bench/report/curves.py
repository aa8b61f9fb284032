"""Curves of metrics over the optimizer steps, from the points of the runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpml_bench.records.points import read_points
from hpml_bench.records.run import RunRecord

LARGEST = 1e100
"""Beyond this (or NaN) a number is no measurement, and its square would overflow."""


@dataclass(frozen=True)
class Curve:
    """One seed's curve of one metric."""

    seed: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_curves(
    folder: Path, runs: Mapping[str, Sequence[RunRecord]], costed: Collection[str]
) -> dict[str, dict[str, tuple[Curve, ...]]]:
    """Return metric -> method -> one curve per seed; of times, of the runs whose run_ids are in `costed`."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for method, of in runs.items():
        for record in of:
            for metric, steps in _points(folder / record.run_id).items():
                if record.run_id in costed or metric != "step_seconds":  # which depend on the machine
                    curve = Curve(record.spec.seed, tuple(steps), tuple(steps.values()))
                    found.setdefault(metric, {}).setdefault(method, []).append(curve)
    return {metric: {name: tuple(curves) for name, curves in of.items()} for metric, of in found.items()}


def _points(run: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for point in read_points(run):
        if point.value is not None and abs(point.value) < LARGEST:
            found.setdefault(point.metric, {})[point.step] = point.value
    return {metric: dict(sorted(steps.items())) for metric, steps in found.items()}


def validation_of(metric: str) -> str:
    return f"validation_{metric.removeprefix('test_')}"
