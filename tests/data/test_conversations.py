"""Conversations of tables: the shapes that files come in, and rows that are none, told by file
and row.
"""

import datetime
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from datasets import Dataset
from huggingface_hub import constants

from helpers import tiny
from helpers.fake_hub import cached
from helpers.language_models import TURNS as TEMPLATE
from helpers.language_models import save_letters
from hpml_bench.builtin.datasets import text_files
from hpml_bench.data import prepare as preparation
from hpml_bench.data.conversations import ROLES, as_conversations, find_turns
from hpml_bench.data.draw import retention_rows
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.plugins.rows import read_rows
from hpml_bench.system.child import in_order
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("offline_cache")

Row = dict[str, Any]
ASKED: Row = {"prompt": "What is 2+2?", "completion": "4"}
CHAT: Row = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
}
SHARED: Row = {
    "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
}
FOUR: Row = {"prompt": "What is 2+2?", "completion": "four"}
ALPACA: Row = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
ALPACA_BARE: Row = {"instruction": "Say hi.", "input": "", "output": "hi"}


def said(*turns: str) -> Row:
    pairs = [turn.split(": ", 1) for turn in turns]
    return {
        "contents": [content for _, content in pairs],
        "roles": [role for role, _ in pairs],
        "choices": [],
    }


def write(path: Path, rows: list[Row]) -> Path:
    """Write rows as the file's name asks for."""
    kind = path.suffix
    if kind == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif kind == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        Dataset.from_list(rows).to_parquet(path)
    return path


def load(path: Path, **options: Any) -> LoadedData:
    """Load a file as training and test rows of conversations."""
    uri = f"path:{path}"
    given_ = text_files.TextFiles.Options(train=uri, test=uri, **options)
    data = text_files.TextFiles(given_).load(tiny.settings(), "answer")
    assert data.train["place"][:] == [f"{path}: row {row + 1}" for row in range(len(data.train))]
    left = [name for name in ("place", "messages") if name in data.train.column_names]
    return replace(data, train=data.train.remove_columns(left), test=data.test.remove_columns(left))


def converted(table: Dataset) -> Dataset:
    found = as_conversations(table, "f", find_turns(table, "f"))
    if reason := next(filter(None, found["bad"]), None):
        raise UserError(reason)
    return found.select_columns(["contents", "roles", "choices"])


def loaded(path: Path, rows: list[Row], **options: Any) -> list[Row]:
    return list(load(write(path, rows), **options).train)


def refused(path: Path, text: str, **options: Any) -> str:
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        load(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def lines(*rows: Any) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


# Shapes


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("row", "expected", "columns"),
    [
        (CHAT, said("system: Be short.", "user: Hi", "assistant: Hello"), "turns from messages"),
        (SHARED, said("user: Hi", "assistant: Hello"), "turns from conversations"),
        (
            ASKED,
            said("user: What is 2+2?", "assistant: 4"),
            "prompt from prompt; completion from completion",
        ),
        (
            ALPACA,
            said("user: Add.\n\n2 and 2", "assistant: 4"),
            "prompt from instruction, input; completion from output",
        ),
        (
            ALPACA_BARE,
            said("user: Say hi.", "assistant: hi"),
            "prompt from instruction, input; completion from output",
        ),
        ({"text": "A text."}, said("assistant: A text."), "text from text"),
        (
            {"question": "Q?", "answer": "b", "choices": ["a", "b"]},
            said("user: Q?", "assistant: b") | {"choices": ["a", "b"]},
            "prompt from question; completion from answer; choices from choices",
        ),
        (
            {"prompt": CHAT["messages"][:2], "completion": CHAT["messages"][2:]},
            said("system: Be short.", "user: Hi", "assistant: Hello"),
            "prompt from prompt; completion from completion",
        ),
    ],
)
def test_shapes_are_known_by_their_columns(
    tmp_path: Path, kind: str, row: Row, expected: Row, columns: str
) -> None:
    """Messages, ShareGPT's, prompt and completion, Alpaca's with and without input, text,
    choices, TRL's.
    """
    data = load(write(tmp_path / f"rows{kind}", [row, row]))
    assert list(data.train) == list(data.test) == [expected, expected]
    assert data.notes["columns"] == columns
    assert data.label_names == ()


