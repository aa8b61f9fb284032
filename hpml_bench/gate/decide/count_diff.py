"""Counts of two sides, compared and judged, with the names of the parts that grew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpml_bench.gate.decide import sentences
from hpml_bench.gate.records import MethodCount, Verdict


def compare(method: str, reference: dict[str, Any], candidate: dict[str, Any]) -> list[MethodCount]:
    """Return a `MethodCount` for each quantity that both sides count.

    Each side has name -> {title, unit, value, tolerance, parts: name -> amount}, as a resident counts them. The smaller
    tolerance holds, so that a change can't raise its own.
    """
    return [
        MethodCount(
            method=method,
            name=name,
            title=now["title"],
            unit=now["unit"],
            reference=then["value"],
            candidate=now["value"],
            tolerance=min(now["tolerance"], then["tolerance"]),
            grew=grew(then["parts"], now["parts"]) if now["value"] > then["value"] else (),
        )
        for name, now in candidate.items()
        if (then := reference.get(name))
    ]


def one_sided(method: str, reference: dict[str, Any], candidate: dict[str, Any]) -> list[Verdict]:
    """Return INCOMPARABLE for each quantity that only one side counts: a removed count must not pass."""
    lone = {name: "reference" if name in reference else "candidate" for name in reference.keys() ^ candidate.keys()}
    return [
        Verdict(method=method, metric=name, status="INCOMPARABLE", detail=f"only the {side} counts {name}")
        for name, side in sorted(lone.items())
    ]


def judge(counts: Iterable[MethodCount]) -> tuple[Verdict, ...]:
    """Return a verdict per count: FAIL for any increase above its tolerance."""
    return tuple(
        Verdict(
            method=count.method,
            metric=count.name,
            status="FAIL" if count.candidate - count.reference > abs(count.reference) * count.tolerance else "PASS",
            estimate=count.change,
            detail=sentences.of_count(count),
        )
        for count in counts
    )


def grew(before: dict[str, float], after: dict[str, float]) -> tuple[str, ...]:
    """Return the five parts that grew most, the largest growth first, each as `name +amount`."""
    growth = {name: amount - before.get(name, 0) for name, amount in after.items()}
    ordered = sorted((name for name in growth if growth[name] > 0), key=lambda name: -growth[name])
    return tuple(f"{name} +{growth[name]:,.6g}" for name in ordered[:5])
