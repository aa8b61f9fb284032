"""The models that `init` starts from, saved once, and an `init` that is quick."""

from pathlib import Path

import pytest

from helpers import starters


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, which can't generate."""
    return starters.bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model."""
    return starters.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def without_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `init` without them."""
    starters.leave_out_estimates(monkeypatch)
