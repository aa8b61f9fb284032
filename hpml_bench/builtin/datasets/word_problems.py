"""Word problems: generated questions on amounts, of several steps, with answers written as
GSM8K's; no network.
"""

import numpy as np
from pydantic import Field

from hpml_bench.data.conversations import rows_of
from hpml_bench.data.generated import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings

PEOPLE = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Ella",
    "Frank",
    "Grace",
    "Henry",
    "Ivy",
    "Jack",
    "Kate",
    "Leo",
)
THINGS = (
    "apples",
    "books",
    "coins",
    "cards",
    "eggs",
    "marbles",
    "pencils",
    "shells",
    "stamps",
    "stickers",
)
CHANGES: dict[str, tuple[str, ...]] = {
    "+": ("{other} gives {name} {n} more.", "{name} buys {n} more.", "{name} finds {n} more."),
    "-": ("{name} gives {n} to {other}.", "{name} loses {n}.", "{name} sells {n}."),
    "*": ("{name} wins so many that there are now {n} times as many.",),
}
"""Operation -> sentences that describe it."""
FIRST, CHANGED, TIMES = (5, 40), (2, 20), (2, 4)
"""Bounds of the first amount, of changes, and of factors; the upper ones excluded."""
MOST = 100  # upper bound of amounts, excluded


class WordProblems(DatasetLoader):
    """Problems on a number of things that changes several times; its last value is asked for.

    The answer has one calculation per sentence and ends with `#### ` and the number, as GSM8K's do
    (Cobbe et al. 2021). No two rows have the same question, over all splits.
    """

    targets = ("answer",)

    class Options(Frozen):
        """Difficulty of the problems."""

        steps: tuple[int, int] = Field(default=(2, 3))
        """Fewest and most changes in a problem."""
        instruction: str = "Calculate step by step, and end with #### and the number."
        """Text after each question."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        rng = np.random.default_rng([settings.data_seed, 5])
        known: set[str] = set()
        splits = {}
        for split, size in split_sizes(settings).items():
            pairs: list[list[str]] = []
            while len(pairs) < size:
                question, answer = problem(rng, self.options.steps)
                if question not in known:
                    known.add(question)
                    pairs.append([f"{question} {self.options.instruction}".strip(), answer])
            splits[split] = rows_of(pairs)
        return LoadedData(**splits)


def problem(rng: np.random.Generator, steps: tuple[int, int]) -> tuple[str, str]:
    name, other = rng.choice(PEOPLE, 2, replace=False).tolist()
    things = str(rng.choice(THINGS))
    amount = int(rng.integers(*FIRST))
    sentences, calculated = [f"{name} has {amount} {things}."], []
    for _ in range(int(rng.integers(steps[0], steps[1] + 1))):
        after = 0
        while not 0 < after < MOST:
            sign = str(rng.choice(list(CHANGES)))
            n = int(rng.integers(*(TIMES if sign == "*" else CHANGED)))
            after = {"+": amount + n, "-": amount - n, "*": amount * n}[sign]
        sentences.append(str(rng.choice(CHANGES[sign])).format(name=name, other=other, n=n))
        calculated.append(f"{amount} {sign} {n} = {after}.")
        amount = after
    question = " ".join([*sentences, f"How many {things} does {name} have now?"])
    return question, " ".join([*calculated, f"#### {amount}"])
