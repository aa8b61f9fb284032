"""Texts as a keyboard writes them: digits, signs, spaces and formulas of other writings in their
plain form.
"""

import html
import re
import unicodedata
from functools import partial
from typing import Literal

DecimalMark = Literal["point", "comma"]
MARKS: dict[DecimalMark, str] = {"point": ".", "comma": ","}
OTHER_MARKS: dict[DecimalMark, str] = {"point": ",", "comma": "."}

LETTER = r"A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u024f\u0370-\u04ff_"
"""Letters of scripts with spaces between words: behind others, as in 答案是42, a number begins."""
DASHES = str.maketrans(
    dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u207b\u208b\u2796\u02d7\ufe58\ufe63\uff0d", "-")
    | {"\u2015": "\u2014"}
)
"""Minus signs and short dashes are hyphens; a bar is a dash (—), which may be punctuation."""
SIGNS = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full width
    | dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009", " ")
    | dict.fromkeys("\u200a\u202f\u205f\u3000", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad", "")
    | dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", "")
    | dict.fromkeys("\u2219\u22c5", "\u00b7")
    | dict.fromkeys("\u2192\u21d2\u27f6\u27f9", "=")
    | {"\u2044": "/", "\u066a": "%", "\ufe6a": "%", "\u2018": "\u2019", "\u00b4": "\u2019"}
)
"""Spaces, invisible characters, full-width signs, dots of multiplication, arrows and the like."""
DIGIT = re.compile(r"(?![0-9])\d")
VULGAR = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e])")
SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
RAISED = re.compile(rf"(?<=\d)[{SUPERSCRIPT}]+")
LOWERED = str.maketrans(SUPERSCRIPT, "0123456789+-")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
"""A character as HTML writes it, with its semicolon: AT&T has none."""
TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]{0,15})\s*/?>")
ARROW = re.compile(r"-{1,3}>|=>")
COMPARISONS = {"<=": "≤", ">=": "≥", "!=": "≠", "+/-": "±"}

FORMULA = re.compile(r"(?<![\\$\w])\$(\$?)(?=[^\s$])([^$\n]{0,200}[^\s$\\]|[^\s$\\])\$\1(?![\d$])")
"""LaTeX's marks of a formula, as pandoc finds them: $5 and $6 is none."""
LATEX = re.compile(
    r"(?:(?<=\d)\s*)?\\[dtc]?frac\s*(?:\{\s*([-+]?\d[\d.,]*)\s*\}|(\d))"
    r"\s*(?:\{\s*(\d[\d.,]*)\s*\}|(\d))"
)
"""A fraction as LaTeX writes it, with the space behind a number before it."""
DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])")
TEXT_OF_LATEX = re.compile(r"\\(?:text|textrm|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}")
COMMANDS = {
    "times": "×",
    "cdot": "·",
    "approx": "≈",
    "sim": "∼",
    "le": "≤",
    "leq": "≤",
    "ge": "≥",
    "geq": "≥",
    "neq": "≠",
    "ne": "≠",
    "pm": "±",
    "pi": "π",
    "sqrt": "√",
    "to": "=",
    "rightarrow": "=",
    "Rightarrow": "=",
    "implies": "=",
    "quad": " ",
    "left": "",
    "right": "",
    "lt": "<",
    "gt": ">",
}
COMMAND = re.compile(r"\\([A-Za-z]+)")
SPACING = re.compile(r"\\([,;: !()\[\]%$])")
SPACES = {",": " ", ";": " ", ":": " ", " ": " ", "!": "", "%": "%", "$": "$"}
RAISED_IN_BRACES = re.compile(r"([\^_])\{([^{}]*)\}")
POWER_OF_UNIT = re.compile(rf"(?<=[{LETTER}])\^([23])(?!\w)")
MIXED = re.compile(
    r"(?<![\w.,^/:])(\d{1,9}|\d{1,3}(?:[,.]\d{3}){1,2}) (\d{1,9})/(\d{1,9})(?![\w/:]|[.,]\d)"
)
"""A whole number and a fraction behind it, as 1 1/2."""
SCIENTIFIC = re.compile(
    r"(?:(?<=\d)\s*[xX*×·]\s*|(?<![\w.,^/:'\u2019-]))"
    r"10 ?(?:\^|\*\*) ?([-+]?\d{1,3})(?![\d.,^]\d|\d)"
)
"""A power of ten, with the sign of multiplication before it: 1.5 × 10^3."""
MARK_OF_VERSION = re.compile(r"(?<!\w)[vV](?=\d+(?:\.\d+){2,}(?!\w))")
"""The v of v3.10.2; v3.10 may be a name, and is none."""
NO_DECIMALS = re.compile(r"(?<=\d)[.,][-\u2014](?=\s|\Z)")
"""The dash in place of decimals: 5.– and 5,-."""


