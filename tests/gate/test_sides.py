"""Settings as they are sent to a side, whatever its version."""

from __future__ import annotations

from typing import Any

import pytest

from hpml_bench.gate.measure.sides import settings_message
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import load_suite

COMMON = {"backbone": "embedded:newswire-gpt2", "steps": 3}


def made(**settings: Any) -> Settings:
    """Return settings with these."""
    return Settings.model_validate(COMMON | {"dataset": "newswire"} | settings)


@pytest.mark.parametrize("suite", ["quickstart", "minilm", "document", "reuters"])
def test_what_is_sent_of_a_packaged_suite_is_read_as_it_was(suite: str) -> None:
    """Nothing is lost on the way, with what a suite fills in."""
    settings = load_suite(suite).settings
    sent = settings_message(settings)
    assert Settings.model_validate(sent) == settings


@pytest.mark.parametrize("length", [64, 128, 1024])
def test_the_length_of_a_language_models_texts_is_sent(length: int) -> None:
    """Its default is another one in versions before."""
    settings = made(dataset="newswire_chat", task="causal_lm", max_length=length)
    sent = settings_message(settings)
    assert sent["max_length"] == length
    assert Settings.model_validate(sent) == settings