@pytest.mark.parametrize("row", [SHARED, ASKED])
def test_a_system_prompt_may_have_a_column(tmp_path: Path, row: Row) -> None:
    """It comes first, where it isn't empty, and two of them are refused."""
    rows = [row | {"system": "Be short."}, row | {"system": " "}, row | {"system": None}]
    (bare, _) = loaded(tmp_path / "bare.jsonl", [row, row])
    first, *others = loaded(tmp_path / "rows.jsonl", rows)
    assert first == bare | {
        "roles": ["system", *bare["roles"]],
        "contents": ["Be short.", *bare["contents"]],
    }
    assert others == [bare, bare]
    assert load(tmp_path / "rows.jsonl").notes["columns"].endswith("; system prompt from system")
    says = refused(tmp_path / "two.jsonl", lines(CHAT | {"system": "Be long."}))
    assert (
        "two.jsonl: row 1 has a system prompt in column 'system' and one among its turns; remove "
        "one" in says
    )


def test_keys_of_turns_that_are_not_read_are_told(tmp_path: Path) -> None:
    """In the notes of the data set, by name."""
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0, "mood": "good"},
    ]
    data = load(write(tmp_path / "rows.jsonl", [{"messages": turns}]))
    assert data.notes["keys of turns left unread"] == "mood"
    for empty in (None, "", {}):
        row = {"messages": [USER, ANSWER | {"function_call": empty}]}
        notes = load(write(tmp_path / "empty.jsonl", [row])).notes
        assert "keys of turns left unread" not in notes, empty
    assert list(data.train["weights"]) == [[1.0, 0.0]]
    assert "keys of turns left unread" not in load(write(tmp_path / "plain.jsonl", [CHAT])).notes


@pytest.mark.parametrize("key", ["loss", "train", "weight"])
def test_a_turn_that_is_not_to_be_learnt_is_masked(key: str, tmp_path: Path) -> None:
    """By each name of the key; false, 0, and none for the default."""
    answers: list[dict[str, Any]] = [{key: False}, {key: True}, {key: 0}, {key: 1}, {}]
    turns = [
        turn
        for answer in answers
        for turn in ({"from": "human", "value": "a"}, {"from": "gpt", "value": "b", **answer})
    ]
    data = load(write(tmp_path / "rows.jsonl", [{"conversations": turns}]))
    assert list(data.train["weights"]) == [[1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]]
    assert "keys of turns left unread" not in data.notes


def test_every_known_speaker_has_a_role(tmp_path: Path) -> None:
    """Both spellings of a turn, also side by side."""
    for name, role in ROLES.items():
        value = '{"name": "b"}' if name == "function_call" else "b"
        turns = [
            {"role": "user", "content": "a"},
            {"from": name, "value": value},
            {"role": "model", "content": "c"},
        ]
        if role == "system":
            turns = [{"from": name, "value": "b"}, *turns[2:]]
        (row,) = loaded(tmp_path / f"{name}.jsonl", [{"dialog": turns}])
        assert role in row["roles"]
        assert row["roles"][-1] == "assistant"


def test_columns_can_be_given(tmp_path: Path) -> None:
    """By name or position: a prompt of two with a separator, a column of turns, one of text; a
    label alone too.
    """
    row = {
        "id": 1,
        "a": "one",
        "b": "two",
        "c": "three",
        "said": SHARED["conversations"],
        "prompt": "four",
    }
    path = write(tmp_path / "rows.jsonl", [row])
    prompt = said("user: one\n\ntwo", "assistant: three")
    assert list(load(path, text=("a", "b"), label="c").train) == [prompt]
    assert list(load(path, text=(2, 3), label=4).train) == [prompt]
    piped = load(path, text=("a", "b"), label="c", separator=" | ").train
    assert list(piped) == [said("user: one | two", "assistant: three")]
    assert list(load(path, text="said").train) == [said("user: Hi", "assistant: Hello")]
    assert list(load(path, text="a").train) == [said("assistant: one")]
    assert list(load(path, label="c").train) == [said("user: four", "assistant: three")]
    for options, says in (
        ({"text": "d"}, "there is no column 'd'"),
        ({"label": 9}, "there is no column 9"),
    ):
        with pytest.raises(UserError, match=f"rows.jsonl: {says}; the columns are 1 'id', 2 'a'"):
            load(path, **options)


