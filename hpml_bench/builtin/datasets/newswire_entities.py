"""Newswire entities: generated news whose people, organisations and places are tagged word by
word.
"""

from pydantic import Field

from hpml_bench.builtin.newswire.documents import (
    TAGS,
    TWO_WORDS,
    WorldOptions,
    generate,
    second_words,
    tagged,
)
from hpml_bench.builtin.newswire.world import make_world
from hpml_bench.data.generated import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.settings import Settings


class NewswireEntities(DatasetLoader):
    """Documents of the generated world in words, with BIO tags of the names in them.

    Every name is of one kind, whatever the text around it, so that the best possible F1 is 1 with
    all names known; a training set has some of them.
    """

    targets = ("tags",)

    class Options(WorldOptions):
        """The generator's options."""

        two_words: float = Field(default=TWO_WORDS, ge=0, le=1)
        """Share of the names that have two words, the second tagged I-."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        from datasets import Dataset, Features, Value

        world, seed = make_world(self.options.own_share), settings.data_seed
        types = Features({"words": [Value("string")], "tags": [Value("int64")]})
        splits = {}
        for split, size in split_sizes(settings).items():
            documents = generate(world, size, seed, split)
            words, tags = tagged(
                world,
                documents,
                second_words(world, documents, seed, split, self.options.two_words),
            )
            splits[split] = Dataset.from_dict({"words": words, "tags": tags}, features=types)
        return LoadedData(
            **splits,
            label_names=TAGS,
            notes={
                "best possible F1": (
                    "100.0% (the kind of a name never depends on the text around it)"
                )
            },
        )
