"""Texts of docstrings as messages show them."""

from typing import Any

import pytest

from hpml_bench.system.text import first_line, for_terminal, sanitize, shortened, summary_of


@pytest.mark.parametrize("cut", [sanitize, for_terminal, shortened])
@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("set it in adapter_config.json", 29, "set it in adapter_config.json"),
        ("set it in adapter_config.json to null", 30, "set it in adapter_config.json…"),
        ("set the base that it names in adapter_config.json", 42, "set the base that it names in…"),
        ("averylongname", 8, "averylo…"),
        ("a /very/long/path/of/a/file", 12, "a /very/lon…"),
    ],
)
def test_a_sentence_is_cut_behind_a_word(cut: Any, text: str, width: int, shown: str) -> None:
    """With an ellipsis; within a word only where that is most of the line."""
    assert cut(text, width) == shown


def test_a_long_message_of_a_library_is_cut_behind_a_word() -> None:
    """And says so."""
    error = ValueError("there is no place in the model for q_proj.lora_A")
    assert first_line(error, 40) == "there is no place in the model for…"


def test_a_summary_is_the_first_paragraph() -> None:
    """As one line, however it is wrapped; empty where there is none."""

    def documented() -> None: ...

    documented.__doc__ = "Return what a reader\n    sees first.\n\n    The rest is left out."

    def silent() -> None: ...

    assert summary_of(documented) == "Return what a reader sees first."
    assert summary_of(silent) == ""
