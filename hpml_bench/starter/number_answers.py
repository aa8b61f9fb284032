"""Columns of expected answers that look like numbers: whether the scorer `number` tells them
apart.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from hpml_bench.data.columns import short
from hpml_bench.data.keyboard import MARKS, DecimalMark
from hpml_bench.data.numbers import Number, UnreadError, Value, read_expected, read_whole
from hpml_bench.data.units import unit

MOSTLY = 0.9  # share of numbers from which on the other answers are likely to be slips
ONE_DOT = re.compile(r"\d+\.(\d+)")
ONE_SLASH = re.compile(r"\d+/\d+")


class Answer(NamedTuple):
    """An expected answer, and its place: a file and row."""

    text: str
    place: str


def confusable(answers: Iterable[Answer], decimal_mark: DecimalMark) -> str | None:
    """Return the sentence on two answers that `number` would take for one, though they differ in
    more than how one number is written; None where there are none.
    """
    by_value: dict[Value, list[tuple[Answer, Number]]] = {}
    texts: set[str] = set()
    for answer in answers:
        if answer.text in texts:
            continue
        texts.add(answer.text)
        try:
            number = read_expected(answer.text, decimal_mark)
        except UnreadError as error:
            return f"{_named(answer)} {error}"
        others = by_value.setdefault(number.value, [])
        for earlier, other in others:
            if _differ(number, other, decimal_mark):
                pair = f"{_named(earlier)} and {_named(answer)}"
                return f"{pair} would be the same to the scorer number, so that exact suits them"
        if not any(_form(number) == _form(other) for _, other in others):
            others.append((answer, number))
    return None


def _form(number: Number) -> tuple[str, str, str, str]:
    decimals = ONE_DOT.fullmatch(number.written)
    fraction = number.written if ONE_SLASH.fullmatch(number.written) else ""
    return number.currency, unit(number.after), decimals[1] if decimals else "", fraction


def _differ(number: Number, other: Number, decimal_mark: DecimalMark) -> bool:
    """Return whether two numbers of one value differ in currency or unit, in the zeros of what may
    be versions (3.1 and 3.10), or as fractions that may be dates (1/2 and 2/4).
    """
    forms = zip(_form(number), _form(other), strict=True)
    (money, unit_differs, zeros, fraction) = (ours != theirs for ours, theirs in forms)
    if money or unit_differs:
        return True
    are_dotted = bool(_form(number)[2] and _form(other)[2]) and decimal_mark == "point"
    are_fractions = bool(_form(number)[3] and _form(other)[3])
    return (zeros and are_dotted) or (fraction and are_fractions)


def strays(answers: Iterable[Answer]) -> str | None:
    """Return the sentence on the first of a few answers that are no numbers where nearly all are;
    None for other columns.
    """
    counts = dict.fromkeys(MARKS, 0)
    first: dict[DecimalMark, Answer] = {}
    total = 0
    for answer in answers:
        total += 1
        for mark in MARKS:
            number = read_whole(answer.text, mark)
            if number is not None and isinstance(number.value, Fraction):
                counts[mark] += 1
            else:
                first.setdefault(mark, answer)
    best = max(MARKS, key=lambda mark: counts[mark])
    if best not in first or counts[best] < MOSTLY * total:
        return None
    return f"{counts[best]:,} of {total:,} answers are numbers; {_named(first[best])} isn't"


def _named(answer: Answer) -> str:
    return f"{answer.place} '{short(answer.text)}'".lstrip()
