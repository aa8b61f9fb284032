"""Advice on a method that doesn't fit: settings changed one after another, cheapest first, and traced again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from hpml_bench.fit.trace import Footprint
from hpml_bench.plugins.method import can_quantise
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import Unsupported

HOLDING = {"quantization", "sharding", "world_size"}
"""Settings that change what a training holds throughout or takes to load, or how much it may."""
SHARDABLE = {("none", precision) for precision in ("fp32", "tf32", "bf16")}
SHORTEST = 32  # tokens below which a shorter `max_length` is not tried

Trace = Callable[[Settings], Footprint]  # traces a method under changed settings


def sizes(settings: Settings) -> list[int]:
    """Return the micro-batches that a rank's share of the global batch allows, smallest first."""
    share = settings.global_batch // (settings.world_size or 1)
    return [size for size in range(1, share + 1) if share % size == 0]


def with_changes(settings: Settings, **changes: Any) -> Settings:
    """Return settings with changes, checked as a suite's; a micro-batch of a rank's whole share is None."""
    changed = Settings.model_validate({**settings.model_dump(), **changes})
    whole = changed.micro_batch == sizes(changed)[-1]
    return changed.model_copy(update={"micro_batch": None}) if whole else changed


def _largest(ascending: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest number that fits, None for none: of the largest, the smallest, and then by bisection."""
    if fits(ascending[-1]):
        return ascending[-1]
    if len(ascending) == 1 or not fits(ascending[0]):
        return None
    return ascending[bisect_left(ascending, True, 1, len(ascending) - 1, key=lambda number: not fits(number)) - 1]


def largest_micro_batch(settings: Settings, trace: Trace, most: int) -> int | None:
    """Return the largest micro-batch whose step takes at most `most` bytes of tensors; None for none."""
    if trace(settings).least > most:
        return None
    return _largest(sizes(settings), lambda size: trace(with_changes(settings, micro_batch=size)).step <= most)


def advise(settings: Settings, trace: Trace, most: Callable[[Settings], int]) -> Settings | None:
    """Return the first settings that fit, of changes that each add to those before; None where all are not enough.

    `most` gives the bytes of tensors that a rank may have under some settings. A change with which the method doesn't
    run, such as quantised weights where it trains them, is left out. Where what a training holds throughout, or its
    loading, is too much, only changes of that are traced.
    """
    kept, least = settings, trace(settings).least
    for change in ({}, *_changes(settings, trains=trace(settings).step > 0)):
        changed = with_changes(kept, **change)
        try:
            if not HOLDING.isdisjoint(change):
                least = trace(changed).least
            found = _fitting(changed, trace, most(changed)) if least <= most(changed) else None
        except Unsupported:
            continue
        if found is not None:
            return found
        if "sharding" not in change or trace(changed).peak < trace(kept).peak:
            kept = changed
    return None


def _changes(settings: Settings, *, trains: bool) -> Iterator[dict[str, Any]]:
    """Yield the changes, cheapest first; micro-batch and evaluation batch are searched with each."""
    if trains and not settings.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if trains and (settings.sharding, settings.precision) in SHARDABLE and (settings.world_size or 1) > 1:
        yield {"sharding": "fsdp"}
    if settings.quantization is None and can_quantise():
        yield {"quantization": "nf4", "sharding": "none"}
    length = settings.max_length // 2
    while length >= SHORTEST:
        yield {"max_length": length}
        length //= 2
    if settings.device == "cpu" and (settings.world_size or 1) > 1:  # ranks share the machine's memory
        yield {"world_size": 1, "sharding": "none"}


def _fitting(settings: Settings, trace: Trace, most: int) -> Settings | None:
    """Return settings with the largest micro-batch and evaluation batch that fit; None if the smallest don't."""
    least = with_changes(settings, micro_batch=1, eval_batch=1)
    if trace(least).peak > most:
        return None
    fitting = with_changes(settings, micro_batch=largest_micro_batch(settings, trace, most))
    halves = [settings.eval_batch >> shift for shift in range(settings.eval_batch.bit_length())][::-1]
    size = _largest(halves, lambda size: trace(with_changes(fitting, eval_batch=size)).peak <= most)
    return with_changes(fitting, eval_batch=size)


def differences(before: Settings, after: Settings) -> list[str]:
    old, new = before.model_dump(), after.model_dump()
    changed = {key: value for key, value in new.items() if value != old[key]}
    if isinstance(quantization := changed.get("quantization"), dict):
        changed["quantization"] = quantization["name"]
    return [f"--set {key}={yaml.safe_dump(value).split()[0]}" for key, value in changed.items()]
