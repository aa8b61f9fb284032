"""Comparability of runs: protocol, consumption and environment, and the differences by name."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from hpml_bench.records.run import Consumed, RunRecord
from hpml_bench.suite.registry import Kind, without_defaults
from hpml_bench.suite.settings import Settings, identity, method_identity
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import shortened

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, tuple[Item, ...]]:
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return {at: tuple(of) for at, of in found.items()}


def protocol_of(record: RunRecord) -> str:
    """Return the protocol id, or a substitute for a run that ended before it was known."""
    return record.protocol_id or f"unknown ({record.spec.settings.model_dump_json()})"


def budget_of(record: RunRecord) -> Consumed | None:
    """Return what a run must share with the others of its seed; of one that may end early its
    plan, without tokens.
    """
    used, settings = record.consumed, record.spec.settings
    if used is None or settings.select != "early" or not used.planned:
        return used
    samples = used.planned * settings.global_batch
    return used.model_copy(
        update={"steps": used.planned, "samples": samples, "real_tokens": 0, "padded_tokens": 0}
    )


def agreed_budget(records: Iterable[RunRecord]) -> tuple[int, int] | None:
    """Return the (steps, samples) that most methods and seeds consumed; among equals the larger."""
    trained = [(r, used) for r in records if (used := budget_of(r)) and not untrained(r)]
    once = {(method_of(r), r.spec.seed, used.steps, used.samples) for r, used in trained}
    size = Counter((steps, samples) for _, _, steps, samples in once)
    return max(size, key=lambda budget: (size[budget], budget), default=None)


def agreed_consumption(records: Iterable[RunRecord]) -> dict[int, Consumed]:
    """Return seed -> consumption of most methods of the agreed budget; among equals the least by
    its text.
    """
    records = tuple(records)
    budget = agreed_budget(records)
    once = {(r.spec.seed, method_of(r), used) for r in records if (used := budget_of(r))}
    by_seed: dict[int, Counter[Consumed]] = {}
    for seed, _, consumed in once:
        if (consumed.steps, consumed.samples) == budget:
            by_seed.setdefault(seed, Counter())[consumed] += 1
    return {
        seed: min(size, key=lambda c: (-size[c], c.model_dump_json()))
        for seed, size in by_seed.items()
    }


def untrained(record: RunRecord) -> bool:
    """Return whether a run trained nothing, such as the base model's: it has no budget that
    could differ.
    """
    none = record.consumed is not None and record.consumed.steps == record.consumed.samples == 0
    return none and record.metrics.get("trainable_parameters") == 0


def is_base(record: RunRecord) -> bool:
    """Return whether a run is of the base model as it is, not one that was trained before, or is
    shown examples.
    """
    return record.spec.method.method == "none" and untrained(record)


def method_of(record: RunRecord) -> str:
    """Return a method's specification as text: two records of one text, seed and protocol are
    duplicates.
    """
    return json.dumps(method_identity(record.spec.method), sort_keys=True)


def protocol_but(record: RunRecord, **replaced: object) -> object:
    """Return all that two protocols must share for their costs to show the effect of the
    replaced settings.
    """
    return identity(record.spec.settings.model_copy(update=replaced)), record.digests


def environment_of(record: RunRecord) -> dict[str, str]:
    """Return the parts of a run's environment on which its costs depend, by dotted key."""
    parts = {key: record.environment.get(key) for key in Environment.names("equal")}
    return {key: value for key, value in flat(parts) if value != "none"}


def machine_of(record: RunRecord) -> str:
    """Return the environment on which a run's costs depend as text; costs are compared between
    equal texts only.
    """
    return json.dumps(environment_of(record), sort_keys=True)


def alone(record: RunRecord) -> bool:
    """Return whether a run had no known neighbours: other runs of the sweep on its host
    meanwhile, which slow it.
    """
    return not record.neighbours


def hosts_of(record: RunRecord) -> tuple[str, ...] | None:
    """Return the names of a run's hosts, sorted; None where its record, an older one, names
    none.
    """
    recorded = Environment.read(record.environment)
    named = recorded.hosts or recorded.where.get("hosts") or recorded.where.get("host")
    return tuple(sorted(map(str, named if isinstance(named, list) else [named]))) if named else None


def one_host(record: RunRecord) -> tuple[str, ...] | None:
    """Return a run's hosts; in their place its own name, which no other run has, where its parts
    ran on several.
    """
    return (
        (record.run_id,)
        if len({frozenset(part.hosts) for part in record.segments}) > 1
        else hosts_of(record)
    )


def nodes_of(record: RunRecord) -> int:
    return int(Environment.read(record.environment).hardware.get("nodes", 1))


def node_of(record: RunRecord) -> str:
    """Return, as `machine_of` does, the environment of a run on a single one of a run's nodes,
    where they are alike.
    """
    parts = environment_of(record)
    own = record.environment.get("node_fingerprint", parts.get("fingerprint"))
    return json.dumps(parts | {"fingerprint": own}, sort_keys=True)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) for every leaf of nested dictionaries and lists of them."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}".strip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from flat(item, f"{key}.{index}")
    else:
        yield key, "none" if value in (None, [], "", {}) else str(value)


def versions(record: RunRecord) -> dict[str, Any]:
    return Environment.read(record.environment).packages


def protocol_difference(reference: RunRecord, other: RunRecord) -> str:
    """Name the settings and digests in which two runs differ."""
    pairs = differences(settings_of(reference.spec.settings), settings_of(other.spec.settings))
    named = [f"{key} {short(theirs)} instead of {short(ours)}" for key, ours, theirs in pairs]
    if reference.digests and other.digests:
        pairs = differences(reference.digests.model_dump(), other.digests.model_dump())
        named += [
            f"other {key} ({short(theirs)} instead of {short(ours)})" for key, ours, theirs in pairs
        ]
    return f"another protocol: {', '.join(named) or 'the difference is not in the settings'}"


def settings_of(settings: Settings) -> dict[str, Any]:
    """Return settings without options at their defaults, which a record may name or not."""
    own: dict[Kind, Any] = {
        "tasks": settings.task,
        "datasets": settings.dataset,
        "optimizers": settings.optimizer,
    }
    return settings.model_dump(mode="json") | {
        kind.removesuffix("s"): {
            "name": of.name,
            "options": without_defaults(kind, of.name, of.options),
        }
        for kind, of in own.items()
    }


def differences(ours: Any, theirs: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted key, ours, theirs) for every leaf in which two nested dictionaries differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = dict.fromkeys([*ours, *theirs])
        return [
            d
            for k in keys
            for d in differences(ours.get(k), theirs.get(k), f"{key}.{k}".strip("."))
        ]
    return [] if ours == theirs else [(key, ours, theirs)]


def label(record: RunRecord, namesakes: Iterable[RunRecord]) -> str:
    """Return a method's name with the options in which it differs from its namesakes."""
    spec = record.spec.method
    others = [method_identity(other.spec.method) for other in namesakes]
    keys = {key for other in others for key, *_ in differences(method_identity(spec), other)}

    def look(key: str) -> Any:
        if key == "optimizer":  # only one of the two has its own
            return "the suite's" if spec.optimizer is None else spec.optimizer.name
        value: Any = spec.model_dump(mode="json")
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    named = [f"{key.rpartition('.')[2]}={short(look(key))}" for key in sorted(keys)]
    return f"{spec.name} ({', '.join(named)})"


def short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return shortened(text, 40)
