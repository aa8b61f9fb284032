"""A made-up news world: labelled documents, an unlabelled stream, and the exact posterior. Numpy alone.

Four topics have six beats each; every beat has its own people, organisations and places, whose names say nothing
about it. A labelled document of a beat mentions mostly, but not only, its entities, so classes overlap; since all
probabilities are known, so is the best possible accuracy. The unlabelled stream shows which beat each name belongs to:
a model pretrained on it needs few labels.
"""

from hpml_bench.data.newswire.documents import Documents, best_accuracy, generate, posterior, render, sample, split_rng
from hpml_bench.data.newswire.stream import stream
from hpml_bench.data.newswire.vocabulary import TOPICS
from hpml_bench.data.newswire.world import BEAT_NAMES, ENTITIES, N_BEATS, OWN_SHARE, World, make_world

__all__ = [
    "BEAT_NAMES", "ENTITIES", "N_BEATS", "OWN_SHARE", "TOPICS", "Documents", "World", "best_accuracy", "generate",
    "make_world", "posterior", "render", "sample", "split_rng", "stream",
]  # fmt: skip
