"""Files of rows that are garbage, of another encoding, huge or odd: rows, or one sentence that
names the file.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import tiny
from hpml_bench.builtin.datasets.hub import HubDataset
from hpml_bench.builtin.datasets.text_files import TextFiles
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.system.errors import UserError

GOOD = "label,text\n" + "a,some words\nb,other words\n" * 20


def load(path: Path, **options: Any) -> LoadedData:
    return TextFiles(TextFiles.Options(train=f"path:{path}", **options)).load(
        tiny.settings(), "class"
    )


def table(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


ROWS = [{"label": "ab"[i % 2], "text": f"words {i}"} for i in range(40)]
LINES = "\n".join(map(json.dumps, ROWS))
REFUSED: dict[str, tuple[str, bytes]] = {
    "nothing but line ends": ("csv", b"\n\n\n\n"),
    "binary": ("csv", bytes(range(256)) * 40),
    "binary as tsv": ("tsv", b"\x89PNG\r\n\x1a\n\x00\x00" * 200),
    "NULs": ("csv", b"\x00" * 5000),
    "utf-16": ("csv", GOOD.encode("utf-16")),
    "latin-1": ("csv", GOOD.replace("some", "für").encode("latin-1")),
    "ragged": ("csv", GOOD.encode() + b"a,b,c,d,e\n"),
    "an open quote": ("csv", GOOD.encode() + b'a,"never closed\n' * 3),
    "a column twice": ("csv", b"text,text\n" + b"a,b\n" * 9),
    "one column": ("csv", b"text\n" + b"words\n" * 9),
    "one row": ("csv", b"label,text\na,b\n"),
    "empty label": ("csv", GOOD.encode() + b",words\n"),
    "empty text": ("csv", GOOD.encode() + b"a,\n"),
    "half of json": ("json", json.dumps(ROWS).encode()[:-40]),
    "no json": ("json", b"label,text"),
    "json of a number": ("json", b"5"),
    "json of a text": ("json", b'"x"'),
    "deep json": ("json", b'{"a":' * 5000),
    "deep lines": ("jsonl", b"[" * 100_000),
    "lines of lists": ("jsonl", b"[1]\n[2]\n"),
    "lines of other kinds": ("jsonl", LINES.encode() + b'\n{"label": {"x": 1}, "text": 5}\n'),
    "a label that is a list": (
        "jsonl",
        b'{"label": ["a"], "text": "x"}\n{"label": ["b"], "text": "y"}\n' * 9,
    ),
    "a label that is a mapping": (
        "jsonl",
        b'{"label": {"a": 1}, "text": "x"}\n{"label": {"a": 2}, "text": "y"}\n' * 9,
    ),
    "a broken line": ("jsonl", LINES.encode() + b'\n{"label": "a", "te'),
    "bad utf-8 in lines": ("jsonl", LINES.encode() + b'\n{"label": "a", "text": "\xff\xfe"}\n'),
    "no parquet": ("parquet", GOOD.encode()),
    "parquet cut off": ("parquet", table(label=["a", "b"] * 9, text=["x", "y"] * 9)[:-20]),
    "parquet with another footer": (
        "parquet",
        table(label=["a"] * 9, text=["x"] * 9)[:-9] + b"\xff" * 5 + b"PAR1",
    ),
    "parquet without columns": ("parquet", table()),
    "parquet without rows": (
        "parquet",
        table(label=pa.array([], pa.string()), text=pa.array([], pa.string())),
    ),
    "parquet of null": ("parquet", table(label=pa.nulls(9), text=pa.nulls(9))),
    "parquet of binary labels": ("parquet", table(label=[b"\xff", None] * 9, text=["x", "y"] * 9)),
    "another ending": ("pkl", b"cos\nsystem\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_a_sentence(name: str, tmp_path: Path) -> None:
    """One line that names the file; never a traceback."""
    ending, content = REFUSED[name]
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.") as caught:
        load(path, label="label" if "label" in name else None)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("csv", GOOD.encode() + b"a," + b"x" * 3_000_000 + b"\n"),
        (
            "csv",
            GOOD.encode() + ("a,\u202e<script>alert(1)</script>\x1b[31m=1+1 \u2028x\n").encode(),
        ),
        ("csv", b"\xef\xbb\xbf" + GOOD.encode()),
        ("csv", GOOD.replace("\n", "\r\n").encode()),
        ("csv", GOOD.encode() + b'a,"two\nlines"\n'),
        ("jsonl", LINES.encode() + b'\n{"label": "a", "text": "\\ud83d\\ude00 \\u0000 x"}\n'),
        ("parquet", table(label=["a", "b"] * 9, text=["\x00", "\u202e"] * 9)),
        (
            "csv",
            b"label,text\n"
            + b"\n".join(b"9" * 5000 + b"%d,words" % (i % 2) for i in range(20))
            + b"\n",
        ),
    ],
)
def test_odd_rows_are_rows(ending: str, content: bytes, tmp_path: Path) -> None:
    """Text is text, whatever it holds and however long it is; so are labels of five thousand
    digits.
    """
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    read = load(path, text="text", label="label")
    assert len(read.label_names) == 2
    assert set(read.train["label"]) == {0, 1}


@pytest.mark.parametrize(
    "name", ["a*b", "[x]", "a?b", "a::b", "zip:", "hf:", "{x}", "%41", "ä\u202e", "-rf", "~x"]
)
def test_a_files_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    """Patterns, protocols and chains in a name are not obeyed: the file of that name is read,
    and no other.
    """
    place = tmp_path / f"{name}"
    place.mkdir()
    (tmp_path / "x").mkdir()
    for decoy in (tmp_path / "axb.csv", tmp_path / "x.csv", tmp_path / "x" / "x.csv"):
        decoy.write_text("label,text\nwrong,decoy\nworse,decoy\n" * 9)
    path = place / f"{name}.csv"
    path.write_text(GOOD)
    assert load(path).label_names == ("a", "b")


def test_many_labels_are_cut_short_in_an_error(tmp_path: Path) -> None:
    """A file whose labels are all different doesn't fill the screen."""
    (tmp_path / "train.csv").write_text(
        "label,text\n" + "".join(f"{'x' * 500}{i},words\n" for i in range(2000))
    )
    (tmp_path / "test.csv").write_text("label,text\n" + "y" * 9000 + ",words\nz,words\n")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "train.csv", test=f"path:{tmp_path / 'test.csv'}")
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:9/x.csv",
        "zip://x.csv::http://h/a.zip",
        "/etc/passwd",
        "../other.csv",
        "a/../../x.csv",
        "~/x.csv",
    ],
)
def test_a_dataset_takes_rows_from_its_own_folder_only(path: str, tmp_path: Path) -> None:
    """A card that names files elsewhere is refused before anything is fetched; one that names
    its own is followed.
    """
    own = tmp_path / "own"
    own.mkdir()
    (own / "rows.csv").write_text(GOOD)
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "
        "{}\n---\n# A dataset\n"
    )
    dataset = HubDataset(HubDataset.Options(dataset=f"path:{own}", test=None))
    (own / "README.md").write_text(card.format(json.dumps(path)))
    with pytest.raises(UserError, match="outside"):
        dataset.load(tiny.settings(), "class")
    (own / "README.md").write_text(card.format("rows.csv"))
    assert dataset.load(tiny.settings(), "class").label_names == ("a", "b")
