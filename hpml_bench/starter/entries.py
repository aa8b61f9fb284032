"""Entries of a suite with their reasons, and their form as YAML with comments."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hpml_bench.suite.yaml import parse
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal, sanitize

LINE = 116  # most characters of a line of comment
BESIDE = 60  # most characters of an entry that a short comment may stand beside
PLAIN = re.compile(r"[\w./~+-][\w./ :~+=@#-]*")


class Rate(float):
    """A learning rate, written as 5e-4."""


@dataclass(frozen=True)
class Entry:
    """A key of a suite with its value and the reason for it."""

    key: str
    # plain values, a `Rate`, or a tuple of entries, which become a mapping of their own lines
    value: Any
    why: tuple[str, ...] = ()  # paragraphs of the comment
    chosen: bool = True  # False: an alternative, written as a comment

    @property
    def nested(self) -> bool:
        return (
            isinstance(self.value, tuple) and bool(self.value) and isinstance(self.value[0], Entry)
        )


def overridden(entries: Iterable[Entry], given: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return entries with the values that are given in their places, and at the end those that
    have none.
    """
    left, found = dict(given), list[Entry]()
    for entry in entries:
        value = left.pop(entry.key, entry)
        if value is entry:
            found.append(entry)
        elif isinstance(value, Mapping) and entry.nested:
            found.append(replace(entry, value=overridden(entry.value, value)))
        else:
            found.append(Entry(entry.key, value, ("as given",)))
    return (*found, *(Entry(key, value, ("as given",)) for key, value in left.items()))


def as_values(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the values that are chosen, by key."""
    return {
        one.key: as_values(one.value) if one.nested else one.value for one in entries if one.chosen
    }


def written(entries: Iterable[Entry], margin: str = "") -> Iterator[str]:
    """Yield the lines of entries, each below its reason, or before it where that is short."""
    for entry in entries:
        if entry.nested:
            yield from (
                *comment(entry.why, margin),
                f"{margin}{entry.key}:",
                *written(entry.value, f"{margin}  "),
            )
            continue
        line = f"{margin}{'' if entry.chosen else '# '}{entry.key}: {flow(entry.value)}"
        beside = f"{line}  # {sanitize(entry.why[0])}" if len(entry.why) == 1 else ""
        short = beside and len(line) <= BESIDE and len(beside) <= LINE
        yield from [beside] if short else (*comment(entry.why, margin), line)


def comment(paragraphs: Iterable[str], margin: str = "") -> Iterator[str]:
    """Yield paragraphs as lines of comment; an indented one, such as a command, stays on its
    line.
    """
    for paragraph in paragraphs:
        if paragraph.startswith(" "):
            yield f"{margin}# {for_terminal(paragraph)}"
            continue
        lines = textwrap.wrap(
            sanitize(paragraph), LINE - len(margin), break_long_words=False, break_on_hyphens=False
        )
        yield from (f"{margin}# {line}" for line in lines)


def flow(value: Any) -> str:
    """Return a value as YAML on one line; reading it gives the value again."""
    if isinstance(value, Rate):
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """Return a text as it stands where YAML reads it so, else in quotes."""
    with suppress(UserError):
        if (
            PLAIN.fullmatch(text)
            and not re.search(r": | #|[ :]\Z", text)
            and parse(f"[{text}]", "") == [text]
        ):
            return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
