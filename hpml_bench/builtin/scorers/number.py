"""Number: the answer's number equals the expected one, in the manner of GSM8K (Cobbe et al.
2021).
"""

from hpml_bench.data.numbers import UnreadError, read_expected, same
from hpml_bench.plugins.scorer import Scorer


class Number(Scorer):
    """Equality of the numbers that two texts give."""

    title = "right numbers"
    definition = (
        "Share of the test rows whose answer's number equals that of the answer asked for: the "
        "one behind its first GSM8K '####', else in LaTeX's box, else the last one, read as a "
        "whole or not at all. 1,000, 1 000, 1'000, 1000.0 and 1e3 are the same with a decimal "
        "point (1.000 and 1000,0 with decimal_mark: comma), and 3/2, 1 1/2 and 1.5; dates, times, "
        "versions, ratios and ranges equal what has the same parts. Where the answer asked for is "
        "a number with a unit, a currency or %, it must have that too; % is never ignored."
    )

    def score(self, answer: str, expected: str) -> float:
        return float(same(answer, expected, self.decimal_mark))

    def refusal(self, expected: str) -> str | None:
        try:
            read_expected(expected, self.decimal_mark)
        except UnreadError as error:
            return str(error)
        return super().refusal(expected)
