"""ROUGE-L: the longest common subsequence of words (Lin 2004), by Google's `rouge-score`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from hpml_bench.errors import UserError
from hpml_bench.plugins.scorer import Scorer


class RougeL(Scorer):
    """F-measure of the longest common subsequence."""

    title = "ROUGE-L"
    definition = (
        "Mean over the test rows of the F-measure of the longest common subsequence of words (rouge-score's "
        "rougeL, without stemming)."
    )
    binary = False

    @cached_property
    def _scorer(self) -> Any:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise UserError("the scorer rouge_l needs one more package: pip install 'hpml-bench[rouge]'") from None
        return RougeScorer(["rougeL"])

    def check(self) -> None:
        """Refuse where the package is missing."""
        _ = self._scorer

    def score(self, answer: str, expected: str) -> float:
        """Return the F-measure."""
        return float(self._scorer.score(expected, answer)["rougeL"].fmeasure)
