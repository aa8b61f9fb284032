"""Newswire: generated four-class news (World, Sports, Business, Sci/Tech) with a known best
possible accuracy.
"""

from hpml_bench.builtin.newswire.documents import WorldOptions, best_accuracy, generate, render
from hpml_bench.builtin.newswire.world import TOPICS, make_world
from hpml_bench.data.generated import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.settings import Settings


class Newswire(DatasetLoader):
    """Documents of the generated world, labelled with their topic."""

    targets = ("class",)

    Options = WorldOptions

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
                "best possible accuracy": (
                    f"{on_rows:.1%} (exact posterior on these {size:,} test rows; "
                    f"{expected:.1%} expected of it by chance of the rows)"
                )
            },
        )
