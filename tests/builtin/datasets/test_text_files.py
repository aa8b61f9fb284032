"""Text files: columns, labels and splits are found in a predictable way, and mistakes are named
by file and row.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from helpers.tiny import settings
from hpml_bench.builtin.datasets import text_files
from hpml_bench.plugins.dataset import LoadedData, Target
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("empty_cache")

HEADERLESS = "".join(
    f'"{1 + i % 4}","Title {i}, of class {1 + i % 4}","A longer description ""number"" {i}"\n'
    for i in range(40)
)


def read(asked: Settings, target: Target = "class", **options: Any) -> LoadedData:
    return text_files.TextFiles(text_files.TextFiles.Options(**options)).load(asked, target)


def load(
    folder: Path,
    train: str,
    test: str | None = "",
    suffix: str = ".csv",
    target: Target = "class",
    **options: Any,
) -> LoadedData:
    """Write the files and load them; an empty test file is the training file again."""
    (folder / f"train{suffix}").write_text(train, encoding=options.get("encoding", "utf-8"))
    uris = {"train": f"path:{folder / f'train{suffix}'}"}
    if test is not None:
        (folder / f"test{suffix}").write_text(
            test or train, encoding=options.get("encoding", "utf-8")
        )
        uris["test"] = f"path:{folder / f'test{suffix}'}"
    return read(settings(), target, **uris, **options)


class Read(NamedTuple):
    """A file, and what is read from it."""

    content: str
    rows: dict[str, list[Any]]  # columns of the first training rows
    names: tuple[str, ...] = ()
    columns: str = ""  # note on the columns, where it matters
    suffix: str = ".csv"
    target: Target = "class"
    options: Mapping[str, Any] = {}


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows))


ANNA = {"tokens": ["Anna", "left"], "ner_tags": ["B-PER", "O"]}
ROME = {"tokens": ["Rome"], "ner_tags": ["B-LOC"]}
TAGS = ("O", "B-PER", "B-LOC")
TITLE = 'Title 0, of class 1 A longer description "number" 0'
THREE = ({"text": "one", "label": 3}, {"text": "two", "label": 5})
READ = {
    "without a header, the column of few values is the class, and all others are the text": Read(
        HEADERLESS,
        {"text": [TITLE], "label": [0]},
        tuple("1234"),
        "text from column 2, column 3; label from column 1",
    ),
    "names given stand for the sorted values": Read(
        HEADERLESS,
        {"label": [0, 1, 2, 3]},
        ("World", "Sports", "Business", "Sci/Tech"),
        options={"label_names": ("World", "Sports", "Business", "Sci/Tech")},
    ),
    "columns by position, joined by a separator": Read(
        HEADERLESS,
        {"text": ['A longer description "number" 0 | Title 0, of class 1']},
        tuple("1234"),
        options={"text": (3, 2), "label": 1, "separator": " | "},
    ),
    "without known names the longest texts are the text": Read(
        "user,stars,what they said\n"
        + "".join(f"u{i},{'ab'[i % 2]},words and words {i}\n" for i in range(8)),
        {"text": ["words and words 0"]},
        ("a", "b"),
        "text from what they said; label from stars",
    ),
    "a first row with a decimal comma is no header": Read(
        "fine wine;71,51\ndull wine;60,3\n",
        {"text": ["fine wine", "dull wine"], "label": [1, 0]},
        ("60,3", "71,51"),
        "text from column 1; label from column 2",
        options={"sep": ";", "label": 2},
    ),
    "a first row that repeats below is no header": Read(
        "pos,it was good\nneg,it was bad\npos,fine\nneg,dull\n",
        {"label": [1, 0, 1, 0]},
        ("neg", "pos"),
    ),
    "a header that is given": Read(
        "a,one\nb,two\na,three\nb,four\n",
        {"text": ["two", "three", "four"]},
        ("a", "b"),
        options={"header": True, "label": 1, "text": 2},
    ),
    "NA, zeros in front and line breaks in quotes stay": Read(
        'label,text\n01,NA\n02,"two\nlines"\n', {"text": ["NA", "two\nlines"]}, ("01", "02")
    ),
    "whole numbers sort as numbers": Read(
        "label,text\n10,x\n9,y\n100,z\n", {"label": [1, 0, 2]}, ("9", "10", "100")
    ),
    "Orange's types and roles are left out, and the role class is the label": Read(
        "Kind\tBody\nd\tstring\nclass\t\nx\tsome words\ny\tother words\n",
        {"text": ["some words", "other words"], "label": [0, 1]},
        ("x", "y"),
        suffix=".tab",
    ),
    "a lone quotation mark is text without quotes": Read(
        'label\ttext\n0\t"half a quote\n1\tnone\n',
        {"text": ['"half a quote', "none"]},
        ("0", "1"),
        suffix=".tsv",
        options={"quote": ""},
    ),
    "a list of objects": Read(json.dumps(THREE), {"label": [0, 1]}, ("3", "5"), suffix=".json"),
    "an object a line": Read(
        lines(*THREE), {"text": ["one", "two"], "label": [0, 1]}, ("3", "5"), suffix=".jsonl"
    ),
    "numbers, however they are written": Read(
        "text,score\none,1\ntwo,-2.5e-1\nthree, 3.0 \n",
        {"text": ["one", "two", "three"], "label": [1.0, -0.25, 3.0]},
        columns="text from text; label from score",
        target="number",
    ),
    "numbers of JSON": Read(
        lines({"text": "one", "score": 3}, {"text": "two", "score": 0.5}),
        {"label": [3.0, 0.5]},
        suffix=".jsonl",
        target="number",
    ),
    "the only column of numbers": Read(
        "words,n\none,1\ntwo,2\n", {"label": [1.0, 2.0]}, target="number"
    ),
    "columns of a pair that are given, the first of two joined": Read(
        "a,b,c,label\none,more,first,x\ntwo,else,second,y\n",
        {"text": ["one more"], "text_pair": ["first"]},
        ("x", "y"),
        options={"text": ("a", "b"), "text_pair": "c"},
    ),
    "long texts beside a headline are joined, other columns and quotations are not": Read(
        "category,headline,story,quoted,page\n"
        + "".join(
            f'{"xy"[i % 2]},Head {i},"It was a long story, number {i}",a long story,p{i}\n'
            for i in range(8)
        ),
        {"text": ["Head 0 It was a long story, number 0"]},
        ("x", "y"),
        "text from headline, story; label from category",
    ),
    "columns without names get those of pandas, and empty ones are no label": Read(
        "v1,v2,,,\n"
        + "".join(
            f'{("ham", "spam")[i % 2]},"words, {i}",{"x" if i == 3 else ""},,\n' for i in range(8)
        ),
        {"text": ["words, 0"], "label": [0, 1]},
        ("ham", "spam"),
        "text from v2; label from v1",
    ),
    "another encoding": Read(
        "label,text\nx,caf\xe9\ny,two\n",
        {"text": ["caf\xe9"]},
        ("x", "y"),
        options={"encoding": "latin-1"},
    ),
    "semicolons between the names of columns": Read(
        "text;label\nan a, b;x\nb;y\n", {"text": ["an a, b", "b"]}, ("x", "y")
    ),
    "tabs in a csv file": Read("text\tlabel\na, b\tx\nb\ty\n", {"text": ["a, b", "b"]}, ("x", "y")),
    "a separator that is given": Read(
        "1~The first of them\n2~The second of them\n",
        {"text": ["The first of them"]},
        ("1", "2"),
        options={"sep": "~", "label": 1},
    ),
    "a tab that is given as suites write it": Read(
        "1\tThe first of them\n2\tThe second of them\n",
        {"text": ["The first of them"]},
        ("1", "2"),
        options={"sep": "\\t", "label": 1},
    ),
    "the only list of objects in an object": Read(
        json.dumps({"version": "1", "data": THREE}), {"label": [0, 1]}, ("3", "5"), suffix=".json"
    ),
    "a list of objects that is named": Read(
        json.dumps({"a": [{"x": 1}], "b": THREE}),
        {"label": [0, 1]},
        ("3", "5"),
        suffix=".json",
        options={"field": "b"},
    ),
    "objects a line in a json file": Read(
        lines(*THREE), {"label": [0, 1]}, ("3", "5"), suffix=".json"
    ),
    "words a line, as CoNLL's": Read(
        "-DOCSTART- -X- O O\n\n# id 1\nAnna NNP B-PER\nleft VBD O\n\n# VBZ O\nRome NNP B-LOC\n",
        {"words": [["Anna", "left"], ["#", "Rome"]], "tags": [[1, 2], [2, 0]]},
        ("B-LOC", "B-PER", "O"),
        "words from words; tags from tags",
        ".conll",
        "tags",
    ),
    "words a line in a file of text": Read(
        "Anna\tB-PER\nleft\tO\n\nRome\tB-LOC\n",
        {"words": [["Anna", "left"], ["Rome"]]},
        ("B-LOC", "B-PER", "O"),
        suffix=".txt",
        target="tags",
    ),
    "words a row, the sentence named in its first": Read(
        "Sentence #,Word,POS,Tag\nSentence: 1,Anna,NNP,B-PER\n,left,VBD,O\nSentence: "
        "2,Rome,NNP,B-LOC\n",
        {"words": [["Anna", "left"], ["Rome"]], "tags": [[1, 2], [0]]},
        ("B-LOC", "B-PER", "O"),
        "words from Word; tags from Tag",
        target="tags",
    ),
    "words a row, the sentence in each": Read(
        "sentence_id,words,labels\n1,Anna,B-PER\n1,left,O\n2,Rome,B-LOC\n",
        {"words": [["Anna", "left"], ["Rome"]]},
        ("B-LOC", "B-PER", "O"),
        target="tags",
        options={"label": "labels"},
    ),
    "words and tags by name": Read(
        lines(ANNA, ROME),
        {"words": [["Anna", "left"], ["Rome"]], "tags": [[1, 2], [0]]},
        ("B-LOC", "B-PER", "O"),
        "words from tokens; tags from ner_tags",
        ".jsonl",
        "tags",
    ),
    "columns and names of tags that are given": Read(
        lines(*({"a": row["tokens"], "b": row["ner_tags"]} for row in (ANNA, ROME))),
        {"tags": [[1, 0], [2]]},
        TAGS,
        "",
        ".jsonl",
        "tags",
        {"text": "a", "label": "b", "label_names": TAGS},
    ),
    "tags that are numbers": Read(
        lines({"tokens": ["Anna", "left"], "tags": [1, 0]}, {"tokens": ["Rome"], "tags": [2]}),
        {"tags": [[1, 0], [2]]},
        TAGS,
        "",
        ".jsonl",
        "tags",
        {"label_names": TAGS},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read(tmp_path: Path, name: str) -> None:
    """Columns are found by name, else by content; the rows stand as they are, for training and
    for testing.
    """
    case = READ[name]
    data = load(tmp_path, case.content, suffix=case.suffix, target=case.target, **case.options)
    for column, values in case.rows.items():
        assert data.train[column][: len(values)] == data.test[column][: len(values)] == values
    assert data.label_names == case.names
    assert not case.columns or data.notes["columns"] == case.columns


def test_parquet_rows_know_the_names_of_classes_and_tags(tmp_path: Path) -> None:
    """Those that `datasets` stores in a parquet file; whole floats, of a column with holes, are
    classes too.
    """
    from datasets import ClassLabel, Dataset, Features, Value

    uri, kind = f"path:{tmp_path / 't.parquet'}", ClassLabel(names=["bad", "good"])
    features = Features({"sentence": Value("string"), "label": kind})
    Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(
        tmp_path / "t.parquet"
    )
    data = read(settings(), train=uri, test=uri)
    assert (data.label_names, data.train[0]) == (("bad", "good"), {"text": "a", "label": 1})
    features = Features(
        {"tokens": [Value("string")], "ner_tags": [ClassLabel(names=["O", "B-PER", "I-PER"])]}
    )
    content = {"tokens": [["Anna", "left"]], "ner_tags": [[1, 0]]}
    Dataset.from_dict(content, features=features).to_parquet(tmp_path / "t.parquet")
    data = read(settings(), "tags", train=uri, test=uri)
    assert (data.label_names, data.train[0]["tags"]) == (("O", "B-PER", "I-PER"), [1, 0])
    pd.DataFrame({"text": ["a", "b"], "label": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    assert read(settings(), train=uri, test=uri).label_names == ("1", "2")


def test_a_column_may_name_the_splits(tmp_path: Path) -> None:
    """By words as in names of files; it is no label, and a cell that names no split is refused."""
    rows = "label,text,split\na,one,train\nb,two,test\nb,three,Training\na,four,valid\n"
    data = load(tmp_path, rows, None, split="split")
    parts = (data.train, data.validation, data.test)
    assert [part["text"][:] for part in parts] == [["one", "three"], ["four"], ["two"]]
    with pytest.raises(
        UserError,
        match=r"row 5 has 'fold 1' in column 'split', whose cells must be train, validation",
    ):
        load(tmp_path, f"{rows}a,five,fold 1\n", None, split="split")
    with pytest.raises(UserError, match=r"a column of all splits; leave test and validation out"):
        load(tmp_path, rows, split="split")


@pytest.mark.parametrize(
    ("target", "task", "rows", "suffix", "first"),
    [
        ("class", "sequence_classification", "text,label\none,a\n,a\ntwo,b\nthree,\n", ".csv", 2),
        ("number", "regression", "text,label\none,1\n,1\ntwo,2\nthree,many\n", ".csv", 2),
        (
            "tags",
            "token_classification",
            lines(ANNA, ROME, {"tokens": [], "ner_tags": []}, ROME | {"ner_tags": None}),
            ".jsonl",
            3,
        ),
    ],
)
def test_bad_rows_are_counted_and_may_be_left_out(
    tmp_path: Path, target: Target, task: str, rows: str, suffix: str, first: int
) -> None:
    """One sentence names the first and counts all; with `bad_rows: drop` the others are read,
    and that is warned of.
    """
    says = (
        rf"row {first} has no .* \(1 more of 4 rows are bad\); task\.options\.bad_rows: drop "
        rf"leaves bad rows out"
    )
    with pytest.raises(UserError, match=says):
        load(tmp_path, rows, suffix=suffix, target=target)
    asked = settings(task={"name": task, "options": {"bad_rows": "drop"}})
    data = read(
        asked,
        target,
        **{name: f"path:{tmp_path / f'{name}{suffix}'}" for name in ("train", "test")},
    )
    assert len(data.train) == len(data.test) == 2
    assert target == "tags" or data.train["text"][:] == ["one", "two"]
    assert data.warnings["bad rows left out"].startswith(
        f"4, such as {tmp_path / 'train'}{suffix}: row {first} has no"
    )


def numbers(folder: Path, cells: list[str], bad_rows: str = "refuse", **options: Any) -> LoadedData:
    """Load a file of numbers to learn, separated by semicolons."""
    rows = "".join(f"text {row};{cell}\n" for row, cell in enumerate(cells))
    file = folder / "train.csv"
    file.write_text(f"text;wert\n{rows}")
    asked = settings(task={"name": "regression", "options": {"bad_rows": bad_rows, **options}})
    return read(asked, "number", train=f"path:{file}", test=f"path:{file}", label="wert")


@pytest.mark.parametrize(
    ("decimal_mark", "cells", "values"),
    [
        ("comma", ["71,51", "1.234,5", "1 234,5", "-0,5", "7", "1,5E-05"], None),
        ("comma", ["1.234", "1,234"], [1234.0, 1.234]),
        ("point", ["71.51", "1,234.5", "1 234.5", "-0.5", "007", "5."], None),
        ("point", ["1,234", "1.234"], [1234.0, 1.234]),
        (None, ["71.51", "-.5", "1e-05"], [71.51, -0.5, 1e-05]),
    ],
)
def test_numbers_are_read_by_their_decimal_mark(
    tmp_path: Path, decimal_mark: str | None, cells: list[str], values: list[float] | None
) -> None:
    """Each as the nearest float, groups of thousands too; without a mark as Python reads them."""
    data = numbers(tmp_path, cells, decimal_mark=decimal_mark)
    if values is None:
        values = [71.51, 1234.5, 1234.5, -0.5, 7.0, float(cells[-1].replace(",", "."))]
    assert data.train["label"][:] == values


@pytest.mark.parametrize(
    ("decimal_mark", "cell", "advice"),
    [
        (None, "71,51", "; with task.options.decimal_mark: comma it is 71.51"),
        (
            None,
            "1,234",
            "; with task.options.decimal_mark: point it is 1234, and with "
            "task.options.decimal_mark: comma it is 1.234",
        ),
        ("comma", "71.51", "; with task.options.decimal_mark: point it is 71.51"),
        ("point", "71,51", "; with task.options.decimal_mark: comma it is 71.51"),
        (None, "5 %", "; task.options.bad_rows: drop leaves bad rows out"),
        ("comma", "1,5e999", "; task.options.bad_rows: drop leaves bad rows out"),
    ],
)
def test_a_number_that_is_not_read_is_named_with_what_would_read_it(
    tmp_path: Path, decimal_mark: str | None, cell: str, advice: str
) -> None:
    """The sentence has the cell, its column and its row, and the value by the other mark."""
    with pytest.raises(UserError) as refused:
        numbers(tmp_path, ["1", "2", cell], decimal_mark=decimal_mark)
    start = f"{tmp_path / 'train.csv'}: row 3 has '{cell}' in column 'wert', which is no finite"
    assert str(refused.value).startswith(f"{start} number{advice}")


def test_a_number_that_was_read_before_has_no_decimal_mark(tmp_path: Path) -> None:
    """A reader of JSON may have taken the 1.234 of a thousand for a decimal: a comma is refused."""
    file = tmp_path / "train.jsonl"
    file.write_text(lines({"text": "one", "label": 1.5}, {"text": "two", "label": 2.5}))
    asked = settings(task={"name": "regression", "options": {"decimal_mark": "comma"}})
    with pytest.raises(UserError, match=r"row 1 has 1\.5 in column 'label', a number already"):
        read(asked, "number", train=f"path:{file}", test=f"path:{file}")
    asked = settings(task={"name": "regression", "options": {"decimal_mark": "point"}})
    data = read(asked, "number", train=f"path:{file}", test=f"path:{file}")
    assert data.train["label"][:] == [1.5, 2.5]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            ["71,51", "60,3", "7"],
            r"it is 71.51 \(1 more of 3 rows are bad\)$",
        ),
        (
            ["good", "bad", "7"],
            r"no finite number \(1 more of 3 rows are bad\); if the columns are wrong, name others "
            r"with dataset.options.text or dataset.options.label$",
        ),
    ],
)
def test_nobody_is_told_to_leave_most_rows_out(tmp_path: Path, cells: list[str], says: str) -> None:
    """Where more than half of the rows are bad, the columns or the decimal mark are wrong."""
    with pytest.raises(UserError, match=says):
        numbers(tmp_path, cells)


def test_where_all_rows_are_bad_none_are_left_out(tmp_path: Path) -> None:
    """A table without rows would be refused later, for a reason that isn't the cause."""
    with pytest.raises(UserError, match=r"decimal_mark: comma it is 71.51 \(1 more of 2 rows"):
        numbers(tmp_path, ["71,51", "60,3"], bad_rows="drop")


