"""Scorers: the base class for comparing a generated answer with the expected one."""

import re
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, cast

from hpml_bench.suite import registry


class Scorer(ABC):
    """A way to score an answer: `title`, `definition` and `score` are required."""

    plugin_kind: ClassVar[str] = "scorers"
    title: ClassVar[str]
    """Name of the mean over rows."""
    definition: ClassVar[str]
    """Exact definition of the score, in a sentence; printed in the glossary."""
    binary: ClassVar[bool] = True
    """Whether a score is 0 or 1, right or wrong."""
    of: ClassVar[str] = "answers"
    """What is scored: `answers` that are generated, or the likelihoods of `choices`, without
    generation.
    """

    decimal_mark: Literal["point", "comma"] = "point"
    """How numbers in answers write their decimals: the task's option of this name."""

    def check(self) -> None:
        """Refuse to score where something is missing, such as a package; called in the preparation.

        Raises UserError: says what to install.
        """
        return

    @abstractmethod
    def score(self, answer: str, expected: str) -> float:
        """Return the score of an answer, from 0 to 1."""

    def refusal(self, expected: str) -> str | None:
        """Return why no answer can be right by an expected one, as the end of a sentence on it;
        None where one can.
        """
        is_right = self.score(expected, expected) == 1
        return None if is_right else "would not be right as an answer to itself"

    def score_row(self, question: str, answer: str, expected: str) -> float:
        """Return the score of an answer to a question, the turn before it; overridden where the
        question counts.
        """
        return self.score(answer, expected)


class LmEvalGsm8k(Scorer):
    """GSM8K's exact match as lm-evaluation-harness's task gsm8k (version 3) counts it, after one of
    its filters.

    The filter's part of the answer is compared with the text after the last `#### ` of the expected
    one, both without commas, dollar signs and a full stop at the end, in lower case.
    """

    pattern: ClassVar[re.Pattern[str]]
    """Pattern of the filter; its group, where it has one, is the part of the answer."""
    place: ClassVar[int]
    """Index of the match: 0 the first, -1 the last."""

    def score(self, answer: str, expected: str) -> float:
        """Return 1 where both are the same; 0 where the filter finds nothing."""
        matches = self.pattern.findall(answer)
        return float(bool(matches) and _plain(matches[self.place]) == _plain(expected))


def _plain(text: str) -> str:
    bare = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    return re.sub(r"\.$", "", bare).lower()


def make_scorer(name: str, decimal_mark: Literal["point", "comma"] = "point") -> Scorer:
    """Return a scorer by name. Raises UserError: there is none of that name."""
    scorer = cast(Scorer, registry.plugin("scorers", name)())
    scorer.decimal_mark = decimal_mark
    return scorer
