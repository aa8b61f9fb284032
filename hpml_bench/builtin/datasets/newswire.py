"""Newswire: generated four-class news (World, Sports, Business, Sci/Tech) with a known best possible accuracy."""

from __future__ import annotations

from pydantic import Field

from hpml_bench.data.newswire import best_accuracy, generate, render, split_sizes
from hpml_bench.data.newswire_world import OWN_SHARE, TOPICS, make_world
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings


class Newswire(DatasetLoader):
    """Documents of the generated world, labelled with their topic."""

    targets = ("class",)

    class Options(Frozen):
        """The generator's options."""

        own_share: float = Field(default=OWN_SHARE, ge=0, le=1)
        """Chance that a name in a document belongs to the document's own subtopic: lower makes classes overlap more.
        The embedded backbone was pretrained at the default."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        from datasets import Dataset

        world = make_world(self.options.own_share)
        splits = {}
        for split, size in split_sizes(settings).items():
            documents = generate(world, size, settings.data_seed, split)
            rows = {"text": render(world, documents), "label": documents.topic.tolist()}
            splits[split] = Dataset.from_dict(rows)
        on_rows, expected = best_accuracy(world, documents)  # the test rows come last
        return LoadedData(
            **splits,
            label_names=TOPICS,
            notes={
                "best possible accuracy": f"{on_rows:.1%} (exact posterior on these {size:,} test rows; "
                f"{expected:.1%} expected of it by chance of the rows)"
            },
        )
