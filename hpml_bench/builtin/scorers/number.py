"""Number: the last number of the answer equals the expected one, in the manner of GSM8K (Cobbe
et al. 2021).
"""

import re
from decimal import Decimal
from fractions import Fraction

from hpml_bench.plugins.scorer import Scorer

PART = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w))?"
NUMBER = re.compile(rf"(?:(?<![\w)])[-+]\$?)?{PART}(?:[/:]{PART})*")
"""Numbers; a sign belongs to one unless the text before it makes it a subtraction, as in 5-10."""
LATEX = re.compile(r"(?:(?<=\d)\s*)?\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}")
"""A fraction as LaTeX writes it, with the space behind a number before it."""
MIXED = re.compile(
    r"(?<![\w.,^/:])(\d{1,9}|\d{1,3}(?:,\d{3}){1,2})[ \u00a0](\d{1,9})/(\d{1,9})(?![\w/:]|[.,]\d)"
)
"""A whole number and a fraction behind it, as 1 1/2."""


class Number(Scorer):
    """Equality of the numbers that two texts end with."""

    title = "right numbers"
    definition = (
        "Share of the test rows whose answer's number equals that of the answer asked for: the "
        "first after GSM8K's '####' where it has that, else the last one; 1,000, 1000, 1000.0 and "
        "1e3 are the same, and 3/2, 1 1/2 and 1.5; times, ratios and dates, such as 12:30, equal "
        "what has the same parts."
    )

    def score(self, answer: str, expected: str) -> float:
        number = number_of(answer)
        return float(number is not None and number == number_of(expected))


def number_of(text: str) -> Fraction | tuple[Fraction, ...] | None:
    """Return a text's number, or those of a time, ratio or date: the first after the last
    `####`, else the last.
    """
    text = LATEX.sub(_in_a_line, text.replace("\N{MINUS SIGN}", "-"))
    text = MIXED.sub(_improper, text)
    _, mark, behind = text.rpartition("####")
    after_mark = NUMBER.findall(behind)[:1] if mark else []
    numbers = after_mark or NUMBER.findall(text)
    if not numbers:
        return None
    parts = tuple(
        Fraction(Decimal(part)) for part in re.split("[/:]", re.sub(r"[,$]", "", numbers[-1]))
    )
    if len(parts) == 1:
        return parts[0]
    is_fraction = len(parts) == 2 and "/" in numbers[-1] and parts[1] != 0
    return parts[0] / parts[1] if is_fraction else parts


def _in_a_line(latex: re.Match[str]) -> str:
    behind_a_number = latex.string[: latex.start()][-1:].isdigit()
    return f"{' ' if behind_a_number else ''}{latex[1]}/{latex[2]}"


def _improper(mixed: re.Match[str]) -> str:
    """Return a mixed number as one fraction; unchanged where its fraction is not below one."""
    whole, over, under = (int(part.replace(",", "")) for part in mixed.groups())
    return f"{whole * under + over}/{under}" if over < under else mixed[0]
