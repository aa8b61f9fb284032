"""`hpml-bench init` with choices of the user's own, files that need none, and files that are
broken or strange.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from click.testing import Result

from helpers import starters
from helpers.commands import called
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("without_estimates")
TEXTS = starters.texts(60)
LABELS = [("ham", "spam")[row % 2] for row in range(60)]
WORDS = [text.split() for text in TEXTS]
TAGS = [["O" if len(word) < 5 else "B-X" for word in words] for words in WORDS]


def csv(header: str, *columns: Any, sep: str = ",") -> str:
    """Return a file of these columns."""
    return "".join(
        f"{sep.join(map(str, row))}\n" for row in ([header], *zip(*columns, strict=True))
    )


def lines(**columns: Any) -> str:
    return "".join(
        f"{json.dumps(dict(zip(columns, row, strict=True)))}\n"
        for row in zip(*columns.values(), strict=True)
    )


KAGGLE = "Sentence #,Word,POS,Tag\n" + "".join(
    f"{f'Sentence: {number}' if not place else ''},{word},NN,{tag}\n"
    for number, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True))
    for place, (word, tag) in enumerate(zip(words, tags, strict=True))
)
CONLL = "\n".join(
    "".join(f"{word} NN {tag}\n" for word, tag in zip(*of, strict=True))
    for of in zip(WORDS, TAGS, strict=True)
)
SPLITS = [("train", "train", "valid", "test")[row % 4] for row in range(60)]


class Case(NamedTuple):
    """A file, the words of the command, and what is written for it."""

    content: str
    task: str
    options: dict[str, Any]
    """Options of the data set beside the file."""
    words: tuple[str, ...] = ()
    suffix: str = ".csv"
    said: str = ""
    """What the terminal says."""
    model: str = "bert"
    settings: Mapping[str, Any] = MappingProxyType({})
    of_task: Mapping[str, Any] = MappingProxyType({})
    """Options of the task, where they matter."""


CASES = {
    "the spam collection": Case(
        csv(
            "v1,v2,,,",
            LABELS,
            [f"caf\xe9 {text}" for text in TEXTS],
            [""] * 60,
            ["x", *[""] * 59],
            [""] * 60,
        ),
        "sequence_classification",
        {"text": "v2", "label": "v1", "encoding": "latin-1"},
        ("--encoding", "latin-1"),
        said="columns: text from v2; label from v1; "
        "columns not read: Unnamed: 2, Unnamed: 3, Unnamed: 4",
    ),
    "quotes that are part of texts": Case(
        csv("text\tlabel", [f'"{text}' for text in TEXTS], LABELS, sep="\t"),
        "sequence_classification",
        {"text": "text", "label": "label", "quote": ""},
        ("--set", "dataset.options.quote=''"),
        ".tsv",
    ),
    "a separator and columns by position": Case(
        csv("1~2", [f"the match {text}" for text in TEXTS], LABELS, sep="~"),
        "sequence_classification",
        {"header": False, "text": ["1"], "label": "2", "sep": "~"},
        ("--sep", "~", "--text", "1", "--label", "2"),
    ),
    "tags that are numbers": Case(
        lines(tokens=WORDS, ner_tags=[[int(tag != "O") for tag in tags] for tags in TAGS]),
        "token_classification",
        {"text": "tokens", "label": "ner_tags", "label_names": ["O", "B-X"]},
        ("--label-names", "O,B-X"),
        ".jsonl",
    ),
    "words a line": Case(
        CONLL, "token_classification", {"text": "words", "label": "tags"}, suffix=".conll"
    ),
    "words a row": Case(
        KAGGLE,
        "token_classification",
        {"text": "Word", "label": "Tag"},
        said="columns not read: Sentence #, POS",
    ),
    "prompts and answers by other names": Case(
        csv("user_query,bot_reply", TEXTS, reversed(TEXTS)),
        "causal_lm",
        {"text": ["user_query"], "label": "bot_reply"},
        ("--task", "causal_lm", "--text", "user_query", "--label", "bot_reply"),
        model="llama",
    ),
    "turns by another name": Case(
        lines(
            chat_log=[
                [{"role": "user", "content": t}, {"role": "assistant", "content": "bank"}]
                for t in TEXTS
            ]
        ),
        "causal_lm",
        {"text": "chat_log"},
        suffix=".jsonl",
        model="llama",
    ),
    "a pair": Case(
        csv(
            "id,sentence1,sentence2,score",
            range(60),
            TEXTS,
            reversed(TEXTS),
            [row / 7 for row in range(60)],
        ),
        "regression",
        {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
        said="text from sentence1; second text from sentence2; label from score; "
        "columns not read: id",
    ),
    "a pair that is given": Case(
        csv("claim,source,verdict", TEXTS, reversed(TEXTS), LABELS),
        "sequence_classification",
        {"text": ["claim"], "text_pair": "source", "label": "verdict"},
        ("--text", "claim", "--text-pair", "source"),
    ),
    "splits in a column": Case(
        csv("text,label,split", TEXTS, LABELS, SPLITS),
        "sequence_classification",
        {"text": "text", "label": "label", "split": "split"},
        said="rows: 30 to train on, 15 for .*, 15 to test",
    ),
    "everything given": Case(
        csv("a,b,kind,book", TEXTS, TEXTS, LABELS, [row // 3 for row in range(60)]),
        "sequence_classification",
        {
            "text": ["a", "b"],
            "label": "kind",
            "group": "book",
            "label_names": ["ham", "spam"],
            "separator": " | ",
        },
        (
            "--text",
            "a",
            "--text",
            "b",
            "--label",
            "kind",
            "--group",
            "book",
            "--set",
            "epochs=2",
            "--set",
            "max_length=16",
            "--set",
            "task.options.pooling=first",
            "--set",
            "dataset.options.separator=' | '",
            "--set",
            "data_seed=3",
        ),
        settings={"epochs": 2, "max_length": 16, "data_seed": 3},
        of_task={"pooling": "first"},
    ),
    "lists of words and tags by other names": Case(
        lines(id=range(60), said=WORDS, marks=TAGS),
        "token_classification",
        {"text": ["said"], "label": "marks"},
        ("--task", "token_classification", "--text", "said", "--label", "marks"),
        ".jsonl",
        "columns not read: id",
    ),
    "words a row, for a class": Case(
        KAGGLE,
        "sequence_classification",
        {"text": ["Word"], "label": "Tag"},
        ("--task", "sequence_classification", "--text", "Word", "--label", "Tag"),
    ),
    "texts beside a number of the row, which is never learnt": Case(
        csv("id,text", range(60), TEXTS),
        "causal_lm",
        {"text": "text"},
        model="llama",
        of_task={"scorer": None},
    ),
    "columns without names": Case(
        "".join(f'"{1 + row % 3}","the goal {row}","{text}"\n' for row, text in enumerate(TEXTS)),
        "sequence_classification",
        {"header": False, "text": [2, 3], "label": 1, "label_names": ["1", "2", "3"]},
    ),
    "numbers with a decimal comma": Case(
        csv("text;wert", TEXTS, [f"{row % 7},{row:02}" for row in range(60)], sep=";"),
        "regression",
        {"text": "text", "label": "wert"},
        said=r"The numbers are read with a decimal comma \(decimal_mark: comma\)",
        of_task={"decimal_mark": "comma"},
    ),
    "numbers with commas between thousands": Case(
        csv("text;score", TEXTS, [f"1,{row:03}.5" for row in range(60)], sep=";"),
        "regression",
        {"text": "text", "label": "score"},
        said=r"The numbers are read with a decimal point \(decimal_mark: point\)",
        of_task={"decimal_mark": "point"},
    ),
    "numbers that may have a point between thousands": Case(
        csv("text,score", TEXTS, [f"1.{row:03}" for row in range(60)]),
        "regression",
        {"text": "text", "label": "score"},
        said=r"The numbers don't say whether 1\.000 has a decimal point or comma, or groups",
        of_task={"decimal_mark": "point"},
    ),
    "a decimal mark that is given": Case(
        csv("text;score", TEXTS, [f"1,{row:03}" for row in range(60)], sep=";"),
        "regression",
        {"text": "text", "label": "score"},
        ("--set", "task.options.decimal_mark=comma"),
        of_task={"decimal_mark": "comma"},
    ),
    "classes that look like decimals": Case(
        csv("text\tsection", TEXTS, [f"{row % 3},5" for row in range(60)], sep="\t"),
        "sequence_classification",
        {"text": "text", "label": "section"},
        ("--task", "sequence_classification"),
        ".tsv",
    ),
    "steps": Case(
        csv("text,label", TEXTS, LABELS),
        "sequence_classification",
        {"text": "text", "label": "label"},
        ("--set", "steps=7"),
        settings={"steps": 7, "epochs": None},
    ),
}


def init(model: Path, file: Path, *words: str, status: int = 0) -> Result:
    return called("init", "--model", model, "--data", file, *words, status=status)


@pytest.mark.parametrize("name", CASES)
def test_a_suite_says_what_is_given_or_found(
    name: str, bert: Path, llama: Path, tmp_path: Path
) -> None:
    """The suite loads, with the task and the columns; the terminal names the columns that are
    not read.
    """
    case = CASES[name]
    file = tmp_path / f"rows{case.suffix}"
    file.write_text(case.content, encoding="latin-1" if "latin-1" in case.words else "utf-8")
    made = tmp_path / "made.yaml"
    result = init(bert if case.model == "bert" else llama, file, *case.words, "--out", str(made))
    found = load_suite(str(made)).settings
    options = dict(found.dataset.options)
    assert options.pop("train") == f"path:{file}"
    if "label_names" not in case.options:
        options.pop("label_names", None)
    assert (found.task.name, options) == (case.task, case.options)
    assert re.search(case.said, result.stderr), result.stderr
    assert {key: getattr(found, key) for key in case.settings} == case.settings
    assert {key: found.task.options[key] for key in case.of_task} == case.of_task


PAIRS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
NUMBERED = lines(tokens=WORDS, ner_tags=[[int(tag != "O") for tag in of] for of in TAGS])
PLAIN = csv("text,label", TEXTS, LABELS)
GIVEN: dict[str, tuple[tuple[str, ...], str]] = {
    "no such setting": (("--set", "epoch=2"), "did you mean epochs"),
    "no setting": (("--set", "seeds=2"), "seeds: is no setting; change it"),
    "no such column": (("--label", "kind"), "no label column 'kind'; the"),
    "no number": (("--set", "epochs=x"), "--set epochs is 'x', and must be a whole number"),
    "no such encoding": (("--encoding", "utf-99"), "unknown encoding: ut"),
    "no such task": (("--task", "classify"), "no task 'classify'"),
    "no such option": (("--set", "dataset.options.quot=x"), "mean quote"),
}
STRANGE: dict[str, tuple[str, str, str | bytes, str]] = {
    "numbers of tags": (
        "bert",
        ".jsonl",
        NUMBERED,
        "the tag '0' .* give their names in order with --label-names",
    ),
    "one column": (
        "bert",
        ".csv",
        csv("text~label", TEXTS, LABELS, sep="~"),
        "separated otherwise, say how with --s",
    ),
    "missing labels": (
        "bert",
        ".csv",
        csv("text,label", TEXTS, ["", "", *LABELS[2:]]),
        r"row 1 has no label .*\(1 more of 60 rows are bad\); --set task\.options\.bad_rows=drop",
    ),
    "ids and texts": (
        "bert",
        ".csv",
        csv("id,text", range(60), TEXTS),
        "nothing to learn is found",
    ),
    "lists by other names": (
        "bert",
        ".jsonl",
        lines(said=WORDS, marks=TAGS),
        "or .words. and .tags., or name the t",
    ),
    "a comma that may be a decimal mark": (
        "bert",
        ".csv",
        csv("text;score", TEXTS, [f"1,{row:03}" for row in range(60)], sep=";"),
        "column 'score' don't say whether 1,000 has decimals or groups of thousands; say "
        "which with --set task.options.decimal_mark=comma or",
    ),
    "no row": ("llama", ".csv", "text,label\n", "has no rows; give a file with some"),
    "one row": (
        "llama",
        ".csv",
        "text,label\nthe bank,ham\n",
        "has 1 row, of which some .* give at least 8",
    ),
    "one class": (
        "llama",
        ".csv",
        csv("text,label", TEXTS, ["ham"] * 60),
        "all training rows .*; give",
    ),
    "latin-1": (
        "llama",
        ".csv",
        PLAIN.replace("\n", "\ncaf\xe9 ", 1).encode("latin-1"),
        "isn't UTF-8 .*encoding, ",
    ),
    "utf-16": (
        "llama",
        ".csv",
        PLAIN.encode("utf-16"),
        "name its encoding with --encoding, such as utf-16",
    ),
    "a workbook": ("bert", ".xlsx", b"PK", r"is a spreadsheet, .* export it as CSV and give rows"),
    "a sheet of LibreOffice": ("bert", ".ods", b"PK", "export it as CSV and give rows.csv"),
    "a sheet of old Excel": ("bert", ".XLS", b"PK", "export it as CSV and give rows.csv"),
    "nested json": (
        "llama",
        ".json",
        json.dumps({"data": {"rows": PAIRS}}),
        r"'data' \(which holds mappings\); give a column",
    ),
    "nested cells": (
        "llama",
        ".json",
        json.dumps([{"a": of} for of in PAIRS]),
        r"'a' \(which holds mappings\); give",
    ),
    "no answers": (
        "llama",
        ".jsonl",
        lines(messages=[[{"role": "user", "content": "the bank"}]]) + "\n" * 9,
        "has 1 row, of which",
    ),
    "ids only": ("llama", ".csv", csv("id", range(60)), r"\(which counts the rows\); give"),
    "as many texts as rows": (
        "llama",
        ".csv",
        csv("source,target,why", TEXTS, [f"{t} w1" for t in TEXTS], TEXTS),
        "60 different labels .* causal_lm",
    ),
    "texts in mappings": (
        "llama",
        ".jsonl",
        lines(text=[{"en": text} for text in TEXTS], label=LABELS),
        "'text' holds lists or mappings; give plain cells",
    ),
}


@pytest.mark.parametrize("name", [*GIVEN, *STRANGE])
def test_a_refusal_is_one_sentence(name: str, bert: Path, llama: Path, tmp_path: Path) -> None:
    """It names the option of this command that helps, or the file, and says what to do; status 2
    and no traceback.
    """
    words, says = GIVEN.get(name, ((), ""))
    model, suffix, content, says = STRANGE.get(name, ("bert", ".csv", PLAIN, says))
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = init(bert if model == "bert" else llama, file, *words, status=2)
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith(f"hpml-bench: {file}" if name in STRANGE else "hpml-bench: ")
    assert re.search(says, sentence), sentence


GUESSED = {
    "by the fewest values": (
        csv(
            "Message,Channel,Queue,Id",
            TEXTS,
            LABELS,
            [("sales", "law", "tech")[row % 3] for row in range(60)],
            range(60),
        ),
        "The label column 'Channel' is guessed, by having the fewest different values; also "
        "possible: 'Queue'; use --label Queue.",
        "label: Channel  # guessed; also possible: Queue",
    ),
    "by name": (
        csv("text,my id,score,topic", TEXTS, range(60), [row % 5 for row in range(60)], LABELS),
        "The label column 'topic' is guessed, by its name; also possible: 'score'; use --label "
        "score.",
        "label: topic  # guessed; also possible: score",
    ),
    "without names of columns": (
        "".join(f"{1 + row % 3},{text},{7 * (row % 2)}\n" for row, text in enumerate(TEXTS)),
        "also possible: 'column 1'; use --label 1.",
        "label: 3  # guessed; also possible: 1",
    ),
}


@pytest.mark.parametrize("name", GUESSED)
def test_a_guessed_label_is_called_one(name: str, bert: Path, tmp_path: Path) -> None:
    """Where other columns could be the label too, the terminal and the suite name them; a label
    that is given, or the only one that is possible, is no guess.
    """
    content, said, written = GUESSED[name]
    file = tmp_path / "rows.csv"
    file.write_text(content)
    result = init(bert, file)
    assert said in result.stderr
    assert written in result.stdout
    other = said.partition("use --label ")[2].removesuffix(".")
    given = init(bert, file, "--label", other)
    assert "also possible" not in given.stderr + given.stdout
    file.write_text(csv("text,kind", TEXTS, LABELS))
    only = init(bert, file)
    assert "also possible" not in only.stderr + only.stdout


@pytest.mark.parametrize("weights", [False, True])
def test_rare_positives_are_counted(
    weights: bool, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two classes, one of which is rare, the terminal says the rare one's training and test
    rows, the metric that suits it, and the weights of classes where the task has them.
    """

    class Options(Frozen):
        """Options of a task with or without weights of classes."""

    class Weighted(Options):
        """Options of a task with them."""

        class_weights: str | None = None

    monkeypatch.setattr(
        "hpml_bench.starter.kinds.options_class", lambda *_: Weighted if weights else Options
    )
    files = []
    for split, count, rare in (("train", 300, 12), ("test", 100, 3), ("dev", 50, 1)):
        labels = ["no"] * (count - rare) + ["yes"] * rare
        files.append(tmp_path / f"{split}.csv")
        files[-1].write_text(csv("text,label", starters.texts(count, len(split)), labels))
    said = called("init", "--model", bert, "--data", *files).stderr
    sentence = (
        "Of the class yes there are 12 training rows and 3 test rows, too few to tell methods "
        "apart by them; rank_by: average_precision ranks the methods by how well they find it"
    )
    more = "; task.options.class_weights: balanced lets both classes weigh the same in training"
    assert f"{sentence}{more if weights else ''}." in said


