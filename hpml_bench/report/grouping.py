"""What makes runs comparable: their protocol, what they consumed, where they ran; and the differences by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hpml_bench.records import Consumed, RunRecord, digest

RANKED_VERSIONS = ("hpml-bench", "torch", "transformers", "peft")
"""Packages whose version decides what a run costs."""


def protocol_of(record: RunRecord) -> str:
    """Return the protocol id, or what stands for it in a run that ended before it was known."""
    return record.protocol_id or f"unknown ({record.spec.settings.model_dump_json()})"


def agreed_budget(records: Iterable[RunRecord]) -> tuple[int, int] | None:
    """Return the (steps, samples) that most runs consumed, whatever their seed; of equally many the larger."""
    size = Counter((r.consumed.steps, r.consumed.samples) for r in records if r.consumed)
    return max(size, key=lambda budget: (size[budget], budget), default=None)


def agreed_consumption(records: Iterable[RunRecord]) -> dict[int, Consumed]:
    """Return seed -> what most of its runs of the agreed budget consumed; of equally many the least by its text."""
    records = tuple(records)
    budget = agreed_budget(records)
    by_seed: dict[int, Counter[Consumed]] = {}
    for record in records:
        if record.consumed and (record.consumed.steps, record.consumed.samples) == budget:
            by_seed.setdefault(record.spec.seed, Counter())[record.consumed] += 1
    return {seed: min(size, key=lambda c: (-size[c], c.model_dump_json())) for seed, size in by_seed.items()}


def machine_of(record: RunRecord) -> str:
    """Name hardware, versions and allocator settings; runs with different names are not ranked in cost."""
    packages = versions(record)
    shown = " ".join(f"{name} {packages.get(name)}" for name in RANKED_VERSIONS)
    tuned = digest(record.environment.get("process", {}), 6)
    return f"{record.environment.get('fingerprint', 'unknown hardware')} · {shown} · process settings {tuned}"


def versions(record: RunRecord) -> dict[str, Any]:
    """Return the versions of the packages a run used; none where its environment isn't known."""
    packages = record.environment.get("packages")
    return packages if isinstance(packages, dict) else {}


def protocol_difference(reference: RunRecord, other: RunRecord) -> str:
    """Name the settings and digests in which two runs differ."""
    named = [
        f"{key} {short(theirs)} instead of {short(ours)}"
        for key, ours, theirs in _differences(
            reference.spec.settings.model_dump(mode="json"), other.spec.settings.model_dump(mode="json")
        )
    ]
    if reference.digests and other.digests:
        pairs = _differences(reference.digests.model_dump(), other.digests.model_dump())
        named += [f"other {key} ({short(theirs)} instead of {short(ours)})" for key, ours, theirs in pairs]
    return f"another protocol: {', '.join(named) or 'the difference is not in the settings'}"


def _differences(ours: Any, theirs: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted key, ours, theirs) for every leaf in which two nested dictionaries differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = dict.fromkeys([*ours, *theirs])
        return [d for k in keys for d in _differences(ours.get(k), theirs.get(k), f"{key}.{k}".strip("."))]
    return [] if ours == theirs else [(key, ours, theirs)]


def label(record: RunRecord, namesakes: Iterable[RunRecord]) -> str:
    """Return a method's name with the options in which it differs from its namesakes."""
    mine = record.spec.method.model_dump(mode="json")
    keys = {key for other in namesakes for key, *_ in _differences(mine, other.spec.method.model_dump(mode="json"))}

    def look(key: str) -> Any:
        value: Any = mine
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    named = [f"{key.rpartition('.')[2]}={short(look(key))}" for key in sorted(keys)]
    return f"{record.spec.method.name} ({', '.join(named)})"


def short(value: Any, width: int = 40) -> str:
    """Return a value as text of at most `width` characters."""
    text = "none" if value is None else str(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"
