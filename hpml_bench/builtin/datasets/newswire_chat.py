"""Newswire chat: questions about the generated news world and its documents, and short answers;
no network.
"""

from typing import Any

import numpy as np

from hpml_bench.builtin.newswire.documents import (
    balanced_beats,
    beat_posterior,
    render,
    sample,
    split_rng,
    stream,
)
from hpml_bench.builtin.newswire.world import BEAT_NAMES, ENTITIES, N_BEATS, make_world
from hpml_bench.data.conversations import rows_of
from hpml_bench.data.generated import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.settings import Settings

KINDS = 3  # kinds of questions in equal parts: on one name, on three names, on a document
RETENTION_ROWS = 1000


class NewswireChat(DatasetLoader):
    """Three kinds of questions in equal parts: which desk covers a name, three names, or a text.

    The answers on names are facts that the embedded backbone saw in its pretraining, and most names
    that a test row asks for occur in no training row; those on texts follow from the names in them.
    """

    targets = ("answer",)

    def load(self, settings: Settings, target: Target) -> LoadedData:
        world = make_world()
        splits: dict[str, Any] = {}
        best = 0.0
        for split, size in split_sizes(settings).items():
            rng = split_rng(settings.data_seed, split)
            text_count = size // KINDS
            beats = balanced_beats(text_count, rng)
            documents = sample(world, beats, rng)
            pairs = [
                [f"{text} Which desk?", _desk(beat)]
                for text, beat in zip(render(world, documents), beats.tolist(), strict=True)
            ]
            # of names, on one and on three in turn; only `rng.random()` is used
            for number, draws in enumerate(
                rng.random((size - text_count, 2 + len(ENTITIES))).tolist()
            ):
                beat = int(draws[0] * N_BEATS)
                names = [
                    world.name(kind, beat, draw)
                    for kind, draw in zip(ENTITIES, draws[2:], strict=True)
                ]
                if number % 2:
                    person, organisation, place = names
                    question = f"{person} of {organisation}, {place}: which desk?"
                else:
                    question = f"Which desk covers {names[int(draws[1] * len(names))]}?"
                pairs.append([question, _desk(beat)])
            order = np.argsort(rng.random(size), kind="stable")
            splits[split] = rows_of([pairs[at] for at in order])
            right = (
                float((beat_posterior(world, documents).argmax(1) == beats).sum())
                if text_count
                else 0.0
            )
            best = (right + size - text_count) / size  # the test rows come last
        general = stream(world, RETENTION_ROWS, split_rng(settings.data_seed, "check"))
        return LoadedData(
            **splits,
            retention=rows_of([[text] for text in general]),
            notes={
                "best possible exact match": (
                    f"{100 * best:.1f} % on these {len(splits['test']):,} test rows (all "
                    "names, and texts by the exact posterior over desks)"
                )
            },
        )


def _desk(beat: int) -> str:
    return f" {BEAT_NAMES[beat].capitalize()}"