def test_several_labels_of_a_row_are_named(bert: Path, tmp_path: Path) -> None:
    """Combinations of labels are classes of their own, which the terminal says; a name with a
    comma alone is no combination.
    """
    file = tmp_path / "rows.csv"
    file.write_text(csv("text,label", TEXTS, ["a", "a|b", "b", "a|b|c", "c", "b|c"] * 10))
    said = init(bert, file).stderr
    assert "Labels such as 'a|b' look like several that are joined by '|': each" in said
    file.write_text(csv("text,label", TEXTS, ['"Health, Beauty"', "Sport", "Food"] * 20))
    assert "look like several" not in init(bert, file).stderr


def test_classes_without_a_test_row_are_named(bert: Path, tmp_path: Path) -> None:
    """Of given test rows that lack a class."""
    files = [tmp_path / "train.csv", tmp_path / "test.csv"]
    files[0].write_text(csv("text,label", TEXTS, ["a", "b", "c"] * 20))
    files[1].write_text(csv("text,label", TEXTS, ["a", "b", "b"] * 20))
    said = called("init", "--model", bert, "--data", *files).stderr
    assert "Classes without a test row: c." in said


def test_spellings_of_a_label_are_joined(bert: Path, tmp_path: Path) -> None:
    """Labels that differ only in case or white space are one in the suite, which the terminal
    says; two classes that would be one stay apart, and so do those that are given so.
    """
    file, made = tmp_path / "rows.csv", tmp_path / "made.yaml"
    labels = ["Billing", "billing", "Tech", "Billing", "Tech", "TECH"] * 10
    file.write_text(csv("text,label", TEXTS, labels))
    said = init(bert, file, "--out", str(made)).stderr
    assert (
        "Labels that differ only in case or white space are taken for one each: 'Billing' (20 "
        "rows) and 'billing' (10), 'Tech' (20 rows) and 'TECH' (10). To keep them apart, delete "
        f"normalize_labels and label_names in {made}." in said
    )
    options = load_suite(str(made)).settings.dataset.options
    assert options["normalize_labels"] is True
    assert options["label_names"] == ["Billing", "Tech"]
    apart = init(bert, file, "--set", "dataset.options.normalize_labels=false").stderr
    assert "each spelling is a label of its own: 'Billing' (20 rows) and 'billing' (10)" in apart
    assert "taken for one each" not in apart
    file.write_text(csv("text,label", TEXTS, ["x", "X"] * 30))
    assert "normalize_labels: true\n" not in init(bert, file).stdout


