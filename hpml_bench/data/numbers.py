"""Numbers as people write them: read whole from a text, in either notation of the decimals."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from hpml_bench.data.keyboard import DASHES, LETTER, MARKS, DecimalMark, typed
from hpml_bench.data.units import (
    BEFORE,
    BEHIND,
    CURRENCY_NAME,
    CURRENCY_SIGN,
    FACTOR,
    FACTORS,
    MULTIPLIER,
    NEVER_IGNORED,
    UNIT,
    currency,
    has_unit,
    is_unit,
    unit,
)
from hpml_bench.system.text import shortened

Value = Fraction | tuple[Fraction | str, ...]
"""A number, or what joins the parts of a date, time, version, ratio or range, and the parts."""

SPACE = r"[ \u00a0\u2009\u202f]"
APOSTROPHE = r"['\u2019\u02bc]"
WHOLE = rf"(?:\d{{1,3}}(?:{SPACE}\d{{3}})+(?!\d)|\d+)"
EXPONENT = r"(?:[eE][-+]?\d{1,3}(?!\w))?"
JOINERS = r"[-\u2014.,:/^'\u2019\u02bc]"
RUN = rf"(?:(?<!\d)[.,])?{WHOLE}{EXPONENT}(?:{JOINERS}{WHOLE}{EXPONENT})*"
TOKEN = re.compile(rf"(?P<word>[{LETTER}]\d+(?:{JOINERS}\d+)*)|(?P<run>{RUN})")
"""Digits behind a letter, as in H2O, which are no number; or all that is joined to a number."""
BROKEN_EXPONENT = re.compile(r"[eE][-+]?\d")
FRONT = re.compile(
    rf"(?P<word>(?i:\b(?:minus|negative)) +)?(?P<sign>[-+\u2014] *)?(?:(?P<currency>{BEFORE}) *)?"
    r"(?P<inner>[-+\u2014] *)?\Z"
)
"""What belongs to a number in front of it: its sign, before or behind its currency."""
NEAR = 40  # characters before a number, and behind it, that can belong to it
PART = r"(?:half|halve|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth)"
PARTS = r"(?:halves|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth)s)"
COUNT = r"(?:an?|one|two|three|four|five|six|seven|eight|nine)"
ENGLISH_PART = rf"(?:(?:and|plus)[ -])?{COUNT}[ -]{PART}s?"
AND = r"(?:und|en|og|och|et|y|e)"
FOREIGN_PART = (
    r"(?:halb(?:e[nrs]?)?|drittel|viertel|half|halve|derde|kwart|halv|demie?|tiers|quart|medi[oa]"
    r"|tercio|cuarto|terço|quarto|mezz[oa]|mei[oa])"
)
AND_A_PART = (
    rf"(?:{ENGLISH_PART}|{PARTS}|half(?! ?[-{LETTER}])|{AND} (?:[a-z]{{1,5}} ?)?{FOREIGN_PART})"
    r"(?!\w)"
)
"""A part of one behind a number: 5 and a half, 2 thirds. 3 quarters may be coins, and behind
another number than 1 a third is somebody's rank: 12 third graders.
"""
ONE_PART = re.compile(rf" {PART}(?!\w)", re.IGNORECASE)
"""A part of one behind the number 1."""
WORD_BEFORE = re.compile(
    r"(?:\b(?:log|ln|lg|sin|cos|tan|exp|sqrt|root of|power of|not|minus|negative|"
    r"(?:more|less|fewer|greater|larger|smaller) than|at (?:least|most)) *"
    rf"|\b(?:twice|double|triple) |\b{PART}s? of (?:the )?"
    r"|(?:[-+\u2014]|(?:\A|[\d)\]}%=]) *[-+\u2014] +)\$?[(\[]\$?"
    r"|\by\u00fczde +|\u767e\u5206\u4e4b *"  # per cent, which Turkish and Chinese write before
    r"|[\w.][(\[]|\\[A-Za-z]+ *\{?|\u221a *\{?|\}\{|::|\.\.)\(?\Z",
    re.IGNORECASE,
)
"""What makes something else of the number behind it: a function, a comparison, a decimal."""
WORD_BEHIND = re.compile(
    rf" *(?i:{AND_A_PART})|"
    r" *(?:(?:or|and) (?:more|less|fewer|higher|lower)|repeating|recurring|squared|cubed"
    r"|to the power|\+ ?[\w\u221a(]|[\u03c0i](?!\w)|-[ \n]*\Z)"
)
POWER_BEHIND = re.compile(r"[)\]}]+ ?[\^!\u00b2\u00b3\d]")
CLOSING = " \n\t.,;:!?)]}*\"'`\u201d\u2019\u00bb|"
MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
BETWEEN = re.compile(
    rf" ?(?:(?:{UNIT.pattern}|{CURRENCY_SIGN}|{CURRENCY_NAME}|dollars?|euros?|st|nd|rd|th"
    rf"|{MONTHS})\.?)?"
    r" *(?:\.\.+|\u2026|\u00b1|(?<= ):(?= )|:(?! )|\.?[(\[]|[-,;&+*/\u00d7\u00b7\u00f7\u2014~^])? *"
    r"(?:(?:and|or|to|of|out of|by|x|plus|minus|times|over|through|und|oder|bis|von|et|ou|y|o|de)"
    rf" +)?(?:{BEFORE})? ?[-+]? ?(?:{BEFORE})? ?",
    re.IGNORECASE,
)
"""A text between two numbers that makes one answer of both: 5 of 10, 2 hours and 30 minutes."""
SECOND_RESULT = re.compile(r"\s*(?:[,;]|\band\b|\bor\b)\s*[A-Za-z]\w?\s*=\s*[-+]?\s*")
FEW_WORDS = 4  # most words beside several numbers that make one answer, as in 5 feet 10
BOXED = re.compile(r"\\f?boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
ANSWER_IS = re.compile(r"(?:answer|result) is:? ", re.IGNORECASE)
CALCULATION = re.compile(r"[\d\s.,()%$+*/\u00d7\u00b7\u00f7x-]*")
OPERATION = re.compile(r"\d\)? ?[-+*/\u00d7\u00b7\u00f7x] ?[\d(.]")
IN_BRACKETS = re.compile(r"\s*\$?\([^()-]*\)\$?\s*\.?\s*")
WRAPPERS = (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("\u201c", "\u201d"), ("$", "$"))


MOST_DIGITS = 10_000  # of a number that is read
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
    currency: str  # as `units.currency` writes it; empty where there is none
    after: str  # what follows on its line, from its unit on
    front: str  # what stands on its line before its sign and currency


class UnreadError(ValueError):
    """A text that gives no number; the message says why, as the end of a sentence on the text."""


def read_last(text: str, decimal_mark: DecimalMark) -> Number:
    """Return the number that an answer gives: behind GSM8K's `####`, else in LaTeX's box, else the
    last one.

    Of several `####` the first with a number behind it on its line counts: a model that runs on
    into a next question has answered before. Raises UnreadError: there is no number, the last one
    can't be read as a whole, or is one of several that make up the answer.
    """
    text = typed(text, decimal_mark)
    for behind in _marked(text):
        if TOKEN.search(behind):
            return _last(behind, decimal_mark, has_one=True)
    boxes = [box for box in BOXED.findall(text) if TOKEN.search(box)]
    if boxes:
        return _last(boxes[-1], decimal_mark, has_one=True)
    return _last(text, decimal_mark)


def read_expected(text: str, decimal_mark: DecimalMark) -> Number:
    """Return the number that is all of an expected answer, but for its sign, currency and unit, or
    all behind its `####`, in its box, behind 'answer is' or behind a calculation's =.

    Raises UnreadError: there is more than that, or several marks have different numbers.
    """
    text = typed(text, decimal_mark)
    parts = _marked(text) or BOXED.findall(text) or ANSWER_IS.split(text)[1:] or [text]
    numbers = [_alone(part, decimal_mark) for part in parts]
    if len({(number.value, number.currency, unit(number.after)) for number in numbers}) > 1:
        raise UnreadError("has several marks with different numbers")
    return numbers[0]


def read_whole(text: str, decimal_mark: DecimalMark) -> Number | None:
    """Return the number that is all of a text, or all behind its `####`, but for a currency or per
    cent; None where it is not. One with a zero in front, as a postal code, is none.
    """
    if "####" not in text and (ANSWER_IS.search(text) or "=" in text):
        return None
    try:
        number = read_expected(text, decimal_mark)
    except UnreadError:
        return None
    is_number = isinstance(number.value, Fraction) and not LEADING_ZERO.match(number.written)
    return number if is_number and unit(number.after) in {"", "%"} else None


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
    """Return whether an answer gives the number of an expected answer, and its currency and unit
    where that has them.
    """
    try:
        wanted = read_expected(expected, decimal_mark)
        given = read_last(answer, decimal_mark)
    except UnreadError:
        return False
    if given.value != wanted.value:
        return False
    if wanted.currency and given.currency != wanted.currency:
        return False
    wanted_unit = unit(wanted.after)
    if wanted_unit or wanted.currency:
        return has_unit(given.after, wanted_unit)
    return not NEVER_IGNORED.match(unit(given.after))


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


def _marked(text: str) -> list[str]:
    """Return what stands behind each of GSM8K's marks on its line, without LaTeX's box."""
    lines = [behind.partition("\n")[0] for behind in text.split("####")[1:]]
    return [BOXED.sub(r"\1", line) for line in lines]


def _last(text: str, decimal_mark: DecimalMark, *, has_one: bool = False) -> Number:
    """Return the last number of a text, which `has_one` and no other unless it calculates."""
    tokens = [*TOKEN.finditer(text)]
    while tokens and tokens[-1]["word"]:
        tokens.pop()
    if not tokens:
        raise UnreadError("has no number")
    last = tokens[-1]
    if len(tokens) > 1:
        between = text[tokens[-2].end() : last.start()]
        words = re.findall(rf"[{LETTER}]+", text)
        is_short = has_one or len(words) < FEW_WORDS
        if len(between) <= NEAR and BETWEEN.fullmatch(between):
            raise UnreadError("has several numbers")
        if is_short and ("=" not in between or SECOND_RESULT.fullmatch(between)):
            begins = not text[: tokens[0].start()].strip(" \t\n([{*\"'-+$")
            if has_one or begins or not words or "=" in between:
                raise UnreadError("has several numbers")
    if IN_BRACKETS.fullmatch(text):
        raise UnreadError("is a number in brackets, which may be negative")
    return _read(text, last, decimal_mark)


def _alone(text: str, decimal_mark: DecimalMark) -> Number:
    """Return the number that is all of a text, with its unit."""
    calculation, sign, result = text.rpartition("=")
    if sign and CALCULATION.fullmatch(calculation) and OPERATION.search(calculation):
        text = result
    text = _unwrapped(text)
    runs = [token for token in TOKEN.finditer(text) if token["run"]]
    if not runs:
        raise UnreadError("has no number")
    if IN_BRACKETS.fullmatch(text):
        raise UnreadError("is a number in brackets, which may be negative")
    number = _read(text, runs[0], decimal_mark)
    if len(runs) > 1:
        raise UnreadError("has several numbers")
    if number.front or "\n" in text or not is_unit(number.after):
        raise UnreadError("is more than a number with its unit")
    return number


def _unwrapped(text: str) -> str:
    """Return a text without quotes and Markdown's signs around it, and without a full stop."""
    text = _without_stop(text)
    for left, right in WRAPPERS:
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
            text = _without_stop(text[len(left) : -len(right)])
    return text


