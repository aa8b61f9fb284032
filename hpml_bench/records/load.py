"""Loading of records: validated; a damaged one raises an error with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from hpml_bench.records.files import MAX_RECORD_BYTES, RECORD, is_plain_file
from hpml_bench.records.run import SCHEMA_VERSION, RunRecord, protocol_id
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError

MAX_DEPTH = 32
"""Levels of nesting in a record."""
LARGEST_INTEGER = 2**63 - 1
_AS_ZEROS = bytes(b"0"[0] if 48 <= code < 58 else b"."[0] if code == 46 else b" "[0] for code in range(256))
"""Table for `translate`: digits become 0, the point stays, all else becomes a space."""


def load_record(path: Path) -> RunRecord:
    """Read one run.json; raises ValueError with the reason if it is damaged or of another schema version."""
    if path.parent.is_symlink() or (path.exists() and not is_plain_file(path)):
        raise ValueError("a link or no regular file, which is not read")
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"larger than {MAX_RECORD_BYTES} bytes")
        raw = path.read_bytes()
        content = from_json(raw)
    except OSError as error:
        raise ValueError(f"not readable ({error.strerror or type(error).__name__})") from None
    except ValueError as error:
        raise ValueError(f"not readable as JSON ({error})") from None
    if odd := _oddity(content, raw):
        raise ValueError(f"not a run record: it holds {odd}")
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"of schema version {version!r:.40}, and this version of hpml-bench reads {SCHEMA_VERSION}")
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"not a run record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def wrong_id(record: RunRecord, run_id: str) -> str | None:
    """Return a sentence on an id that isn't that of the record's settings, method, seed and digests; None if all are.

    `run_id` is the id written in the record, which the folder's name may differ from. Ids of plug-ins that aren't
    installed aren't checked: ids leave out defaults, which are then unknown.
    """
    spec, settings = record.spec, record.spec.settings
    if not installed(spec):
        return None
    if run_id != spec.run_id:
        return f"its id {run_id} is not that of its settings, method and seed, {spec.run_id}"
    if record.digests is not None and record.protocol_id != (own := protocol_id(settings, record.digests)):
        return f"its protocol id {record.protocol_id} is not that of its settings and digests, {own}"
    return None


def installed(spec: RunSpec) -> bool:
    """Return whether all plug-ins whose options are part of a run's ids are installed."""
    settings, own = spec.settings, spec.method.optimizer
    try:
        registry.plugin("tasks", settings.task.name)
        registry.plugin("datasets", settings.dataset.name)
        registry.plugin("methods", spec.method.method)
        for optimizer in (settings.optimizer, *([own] if own else [])):
            registry.plugin("optimizers", optimizer.name)
    except UserError:
        return False
    return True


def _oddity(content: Any, raw: bytes) -> str | None:
    """Return the first value that no record may have, nested too deep or too large an integer, in words; None if none.

    Walks the untyped fields, or all fields if a number is long. Types check the others, faster than a walk.
    """
    todo = [(content, 0)] if _holds_long_number(raw) else [(value, 0) for value in _untyped(content)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            return f"values nested deeper than {MAX_DEPTH} levels"
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return "an integer of more than 64 bits"
        if isinstance(value, dict):
            todo += [(key, depth) for key in value]
        if isinstance(value, dict | list):
            todo += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
    return None


def _holds_long_number(raw: bytes) -> bool:
    """Return whether 19 or more digits stand anywhere but after a point; a regular expression is ten times slower."""
    return b" " + b"0" * 19 in b" " + raw.translate(_AS_ZEROS)


def _untyped(content: Any) -> list[Any]:
    """Return the values of a record's fields that are declared as Any."""
    values = []
    for path in ("environment", "spec.settings.task.options", "spec.settings.dataset.options", "spec.method.options"):
        value = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        values.append(value)
    return values


def read_record(folder: Path) -> RunRecord | None:
    """Return a run's record; None if it is missing or unreadable."""
    try:
        return load_record(folder / RECORD)
    except ValueError:
        return None
