"""Entries as YAML: read back as they were, each below or before its reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpml_bench.starter.entries import WIDTH, Entry, Rate, flow, written
from hpml_bench.suite.yaml import parse

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(st.recursive(TEXTS | st.booleans() | st.none() | st.integers(-9, 10**9), lambda v: st.lists(v, max_size=3)))
def test_a_value_is_read_back_as_it_was(value: Any) -> None:
    """Whatever text it holds."""
    assert parse(f"key: {flow(value)}", "") == {"key": value}


@given(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3))
def test_a_mapping_is_read_back_as_it_was(value: dict[str, str]) -> None:
    """Keys too."""
    assert parse(flow(value), "") == value


@pytest.mark.parametrize(
    ("rate", "shown"), [(5e-4, "5e-4"), (1e-3, "1e-3"), (3e-2, "3e-2"), (1.5e-5, "1.5e-5"), (2.0, "2e0")]
)
def test_a_rate_is_a_number(rate: float, shown: str) -> None:
    """As people write it."""
    assert flow(Rate(rate)) == shown
    assert parse(shown, "") == rate


@given(TEXTS, TEXTS)
def test_no_reason_becomes_part_of_the_suite(first: str, second: str) -> None:
    """Texts of the user's data in comments stay comments, whatever line breaks they hold."""
    entries = [Entry("a", 1, (first,)), Entry("b", (Entry("c", "x", (first, second)), Entry("d", 2, (second,), False))),
               Entry("e", 3, (f"  {first}", second))]  # fmt: skip
    assert parse(written(entries), "") == {"a": 1, "b": {"c": "x"}, "e": 3}


def test_a_short_reason_stands_beside_a_long_one_above() -> None:
    """Within the width; a command stays on its line, and alternatives are comments."""
    text = written([Entry("a", 1, ("short",)), Entry("b", 2, ("long " * 40,)), Entry("c", 3, ("  run this " * 20,)),
                    Entry("d", 4, ("other",), chosen=False)])  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "a: 1  # short"
    assert lines[1].startswith("# long long")
    assert lines[-1] == "# d: 4  # other"
    assert sum(len(line) > WIDTH for line in lines) == 1
