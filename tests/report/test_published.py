"""Published figures: beside which results they stand, and what they say of their own comparability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_sections import load, said, section

from helpers.made_records import SETTINGS, sweep
from hpml_bench.suite.settings import DatasetSpec


def test_a_document_does_not_compare_unequal_budgets(tmp_path: Path) -> None:
    """Samples/s times runtime shows 150,000 against 120,000 samples, and the section says what follows."""
    text = said("document", load(tmp_path, sweep()))
    assert "150,000 samples for Prompt Tuning, 120,000 samples for LoRA and 120,000 samples for Adapter Tuning" in text
    assert "budgets were not equal" in text
    assert "Prompt Tuning | the HPML document | 93.88 | 0.2193 | 2,345 | 63.96 | 3,577 | 12.88 | ≈ 149,986" in text


@pytest.mark.parametrize(
    ("dataset", "methods", "shown"),
    [
        ({"name": "newswire"}, ["lora"], True),
        ({"name": "newswire"}, ["full", "head"], False),
        ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news", "train": "train"}}, ["lora"], True),
        ({"name": "hub", "options": {"dataset": "hub:fancyzhx/ag_news@eb185aa"}}, ["lora"], True),
        ({"name": "hub", "options": {"dataset": "hub:stanfordnlp/imdb"}}, ["lora"], False),
        ({"name": "text_files", "options": {"train": "path:news.csv"}}, ["lora"], False),
    ],
)
def test_a_document_stands_beside_results_of_its_data_and_methods(
    dataset: dict[str, Any], methods: list[str], shown: bool, tmp_path: Path
) -> None:
    """AG News from the hub, and quickstart's data; nothing beside results of anybody's own data."""
    settings = SETTINGS.model_copy(update={"dataset": DatasetSpec.model_validate(dataset)})
    assert (section("document", load(tmp_path, sweep(methods, 2, settings=settings))) is not None) is shown