def _without_stop(text: str) -> str:
    text = text.strip()
    return text if text.endswith("..") else text.removesuffix(".").rstrip()


def _read(text: str, token: re.Match[str], decimal_mark: DecimalMark) -> Number:
    """Return the number of a token. Raises UnreadError: something beside it makes it another."""
    run, behind = token["run"], text[token.end() :].partition("\n")[0]
    if BROKEN_EXPONENT.match(behind):
        raise UnreadError(f"has '{run}{behind.split()[0]}', which isn't one number")
    value = _value(run, decimal_mark)
    near = text[max(0, token.start() - NEAR) : token.start()].rpartition("\n")[2]
    front = next(FRONT.finditer(near))  # it matches nothing at the end
    before = near[: front.start()]
    signs = [front[name].strip() for name in ("word", "sign", "inner") if front[name]]
    if len(signs) > 1:
        raise UnreadError(f"has two signs before {run}")
    if signs:
        _check_sign(text, before, front)
    _check_before(before, run, is_signed=bool(signs))
    money = currency(front["currency"] or "")
    if factor := FACTOR.match(behind):
        word = factor[1].lower()
        if word not in FACTORS[decimal_mark] or not isinstance(value, Fraction):
            raise UnreadError(f"has '{run}{factor[0]}', which isn't one number")
        value *= FACTORS[decimal_mark][word]
        behind = behind[factor.end() :]
    if MULTIPLIER.match(behind) or (money and re.match(r" ?m(?![\w/])", behind)):
        raise UnreadError(f"has '{run}{behind[:12].rstrip()}', which isn't one number")
    if money == "$" and behind.lstrip().startswith("$"):  # LaTeX's marks of a formula
        money, behind = "", behind.lstrip()[1:]
    elif paid := BEHIND.match(behind):
        if money:
            raise UnreadError(f"has two currencies beside {run}")
        money, behind = currency(paid[1]), behind[paid.end() :]
    has_words = re.search(rf"[{LETTER}]{{2}}", text) is not None
    _check_behind(behind, run, has_words=has_words)
    if signs and signs[0].lower() in {"-", "\u2014", "minus", "negative"}:
        value = -value if isinstance(value, Fraction) else ("-", *value)
    return Number(value, run, money, behind, before.strip())


