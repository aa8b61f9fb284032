"""MetaMathQA for training and GSM8K for testing, from the hub, as in PEFT's method comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from hpml_bench.data.columns import check_columns
from hpml_bench.data.conversations import rows_of
from hpml_bench.data.files import read_repository, split_in
from hpml_bench.plugins.dataset import DatasetLoader, LoadedData, Target
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset

PATTERNS = ("*.json", "*.jsonl", "*.parquet")


class MetaMath(DatasetLoader):
    """Rows as method_comparison/MetaMathQA/data.py of github.com/huggingface/peft prepares them.

    Training rows are the first of MetaMathQA without those of over 1,300 characters; validation
    rows are drawn from GSM8K's training rows with numpy's seed 0; test rows are GSM8K's. GSM8K's
    answers are kept whole, and the scorer `peft_metamath` reads them as PEFT does.
    """

    targets = ("answer",)

    class Options(Frozen):
        """Sources of the rows, and the template of a question."""

        train: str = "hub:meta-math/MetaMathQA"
        """MetaMathQA: `hub:OWNER/NAME[@REVISION]` or `path:FOLDER`; columns query and response."""
        test: str = "hub:openai/gsm8k"
        """GSM8K: likewise; columns question and answer, of the configuration main."""
        most_characters: int = 1300
        """Longer pairs of question and answer are left out of the training rows."""
        first: int | None = 20_000
        """Number of the remaining training rows to take, from the front; empty for all."""
        template: str = "Question: {query} Think step by step.\nAnswer:"
        """Template of a question; the answer follows it."""

    def load(self, settings: Settings, target: Target) -> LoadedData:
        options = self.options
        train = _split(options.train, None, "train", ("query", "response"))
        kept = [
            (query, response)
            for query, response in zip(train["query"], train["response"], strict=True)
            if len(f"{query} {response}") <= options.most_characters
        ][: options.first]
        gsm8k, test = (
            _split(options.test, "main", split, ("question", "answer"))
            for split in ("train", "test")
        )
        chosen = np.arange(len(gsm8k))
        np.random.RandomState(0).shuffle(chosen)
        validation = gsm8k.select(chosen[: settings.validation_samples])
        return LoadedData(
            train=self._rows(kept),
            validation=self._rows(zip(validation["question"], validation["answer"], strict=True)),
            test=self._rows(zip(test["question"], test["answer"], strict=True)),
            notes={
                "MetaMathQA": f"{len(kept):,} of {len(train):,} rows, without those of over "
                f"{options.most_characters:,} characters, from the front"
            },
        )

    def _rows(self, pairs: Iterable[tuple[str, str]]) -> Dataset:
        return rows_of(
            [[self.options.template.replace("{query}", query), answer] for query, answer in pairs]
        )


def _split(source: str, config: str | None, split: str, columns: tuple[str, ...]) -> Dataset:
    rows = split_in(read_repository(source, config, PATTERNS)[0], split, source)
    check_columns(rows, source, columns)
    return rows
