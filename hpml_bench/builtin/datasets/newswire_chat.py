"""Newswire chat: questions about the generated news world and its documents, and short answers; no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.data.newswire import make_world, render, stream
from hpml_bench.data.newswire.documents import balanced_beats, beat_posterior, sample, split_rng
from hpml_bench.data.newswire.questions import KINDS, ask_of_names, desk
from hpml_bench.data.newswire.sizes import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset

RETENTION_ROWS = 1000


class NewswireChat(DatasetLoader):
    """Three kinds of questions in equal parts: which desk covers a name, three names, or a text.

    The answers on names are facts that the embedded backbone saw in its pretraining, and most names that a test row
    asks for occur in no training row; those on texts follow from the names in them.
    """

    targets = ("answer",)

    class Options(Frozen):
        """The generator has no options."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        """Generate as many rows as the settings ask for; `data_seed` and the split determine them."""
        world = make_world()
        splits: dict[str, Any] = {}
        best = 0.0
        for split, size in split_sizes(settings).items():
            rng = split_rng(settings.data_seed, split)
            text_count = size // KINDS
            beats = balanced_beats(text_count, rng)
            documents = sample(world, beats, rng)
            pairs = [
                (f"{text} Which desk?", desk(beat))
                for text, beat in zip(render(world, documents), beats.tolist(), strict=True)
            ]
            pairs += ask_of_names(world, size - text_count, rng)
            order = np.argsort(rng.random(size), kind="stable")
            splits[split] = _rows([pairs[place] for place in order])
            right = float((beat_posterior(world, documents).argmax(1) == beats).sum()) if text_count else 0.0
            best = (right + size - text_count) / size  # the test rows come last
        general = stream(world, RETENTION_ROWS, split_rng(settings.data_seed, "check"))
        return LoadedData(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            retention=_rows([("", text) for text in general]),
            notes={
                "best possible exact match": f"{100 * best:.1f} % on these {len(splits['test']):,} test rows (all "
                "names, and texts by the exact posterior over desks)"
            },
        )


def _rows(pairs: list[tuple[str, str]]) -> Dataset:
    """Return questions and answers as conversations; a text without a question is one turn."""
    from datasets import Dataset, Features, Value

    texts = [Value("string")]
    return Dataset.from_dict(
        {
            "contents": [[part for part in pair if part] for pair in pairs],
            "roles": [["user", "assistant"] if question else ["assistant"] for question, _ in pairs],
            "choices": [[] for _ in pairs],
        },
        features=Features({"contents": texts, "roles": texts, "choices": texts}),
    )
