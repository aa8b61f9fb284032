"""Newswire score: generated news with a number that follows from the subtopic, and a known best
possible RMSE.
"""

from pydantic import Field

from hpml_bench.builtin.newswire import documents as news
from hpml_bench.builtin.newswire.world import make_world
from hpml_bench.data.generated import split_sizes
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.settings import Settings


class NewswireScore(DatasetLoader):
    """Documents of the generated world, each with the level of its subtopic plus noise.

    The texts are those of the data set newswire. Levels go from 0 to 7: 2 apart from topic to
    topic, 0.2 apart from subtopic to subtopic within one.
    """

    targets = ("number",)

    class Options(news.WorldOptions):
        """The generator's options."""

        noise: float = Field(default=news.NOISE, ge=0)
        """Standard deviation of the normal noise on the number."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        from datasets import Dataset

        world, seed, noise = (
            make_world(self.options.own_share),
            settings.data_seed,
            self.options.noise,
        )
        splits, best = {}, (0.0, 0.0)
        for split, size in split_sizes(settings).items():
            rng = news.split_rng(seed, split)
            beats = news.balanced_beats(size, rng)
            documents, numbers = (
                news.sample(world, beats, rng),
                news.noisy_levels(beats, seed, split, noise),
            )
            splits[split] = Dataset.from_dict(
                {"text": news.render(world, documents), "label": numbers.tolist()}
            )
            best = news.best_rmse(world, documents, numbers, noise)  # the test rows come last
        return LoadedData(
            **splits,
            notes={
                "best possible RMSE": (
                    f"{best[0]:.3f} (posterior mean on these {len(splits['test']):,} test rows; "
                    f"{best[1]:.3f} expected of it by chance of the rows)"
                )
            },
        )
