"""Checks: functions whose results commands print in a line each, or write as JSON."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hpml_bench.system.redaction import redacted
from hpml_bench.system.text import for_terminal

S = TypeVar("S", bound=str)
LEAST_TEXT = 20  # characters that a line's text has at least, however narrow the terminal


@dataclass(frozen=True)
class CheckResult(Generic[S]):
    """Finding of a check, and what to do about it."""

    name: str = field(
        default="", kw_only=True
    )  # of the check; it is set when all results are collected
    state: S
    finding: str
    advice: str = ""  # a line for each thing to do


def name_of(check: Callable[..., Any]) -> str:
    return check.__name__.replace("_", " ")


def printable(name: str, found: CheckResult[S]) -> CheckResult[S]:
    """Return a named result without keys, tokens and control characters."""
    advice = [for_terminal(redacted(line), 600) for line in found.advice.split("\n")]
    finding = for_terminal(redacted(found.finding), 600)
    return CheckResult(found.state, finding, "\n".join(advice), name=name)


def lines(check: CheckResult[Any], states: int, names: int, width: int) -> str:
    """Return a check's state, name and finding, in columns so wide, and beneath it each line of
    the advice, wrapped to a width.
    """
    start = f"{check.state:<{states}}  {check.name:<{names}}  "
    fold = textwrap.TextWrapper(
        max(width, len(start) + LEAST_TEXT), break_long_words=False, break_on_hyphens=False
    )
    fold.subsequent_indent = " " * len(start)
    advice = check.advice.split("\n") if check.advice else []
    texts = [f"{start}{check.finding}", *(f"{fold.subsequent_indent}-> {line}" for line in advice)]
    return "\n".join(fold.fill(text) for text in texts)
