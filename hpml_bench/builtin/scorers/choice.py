"""Choice: the likeliest of a row's choices is the right one, as lm-evaluation-harness counts it."""

from hpml_bench.plugins.scorer import Scorer


class Choice(Scorer):
    """Accuracy over given choices; nothing is generated."""

    title = "right choices"
    definition = (
        "Share of the test rows whose likeliest choice is the right one: each choice's "
        "log-likelihood after the prompt, summed over its tokens (lm-evaluation-harness's acc)."
    )
    of = "choices"

    def score(self, answer: str, expected: str) -> float:
        return float(answer == expected)
