"""Numbers as people write them: read whole from a text, in either notation of the decimals."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Literal, NamedTuple

DecimalMark = Literal["point", "comma"]
Value = Fraction | tuple[str, ...]
"""A number, or what joins the parts of a date, time, version, ratio or range, and the parts."""

MARKS: dict[DecimalMark, str] = {"point": ".", "comma": ","}
LETTER = r"A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u024f\u0370-\u04ff_"
"""Letters of scripts with spaces between words: behind others, as in 答案是42, a number begins."""
SPACE = r"[ \u00a0\u2009\u202f]"
APOSTROPHE = r"['\u2019\u02bc]"
WHOLE = rf"(?:\d{{1,3}}(?:{SPACE}\d{{3}})+(?!\d)|\d+)"
EXPONENT = r"(?:[eE][-+]?\d{1,3}(?!\w))?"
JOINERS = r"[-.,:/^'\u2019\u02bc]"
RUN = rf"(?:(?<!\d)[.,])?{WHOLE}{EXPONENT}(?:{JOINERS}{WHOLE}{EXPONENT})*"
CURRENCY = r"[$\u00a2-\u00a5\u20a0-\u20bf]"
TOKEN = re.compile(
    rf"(?P<word>[{LETTER}]\d+(?:{JOINERS}\d+)*)"
    rf"|(?:(?<![\w)])(?P<sign>[-+])(?:{CURRENCY}{SPACE}?)?)?(?P<run>{RUN})"
)
"""Digits behind a letter, as in H2O and v3.10, which are no number; or all that is joined to one.

