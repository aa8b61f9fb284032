"""The sentences of an answer: headline, set-up line, facts, a verdict per method; each from the answer's numbers alone.

At most 20 words a sentence. Words: *best or tied* (none is shown better), *behind* (those named are shown better),
*can't tell* (undecided), *equal* (shown to differ by less than the margin).
"""

from __future__ import annotations

from typing import NamedTuple

from hpml_bench.report.answer.model import Answer


class Fact(NamedTuple):
    """A line under the headline."""

    label: str
    text: str
    href: str = ""
    """Anchor of the section that says more; empty where none does."""


class Verdict(NamedTuple):
    """What a method's row says of it."""

    chip: str
    """Badge, such as `best or tied`; empty for most methods."""
    text: str
    """Relation to the others, such as `behind full; can't tell from adapter`."""
    costs: tuple[str, ...] = ()
    """Costs in which it alone is best, such as `fastest`."""
    failed: str = ""
    """Its failed runs, such as `1 run failed`."""


def headline(answer: Answer) -> str:
    """Return the sentence that names the best method, or those that may be best."""
    raise NotImplementedError


def setup_line(answer: Answer) -> tuple[str, ...]:
    """Return the circumstances of the runs, a few words each."""
    raise NotImplementedError


def facts(answer: Answer) -> tuple[Fact, ...]:
    """Return difference, costs, what is cheaper, and how sure that is."""
    raise NotImplementedError


def verdict(answer: Answer, name: str) -> Verdict:
    """Return what the verdicts say about a method."""
    raise NotImplementedError


def score_text(answer: Answer, value: float, *, unit: bool = True) -> str:
    """Return a score in its digits, with its unit."""
    raise NotImplementedError


def gap_text(answer: Answer, value: float, *, unit: bool = True) -> str:
    """Return a difference of scores, with one digit more than scores where roundings would belie it."""
    raise NotImplementedError


def cost_text(answer: Answer, axis_id: str, value: float, *, unit: bool = True) -> str:
    """Return a cost in its digits, with its unit; bytes in the unit that suits each."""
    raise NotImplementedError


def label(answer: Answer, name: str) -> str:
    """Return a method's name in sentences: `no. 3` where methods are numbered."""
    raise NotImplementedError