def test_labels_that_can_be_no_classes_are_told(tmp_path: Path) -> None:
    """As many as rows are refused with the likely cause; one that reads as a missing value is
    counted.

    Columns that are not read are noted by name.
    """
    rows = "".join(f"id {row},words {row}\n" for row in range(50))
    says = r"'label' has 50 different labels in 50 rows, too many .* dataset\.options\.label"
    with pytest.raises(UserError, match=says):
        load(tmp_path, f"label,text\n{rows}")
    data = load(tmp_path, "label,text\na,one\nNaN,two\nb,three\nNaN,four\n")
    assert data.label_names == ("NaN", "a", "b")
    assert data.warnings["labels that may be missing"].startswith(
        "'NaN' (2 rows): taken for a class"
    )
    plain = load(tmp_path, "label,text\na,one\nb,two\n")
    assert not plain.warnings
    assert "columns not read" not in plain.notes
    assert load(tmp_path, "id,label,text\n1,a,one\n2,b,two\n").notes["columns not read"] == "id"


SPELT = "label,text\nBilling,a\nbilling,b\nBilling,c\nTech  nical,d\ntech nical,e\nAccount,f\n"


def test_labels_of_several_spellings_are_told_and_joined(tmp_path: Path) -> None:
    """Those that differ only in case or white space are named with their rows; `normalize_labels`
    takes them for one, named by the most frequent spelling, of test rows too.
    """
    name = "labels that differ only in case or white space"
    apart = load(tmp_path, SPELT)
    assert len(apart.label_names) == 5
    assert apart.warnings[name] == (
        "each spelling is a label of its own: 'Billing' (2 rows) and 'billing' (1), 'Tech  nical' "
        "(1 row) and 'tech nical' (1); dataset.options.normalize_labels: true joins them"
    )
    joined = load(tmp_path, SPELT, "label,text\nBILLING,a\n account ,b\n", normalize_labels=True)
    assert joined.label_names == ("Account", "Billing", "Tech  nical")
    assert joined.train["label"][:] == [1, 1, 1, 2, 2, 0]
    assert joined.test["label"][:] == [1, 0]
    assert name not in joined.warnings
    assert joined.notes[name].startswith("taken for one each: 'Billing' (2 rows) and 'billing'")
    names = ("Account", "BILLING", "Technical")
    given = SPELT.replace("Tech  nical", "technical").replace("tech nical", "TECHNICAL")
    assert (
        load(tmp_path, given, label_names=names, normalize_labels=True).train["label"][:]
        == joined.train["label"][:]
    )
    with pytest.raises(UserError, match="holds a name twice: Billing, billing"):
        load(tmp_path, SPELT, label_names=("Billing", "billing"), normalize_labels=True)
    with pytest.raises(UserError, match=r"BILLING.*normalize_labels: true takes it for 'Billing'"):
        load(tmp_path, SPELT, "label,text\nBILLING,a\n")
    with pytest.raises(UserError, match="normalize_labels is for classes or tags; leave it out"):
        load(tmp_path, "label,text\n1,a\n", target="number", normalize_labels=True)


