"""Tasks of another package, as far as a report needs them: numbers scored by RMSE, tags scored by entity F1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.plugin_packages import forget, install

COMMON = '''
import math
import numpy as np
from hpml_bench.plugins.task import Guess, Task, loss_metrics
from hpml_bench.records.run import Metric

def metric(name, title, unit, better, bounds, spec):
    return Metric(name=name, title=title, unit=unit, better=better, over_ranks="same", over_steps="once", phase="test",
                  format=spec, group="quality", bounds=bounds, definition=f"The {title} of the test rows.")

class _Untrained(Task):
    """No report trains."""
    def check(self, split, labels, rows): raise NotImplementedError
    def encode(self, rows, encoder): raise NotImplementedError
    def label_type(self): raise NotImplementedError
    def build(self, encoder, hidden_size, virtual_tokens, seed): raise NotImplementedError
    def row_losses(self, outputs, labels): raise NotImplementedError
    def predict(self, outputs): raise NotImplementedError
'''
RATING = f'''
"""A number of stars for each text."""
{COMMON}
class Rating(_Untrained):
    """Squared error, RMSE in stars."""
    title, target, headline, columns = "Rating", "number", "test_rmse", ("label", "text")
    metrics = (*loss_metrics("stars²", "Squared error"),
               metric("test_rmse", "RMSE", "stars", "lower", (0.0, None), ".3f"),
               metric("test_mae", "MAE", "stars", "lower", (0.0, None), ".3f"))

    def evaluate(self, predictions):
        errors = predictions.prediction - predictions.reference
        return {{"loss": float(np.mean(predictions.loss, dtype=float)), "rmse": math.sqrt(np.mean(errors**2)),
                "mae": float(np.mean(np.abs(errors)))}}

    def scores(self, predictions):
        squares = (predictions.prediction - predictions.reference) ** 2
        rmse = math.sqrt(squares.mean())
        return rmse + (squares - squares.mean()) / (2 * rmse)

    def guess(self, reference, texts=None):
        squares = (reference - reference.mean()) ** 2
        sd = math.sqrt(squares.mean())
        return Guess(f"Guessing the mean of the test rows, {{reference.mean():.4g}}, for each of them has an RMSE of "
                     f"{{sd:.4g}}.", scores=sd + (squares - sd**2) / (2 * sd), chance=sd)
'''
NAMING = f'''
"""Names in texts, a tag for each word."""
{COMMON}
def entities(row, names):
    """Return {{(first word, last word, type)}}."""
    found, begin = set(), None
    for place, tag in enumerate([*(names[int(tag)] for tag in row), "O"]):
        kind = tag[2:]
        if begin is not None and (tag == "O" or tag[0] == "B" or kind != begin[1]):
            found.add((begin[0], place - 1, begin[1]))
            begin = None
        if tag != "O" and begin is None:
            begin = place, kind
    return found

class Naming(_Untrained):
    """Cross-entropy, entity F1."""
    title, target, headline, columns = "Naming", "tags", "test_f1", ("tags", "words")
    metrics = (*loss_metrics("nats", "Cross-entropy"),
               metric("test_f1", "entity F1", "", "higher", (0.0, 1.0), ".1%"))

    def counts(self, reference, prediction):
        rows = [(entities(a, self.label_names), entities(b, self.label_names)) for a, b in zip(reference, prediction)]
        return np.array([(2 * len(a & b), len(a) + len(b)) for a, b in rows], dtype=float)

    def evaluate(self, predictions):
        right, both = self.counts(predictions.reference, predictions.prediction).sum(axis=0)
        words = sum(map(len, predictions.reference))
        return {{"loss": float(np.sum(predictions.loss, dtype=float)) / words, "f1": right / both}}

    def scores(self, predictions):
        right, both = self.counts(predictions.reference, predictions.prediction).T
        f1 = right.sum() / both.sum()
        return f1 + (right - f1 * both) / both.mean()

    def guess(self, reference, texts=None):
        words = np.concatenate(reference)
        share = 100 * float((words == 0).mean())
        return Guess(f"Tagging nothing gets {{share:.1f}} % of the words of the test rows right and finds no entity: "
                     "its F1 is 0.", scores=np.zeros(len(reference)), chance=0.0)
'''


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Install both tasks, `rating` and `naming`, while the body runs."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch, folder, "tasks", rating=RATING, naming=NAMING)
        yield
    forget()