A sign belongs to a number unless the text before it makes it a subtraction, as in 5 -10.
"""
BROKEN_EXPONENT = re.compile(r"[eE][-+]?\d")
MIXED_LETTERS = re.compile(rf"[{LETTER}]+\d")
POWER_OF_UNIT = re.compile(rf"[{LETTER}]{{1,3}}[23](?!\w)")
SIGN_BEFORE = re.compile(
    rf"({CURRENCY}|[<>~\u00b1\u2248\u2264\u2265]=?|(?<![{LETTER}])(?:[A-Z]{{3}}|Rs|Fr)\.?){SPACE}*-?\Z"
)
"""What belongs to a number in front of it: a currency, or a comparison."""
UNIT = re.compile(
    rf"{SPACE}*((?:[%\u2030\u00b0\u2032\u2033{LETTER}]|{CURRENCY}|[^\x00-\u024f\W\d]).*)", re.DOTALL
)
CLOSING = " \t\n.,;:!?)]}*\"'\u2019\u201d"
SEVERAL = re.compile(r"[=+*\u00d7\u00b7]")
"""Signs of a calculation, whose last number is its result."""
FEW_WORDS = 4  # most words beside several numbers that make one answer, as in 5 feet 10

LATEX = re.compile(r"(?:(?<=\d)\s*)?\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}")
"""A fraction as LaTeX writes it, with the space behind a number before it."""
MIXED = re.compile(
    r"(?<![\w.,^/:])(\d{1,9}|\d{1,3}(?:[,.]\d{3}){1,2})[ \u00a0](\d{1,9})/(\d{1,9})"
    r"(?![\w/:]|[.,]\d)"
)
"""A whole number and a fraction behind it, as 1 1/2."""
SCIENTIFIC = re.compile(
    r"(?:(?<=\d)\s*(?:[x*\u00d7\u00b7\u22c5]|\\times|\\cdot)\s*|(?<![\w.,^/:'\u2019-]))"
    r"10(?:\^|\*\*)\{?([-+]?\d{1,3})\}?(?![\d.,^]\d|\d)"
)
"""A power of ten, with the sign of multiplication before it: 1.5 × 10^3."""
DASHES = str.maketrans(
    dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{SMALL HYPHEN-MINUS}\N{FULLWIDTH HYPHEN-MINUS}", "-")
    | {"\N{NON-BREAKING HYPHEN}": "-", "\N{HYPHEN}": "-", "\N{FRACTION SLASH}": "/"}
)
SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
RAISED = re.compile(rf"(?<=\d)[{SUPERSCRIPT}]+")
LOWERED = str.maketrans(SUPERSCRIPT, "0123456789+-")
MARK_OF_VERSION = re.compile(r"(?<!\w)[vV](?=\d+(?:\.\d+){2,}(?!\w))")
"""The v of v3.10.2; v3.10 may be a name, and is none."""
VULGAR = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e])")


SPACED_SIGN = re.compile(rf"(?:\A|(?<=[=(:]))\s*-\s+(?=[.,]?\d|{CURRENCY})")
"""A minus sign with a space behind it, where nothing stands before it to subtract from."""
PER_CENT = re.compile(r"per ?cent|prozent|pour ?cent", re.IGNORECASE)
UNIT_WORDS = 3  # most words behind a number that are its unit: square metres, km an hour
LEADING_ZERO = re.compile(r"[-+]?0\d")
YEAR_FIRST = re.compile(r"\d{4}([-./])\d{1,2}\1\d{1,2}")
YEAR_LAST = re.compile(r"\d{1,2}([-./])\d{1,2}\1\d{4}")
VERSION = re.compile(r"\d+(?:\.\d+){2,}")
NUMBER: dict[DecimalMark, re.Pattern[str]] = {
    "point": re.compile(
        r"(?:\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})*,\d{3}"
        rf"|[1-9]\d{{0,2}}(?:{SPACE}\d{{3}})+|[1-9]\d{{0,2}}(?:{APOSTROPHE}\d{{3}})+)?"
        rf"(?:(?<=\d)|(?=\.))(?:\.\d+)?{EXPONENT}"
    ),
    "comma": re.compile(
        r"(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+"
        rf"|[1-9]\d{{0,2}}(?:{SPACE}\d{{3}})+|[1-9]\d{{0,2}}(?:{APOSTROPHE}\d{{3}})+)?"
        rf"(?:(?<=\d)|(?=,))(?:,\d+)?{EXPONENT}"
    ),
}
"""One number: digits alone, or in groups of three by the other mark, a space or an apostrophe, or
with the point in the groups of India (12,34,567); a group in front has no zero in front, as 0,123
is a decimal.
"""


class Number(NamedTuple):
    """A number in its place in a text."""

    value: Value
    written: str
    before: str  # currency or comparison in front of it; empty where there is none
    after: str  # what follows to the end of the text, from its unit on; empty where there is none
    begins: bool  # whether the text begins with it


class UnreadError(ValueError):
    """A text that gives no number; the message says why, as the end of a sentence on the text."""


def read_last(text: str, decimal_mark: DecimalMark) -> Number:
    """Return the number that a text gives: the first behind GSM8K's `####`, else the last one.

    Of several `####` the first with a number behind it on its line counts: a model that runs on
    into a next question has answered before. Raises UnreadError: there is no number, the last one
    can't be read as a whole, or a short text has several.
    """
    text = _in_a_line(text, decimal_mark)
    for line in text.split("####")[1:]:
        behind = line.partition("\n")[0]
        if first := next(_runs(behind), None):
            return _read(behind, first, decimal_mark)
    runs = [*_runs(text)]
    if not runs:
        raise UnreadError("has no number")
    words = re.findall(rf"[{LETTER}]+", text)
    if len(runs) > 1 and not SEVERAL.search(text) and len(words) < FEW_WORDS:
        begins = not text[: runs[0].start()].strip(" \t\n([{*\"'-+$")
        if begins or not words:
            raise UnreadError("has several numbers")
    return _read(text, runs[-1], decimal_mark)


def read_whole(text: str, decimal_mark: DecimalMark) -> Number | None:
    """Return the number that is all of a text, or all behind its `####`, but for a currency or per
    cent; None where it is not. One with a zero in front, as a postal code, is none.
    """
    line = _in_a_line(text.rpartition("####")[2], decimal_mark).strip()
    try:
        number = read_last(line, decimal_mark)
    except UnreadError:
        return None
    before, _, behind = line.partition(number.written)
    sign = before.removesuffix("-").removesuffix("+") + behind
    sign = "".join(sign.split())
    is_alone = sign in {"", "%", "$$"} or re.fullmatch(CURRENCY, sign) is not None
    is_number = isinstance(number.value, Fraction) and not LEADING_ZERO.match(number.written)
    return number if is_alone and is_number else None


def plain_number(text: str, decimal_mark: DecimalMark) -> float | None:
    """Return the number that a text is, with a sign at most: no currency, per cent or fraction;
    None where it is anything else, or too large.
    """
    number = text.translate(DASHES).strip()
    value = _number(number.lstrip("+-"), decimal_mark)
    if value is None or number[1:2] in {"+", "-"}:
        return None
    with suppress(OverflowError):
        return -float(value) if number.startswith("-") else float(value)
    return None


def same(answer: str, expected: str, decimal_mark: DecimalMark) -> bool:
    """Return whether an answer gives the number of an expected answer, and its unit where the
    expected answer is no more than a number with a unit.
    """
    try:
        wanted = read_last(expected, decimal_mark)
        given = read_last(answer, decimal_mark)
    except UnreadError:
        return False
    if given.value != wanted.value:
        return False
    if "####" in expected or not wanted.begins:
        return True
    before, after = _unit(wanted.before), _unit(wanted.after)
    if len(after.split()) > UNIT_WORDS:
        after = ""
    if before and after:
        return before == _unit(given.before) and _starts_with(given.after, after)
    if unit := before or after:
        return unit == _unit(given.before) or _starts_with(given.after, unit)
    return not given.before or given.before[0] not in "<>~\u00b1\u2248\u2264\u2265"


class Notation(NamedTuple):
    """How a column of answers writes its numbers."""

    decimal_mark: DecimalMark
    ambiguous: str | None  # an answer that the other decimal mark would read as another number


def _whole_value(text: str, decimal_mark: DecimalMark) -> Value | None:
    number = read_whole(text, decimal_mark)
    return None if number is None else number.value


def notation_of(
    answers: Iterable[str],
    value_of: Callable[[str, DecimalMark], Value | float | None] = _whole_value,
) -> Notation | None:
    """Return how answers that are all no more than numbers are written; None where some are not.

    `value_of` reads an answer by a decimal mark: with a currency or per cent, or `plain_number`.
    Where both marks read all of them, it is the point: an answer read by it never equals one that
    it is not, save where all of 1,234 are decimals.
    """
    possible: dict[DecimalMark, bool] = {"point": True, "comma": True}
    ambiguous: str | None = None
    for answer in answers:
        read = {mark: value_of(answer, mark) for mark in MARKS if possible[mark]}
        for mark, value in read.items():
            possible[mark] = value is not None
        if not any(possible.values()):
            return None
        values = {value for value in read.values() if value is not None}
        if len(values) > 1 and ambiguous is None:
            ambiguous = answer
    if possible["point"] and possible["comma"]:
        return Notation("point", ambiguous)
    return Notation("point" if possible["point"] else "comma", None)


def _in_a_line(text: str, decimal_mark: DecimalMark) -> str:
    """Return a text with its fractions, powers of ten and signs as a keyboard writes them."""
    text = VULGAR.sub(_fraction, text).translate(DASHES)
    text = MARK_OF_VERSION.sub("", text)
    text = text.replace("{,}", ",").replace(r"\%", "%").replace(r"\$", "$")
    text = RAISED.sub(lambda raised: f"^{raised[0].translate(LOWERED)}", text)
    text = SCIENTIFIC.sub(_exponent, text)
    text = LATEX.sub(_latex_fraction, text)
    text = MIXED.sub(partial(_improper, decimal_mark=decimal_mark), text)
    return SPACED_SIGN.sub("-", text)


def _fraction(vulgar: re.Match[str]) -> str:
    space = " " if vulgar[1] else ""
    return f"{vulgar[1]}{space}{unicodedata.normalize('NFKC', vulgar[2])}"


def _exponent(power: re.Match[str]) -> str:
    return f"{'1' if power[0].startswith('10') else ''}e{power[1]}"


def _latex_fraction(latex: re.Match[str]) -> str:
    behind_a_number = latex.string[: latex.start()][-1:].isdigit()
    return f"{' ' if behind_a_number else ''}{latex[1]}/{latex[2]}"


def _improper(mixed: re.Match[str], decimal_mark: DecimalMark) -> str:
    """Return a mixed number as one fraction; unchanged where its fraction is not below one, or a
    decimal stands before it.
    """
    if MARKS[decimal_mark] in mixed[1]:
        return mixed[0]
    whole, over, under = (int(re.sub("[,.]", "", part)) for part in mixed.groups())
    return f"{whole * under + over}/{under}" if over < under else mixed[0]


def _runs(text: str) -> Iterator[re.Match[str]]:
    return (token for token in TOKEN.finditer(text) if token["run"])


def _read(text: str, token: re.Match[str], decimal_mark: DecimalMark) -> Number:
    run, behind = token["run"], text[token.end() :]
    attached = MIXED_LETTERS.match(behind)
    if BROKEN_EXPONENT.match(behind) or (attached and not POWER_OF_UNIT.match(behind)):
        raise UnreadError(f"has '{run}{behind.split()[0]}', which isn't one number")
    value = _value(run, decimal_mark)
    if token["sign"] == "-":
        value = -value if isinstance(value, Fraction) else ("-", *value)
    in_front = text[: token.start("run")]
    sign = SIGN_BEFORE.search(in_front.rstrip("-+ ") if not token["sign"] else in_front)
    if sign is None and token["sign"]:
        sign = SIGN_BEFORE.search(text[: token.start()])
    before = sign[1] if sign else ""
    unit = UNIT.match(behind)
    after = unit[1] if unit else ""
    if before == "$" and after.startswith("$"):  # LaTeX's marks of a formula
        before = after = ""
    nothing = in_front[: sign.start()] if sign else in_front
    begins = not nothing.strip(" \u00a0\n\t([{*\"'-+$")
    return Number(value, run, before, after, begins)


def _value(run: str, decimal_mark: DecimalMark) -> Value:
    """Return the value of joined digits. Raises UnreadError: it is none in this notation."""
    if (number := _number(run, decimal_mark)) is not None:
        return number
    if date := YEAR_FIRST.fullmatch(run):
        return ("date", *(str(int(part)) for part in run.split(date[1])))
    if date := YEAR_LAST.fullmatch(run):
        return (date[1], *(str(int(part)) for part in run.split(date[1])))
    parts = re.split(r"([-:/^])", run)
    if len(parts) == 3 and parts[1] == "/":
        over, under = _number(parts[0], decimal_mark), _number(parts[2], decimal_mark)
        if over is not None and under:
            return over / under
    values = []
    for part in parts[::2]:
        value = _number(part, decimal_mark)
        if value is None and not VERSION.fullmatch(part):
            other: DecimalMark = "comma" if decimal_mark == "point" else "point"
            is_other = _number(run, other) is not None
            advice = f"; with task.options.decimal_mark: {other} it is one" if is_other else ""
            reason = f"has '{run}', which isn't one number with a decimal {decimal_mark}"
            raise UnreadError(f"{reason}{advice}")
        values.append(part if value is None else str(value))
    return (*parts[1::2], *values)


def _number(text: str, decimal_mark: DecimalMark) -> Fraction | None:
    if not NUMBER[decimal_mark].fullmatch(text):
        return None
    other = "," if decimal_mark == "point" else "."
    digits = re.sub(rf"{SPACE}|{APOSTROPHE}", "", text).replace(other, "").replace(",", ".")
    return Fraction(Decimal(digits))


def _unit(text: str) -> str:
    """Return a unit's letters in their plain form, per cent as its sign."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split()).rstrip(CLOSING)
    return PER_CENT.sub("%", plain)


def _starts_with(text: str, unit: str) -> bool:
    text = _unit(text)
    return text.startswith(unit) and not text[len(unit) :][:1].isalnum()