DAYS = {
    "year first": ("2024-05-01", "2024-05-02", False),
    "year last, with a time": ("01.05.2024 10:00", "2.5.2024 11:30", False),
    "some missing": ("5/1/2024", "", False),
    "versions, which are no dates": ("1.5.2", "1.5.3", True),
}


@pytest.mark.parametrize("name", DAYS)
def test_dates_are_no_classes(tmp_path: Path, name: str) -> None:
    """A column of few dates isn't taken for the label, whatever the number of its values."""
    first, second, taken = DAYS[name]
    cells = [(first, second)[row % 2] for row in range(12)]
    rows = "".join(f"{cell}\tthe text {n}\t{'abc'[n % 3]}\n" for n, cell in enumerate(cells))
    data = load(tmp_path, f"day\tquestion\tkind\n{rows}", suffix=".tsv")
    assert data.label_names == ((first, second) if taken else ("a", "b", "c"))


def test_tags_of_several_spellings_are_told_and_joined(tmp_path: Path) -> None:
    """As classes are, counted in words."""
    anna = {"tokens": ["Anna", "Bob", "met"], "ner_tags": ["B-PER", "b-per", "O"]}
    rows = lines(anna, anna)
    name = "labels that differ only in case or white space"
    apart = load(tmp_path, rows, suffix=".jsonl", target="tags")
    assert apart.warnings[name].endswith(
        "of its own: 'B-PER' (2 words) and 'b-per' (2); dataset.options.normalize_labels: true "
        "joins them"
    )
    joined = load(tmp_path, rows, suffix=".jsonl", target="tags", normalize_labels=True)
    assert joined.label_names == ("B-PER", "O")
    assert joined.train["tags"][:] == [[0, 0, 1]] * 2


