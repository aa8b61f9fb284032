"""Text files: columns, labels and splits are found in a predictable way, and mistakes are named by file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers.tiny import settings
from hpml_bench.builtin.datasets import text_files
from hpml_bench.data.files import Format, read_file
from hpml_bench.plugins.dataset import LoadedData, Target
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("empty_cache")

HEADERLESS = "".join(
    f'"{1 + i % 4}","Title {i}, of class {1 + i % 4}","A longer description ""number"" {i}"\n' for i in range(40)
)


def read(asked: Settings, target: Target = "class", **options: Any) -> LoadedData:
    """Load files with some options."""
    return text_files.TextFiles(text_files.TextFiles.Options(**options)).load(asked, target)


def load(
    folder: Path, train: str, test: str | None = "", suffix: str = ".csv", target: Target = "class", **options: Any
) -> LoadedData:
    """Write the files and load them; an empty test file is the training file again."""
    (folder / f"train{suffix}").write_text(train)
    uris = {"train": f"path:{folder / f'train{suffix}'}"}
    if test is not None:
        (folder / f"test{suffix}").write_text(test or train)
        uris["test"] = f"path:{folder / f'test{suffix}'}"
    return read(settings(), target, **uris, **options)


def test_headerless_rows_of_class_title_description_need_no_options(tmp_path: Path) -> None:
    """The class is the column with few values; the text is all the others."""
    data = load(tmp_path, HEADERLESS)
    assert data.label_names == ("1", "2", "3", "4")
    assert data.train[5] == {"text": 'Title 5, of class 2 A longer description "number" 5', "label": 1}
    assert len(data.train) == len(data.test) == 40
    assert data.notes["columns"] == "text: column 2, column 3; label: column 1"


def test_given_names_stand_for_the_sorted_values(tmp_path: Path) -> None:
    """Classes 1 to 4 get the names in order."""
    data = load(tmp_path, HEADERLESS, label_names=("World", "Sports", "Business", "Sci/Tech"))
    assert data.label_names[data.train[3]["label"]] == "Sci/Tech"


def test_columns_can_be_given_by_position_and_joined(tmp_path: Path) -> None:
    """Positions count from 1; the separator stands between texts."""
    data = load(tmp_path, HEADERLESS, text=(3, 2), label=1, separator=" | ")
    assert data.train[0]["text"] == 'A longer description "number" 0 | Title 0, of class 1'


def test_columns_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    """A header names them; numbers elsewhere don't matter."""
    data = load(tmp_path, "Id,Text,Category\n7,one,b\n8,two,a\n9,three,b\n")
    assert data.label_names == ("a", "b")
    assert data.train[:] == {"text": ["one", "two", "three"], "label": [1, 0, 1]}


def test_without_known_names_the_longest_texts_are_the_text(tmp_path: Path) -> None:
    """A header with other names: few values are the label, long texts the text."""
    rows = "".join(f"u{i},{'ab'[i % 2]},words and words {i}\n" for i in range(8))
    data = load(tmp_path, "user,stars,what they said\n" + rows)
    assert data.notes["columns"] == "text: what they said; label: stars"


def test_a_first_row_that_repeats_below_is_no_header(tmp_path: Path) -> None:
    """String labels without a header are data from the first row on."""
    data = load(tmp_path, "pos,it was good\nneg,it was bad\npos,fine\nneg,dull\n")
    assert len(data.train) == 4
    assert data.label_names == ("neg", "pos")


def test_the_header_can_be_given(tmp_path: Path) -> None:
    """What is found can be overruled."""
    assert len(load(tmp_path, "a,one\nb,two\na,three\nb,four\n", header=True, label=1, text=2).train) == 3


def test_cells_are_read_as_they_stand(tmp_path: Path) -> None:
    """NA, leading zeros and line breaks in quotes stay what they are."""
    data = load(tmp_path, 'label,text\n01,NA\n02,"two\nlines"\n')
    assert data.train["text"][:] == ["NA", "two\nlines"]
    assert data.label_names == ("01", "02")


def test_integer_labels_sort_as_numbers(tmp_path: Path) -> None:
    """Ten comes after nine."""
    data = load(tmp_path, "label,text\n" + "".join(f"{i},text {i}\n" for i in (10, 9, 100)))
    assert data.label_names == ("9", "10", "100")


