"""ROUGE-L: the longest common subsequence of words (Lin 2004), by Google's `rouge-score`, in any
script.
"""

import unicodedata
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

from hpml_bench.plugins.scorer import Scorer
from hpml_bench.system.errors import UserError
from hpml_bench.system.packages import install_extras

UNSPACED = (
    "CJK",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "BOPOMOFO",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
)
"""Beginnings of the Unicode names of characters of scripts without spaces between words."""


class RougeL(Scorer):
    """F-measure of the longest common subsequence.

    `rouge-score`'s own tokenizer keeps a to z and 0 to 9 alone, so that texts in other scripts have
    no word. This one gives the same words for ASCII text.
    """

    title = "ROUGE-L"
    definition = (
        "Mean over the test rows of the F-measure of the longest common subsequence of words: "
        "rouge-score's rougeL without stemming, where words are runs of letters and digits of any "
        "script; of scripts without spaces, as Chinese, Japanese or Thai, each character is one. "
        "Words are compared in compatible form without case (Unicode's NFKC and case folding: ﬁ is "
        "fi, ß is ss), and without invisible characters."
    )
    binary = False

    @cached_property
    def _scorer(self) -> Any:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise UserError(
                f"the scorer rouge_l needs one more package: {install_extras('rouge')}"
            ) from None
        return RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))

    def check(self) -> None:
        _ = self._scorer

    def score(self, answer: str, expected: str) -> float:
        return float(self._scorer.score(expected, answer)["rougeL"].fmeasure)


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits with their marks, or one character of
    an unspaced script.

    Compatible forms of a character (NFKC) and upper and lower case are the same; invisible
    characters are left out.
    """
    parts: list[str] = []
    grows = marked = False  # whether letters join the last word, and whether marks do
    for character in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        kind = unicodedata.category(character)
        if kind == "Cf":
            continue
        if (kind[0] == "M" and marked) or (kind[0] in "LN" and grows and not _unspaced(character)):
            parts[-1] += character
        elif kind[0] in "LN":
            parts.append(character)
            grows, marked = not _unspaced(character), True
        else:
            grows = marked = False
    return parts


@cache
def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(UNSPACED)
