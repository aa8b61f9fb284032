"""What tests of training share: language models on disk."""

from pathlib import Path

import pytest

from helpers import language_models, tiny


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Language models of four kinds, and a bare GPT-2 with a tokenizer."""
    folders = language_models.save_models(tmp_path_factory.mktemp("models"))
    return {**folders, "bare": tiny.model(tmp_path_factory.mktemp("bare"))}
