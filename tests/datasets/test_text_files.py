"""Text files: columns, labels and splits are found in a predictable way, and mistakes are named by file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import settings

from hpml_bench.datasets import text_files
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import LoadedData

HEADERLESS = "".join(
    f'"{1 + i % 4}","Title {i}, of class {1 + i % 4}","A longer description ""number"" {i}"\n' for i in range(40)
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a cache of its own."""
    monkeypatch.setenv("HPML_BENCH_CACHE", str(tmp_path / "cache"))


def load(folder: Path, train: str, test: str | None = "", suffix: str = ".csv", **options: Any) -> LoadedData:
    """Write the files and load them; an empty test file is the training file again."""
    (folder / f"train{suffix}").write_text(train)
    uris = {"train": f"path:{folder / f'train{suffix}'}"}
    if test is not None:
        (folder / f"test{suffix}").write_text(test or train)
        uris["test"] = f"path:{folder / f'test{suffix}'}"
    return text_files.load(settings(), text_files.Options(**uris, **options))


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
    data = text_files.load(settings(), text_files.Options(train=uri, test=uri))
    assert (data.label_names, data.train[0]) == (("bad", "good"), {"text": "a", "label": 1})


def test_float_labels_that_are_whole_are_integers(tmp_path: Path) -> None:
    """A parquet column made float by a missing cell elsewhere still means classes."""
    pd.DataFrame({"text": ["a", "b"], "label": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    uri = f"path:{tmp_path / 't.parquet'}"
    assert text_files.load(settings(), text_files.Options(train=uri, test=uri)).label_names == ("1", "2")


def test_without_a_test_file_rows_are_split_off(tmp_path: Path) -> None:
    """They leave the training rows, and `data_seed` alone decides which."""
    (tmp_path / "t.csv").write_text(HEADERLESS)
    options = text_files.Options(train=f"path:{tmp_path / 't.csv'}")
    one, again, other = (text_files.load(settings(test_samples=10, data_seed=seed), options) for seed in (0, 0, 1))
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
        ("id,text\n1,one\n2,two\n3,three\n", "", {}, r"no column looks like a label; name it with task.options.label"),
        ("label,n\na,1\nb,2\n", "", {"header": True}, r"no column holds text"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, train: str, test: str, options: dict[str, Any], says: str) -> None:
    """One sentence with the file, the row or column, and what there is."""
    with pytest.raises(UserError, match=says) as raised:
        load(tmp_path, train, test, **options)
    assert "\n" not in str(raised.value)


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
            text_files.load(settings(), text_files.Options(train=f"path:{tmp_path / name}"))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """The cache of rows follows the file's content."""
    assert load(tmp_path, "label,text\na,one\nb,two\n").train["text"][0] == "one"
    assert load(tmp_path, "label,text\na,ONE\nb,two\n").train["text"][0] == "ONE"
