"""Newswire: generated four-class news (World, Sports, Business, Sci/Tech) with a known best possible accuracy."""

from __future__ import annotations

from pydantic import Field

from hpml_bench.data.newswire import OWN_SHARE, TOPICS, Documents, best_accuracy, generate, make_world, render
from hpml_bench.data.newswire.sizes import split_sizes
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
        """Generate as many rows as the settings ask for; `data_seed` and the split determine them."""
        from datasets import Dataset

        world = make_world(self.options.own_share)
        sizes = split_sizes(settings)
        splits = {split: generate(world, n, settings.data_seed, split) for split, n in sizes.items()}

        def rows(documents: Documents) -> Dataset:
            return Dataset.from_dict({"text": render(world, documents), "label": documents.topic.tolist()})

        on_rows, expected = best_accuracy(world, splits["test"])
        return LoadedData(
            train=rows(splits["train"]),
            validation=rows(splits["validation"]),
            test=rows(splits["test"]),
            label_names=TOPICS,
            notes={
                "best possible accuracy": f"{on_rows:.1%} (exact posterior on these {sizes['test']:,} test rows; "
                f"{expected:.1%} expected of it by chance of the rows)"
            },
        )
