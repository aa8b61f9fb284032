"""Texts: untrusted ones without control characters, which terminals and CI would execute; nested
ones; digests.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

LONGEST = 10_000  # characters that any one text of a report may have; a longer one is cut

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_COMMAND = re.compile(r":(?=:[A-Za-z])|##(?=\[)")


def sanitize(text: object, width: int = LONGEST) -> str:
    """Return one line without terminal escapes, control or direction-changing characters, cut to
    `width`.
    """
    return shortened(" ".join(_printable(text, width).split()), width)


def shortened(line: str, width: int) -> str:
    """Return a line of at most `width` characters, cut behind a word where it has one to cut
    behind.
    """
    if len(line) <= width:
        return line
    head = line[: width - 1]
    if line[width - 1 : width].isspace():
        return f"{head.rstrip()}…"
    # of a long path or name nothing would be left
    words, _, last = head.rpartition(" ")
    return f"{words.rstrip()}…" if words and len(last) < width // 2 else f"{head}…"


def for_terminal(text: object, width: int = LONGEST) -> str:
    """Return a line as `sanitize` does, with its spaces kept and without commands to a CI system
    that reads the output.

    GitHub's runner executes `::error::` at the start of a line, where wrapping may put it, and
    `##[error]` anywhere.
    """
    line = _COMMAND.sub(lambda found: f"{found[0]} ", _printable(text, width))
    return shortened(line, width)


def _printable(text: object, width: int) -> str:
    some = str(text)[: 10 * width + LONGEST]  # the rest of a long text is cut off anyway
    return "".join(c if c.isprintable() else " " for c in _ANSI.sub("", some))


def count_of(n: int, noun: str) -> str:
    """Return `1 run`, `1,000 runs`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def summary_of(documented: object) -> str:
    """Return the first paragraph of a docstring as one line; empty where there is no docstring."""
    paragraph = (documented.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split())


def first_line(error: BaseException, width: int = 300) -> str:
    """Return the first line of an exception's message, with the next after a colon; its class's
    name if it is empty.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    joined = " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])
    return shortened(joined, width)


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def map_texts(
    value: Any, change: Callable[[str], str], leave_out: Callable[[str], bool] = lambda _: False
) -> Any:
    """Return a value with all texts changed but keys; tuples become lists; `leave_out` selects
    keys to drop.
    """
    if isinstance(value, Mapping):
        return {
            key: map_texts(item, change, leave_out)
            for key, item in value.items()
            if not leave_out(str(key))
        }
    if isinstance(value, list | tuple):
        return [map_texts(item, change, leave_out) for item in value]
    return change(value) if isinstance(value, str) else value


def digest(value: Any, length: int = 16) -> str:
    """Return the hex SHA-256, cut to `length`, of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