def test_orange_tab_files_have_three_header_lines(tmp_path: Path) -> None:
    """Types and roles are left out, and the role `class` is the label."""
    tab = "Kind\tBody\nd\tstring\nclass\t\nx\tsome words\ny\tother words\n"
    data = load(tmp_path, tab, suffix=".tab")
    assert data.train[:] == {"text": ["some words", "other words"], "label": [0, 1]}


def test_unquoted_tsv_keeps_its_quotes(tmp_path: Path) -> None:
    """`quote: ''` reads a lone quotation mark as text."""
    data = load(tmp_path, 'label\ttext\n0\t"half a quote\n1\tnone\n', suffix=".tsv", quote="")
    assert data.train["text"][0] == '"half a quote'


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_rows_are_read(tmp_path: Path, suffix: str) -> None:
    """A list of objects, or one object a line."""
    rows = [{"text": "one", "label": 3}, {"text": "two", "label": 5}]
    text = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    data = load(tmp_path, text, suffix=suffix)
    assert (data.label_names, data.train[1]) == (("3", "5"), {"text": "two", "label": 1})


def test_parquet_rows_are_read_and_a_class_label_knows_its_names(tmp_path: Path) -> None:
    """The names that `datasets` stores in a parquet file are taken."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "t.parquet")
    uri = f"path:{tmp_path / 't.parquet'}"
    data = read(settings(), train=uri, test=uri)
    assert (data.label_names, data.train[0]) == (("bad", "good"), {"text": "a", "label": 1})


def test_float_labels_that_are_whole_are_integers(tmp_path: Path) -> None:
    """A parquet column made float by a missing cell elsewhere still means classes."""
    pd.DataFrame({"text": ["a", "b"], "label": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    uri = f"path:{tmp_path / 't.parquet'}"
    assert read(settings(), train=uri, test=uri).label_names == ("1", "2")


def test_without_a_test_file_rows_are_split_off(tmp_path: Path) -> None:
    """They leave the training rows, and `data_seed` alone decides which."""
    (tmp_path / "t.csv").write_text(HEADERLESS)
    train = f"path:{tmp_path / 't.csv'}"
    one, again, other = (read(settings(test_samples=10, data_seed=seed), train=train) for seed in (0, 0, 1))
    assert (len(one.train), len(one.test)) == (30, 10)
    assert not set(one.train["text"]) & set(one.test["text"])
    assert one.test["text"][:] == again.test["text"][:] != other.test["text"][:]
    assert "split off" in one.notes["test"]


@pytest.mark.parametrize(
    ("train", "test", "options", "says"),
    [
        ("label,text\na,one\nb,two\n", "label,text\na,one\nc,two\n", {}, r"test\.csv: row 2 has the label 'c'.*a, b"),
        ("label,text\na,one\n,two\nb,three\n", "", {}, r"train\.csv: row 2 has no label"),
        ("label,text\na,one\nb\n", "", {}, r"train\.csv: row 2 has no text in column 'text'"),
        ("label,text\na,one\nb,two\n", "", {"text": "body"}, r"no text column 'body'; the columns are 1 'label', 2"),
        ("label,text\na,one\nb,two\n", "", {"label": 3}, r"no label column 3"),
        ("label,text\na,one\nb,two\n", "", {"label_names": ("a",)}, r"row 2 has the label 'b', which is not among"),
        ("label,text\n1,one\n9,two\n", "", {"label_names": ("a", "b", "c")}, r"2 labels 1, 9 don't fit the 3"),
        ("label,text\na,one\nb,two,three\n", "", {}, r"train\.csv: can't be read as csv: .*line 3"),
        ("label,text\na,one\nb,two\n", "label,body\na,one\n", {}, r"test\.csv: has columns label, body, unlike"),
        ("text,text\na,one\nb,two\n", "", {}, r"two columns have the same name"),
        ("id,text\n1,one\n2,two\n3,three\n", "", {}, r"looks like a label; name it with dataset.options.label"),
        ("label,n\na,1\nb,2\n", "", {"header": True}, r"no column holds text"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, train: str, test: str, options: dict[str, Any], says: str) -> None:
    """One sentence with the file, the row or column, and what there is."""
    with pytest.raises(UserError, match=says) as raised:
        load(tmp_path, train, test, **options)
    assert "\n" not in str(raised.value)


def test_another_separator_is_named_and_commas_of_sentences_are_none(tmp_path: Path) -> None:
    """A line of names decides; texts with as many commas, and a single column called text, are read."""
    for content, says in [
        ("text;label\nan a, b;x\nb;y\n", "by semicolons"),
        ("text|label\na|x\nb|y\n", "by vertical bars"),
    ]:
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(UserError, match=f"its cells are separated {says}, .* by commas; save it"):
            read(settings(), train=f"path:{tmp_path / 'a.csv'}")
    (tmp_path / "a.tsv").write_text("He came, she saw\nI came, you left\n")
    assert len(read_file(tmp_path / "a.tsv", Format())[0]) >= 1
    (tmp_path / "b.csv").write_text("text\none; two\nthree; four\n")
    assert read_file(tmp_path / "b.csv", Format())[0]["text"][:] == ["one; two", "three; four"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Empty, of an unknown kind, in another encoding, or with broken JSON."""
    for name, content, says in [
        ("a.csv", b"", "is empty"),
        ("a.xlsx", b"x", "must end in .csv"),
        ("b.csv", "label,text\na,caf\xe9\nb,x\n".encode("latin-1"), "can't be read as csv.*utf-8"),
        ("a.json", b"{", "can't be read as json"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=says):
            read(settings(), train=f"path:{tmp_path / name}")


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """The cache of rows follows the file's content."""
    assert load(tmp_path, "label,text\na,one\nb,two\n").train["text"][0] == "one"
    assert load(tmp_path, "label,text\na,ONE\nb,two\n").train["text"][0] == "ONE"


# Numbers


def test_numbers_are_read_from_csv(tmp_path: Path) -> None:
    """A column by name, whatever the way the numbers are written; the texts as ever; no names."""
    data = load(tmp_path, "text,score\none,1\ntwo,-2.5e-1\nthree, 3.0 \n", target="number")
    assert data.train[:] == {"text": ["one", "two", "three"], "label": [1.0, -0.25, 3.0]}
    assert data.label_names == ()
    assert data.notes["columns"] == "text: text; label: score"


def test_the_only_column_of_numbers_is_the_number(tmp_path: Path) -> None:
    """Where no name tells; of several, one must be named."""
    assert load(tmp_path, "words,n\none,1\ntwo,2\n", target="number").train["label"][:] == [1.0, 2.0]
    with pytest.raises(UserError, match=r"2 columns hold numbers; name the one to learn with dataset\.options\.label"):
        load(tmp_path, "words,n,m\none,1,5\ntwo,2,6\n", target="number")
    assert load(tmp_path, "words,n,m\none,1,5\ntwo,2,6\n", target="number", label="m").train["label"][:] == [5.0, 6.0]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("", r"row 2 has no number in column 'score'"),
        (" ", r"row 2 has no number in column 'score'"),
        ("many", r"row 2 has 'many' in column 'score', which is no finite number"),
        ("nan", r"row 2 has 'nan' in column 'score', which is no finite number"),
        ("inf", r"row 2 has 'inf'"),
        ("1e999", r"row 2 has '1e999'"),
        ("1_000", r"row 2 has '1_000'"),
        ("True", r"row 2 has 'True'"),
    ],
)
def test_what_is_no_number_is_named_by_its_row(tmp_path: Path, cell: str, says: str) -> None:
    """With the file, the row and the cell."""
    with pytest.raises(UserError, match=rf"train\.csv: {says}") as raised:
        load(tmp_path, f"text,score\none,1\ntwo,{cell}\n", target="number")
    assert "\n" not in str(raised.value)