# Texts are kept letter by letter

HARD = "  é e\u0301 \u05e9\u05dc\u05d5\u05dd \u202eabc \x00 \r\n\t\u2028 😀 <s> \ufeff|\"',;\\n NA "


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".csv", ".parquet"])
def test_texts_come_as_they_stand(tmp_path: Path, kind: str) -> None:
    """Spaces at the ends, right-to-left letters, NUL, line ends, escapes, NA and numbers with
    zeros in front.
    """
    texts = [HARD, "NA", "null", "01", "1.50", "true", "-", "2024-01-01", "x"]
    rows = [{"prompt": text, "completion": text} for text in texts]
    assert [row["contents"] for row in loaded(tmp_path / f"rows{kind}", rows)] == [
        [text, text] for text in texts
    ]


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (0.5, "float"),
        (True, "bool"),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "datetime"),
        (b"x", "bytes"),
    ],
)
def test_a_cell_whose_text_is_lost_is_refused(cell: Any, kind: str) -> None:
    """A number with decimals may have had more zeros, a date another form; a whole number is its
    digits.
    """
    table = Dataset.from_list([{"prompt": "a", "completion": cell}])
    with pytest.raises(
        UserError,
        match=rf"^f: row 1 holds .* as a {kind} in column 'completion', so that its own tex",
    ):
        converted(table)
    whole = Dataset.from_list([{"prompt": 2, "completion": 12345678901}])
    assert converted(whole)[0]["contents"] == ["2", "12345678901"]


# Choices


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("b", "b"),
        ("B", "b"),
        (" c ", "c"),
        ("1", "b"),
        (2, "c"),
        ("0", "a"),
        *((wrong, None) for wrong in ("d", "D", 3, -1, 1.5, None, True, "")),
    ],
)
def test_an_answer_names_its_choice(answer: Any, expected: str | None) -> None:
    """By its text, its letter or its number from 0; one that names none is refused, with the row
    and the answer.
    """
    table = Dataset.from_list([{"question": "Q?", "answer": answer, "choices": ["a", "b", "c"]}])
    if expected is not None:
        assert converted(table)[0] == said("user: Q?", f"assistant: {expected}") | {
            "choices": ["a", "b", "c"]
        }
        return
    with pytest.raises(
        UserError, match=r"^f: row 1 has the answer '.*', which names none of its 3 choices$"
    ):
        converted(table)


@pytest.mark.parametrize(
    ("answer", "expected"), [(1, "3"), ("1", "1"), (3, "0"), ("3", "3"), ("D", "0")]
)
def test_a_number_among_numbers_is_a_place_and_a_text_is_itself(answer: Any, expected: str) -> None:
    """Where the choices are numbers, as MMLU's arithmetic has them, a cell's type tells which is
    meant.
    """
    table = Dataset.from_list(
        [{"question": "Q?", "answer": answer, "choices": ["2", "3", "1", "0"]}]
    )
    assert converted(table)[0]["contents"][-1] == expected


@pytest.mark.parametrize("options", ["A) a B) b", {"text": ["a", "b"], "label": ["A", "B"]}, None])
def test_what_is_no_list_of_choices_is_left_alone(options: Any) -> None:
    """A column of that name that holds text or mappings, or nothing in a row, changes no answer."""
    table = Dataset.from_list([{"question": "Q?", "answer": "A", "options": options}])
    assert converted(table)[0] == said("user: Q?", "assistant: A")


