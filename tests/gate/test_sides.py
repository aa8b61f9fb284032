"""Settings as they are sent to a side, whatever its version."""

from __future__ import annotations

from typing import Any

import pytest

from hpml_bench import registry
from hpml_bench.gate.measure.sides import settings_message
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import load_suite

COMMON = {"backbone": "embedded:newswire-gpt2", "steps": 3}


def made(**settings: Any) -> Settings:
    """Return settings with these."""
    return Settings.model_validate(COMMON | {"dataset": "newswire"} | settings)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_classification_is_sent_in_the_old_form(pooling: str) -> None:
    """Versions before the tasks call the data set `task`, and know `pooling` as a setting and no `dataset`."""
    settings = made(task={"name": "sequence_classification", "options": {"pooling": pooling}})
    sent = settings_message(settings)
    assert sent == COMMON | {"task": {"name": "newswire"}, "pooling": pooling}
    assert Settings.model_validate(sent) == settings


def test_options_of_a_data_set_are_sent_with_it() -> None:
    """They were options of `task`."""
    settings = made(dataset={"name": "hub", "options": {"path": "ag_news"}})
    sent = settings_message(settings)
    assert sent["task"] == {"name": "hub", "options": {"path": "ag_news"}}
    assert Settings.model_validate(sent) == settings


@pytest.mark.parametrize("suite", ["quickstart", "minilm", "document", "reuters"])
def test_what_is_sent_of_a_packaged_suite_is_read_as_it_was(suite: str) -> None:
    """Nothing is lost on the way, with what a suite fills in."""
    settings = load_suite(suite).settings
    sent = settings_message(settings)
    assert "dataset" not in sent
    assert Settings.model_validate(sent) == settings


@pytest.mark.parametrize(
    "task", [{"name": "another"}, {"name": "another", "options": {"pooling": "mean"}}, {"options": {"more": 1}}]
)
def test_what_the_old_form_cannot_say_is_sent_as_it_is(task: dict[str, Any]) -> None:
    """Another task, or an option that came later: a version that doesn't know it refuses it by name."""
    sent = settings_message(made(task=task))
    assert sent["dataset"] == {"name": "newswire"}
    assert sent["task"] == task


@pytest.mark.parametrize("length", [64, 128, 1024])
def test_the_length_of_a_language_models_texts_is_sent(length: int) -> None:
    """Its default is another one in versions before."""
    settings = made(dataset="newswire_chat", task="causal_lm", max_length=length)
    sent = settings_message(settings)
    assert sent["max_length"] == length
    assert Settings.model_validate(sent) == settings


def test_a_data_set_called_as_a_task_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`task` would name the task to versions of today."""
    monkeypatch.setattr(registry, "names", lambda _: ("newswire", "sequence_classification"))
    assert settings_message(made())["dataset"] == {"name": "newswire"}