def test_numbers_of_json_are_read_and_truth_values_are_not(tmp_path: Path) -> None:
    """Integers and decimals become numbers; true is none."""
    rows = [{"text": "one", "score": 3}, {"text": "two", "score": 0.5}]
    data = load(tmp_path, "\n".join(map(json.dumps, rows)), suffix=".jsonl", target="number")
    assert data.train["label"][:] == [3.0, 0.5]
    with pytest.raises(UserError, match="row 1 has 'True' in column 'score'"):
        load(tmp_path, json.dumps({"text": "one", "score": True}), suffix=".jsonl", target="number")


def test_numbers_have_no_names(tmp_path: Path) -> None:
    """Names of classes with numbers are a mistake."""
    with pytest.raises(UserError, match="label_names are of classes or tags; numbers have none"):
        load(tmp_path, "text,score\none,1\ntwo,2\n", target="number", label_names=("a", "b"))


# Words and tags


def lines(*rows: dict[str, Any]) -> str:
    """Return rows as lines of JSON."""
    return "\n".join(map(json.dumps, rows))


ANNA = {"tokens": ["Anna", "left"], "ner_tags": ["B-PER", "O"]}
ROME = {"tokens": ["Rome"], "ner_tags": ["B-LOC"]}


def test_words_and_tags_are_found_by_name(tmp_path: Path) -> None:
    """Tags get the indices of their sorted names."""
    data = load(tmp_path, lines(ANNA, ROME), suffix=".jsonl", target="tags")
    assert data.label_names == ("B-LOC", "B-PER", "O")
    assert data.train[0] == {"words": ["Anna", "left"], "tags": [1, 2]}
    assert data.notes["columns"] == "words: tokens; tags: ner_tags"