# Rows that are no conversations

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
PARTS: Row = {
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a and"}, {"type": "text", "text": " b"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
}
IMAGE = {"role": "user", "content": [{"type": "image", "text": None}]}
ADD: Row = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
TOOLS: Row = {"messages": [USER, ANSWER], "tools": [{"name": "add"}]}


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        (
            ASKED,
            ASKED | {"prompt": ""},
            "has no text in column 'prompt'; fill it or remove the row",
        ),
        (ASKED, ASKED | {"prompt": None}, "has no text in column 'prompt'"),
        (ASKED, ASKED | {"completion": " \n"}, "has no text in column 'completion'"),
        (ASKED, {"prompt": "a"}, "has no text in column 'completion'"),
        (
            ASKED,
            ASKED | {"prompt": [USER]},
            "holds \"[{'role': 'user', 'content': 'a'}]\", which is or looks",
        ),
        (
            FOUR,
            FOUR | {"completion": {"a": "b"}},
            "holds \"{'a': 'b'}\", which is or looks like no text, in",
        ),
        (
            FOUR,
            FOUR | {"completion": 4},
            "holds '4', which is or looks like no text, in column 'completion'",
        ),
        (
            ALPACA,
            ALPACA | {"instruction": "", "input": ""},
            "has no text in column 'instruction' or 'input'",
        ),
        ({"text": "a"}, {"text": ""}, "has no text in column 'text'"),
        (
            CHAT,
            {"messages": [USER]},
            "ends with a turn of the user; there is no answer to learn, so remove that turn",
        ),
        (CHAT, {"messages": [ANSWER, USER]}, "ends with a turn of the user"),
        (CHAT, {"messages": CHAT["messages"][:1]}, "ends with a turn of the system"),
        (
            CHAT,
            {"messages": []},
            "has no list of turns in column 'messages'; give all rows one shape",
        ),
        (CHAT, {"messages": None}, "has no list of turns in column 'messages'"),
        (CHAT, ASKED, "has no list of turns in column 'messages'; give all rows one shape"),
        (
            CHAT,
            {"messages": [USER, {"role": "judge", "content": "b"}]},
            "has a turn 2 of the role 'judge'; known are",
        ),
        (
            CHAT,
            {"messages": [USER, {"role": "tool", "content": "b"}]},
            "ends with a turn of the tool; there is no ans",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"tool_calls": "add"}]},
            "has a turn 2 whose tool_calls are not the assis",
        ),
        (
            CHAT,
            {"messages": [USER | {"tool_calls": [ADD]}, ANSWER]},
            "has a turn 1 whose tool_calls are not the assis",
        ),
        (
            CHAT,
            {"messages": [USER, {"from": "function_call", "value": "add"}]},
            "has a turn 2 of the role function_call whose 'value' is no JSON; write",
        ),
        (
            CHAT,
            {"messages": [USER, {"role": "function_call", "content": None}]},
            "has a turn 2 of the role function_call whose 'content' is no JSON; write",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"content": None, "function_call": {"name": "add"}}]},
            "has a turn 2 with the key 'function_call', which is not read; give the call in a list "
            "'tool_calls'",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"loss": "no"}]},
            "has a turn 2 with 'no' for 'loss'; give false (not learnt) or true",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"loss": False, "weight": 1}]},
            "has a turn 2 whose keys 'weight' and 'loss' disagree on whether it is learnt",
        ),
        (CHAT, {"messages": [{"content": "a"}, ANSWER]}, "has a turn 1 of the role 'None'"),
        (
            CHAT,
            {"messages": [USER, {"role": "assistant", "content": " "}]},
            "has an empty turn 2; fill it or remove",
        ),
        (
            CHAT,
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "has a turn 2 whose content is no text",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER, CHAT["messages"][0], ANSWER]},
            "has a system prompt after its first turn",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"text": "a"}]}, ANSWER]},
            "has a turn 1 whose content is",
        ),
        (CHAT, {"messages": [USER, "b"]}, "has a turn 2 that is no mapping of role and content"),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"weight": 0.5}]},
            "has the weight 0.5 in turn 2; write the number 1 to learn the turn or 0",
        ),
        (
            CHAT,
            {"messages": [USER, ANSWER | {"weight": "0"}]},
            "has the weight '0' in turn 2; write the number 1 to learn the turn or 0",
        ),
        (CHAT, {"messages": [{"role": "system", "content": ""}]}, "ends with a turn of the system"),
        (
            PARTS,
            {"messages": [IMAGE, ANSWER]},
            "has a turn 1 with a part of the type 'image'; only text is read",
        ),
        (
            TOOLS | {"tools": "[]"},
            TOOLS | {"tools": "add"},
            "holds no list in column 'tools'; give definitions",
        ),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, good: Row, bad: Row, says: str) -> None:
    """By file and row, in one sentence, and never left out silently."""
    found = refused(tmp_path / "rows.jsonl", lines(good, good, bad, good))
    assert f"rows.jsonl: row 3 {says}"[:40] in found, found
    assert says in found