def test_of_many_rows_some_are_drawn(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more rows than a comparison needs."""
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TRAINING", 300)
    monkeypatch.setattr("hpml_bench.starter.estimates.MOST_TEST", 40)
    made = tmp_path / "made.yaml"
    init(bert, starters.classes(tmp_path / "large.csv", 600), "--out", str(made))
    settings = load_suite(str(made)).settings
    assert (settings.train_samples, settings.test_samples) == (300, 40)
    assert "# drawn from 540: as many as PEFT" in made.read_text()


def test_tools_take_a_template_that_is_given(llama: Path, tmp_path: Path) -> None:
    """A model whose template writes no tools is refused, with the option that helps; with that
    option it is read.
    """
    turns = [{"role": "user", "content": "the bank"}, {"role": "assistant", "content": "rates"}]
    tools = [
        {
            "type": "function",
            "function": {"name": "price", "parameters": {"type": "object", "properties": {}}},
        }
    ]
    file = starters.jsonl(tmp_path / "rows.jsonl", [{"messages": turns, "tools": tools}] * 20)
    assert (
        "another template with --set task.options.template=" in init(llama, file, status=2).stderr
    )
    template = tmp_path / "tools.jinja"
    template.write_text(
        "{{ tools | tojson }}{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|>{% "
        "endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert (
        f"template: path:{template}"
        in init(llama, file, "--set", f"task.options.template=path:{template}").stdout
    )


def test_the_terminal_says_what_a_comparison_takes_and_can_show(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours, memory, test rows with the least difference that they show, and classes that
    accuracy hides.
    """
    monkeypatch.setattr(
        "hpml_bench.starter.estimates.time_in_words", lambda *_: "Time here: 4.9 h."
    )
    file = tmp_path / "rows.csv"
    file.write_text(
        csv(
            "text,label",
            starters.texts(600),
            ["ham" if row % 100 else "spam" for row in range(600)],
        )
    )
    said = init(bert, file).stderr
    assert (
        "A page of 3 methods and 60 test rows finds a difference of 17 points in four cases of "
        "five if seeds agree, and smaller ones less often" in said
    )
    assert (
        "What helps: more test rows (510 find 5 points); test_samples: 200 in FILE (7.6 points; "
        "leaves 400 rows for the rest); fewer methods, as they share the 5 % (two: 13 points; all "
        "6: 22 points); where seeds don't agree, more of them than 3 (hpml-bench run-all FILE "
        "--seeds 5, or --until decided)." in said
    )
    assert "Time here: 4.9 h." in said
    assert "Memory: not predicted." in said
    assert re.search(
        r"99 % of the training rows are of the class ham: always answering it has about that "
        r"accuracy",
        said,
    )
    assert (
        "too few to learn or test: spam (6)" in said or "too few to learn or test: spam (5)" in said
    )
    starters.classes(file, 600)
    assert "of the class" not in init(bert, file).stderr
