"""F1 of words, as SQuAD is scored (Rajpurkar et al. 2016, arXiv:1606.05250)."""

import re
import string
from collections import Counter

from hpml_bench.plugins.scorer import Scorer

ARTICLES = re.compile(r"\b(a|an|the)\b")


class F1(Scorer):
    """Overlap of the words of two texts."""

    title = "word F1"
    definition = (
        "Mean over the test rows of SQuAD's F1: the harmonic mean of precision and recall of the "
        "answer's words, "
        "after lower-casing and without punctuation and articles; 1 where both have none."
    )
    binary = False

    def score(self, answer: str, expected: str) -> float:
        given, wanted = words(answer), words(expected)
        if not given or not wanted:
            return float(given == wanted)
        same = sum((Counter(given) & Counter(wanted)).values())
        return 2 * same / (len(given) + len(wanted))


def words(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return ARTICLES.sub(" ", bare).split()