GOOD = json.dumps(ASKED)
WRONG = [
    (
        "rows.jsonl",
        lines(*[ASKED] * 2500, ASKED | {"prompt": ""}),
        "row 2501 has no text in column 'prompt'",
    ),
    # where one row holds a number, the reader makes numbers of other rows' texts, 01 and 4.50 among
    # them
    (
        "rows.jsonl",
        lines(FOUR, FOUR | {"completion": "4.50"}, FOUR | {"completion": 4}),
        "row 2 holds '4.5', which is",
    ),
    # the reader takes a column of texts that look like dates for dates
    (
        "rows.jsonl",
        lines(FOUR | {"completion": "2024-01-01"}),
        "holds '2024-01-01 00:00:00' as a datetime in column",
    ),
    (
        "rows.csv",
        'messages,id\n"[{""role"": ""user""}]",1\n',
        "row 1 holds text in column 'messages', not a list of",
    ),
    (
        "rows.jsonl",
        lines({"first": "a", "second": "b"}),
        "none is called messages or conversations, or prompt or",
    ),
    (
        "rows.jsonl",
        lines({"first": "a"}),
        "with dataset.options.text and dataset.options.label (1 'first')",
    ),
    *(
        ("rows.jsonl", f"{GOOD}\n{torn}\n{GOOD}\n", "can't be read as jsonl: line 2 is no JSON (")
        for torn in (
            '{"prompt": "a", "completion": "b',
            '{"prompt": "a", "completion": "b"}}',
            '{"prompt": "a" "completion": "b"}',
            "prompt from a",
        )
    ),
]


