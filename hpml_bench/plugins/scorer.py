"""Scorers: the base class of what compares a generated answer with the one that was asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

from hpml_bench import registry


class Scorer(ABC):
    """A way to score an answer: `title`, `definition` and `score` are required."""

    plugin_kind: ClassVar[str] = "scorers"
    title: ClassVar[str]
    """What the mean over rows is called."""
    definition: ClassVar[str]
    """What exactly is scored, in a sentence; printed in the glossary."""
    binary: ClassVar[bool] = True
    """Whether a score is 0 or 1, right or wrong."""
    of: ClassVar[str] = "answers"
    """`answers`: texts that the model generates. `choices`: how likely a row's choices are; nothing is generated."""

    def check(self) -> None:
        """Refuse to score where something is missing, such as a package; called in the preparation.

        Raises:
            UserError: says what to install.

        """
        return

    @abstractmethod
    def score(self, answer: str, expected: str) -> float:
        """Return the score of an answer, from 0 to 1."""


def make_scorer(name: str) -> Scorer:
    """Return a scorer by name.

    Raises:
        UserError: there is none of that name.

    """
    return cast(Scorer, registry.plugin("scorers", name)())
