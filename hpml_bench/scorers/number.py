"""Number: the last number of the answer is the one asked for, as GSM8K is scored (Cobbe et al. 2021)."""

from __future__ import annotations

import re
from decimal import Decimal

from hpml_bench.plugins.scorer import Scorer

NUMBER = re.compile(r"(?:(?<![\w)])[-+]\$?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?")
"""A sign belongs to a number where nothing stands before it that it could be subtracted from, as in 5-10."""
MARK = "####"
"""What GSM8K writes before the final answer."""


class Number(Scorer):
    """Equality of the numbers that two texts end with."""

    title = "right numbers"
    definition = (
        "Share of the test rows whose answer's number equals that of the answer asked for: the first after "
        "GSM8K's '####' where it has that, else the last one; 1,000, 1000 and 1000.0 are the same."
    )

    def score(self, answer: str, expected: str) -> float:
        """Return 1 where both give the same number; 0 where one gives none."""
        found = number_of(answer)
        return float(found is not None and found == number_of(expected))


def number_of(text: str) -> Decimal | None:
    """Return the number that a text gives: the first after the last `####`, else the last; None of neither."""
    _, mark, behind = text.rpartition(MARK)
    found = NUMBER.findall(behind) if mark else []
    chosen = found[0] if found else next(iter(NUMBER.findall(text)[::-1]), None)
    return None if chosen is None else Decimal(chosen.replace(",", "").replace("$", ""))