@pytest.mark.parametrize(("name", "text", "says"), WRONG)
def test_a_file_without_conversations_is_named(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    """Beyond the batches in which rows are read, by columns that are none, and by torn lines:
    nothing is guessed.
    """
    found = refused(tmp_path / name, text)
    assert name in found
    assert says in found


def test_mistakes_beside_the_training_rows_are_told(tmp_path: Path) -> None:
    """A test file without their columns; and a row of a file whose test rows are split off by
    its line.
    """
    train, test = write(tmp_path / "train.jsonl", [ASKED]), write(tmp_path / "test.jsonl", [CHAT])
    options = text_files.TextFiles.Options(train=f"path:{train}", test=f"path:{test}")
    with pytest.raises(
        UserError, match=r"test\.jsonl: there is no column 'prompt'; there is 1 'messages'$"
    ):
        text_files.TextFiles(options).load(tiny.settings(), "answer")
    train.write_text(lines(*[ASKED] * 40, ASKED | {"prompt": ""}, *[ASKED] * 9))
    with pytest.raises(UserError, match=r"train\.jsonl: row 41 has no text in column 'prompt'"):
        text_files.TextFiles(options.model_copy(update={"test": None})).load(
            tiny.settings(test_samples=25), "answer"
        )


# General text


def general(path: Path, content: str | bytes, most: int = 100) -> list[list[str]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    empty = LoadedData(*[Dataset.from_dict({})] * 3)
    rows = retention_rows(f"path:{path}", most, empty, tiny.settings())
    return sorted(row["contents"] for row in rows)


def test_general_text_is_of_lines_or_rows(tmp_path: Path) -> None:
    """A line a text, empty ones left out; or the rows of a table, whose cells stand as they are."""
    assert general(tmp_path / "a.txt", "one\n\n  \ntwo 01\n") == [["one"], ["two 01"]]
    assert general(tmp_path / "a.csv", "text,n\nNA,1\n01,2\n1.50,3\n") == [["01"], ["1.50"], ["NA"]]
    assert general(tmp_path / "a.jsonl", lines({"text": "one"}, {"text": "two"})) == [
        ["one"],
        ["two"],
    ]
    assert general(tmp_path / "a.tsv", "text\tn\nNA\t1\n01\t2\n") == [["01"], ["NA"]]
    assert general(
        tmp_path / "c.jsonl", lines({"text": "one"}, {"text": " "}, {"text": "two"})
    ) == [["one"], ["two"]]
    assert general(tmp_path / "b.jsonl", lines(ASKED)) == [["What is 2+2?", "4"]]
    assert len(general(tmp_path / "b.txt", "".join(f"line {n}\n" for n in range(50)), most=7)) == 7


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "\n \n", "a.txt holds no text"),
        (
            "a.pdf",
            "x",
            "a.pdf: is no file that can be read; it must end in .csv, .tsv, .tab, .json, .json",
        ),
        (
            "a.jsonl",
            lines({"prompt": "a", "completion": "b"}, {"prompt": ""}),
            "a.jsonl: row 2 has no text in column",
        ),
        ("a.csv", "first,second\nx,y\n", "a.csv: no columns look like conversations"),
        ("a.txt", b"caf\xe9\n", "a.txt: can't be read as txt: "),
    ],
)
def test_general_text_that_is_none_is_refused(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    """In one sentence with the file, and the row."""
    with pytest.raises(UserError) as raised:
        general(tmp_path / name, content)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_general_text_can_be_the_hubs_or_the_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That file alone is asked for; the hub's cache serves, and a mistake is told."""
    folder = cached(tmp_path / "hub", "datasets--o--texts")
    (folder / "raw").mkdir()
    Dataset.from_dict({"text": ["one", "", "two"]}).to_parquet(folder / "raw" / "test.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    empty = LoadedData(*[Dataset.from_dict({})] * 3)
    rows = retention_rows("hub:o/texts/raw/test.parquet", 10, empty, tiny.settings())
    assert sorted(row["contents"] for row in rows) == [["one"], ["two"]]
    for source, says in (
        ("hub:o/texts", "write hub:OWNER/NAME/FILE"),
        ("hub:o/texts/b.txt", "has no such file"),
        (
            "dataset",
            "the data set text_files has no general text of its own; name a file with path",
        ),
    ):
        with pytest.raises(UserError, match=says):
            retention_rows(source, 10, empty, tiny.settings())
    own = replace(empty, retention=Dataset.from_list([said(f"assistant: {n}") for n in "abc"]))
    assert len(retention_rows("dataset", 2, own, tiny.settings())) == 2


# From file to tokens


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letters(tmp_path_factory.mktemp("model"))


@pytest.fixture
def prepare_rows(byte_model: Path, tmp_path: Path) -> Callable[..., Prepared]:
    """Return a function that prepares rows of JSON lines."""

    def of(rows: list[Row], max_length: int = 60, **options: Any) -> Prepared:
        train = write(tmp_path / "train.jsonl", rows)
        task = {"name": "causal_lm", "options": {"template": TEMPLATE} | options}
        dataset = {
            "name": "text_files",
            "options": {"train": f"path:{train}", "test": f"path:{train}"},
        }
        sizes = {
            "validation_samples": 1,
            "test_samples": len(rows),
            "global_batch": 2,
            "max_length": max_length,
        }
        return prepare(
            tiny.settings(backbone=f"path:{byte_model}", task=task, dataset=dataset, **sizes)
        )

    return of


def rows_of(number: int, **changes: Any) -> list[Row]:
    return [{"prompt": f"q{n}", "completion": f"a{n}"} | changes for n in range(number)]


def test_what_happened_to_rows_is_in_the_notes(prepare_rows: Callable[..., Prepared]) -> None:
    """How many were left out or cut, and their tokens, a split; special tokens kept as text;
    changed texts.
    """
    long = {"prompt": "q" * 80, "completion": "a"}
    shown = {"prompt": "what is <|end|>?", "completion": "it is <|end|>"}
    done = prepare_rows([*rows_of(8), long, shown])
    note = "rows longer than max_length"
    assert "test 1 of 10 rows left out (87 tokens)" in done.notes[note]
    assert read_rows(Path(done.data) / "test").num_rows == 9
    # kept in the test rows, and in the training rows if it is one of these
    assert done.notes["special tokens in turns, kept as text"] in {"2", "4"}
    assert f"{note}: {done.notes[note]}" in done.warnings
    cut = prepare_rows([*rows_of(8), long, shown], too_long="cut_prompt")
    assert "test 1 prompts cut (27 tokens)" in cut.notes[note]
    assert max(map(len, read_rows(Path(cut.data) / "test").column("input_ids").to_pylist())) == 60
    plain = prepare_rows(rows_of(8))
    assert plain.notes[note] == "none"
    assert not any(warning.startswith(note) for warning in plain.warnings)


def test_more_text_than_predictions_hold_is_refused(
    prepare_rows: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the training, whose predictions would be unreadable."""
    size = sum(len(row["prompt"] + row["completion"]) for row in rows_of(8))
    monkeypatch.setattr("hpml_bench.data.prepare.MOST_TEXT", size)
    prepare_rows(rows_of(8))
    monkeypatch.setattr("hpml_bench.data.prepare.MOST_TEXT", size - 1)
    with pytest.raises(UserError, match=f"8 test rows take {size} bytes.*; lower test_samples"):
        prepare_rows(rows_of(8))


@pytest.mark.parametrize("short", [True, False])
def test_several_processes_prepare_the_same(
    short: bool, prepare_rows: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with the same counts, rows of each answer and groups; of few rows there is
    one process.
    """
    chats = [
        {
            "messages": [
                m
                for word in (f"{n} a", f"{n} <|end|>")
                for m in ({"role": "user", "content": word}, {"role": "assistant", "content": word})
            ]
        }
        for n in range(24)
    ]
    spied = Mock(side_effect=in_order)
    monkeypatch.setattr(preparation, "in_order", spied)
    monkeypatch.setattr(preparation, "BATCH", 30 if short else 5)
    made = []
    for cores in (1, 3):
        monkeypatch.setattr(preparation, "cores", lambda cores=cores: cores)
        done = prepare_rows(chats, loss_on="each", max_length=64)
        files = {
            path.parent.name: path.read_bytes() for path in sorted(Path(done.data).glob("*/*"))
        }
        made.append((files, (Path(done.data) / "manifest.json").read_text(), done))
        shutil.rmtree(done.data)
    assert made[0] == made[1]
    assert (max(call.args[2] for call in spied.call_args_list) > 1) is not short
    assert done.notes["groups"] == "48 test rows in 24 groups"
    assert done.notes["examples made of rows of several answers, one of each answer"] == "96"


def test_too_few_short_rows_are_refused(prepare_rows: Callable[..., Prepared]) -> None:
    """With how many are left, and how many are needed."""
    with pytest.raises(
        UserError, match=r"of the train rows only 0 are left .*max_length 4 tokens .*2 are needed"
    ):
        prepare_rows(rows_of(8), max_length=4)


# Rows that other tools write


def test_rows_as_others_write_them(tmp_path: Path) -> None:
    """Parts of text are joined, named `text` or `value`; a developer is the system, an empty
    system prompt none.
    """
    for kind in (".jsonl", ".parquet"):
        assert (
            loaded(tmp_path / f"parts{kind}", [PARTS, PARTS])
            == [said("user: a and b", "assistant: b")] * 2
        )
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "value": "a"}]}, ANSWER]}
    assert loaded(tmp_path / "parts.jsonl", [parts]) == [said("user: a", "assistant: b")]
    developer = {"messages": [{"role": "developer", "content": "Be short."}, USER, ANSWER]}
    empty = {"messages": [{"role": "system", "content": " "}, USER, ANSWER]}
    expected = [
        said("system: Be short.", "user: a", "assistant: b"),
        said("user: a", "assistant: b"),
    ]
    assert loaded(tmp_path / "rows.jsonl", [developer, empty]) == expected