def typed(text: str, decimal_mark: DecimalMark) -> str:
    """Return a text with its digits, signs, fractions and powers of ten as a keyboard writes
    them.
    """
    text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    text = VULGAR.sub(_fraction, text)
    text = RAISED.sub(lambda raised: f"^{raised[0].translate(LOWERED)}", text)
    text = text.translate(DASHES).translate(SIGNS)
    text = DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)
    text = text.replace("\u066b", MARKS[decimal_mark])
    text = text.replace("\u066c", OTHER_MARKS[decimal_mark])
    text = _without_markup(text)
    for comparison, sign in COMPARISONS.items():
        text = text.replace(comparison, sign)
    text = ARROW.sub("=", text)
    text = NO_DECIMALS.sub("", MARK_OF_VERSION.sub("", text))
    text = POWER_OF_UNIT.sub(r"\1", text)
    text = SCIENTIFIC.sub(_exponent, text)
    return MIXED.sub(partial(_improper, decimal_mark=decimal_mark), text)


def _without_markup(text: str) -> str:
    """Return a text whose HTML tags and LaTeX commands are plain signs, where they have one."""
    text = TAG.sub(_tag, text)
    text = FORMULA.sub(r"\2", text)
    text = DEGREE.sub("°", text.replace("{,}", ","))
    text = TEXT_OF_LATEX.sub(r"\1", LATEX.sub(_latex_fraction, text))
    text = COMMAND.sub(lambda command: COMMANDS.get(command[1], command[0]), text)
    text = SPACING.sub(lambda space: SPACES.get(space[1], " "), text)
    return RAISED_IN_BRACES.sub(r"\1\2", text)


def _tag(tag: re.Match[str]) -> str:
    if tag[0].startswith("</"):
        return "" if tag[1] in {"sup", "sub"} else " "
    return {"sup": "^", "sub": "_"}.get(tag[1], " ")


def _fraction(vulgar: re.Match[str]) -> str:
    space = " " if vulgar[1] else ""
    return f"{vulgar[1]}{space}{unicodedata.normalize('NFKC', vulgar[2])}"


def _exponent(power: re.Match[str]) -> str:
    return f"{'1' if power[0].startswith('10') else ''}e{power[1]}"


def _latex_fraction(latex: re.Match[str]) -> str:
    behind_a_number = latex.string[: latex.start()][-1:].isdigit()
    return f"{' ' if behind_a_number else ''}{latex[1] or latex[2]}/{latex[3] or latex[4]}"


def _improper(mixed: re.Match[str], decimal_mark: DecimalMark) -> str:
    """Return a mixed number as one fraction; unchanged where its fraction is not below one, or a
    decimal stands before it.
    """
    if MARKS[decimal_mark] in mixed[1]:
        return mixed[0]
    whole, over, under = (int(re.sub("[,.]", "", part)) for part in mixed.groups())
    return f"{whole * under + over}/{under}" if over < under else mixed[0]