NUMBERS = {
    "": "no number in column 'score'",
    " ": "no number in column 'score'",
    "1_000": "'1_000'",
    "True": "'True'",
    "many": "'many' in column 'score', which is no finite number",
    "inf": "'inf'",
    "1e999": "'1e999'",
    "nan": "'nan'",
}
TAGGED = [
    (
        lines(ANNA, {"tokens": [], "ner_tags": []}),
        "",
        r"train\.jsonl: row 2 has no words in column 'tokens'",
    ),
    (
        lines(ANNA, ROME | {"ner_tags": ["O", "O"]}),
        "",
        r"row 2 has 1 words and 2 tags; give one tag per word",
    ),
    (lines(ANNA, ROME | {"ner_tags": None}), "", r"row 2 has 1 words and 0 tags"),
    (
        lines(ANNA),
        lines(ROME),
        r"test\.jsonl: row 1 has the tag 'B-LOC', which is not among the 2 known ones",
    ),
    (lines(ANNA, ROME | {"ner_tags": [None]}), "", r"row 2 has the tag '', which is not among"),
    (
        lines(ANNA, ROME | {"tokens": [None]}),
        "",
        r"row 2 holds no list of words in column 'tokens'",
    ),
    (lines({"tokens": "Anna", "ner_tags": ["O"]}), "", r"row 1 holds no list of words"),
    (lines({"tokens": ["Anna"], "ner_tags": "O"}), "", r"column 'ner_tags' has no lists of tags"),
    (
        lines({"text": "Anna", "ner_tags": ["O"]}),
        "",
        r"no column is called words or tokens; name the one with lists",
    ),
    (
        lines({"tokens": ["Anna"], "label": ["O"]}),
        "",
        r"called tags or ner_tags.* with dataset\.options\.label",
    ),
]


