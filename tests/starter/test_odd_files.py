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
from hpml_bench.data import files
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

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


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch, offline_cache: Path) -> Path:
    """Files of more than 4 kB are large; the folder of their heads."""
    monkeypatch.setattr(files, "LARGE", 4000)
    monkeypatch.setattr(files, "HEAD_ROWS", 100)
    return offline_cache / "heads"


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


def test_a_sparse_file_of_two_gigabytes_is_not_read_whole(bert: Path, tmp_path: Path, small_heads: Path) -> None:
    """Only its head is: the rows at its front are found, and the suite names the file itself."""
    file = tmp_path / "huge.csv"
    with file.open("wb") as opened:
        opened.write(("text,label\n" + "".join(ROWS)).encode())
        opened.truncate(2 * 10**9)
    result = init(bert, file)
    assert result.exit_code == 0, result.output
    assert f"train: path:{file}" in result.stdout
    assert "It has 2 GB" in result.stdout
    assert sum(path.stat().st_size for path in small_heads.rglob("*") if path.is_file()) < 10**4


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_of_a_large_file_the_head_is_looked_at(kind: str, bert: Path, tmp_path: Path, small_heads: Path) -> None:
    """Whatever its format: first rows whole, a cell with a line break too, names of classes left to the whole file."""
    import pandas as pd

    texts = [f"{text}\n{text}" for text in starters.texts(400)]
    table = pd.DataFrame({"text": texts, "label": [LABELS[row % 2] for row in range(400)]})
    file = tmp_path / f"large.{kind}"
    if kind == "csv":
        table.to_csv(file, index=False)
    elif kind == "parquet":
        table.to_parquet(file, compression=None)
    else:
        table.to_json(file, orient="records", lines=kind == "jsonl")
    settings = content(bert, file)
    assert settings["dataset"]["options"] == {"train": f"path:{file}", "text": "text", "label": "label"}
    (found,) = small_heads.glob("*/head.*")
    assert 0 < found.stat().st_size < file.stat().st_size or kind == "parquet"
    text = (tmp_path / "made.yaml").read_text()
    read, whole = re.search(r"The file has some ([\d,]+) rows; ([\d,]+) were read", text).groups()[::-1]
    assert 10 < int(read) < 150
    assert 250 < int(whole.replace(",", "")) < 550


def test_a_head_ends_with_a_row(tmp_path: Path, small_heads: Path) -> None:
    """A line break within quotes ends none; a file without a line break holds no row."""
    file = tmp_path / "a.csv"
    rows = "a,b\n" + '"x\ny",1\n' * 300
    file.write_text(rows + '"' + "\n" * 3000)
    found = files.head_of(file)
    assert found.file.read_text() == rows
    assert found.share == pytest.approx(len(rows) / file.stat().st_size)
    file.write_text("x" * 5000)
    with pytest.raises(UserError, match=r"a\.csv: no row ends within"):
        files.head_of(file)
    file.write_text("a\n1\n")
    assert files.head_of(file) == (file, 1.0)


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


def test_a_budget_is_of_the_whole_file(
    bert: Path, tmp_path: Path, small_heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more rows than a comparison needs some are drawn, by the file's size, however few were read."""
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TRAINING", 300)
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TEST", 40)
    rows = "".join(f"{text},{LABELS[row % 2]}\n" for row, text in enumerate(starters.texts(600)))
    file = tmp_path / "large.csv"
    file.write_text("text,label\n" + rows)
    settings = content(bert, file)
    assert (settings["train_samples"], settings["test_samples"]) == (300, 40)
    assert small_heads.is_dir()
    assert re.search(r"# drawn from some \d+: as many as PEFT", (tmp_path / "made.yaml").read_text())
