"""Counts of two sides, compared and judged, with the names of the parts that grew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpml_bench.gate.decide import sentences
from hpml_bench.gate.records import MethodCount, Verdict

NAMED = 5
"""Most parts that are named, the largest growth first."""


def compare(method: str, reference: dict[str, Any], candidate: dict[str, Any]) -> list[MethodCount]:
    """Return a `MethodCount` for each quantity that both sides count.

    Args:
        method: its name.
        reference: name -> {title, unit, value, tolerance, parts: name -> amount}, as a resident counts them.
        candidate: the same of the other side; the smaller tolerance holds, so that a change can't raise its own.

    """
    return [
        MethodCount(
            method=method,
            name=name,
            title=now["title"],
            unit=now["unit"],
            reference=reference[name]["value"],
            candidate=now["value"],
            tolerance=min(now["tolerance"], reference[name]["tolerance"]),
            grew=grew(reference[name]["parts"], now["parts"]) if now["value"] > reference[name]["value"] else (),
        )
        for name, now in candidate.items()
        if name in reference
    ]


def one_sided(method: str, reference: dict[str, Any], candidate: dict[str, Any]) -> list[Verdict]:
    """Return INCOMPARABLE for each quantity that only one side counts: a removed count must not pass."""
    lone = dict.fromkeys(reference.keys() - candidate.keys(), "reference")
    lone |= dict.fromkeys(candidate.keys() - reference.keys(), "candidate")
    return [
        Verdict(
            method=method, metric=name, status="INCOMPARABLE", detail=f"only the {lone[name]} counts {name}"
        )
        for name in sorted(lone)
    ]  # fmt: skip


def judge(counts: Iterable[MethodCount]) -> tuple[Verdict, ...]:
    """Return a verdict per count: FAIL for any increase above its tolerance."""
    return tuple(map(_judged, counts))


def _judged(count: MethodCount) -> Verdict:
    grown = count.candidate - count.reference > abs(count.reference) * count.tolerance
    change = count.candidate / count.reference - 1 if count.reference else None
    return Verdict(
        method=count.method,
        metric=count.name,
        status="FAIL" if grown else "PASS",
        estimate=0.0 if count.reference == count.candidate else change,
        detail=sentences.of_count(count),
    )


def grew(before: dict[str, float], after: dict[str, float]) -> tuple[str, ...]:
    """Return the parts that grew, the largest growth first, each as `name +amount`."""
    growth = {name: amount - before.get(name, 0) for name, amount in after.items()}
    ordered = sorted((name for name in growth if growth[name] > 0), key=lambda name: -growth[name])
    return tuple(f"{name} +{growth[name]:,.6g}" for name in ordered[:NAMED])