@pytest.mark.parametrize(
    ("train", "test", "options", "says"),
    [
        (
            "label,text\na,one\nb,two\n",
            "label,text\na,one\nc,two\n",
            {},
            r"test\.csv: row 2 has the label 'c'.*a, b",
        ),
        ("label,text\na,one\n,two\nb,three\n", "", {}, r"train\.csv: row 2 has no label"),
        ("label,text\na,one\nb\n", "", {}, r"train\.csv: row 2 has no text in column 'text'"),
        (
            "label,text\na,one\nb,two\n",
            "",
            {"text": "body"},
            r"no text column 'body'; the columns are 1 'label', 2",
        ),
        ("label,text\na,one\nb,two\n", "", {"label": 3}, r"no label column 3"),
        (
            "label,text\na,one\nb,two\n",
            "",
            {"label_names": ("a",)},
            r"row 2 has the label 'b', which is not among",
        ),
        (
            "label,text\n1,one\n9,two\n",
            "",
            {"label_names": ("a", "b", "c")},
            r"2 labels 1, 9 don't fit the 3",
        ),
        ("label,text\na,one\nb,two,three\n", "", {}, r"train\.csv: can't be read as csv: .*line 3"),
        (
            "label,text\na,one\nb,two\n",
            "label,body\na,one\n",
            {},
            r"test\.csv: has columns label, body, unlike",
        ),
        ("text,text\na,one\nb,two\n", "", {}, r"two columns have the same name"),
        (
            "id,text\n1,one\n2,two\n3,three\n",
            "",
            {},
            r"looks like a label; name it with dataset.options.label",
        ),
        ("label,n\na,1\nb,2\n", "", {"header": True}, r"no column holds text"),
        (
            "words,n,m\none,1,5\ntwo,2,6\n",
            "",
            {"target": "number"},
            r"2 columns hold numbers; name the one",
        ),
        ("id,text\n1,one\n2,two\n", "", {"target": "number"}, r"no column holds numbers"),
        (
            "text,score\none,1\n",
            "",
            {"target": "number", "label_names": ("a",)},
            r"numbers have none",
        ),
        (
            '{"text": "one", "score": true}',
            "",
            {"target": "number", "suffix": ".jsonl"},
            r"row 1 has 'True' in",
        ),
        *(
            (
                f"text,score\none,1\ntwo,{cell}\n",
                "",
                {"target": "number"},
                rf"train\.csv: row 2 has {says}",
            )
            for cell, says in NUMBERS.items()
        ),
        *(
            (train, test, {"target": "tags", "suffix": ".jsonl"}, says)
            for train, test, says in TAGGED
        ),
        (
            "tokens,tags\nAnna left,B-PER O\n",
            "",
            {"target": "tags", "header": True},
            r"has no lists of tags; give a",
        ),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, train: str, test: str, options: dict[str, Any], says: str
) -> None:
    """One sentence with the file, the row or column, and what there is."""
    with pytest.raises(UserError, match=says) as raised:
        load(tmp_path, train, test, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is empty"),
        ("a.pdf", b"x", "must end in .csv"),
        ("a.xlsx", b"x", "is a spreadsheet, .* export it as CSV and give a.csv"),
        ("a.json", b"{", "can't be read as json"),
        (
            "b.csv",
            "label,text\na,caf\xe9\nb,x\n".encode("latin-1"),
            "can't be read as csv.*utf-8.* such as latin-1",
        ),
        ("c.csv", "label,text\na,b\n".encode("utf-16"), "such as utf-16"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """Empty, of an unknown kind, in another encoding, or with broken JSON."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read(settings(), train=f"path:{tmp_path / name}")
