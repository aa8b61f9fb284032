"""Exact match: the answer equals the expected one after normalisation."""

from hpml_bench.plugins.scorer import Scorer


class Exact(Scorer):
    """Equality of normalised texts."""

    title = "exact match"
    definition = (
        "Share of the test rows whose answer equals the one asked for, after both are lower-cased, "
        "their runs of white space made one space, and a full stop at the end left out."
    )

    def score(self, answer: str, expected: str) -> float:
        return float(normalised(answer) == normalised(expected))


def normalised(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".").rstrip()
