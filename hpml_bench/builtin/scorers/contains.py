"""Contains: the expected answer occurs in the generated one."""

from hpml_bench.plugins.scorer import Scorer


class Contains(Scorer):
    """Occurrence of one text in another."""

    title = "contained answers"
    definition = (
        "Share of the test rows whose answer contains the one asked for, both lower-cased and with "
        "runs of white space made one space."
    )

    def score(self, answer: str, expected: str) -> float:
        return float(" ".join(expected.lower().split()) in " ".join(answer.lower().split()))