def test_columns_of_words_and_tags_can_be_given(tmp_path: Path) -> None:
    """By the options that name text and label; names of tags given are their order."""
    rows = [{"a": row["tokens"], "b": row["ner_tags"]} for row in (ANNA, ROME)]
    names = ("O", "B-PER", "B-LOC")
    data = load(tmp_path, lines(*rows), suffix=".jsonl", target="tags", text="a", label="b", label_names=names)
    assert (data.label_names, data.train[0]["tags"]) == (names, [1, 0])


def test_tags_that_are_numbers_get_the_names_given(tmp_path: Path) -> None:
    """0, 1 and 2 are the first, second and third name."""
    rows = [{"tokens": ["Anna", "left"], "tags": [1, 0]}, {"tokens": ["Rome"], "tags": [2]}]
    names = ("O", "B-PER", "B-LOC")
    data = load(tmp_path, lines(*rows), suffix=".jsonl", target="tags", label_names=names)
    assert (data.label_names, data.train["tags"][:]) == (names, [[1, 0], [2]])


def test_tags_of_parquet_know_their_names(tmp_path: Path) -> None:
    """The names that `datasets` stores in a parquet file are taken."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"tokens": [Value("string")], "ner_tags": [ClassLabel(names=["O", "B-PER", "I-PER"])]})
    content = {"tokens": [["Anna", "left"]], "ner_tags": [[1, 0]]}
    Dataset.from_dict(content, features=features).to_parquet(tmp_path / "t.parquet")
    uri = f"path:{tmp_path / 't.parquet'}"
    data = read(settings(), "tags", train=uri, test=uri)
    assert (data.label_names, data.train[0]["tags"]) == (("O", "B-PER", "I-PER"), [1, 0])


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (lines(ANNA, {"tokens": [], "ner_tags": []}), "", r"train\.jsonl: row 2 has no words in column 'tokens'"),
        (lines(ANNA, ROME | {"ner_tags": ["O", "O"]}), "", r"row 2 has 1 words and 2 tags; give one tag per word"),
        (lines(ANNA, ROME | {"ner_tags": None}), "", r"row 2 has 1 words and 0 tags"),
        (lines(ANNA), lines(ROME), r"test\.jsonl: row 1 has the tag 'B-LOC', which is not among the 2 known ones"),
        (lines(ANNA, ROME | {"ner_tags": [None]}), "", r"row 2 has the tag '', which is not among"),
        (lines(ANNA, ROME | {"tokens": [None]}), "", r"row 2 holds no list of words in column 'tokens'"),
        (lines({"tokens": "Anna", "ner_tags": ["O"]}), "", r"row 1 holds no list of words"),
        (lines({"tokens": ["Anna"], "ner_tags": "O"}), "", r"column 'ner_tags' has no lists of tags"),
        (
            lines({"text": "Anna", "ner_tags": ["O"]}),
            "",
            r"no column is called words or tokens; name the one with lists",
        ),
        (lines({"tokens": ["Anna"], "label": ["O"]}), "", r"called tags or ner_tags.* with dataset\.options\.label"),
    ],
)
def test_a_mistake_in_words_or_tags_is_named(tmp_path: Path, train: str, test: str, says: str) -> None:
    """One sentence with the file and the row or column."""
    with pytest.raises(UserError, match=says) as raised:
        load(tmp_path, train, test, suffix=".jsonl", target="tags")
    assert "\n" not in str(raised.value)


def test_csv_holds_no_tags(tmp_path: Path) -> None:
    """Its cells are text."""
    with pytest.raises(UserError, match="has no lists of tags; give a json, jsonl or parquet file with lists"):
        load(tmp_path, "tokens,tags\nAnna left,B-PER O\n", target="tags", header=True)