def _check_sign(text: str, before: str, front: re.Match[str]) -> None:
    """Raise UnreadError where a sign may be one of subtraction, of a list or of punctuation."""
    doubt = UnreadError("has a dash or plus that need not be the number's sign")
    stem = before.rstrip(" ")
    is_word = bool(front["word"])
    sign = front["word"] or front["sign"] or front["inner"]
    if not stem:
        is_listed = not is_word and sign.endswith(" ") and "\n" in text.strip()
        if is_listed:
            raise doubt
        return
    bare = stem.rstrip('*_`"')
    if bare != stem and before == stem and re.search(r"[\w)\]}]\Z", bare):
        raise doubt
    if re.search(r"[\d)\]}%]\Z", stem):
        raise doubt
    if is_word or not re.search(rf"[{LETTER}]\Z", stem):
        return
    is_variable = re.search(r"(?<!\w)\w\Z", stem) is not None
    if before == stem or sign.startswith("\u2014") or is_variable:
        raise doubt


def _check_before(before: str, run: str, *, is_signed: bool) -> None:
    """Raise UnreadError where something before a number, or its sign, makes it another."""
    stem = before.rstrip(" ")
    if not stem:
        return
    last, touches = stem[-1], stem == before
    category = unicodedata.category(last)
    is_operator = (category == "Sm" and last not in "=+|") or last in "/\u00b7^!\\"
    is_joined = touches and (
        (category in {"No", "Mn", "Sk"} and last != "`")
        or last in "|_@&+\u30fb\u2026%\u2030\u00b0-"
    )
    is_letter = touches and not is_signed and re.search(rf"[{LETTER}]\Z", stem) is not None
    if is_operator or is_joined or is_letter or WORD_BEFORE.search(before):
        raise UnreadError(f"has '{stem[-10:]}' before {run}, which makes it another number")