def test_tools_are_read_from_lists_and_from_json(tmp_path: Path) -> None:
    """As a JSON list, without the keys that other rows have and this one doesn't; empty where a
    row has none.
    """
    other = [{"name": "sub", "parameters": {"type": "object"}}]
    rows = [TOOLS, TOOLS | {"tools": other}, TOOLS | {"tools": None}]
    expected = [[{"name": "add"}], other, []]
    found = load(write(tmp_path / "rows.jsonl", rows))
    assert [json.loads(text or "[]") for text in found.train["tools"]] == expected
    assert found.notes["columns"] == "turns from messages; tools from tools"
    as_text = [row | {"tools": json.dumps(row["tools"]) if row["tools"] else ""} for row in rows]
    found = load(write(tmp_path / "texts.jsonl", as_text))
    assert [json.loads(text or "[]") for text in found.train["tools"]] == expected


CALLED = [
    USER,
    {"role": "assistant", "tool_calls": [ADD]},
    {"role": "tool", "name": "add", "content": "5"},
    ANSWER,
]
OTHER = {
    "type": "function",
    "function": {"name": "find", "arguments": {"name": "x", "place": None}},
}
THOUGHT = ANSWER | {"reasoning_content": "So b.", "tool_calls": [OTHER]}
SHAREGPT: Row = {
    "conversations": [
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": json.dumps(ADD["function"])},
        {"from": "observation", "value": "5"},
        {"from": "gpt", "value": "b"},
    ]
}


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet"])
def test_tool_calls_and_reasoning_are_read(tmp_path: Path, kind: str) -> None:
    """As TRL documents them: a turn of calls without content, a tool's result; values that
    aren't there stay away.
    """
    data = load(
        write(tmp_path / f"rows{kind}", [{"messages": CALLED}, {"messages": [USER, THOUGHT]}, CHAT])
    ).train
    assert data["roles"][:2] == [["user", "assistant", "tool", "assistant"], ["user", "assistant"]]
    assert data["contents"][:2] == [["a", "", "5", "b"], ["a", "b"]]
    first, second, third = ([json.loads(keys or "{}") for keys in row] for row in data["fields"])
    assert first == [{}, {"tool_calls": [ADD]}, {"name": "add"}, {}]
    arguments = (
        OTHER["function"]["arguments"] if kind != ".parquet" else {"name": "x"}
    )  # which has no missing keys
    other = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    assert second == [{}, {"tool_calls": [other], "reasoning_content": "So b."}]
    assert third == []


