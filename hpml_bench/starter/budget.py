"""Budget of a comparison: rows, batch, epochs, seeds and methods."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_bench.plugins.task import Task
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.rates import FEW, Published, Recipe
from hpml_bench.starter.view import View
from hpml_bench.suite.devices import default_ranks

MOST_TRAINING, MOST_TEST, MOST_ANSWERED, VALIDATED = 20_000, 5_000, 500, 50
"""Most rows to train on (as PEFT's method comparison) and to test, to test by generated answers, and to validate so."""
LEAST_STEPS = 8
"""Fewest steps per epoch for which the recipe's batch is kept."""
SEEDS = 3


@dataclass(frozen=True)
class Budget:
    """Rows, batch and epochs, with the methods that are compared."""

    entries: tuple[Entry, ...]
    methods: tuple[Published, ...]
    """All that are offered."""
    micro_batch: int
    """Rows of a rank's share of the batch."""


def choose_budget(view: View, task: Task, recipe: Recipe) -> Budget:
    """Return the recipe's budget, less where rows are few, or are more than a comparison needs."""
    answers = task.decoding is not None
    rows = int(len(view.loaded.train) / view.data.share_of("train"))
    tests = int(len(view.loaded.test) / view.data.share_of("test"))
    ranks = default_ranks()
    left = rows if view.loaded.validation is not None else rows - max(1, rows // 10)
    batch = recipe.batch
    while batch > ranks and left // batch < LEAST_STEPS:
        batch //= 2
    batch = max(ranks, batch - batch % ranks)
    few = left < FEW
    epochs, why = (recipe.few_epochs, recipe.few_why) if few else (recipe.epochs, recipe.epochs_why)
    smaller = f"{left:,} rows give few steps of {recipe.batch}, {recipe.batch_why}"
    entries = (
        _samples("train_samples", rows, MOST_TRAINING, view, "as many as PEFT's method comparison trains on"),
        _validation(view, answers),
        _samples("test_samples", tests, MOST_ANSWERED if answers else MOST_TEST, view,
                 "answering takes most of the time" if answers else "more would hardly narrow the intervals"),
        Entry("epochs", epochs, (why if not few else f"there are only {left:,} rows: {why}",)),
        Entry("global_batch", batch, (recipe.batch_why if batch == recipe.batch else smaller,)),
    )  # fmt: skip
    return Budget(entries, recipe.methods, batch // ranks)


def _samples(key: str, rows: int, most: int, view: View, reason: str) -> Entry:
    if rows > most:
        return Entry(key, most, (f"drawn from {'' if view.whole else 'some '}{rows:,}: {reason}; null takes all",))
    return Entry(key, None, ("null is all of them",))


def _validation(view: View, answers: bool) -> Entry:
    own = view.loaded.validation
    there = len(own) if own is not None else max(1, len(view.loaded.train) // 10)
    where = "the validation rows" if own is not None else "a tenth of the training rows, split off"
    if answers and there > VALIDATED:
        return Entry("validation_samples", VALIDATED, (f"of {there:,}, as each of them is answered for the curves",))
    return Entry("validation_samples", None, (f"null is {where}, {100 if answers else 500} at most; for the curves",))