def _check_behind(behind: str, run: str, *, has_words: bool) -> None:
    """Raise UnreadError where something behind a number makes it another."""
    another = UnreadError(f"has '{run}{behind[:10].rstrip()}', which isn't one number")
    first, spaced = behind[:1], behind.lstrip(" ")[:1]
    if WORD_BEHIND.match(behind) or POWER_BEHIND.match(behind):
        raise another
    if run == "1" and ONE_PART.match(behind):
        raise another
    if spaced and unicodedata.category(spaced) == "Sm" and spaced not in "=+|":
        raise another
    if not first or first == " " or UNIT.match(behind) or unit(behind) == "%":
        return
    is_foreign = first.isalpha() and not re.match(rf"[{LETTER}]", first)
    if is_foreign or first == "=" or re.match(r"\u2014[\w ]", behind):
        return
    is_decimal = re.match(r"\.\.|\u2026", behind) is not None and "." in run + behind[:1]
    is_joined = re.match(r"[.*:][\w{(]", behind) is not None
    is_factorial = first == "!" and not has_words
    others = "\u2026\u3002\uff0c\u3001\u300d\u300f\u3011"
    if is_decimal or is_joined or is_factorial or first not in CLOSING + others:
        raise another


def _value(run: str, decimal_mark: DecimalMark) -> Value:
    """Return the value of joined digits. Raises UnreadError: it is none in this notation."""
    if (number := _number(run, decimal_mark)) is not None:
        return number
    if date := YEAR_FIRST.fullmatch(run):
        return ("date", *(str(int(part)) for part in run.split(date[1])))
    if date := YEAR_LAST.fullmatch(run):
        return (date[1], *(str(int(part)) for part in run.split(date[1])))
    parts = re.split(r"([-:/^])", run.replace("\u2014", "-"))
    if len(parts) == 3 and parts[1] == "/":
        over, under = _number(parts[0], decimal_mark), _number(parts[2], decimal_mark)
        if over is not None and under:
            return over / under
    values: list[Fraction | str] = []
    for part in parts[::2]:
        value = _number(part, decimal_mark)
        if value is None and not VERSION.fullmatch(part):
            other: DecimalMark = "comma" if decimal_mark == "point" else "point"
            is_other = _number(run, other) is not None
            advice = f"; with task.options.decimal_mark: {other} it is one" if is_other else ""
            written = shortened(run, 60)
            reason = f"has '{written}', which isn't one number with a decimal {decimal_mark}"
            raise UnreadError(f"{reason}{advice}")
        values.append(part if value is None else value)
    return (*parts[1::2], *values)


def _number(text: str, decimal_mark: DecimalMark) -> Fraction | None:
    # Python converts longer ones in quadratic time
    if len(text) > MOST_DIGITS or not NUMBER[decimal_mark].fullmatch(text):
        return None
    other = "," if decimal_mark == "point" else "."
    digits = re.sub(rf"{SPACE}|{APOSTROPHE}", "", text).replace(other, "").replace(",", ".")
    return Fraction(Decimal(digits))