def test_turns_as_sharegpt_and_trl_write_them(tmp_path: Path) -> None:
    """`function_call`, a call as JSON, and `observation`; of prompt and completion in turns the
    second is learnt.
    """
    data = load(write(tmp_path / "rows.jsonl", [SHAREGPT])).train
    assert data["roles"][0] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(data["fields"][0][1]) == {"tool_calls": [ADD]}
    data = load(
        write(tmp_path / "rows.jsonl", [{"prompt": CALLED[:3], "completion": CALLED[3:]}])
    ).train
    assert data["roles"][0] == ["user", "assistant", "tool", "assistant"]
    assert list(data["weights"]) == [[1.0, 0.0, 1.0, 1.0]]


def test_preferences_are_told_as_such(tmp_path: Path) -> None:
    """With the options that learn the chosen answers, and what compares preferences."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    said_of_row = refused(tmp_path / "p.jsonl", lines(row))
    assert "holds preferences (columns 'chosen' and 'rejected'), which no method" in said_of_row
    assert "chosen answers alone, set dataset.options.label to chosen;" in said_of_row
    assert "TRL's DPOTrainer" in said_of_row
    assert loaded(tmp_path / "p.jsonl", [row], label="chosen") == [said("user: a", "assistant: b")]
    whole = {name: [USER, ANSWER] for name in ("chosen", "rejected")}
    said_of_turns = refused(tmp_path / "w.jsonl", lines(whole))
    assert "to learn the chosen answers alone, set dataset.options.text to chosen;" in said_of_turns
    assert loaded(tmp_path / "w.jsonl", [whole], text="chosen") == [said("user: a", "assistant: b")]
    turns = [{"from": "human", "value": "a"}]
    answers: tuple[Any, ...] = ({"from": "gpt", "value": "b"}, [ANSWER], "b")
    for chosen in answers:
        begun = {"conversations": turns, "chosen": chosen, "rejected": chosen}
        said_of_turns = refused(tmp_path / "c.jsonl", lines(begun))
        advice = "set dataset.options.text to conversations and dataset.options.label to chosen;"
        assert advice in said_of_turns
        options = {"text": "conversations", "label": "chosen"}
        learnt = loaded(tmp_path / "c.jsonl", [begun], **options)
        assert learnt == [said("user: a", "assistant: b")]
    ended = whole | {"messages": [USER, ANSWER]}
    assert loaded(tmp_path / "e.jsonl", [ended]) == [said("user: a", "assistant: b")]
    odd = {"messages": {"a": 1}, "chosen": "b", "rejected": "c"}
    assert "messages" in refused(tmp_path / "o.jsonl", lines(odd))
