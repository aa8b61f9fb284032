"""Nested dictionaries and lists, as JSON has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def map_texts(value: Any, change: Callable[[str], str], leave_out: Callable[[str], bool] = lambda _: False) -> Any:
    """Return a value with all texts changed but keys; tuples become lists; `leave_out` selects keys to drop."""
    if isinstance(value, Mapping):
        return {key: map_texts(item, change, leave_out) for key, item in value.items() if not leave_out(str(key))}
    if isinstance(value, list | tuple):
        return [map_texts(item, change, leave_out) for item in value]
    return change(value) if isinstance(value, str) else value
