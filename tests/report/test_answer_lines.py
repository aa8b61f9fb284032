"""Behaviour: the answer in a terminal says what the page does, and no line is wider than the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from helpers.answers import an_answer
from hpml_bench.report import terminal
from hpml_bench.report.answer import words
from hpml_bench.report.answer.words import lines

FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}
MANY = {f"a_rather_long_method_name_of_many_words_{n:02d}": 90.0 - n for n in range(45)}


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("scores", [FIVE, MANY, {"full": 79.0}], ids=["five", "many", "one"])
def test_no_line_is_wider_than_the_terminal(scores: dict[str, float], width: int) -> None:
    """Long verdicts go on beneath themselves; columns of costs are left out rather than broken."""
    found = lines(an_answer(scores), width)
    assert max(map(len, found)) <= width
    assert sum(line.startswith(("method ", "method\t")) for line in found) == 1


def test_each_method_has_its_row_with_verdict_and_costs() -> None:
    """The table has the page's rows: score, costs, whom a method can't be told from."""
    answer = an_answer(FIVE, open_=(("full", "lora"),))
    found = lines(answer, 140)
    assert found[0] == words.headline(answer)
    rows = {line.split()[0]: line for line in found[3:]}
    assert list(rows) == ["method", *FIVE]
    assert rows["method"].split() == ["method", "accuracy", "%", "time", "s", "memory", "MB", "saved", "verdict"]
    assert rows["lora"].split("  ")[-1] == "may be best; can't tell from full"
    assert {"78.9", "9.00", "460"} <= set(rows["lora"].split())


def test_narrow_terminals_lose_sizes_first() -> None:
    """Under 80 characters saved sizes go, then memory; method, score and verdict stay."""
    header = next(line for line in lines(an_answer(FIVE), 60) if line.startswith("method"))
    assert "saved" not in header
    assert header.split()[:2] == ["method", "accuracy"]
    assert header.endswith("verdict")


def test_a_long_table_is_cut_above_its_headline() -> None:
    """Of 45 methods the best have a line each, then how many more, and the sentences stand last, where one looks."""
    answer = an_answer(MANY)
    found = lines(answer, 100)
    assert len(found) < 35
    assert found[25] == "... and 21 methods more, on the page"
    assert " ".join(found[-2:]).endswith(words.headline(answer))


def test_an_ascii_terminal_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the encoding lacks typographic signs, plain ones stand for them."""
    monkeypatch.setattr("hpml_bench.report.answer.words.lines", lambda *_: ["\N{MINUS SIGN}3 1\N{EN DASH}2 é"])
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    terminal.show_answer(None, Console(file=stream, width=80))  # type: ignore[arg-type]
    stream.flush()
    assert raw.getvalue() == b"-3 1-2 ?\n"
