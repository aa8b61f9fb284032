"""`hpml-bench init` with files that are broken or strange: a suite that loads, or one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helpers import starters
from hpml_bench.cli import main
from hpml_bench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("without_estimates")
COUNT = 60
LABELS = ("sport", "business")
TEXTS = starters.texts(COUNT)
ROWS = [f"{text},{LABELS[row % 2]}\n" for row, text in enumerate(TEXTS)]
TURN = {"role": "user", "content": "the bank"}
PAIRS = [{"text": text, "label": LABELS[row % 2]} for row, text in enumerate(TEXTS)]

REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    "no row": ("a.csv", "text,label\n", "has no rows; give a file with some"),
    "one row": ("a.csv", "text,label\nthe bank,sport\n", "has 1 row, of which some .* give at least 8"),
    "one class": ("a.csv", "text,label\n" + "".join(f"{t},sport\n" for t in TEXTS), "all training rows .*; give"),
    "latin-1": ("a.csv", f"text,label\ncaf\xe9,sport\n{''.join(ROWS)}".encode("latin-1"), "isn't UTF-8 .*encoding, "),
    "nested json": ("a.json", json.dumps({"data": {"rows": PAIRS}}), r"'data' \(which holds mappings\); give a column"),
    "nested cells": ("a.json", json.dumps([{"a": pair} for pair in PAIRS]), r"'a' \(which holds mappings\); give"),
    "no answers": ("a.jsonl", json.dumps({"messages": [TURN]}) + "\n" * 9, "has 1 row, of which"),
    "ids only": ("a.csv", "id\n" + "".join(f"{row}\n" for row in range(COUNT)), r"\(which counts the rows\); give"),
    "as many texts as rows": (
        "a.csv", "source,target,why\n" + "".join(f"{t},{t} w1,{t}\n" for t in TEXTS), "60 different labels .* causal_lm"
    ),
    "texts in mappings": (
        "a.jsonl", "".join(json.dumps({"text": {"en": p["text"]}, "label": p["label"]}) + "\n" for p in PAIRS),
        "'text' holds lists or mappings; give plain cells",
    ),
}  # fmt: skip


def init(model: Path, *words: str | Path) -> Any:
    """Call the command."""
    return CliRunner().invoke(main, ["init", "--model", str(model), "--data", *map(str, words)])


def content(model: Path, *data: Path) -> dict[str, Any]:
    """Return the settings of the suite that is written."""
    result = init(model, *data)
    assert result.exit_code == 0, result.output
    file = data[0].parent / "made.yaml"
    file.write_text(result.stdout)
    return load_suite(str(file)).settings.model_dump()


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_one_sentence(case: str, llama: Path, tmp_path: Path) -> None:
    """It names the file and says what to do; status 2 and no traceback."""
    name, written, says = REFUSED[case]
    file = tmp_path / name
    file.write_bytes(written if isinstance(written, bytes) else written.encode())
    result = init(llama, file)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    *_, sentence = result.stderr.splitlines()
    assert sentence.startswith(f"hpml-bench: {file}")
    assert re.search(says, sentence), sentence
    assert result.stdout == ""


def test_ids_and_texts_are_for_a_language_model_alone(bert: Path, llama: Path, tmp_path: Path) -> None:
    """A number of the row is never learnt: a language model learns the texts, an encoder nothing."""
    file = tmp_path / "a.csv"
    file.write_text("id,text\n" + "".join(f"{row},{text}\n" for row, text in enumerate(TEXTS)))
    settings = content(llama, file)
    assert settings["task"]["name"] == "causal_lm"
    assert settings["task"]["options"]["scorer"] is None
    assert settings["dataset"]["options"]["text"] == "text"
    assert "nothing to learn is found" in init(bert, file).stderr


def test_a_file_without_names_of_columns_is_read_by_position(bert: Path, tmp_path: Path) -> None:
    """As a suite without options reads it: numbers are classes, and all other columns are joined."""
    file = tmp_path / "a.csv"
    file.write_text("".join(f'"{1 + row % 3}","the goal {row}","{text}"\n' for row, text in enumerate(TEXTS)))
    options = content(bert, file)["dataset"]["options"]
    assert (options["header"], options["text"], options["label"]) == (False, [2, 3], 1)
    assert options["label_names"] == ["1", "2", "3"]


def test_of_many_rows_some_are_drawn(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more rows than a comparison needs."""
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TRAINING", 300)
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TEST", 40)
    settings = content(bert, starters.classes(tmp_path / "large.csv", 600))
    assert (settings["train_samples"], settings["test_samples"]) == (300, 40)
    assert "# drawn from 540: as many as PEFT" in (tmp_path / "made.yaml").read_text()
