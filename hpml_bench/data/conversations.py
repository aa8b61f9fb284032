"""Conversations of a table: columns of turns, of prompt and completion, or of text; and their
cells as turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.data.columns import (
    Column,
    Columns,
    column_named,
    converted,
    first_named,
    listed,
    short,
)
from hpml_bench.plugins.dataset import PAIR, LoadedData
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TURN_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog")
PROMPT_NAMES = ("prompt", "instruction", "question", "query", "q")
EXTRA_NAMES = ("input", "context")
"""Columns that may supplement a prompt, such as Alpaca's `input`; their cells may be empty."""
ANSWER_NAMES = ("completion", "response", "output", "answer", "a")
TEXT_NAMES = ("text", "content", "body")
CHOICE_NAMES = ("choices", "options", "endings")
SYSTEM_NAMES = ("system", "system_prompt")
FIELDS = (
    "tool_calls",
    "tool_plan",
    "reasoning_content",
    "reasoning",
    "thinking",
    "name",
    "tool_call_id",
)
"""Keys of a turn beside its role and content that templates read, as TRL and transformers
document them.
"""
WHETHER_LEARNT = ("loss", "train")
"""Keys of a turn that say whether it is learnt, as ms-swift and Axolotl name them."""
READ_KEYS = frozenset(
    {"role", "content", "from", "value", "weight", *WHETHER_LEARNT, *FIELDS}
)  # keys of a turn; others are left unread
EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values of a turn's key that say nothing."""

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(
        ("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"
    ),
}
"""Role in the data, ShareGPT's names included -> role in a chat template."""


class Turn(NamedTuple):
    """A turn of a conversation."""

    role: str
    content: str  # empty for tool calls alone
    weight: float = 1.0  # 0 for a turn that is not learnt
    fields: Mapping[str, Any] = MappingProxyType({})  # its values of FIELDS


def find_turns(
    dataset: Dataset, where: str, text: Sequence[Column] = (), label: Column | None = None
) -> Columns:
    """Return the columns of conversations: as given, else by name.

    That is a column of lists of turns (TURN_NAMES), else a prompt and a completion, else text.
    `text` are the columns of the prompt, or with no `label` that of turns or text, and `label` is
    that of the completion.
    """
    names = list(dataset.column_names)
    given = tuple(column_named(column, names, where) for column in text)
    answer = None if label is None else column_named(label, names, where)
    choices = first_named([name for name in names if _is_list(dataset, name)], CHOICE_NAMES)
    system = first_named([name for name in names if not _is_list(dataset, name)], SYSTEM_NAMES)
    tools = first_named(names, ("tools",))

    if given and answer is None:
        answer = first_named([name for name in names if name not in given], ANSWER_NAMES)
        if (
            len(given) == 1
            and _is_list(dataset, given[0])
            and not (answer and _is_list(dataset, answer))
        ):
            return Columns(kind="turns", text=given, system=system, tools=tools)
        if answer is None:
            return Columns(kind="text", text=given)
    if not (given or answer) and (turns := first_named(names, TURN_NAMES)):
        if sentence := preferences(dataset):
            raise UserError(f"{where}: {sentence}")
        return Columns(kind="turns", text=(turns,), system=system, tools=tools)
    answer = answer or first_named(names, ANSWER_NAMES)
    if not given:
        named = (first_named(names, PROMPT_NAMES), first_named(names, EXTRA_NAMES))
        given = tuple(name for name in named if name and name != answer)
    if given and answer:
        system = system if system not in {*given, answer} else None
        return Columns(
            kind="prompt", text=given, label=answer, choices=choices, system=system, tools=tools
        )
    if sentence := preferences(dataset):
        raise UserError(f"{where}: {sentence}")
    if plain := first_named(names, TEXT_NAMES):
        return Columns(kind="text", text=(plain,))
    raise UserError(
        f"{where}: no columns look like conversations: none is called "
        f"{' or '.join(TURN_NAMES[:2])}, or {' or '.join(PROMPT_NAMES[:3])} with "
        f"{' or '.join(ANSWER_NAMES[:4])}, or text; name them with dataset.options.text and "
        f"dataset.options.label ({listed(names)})"
    )


def preferences(dataset: Dataset, task: str = "") -> str | None:
    """Return a sentence on columns of preferred and rejected answers; None where there are none,
    or where a column of turns has answers beside them.

    `task`: what else must be set to learn conversations, before the columns.
    """
    names = list(dataset.column_names)
    chosen, rejected = first_named(names, ("chosen",)), first_named(names, ("rejected",))
    if chosen is None or rejected is None:
        return None
    prompt, turns = first_named(names, PROMPT_NAMES), first_named(names, TURN_NAMES)
    if turns and _ends_with_answer(dataset[0][turns]):
        return None
    settings = [task] if task else []
    if turns:
        settings += [f"dataset.options.text to {turns}", f"dataset.options.label to {chosen}"]
    # beside a prompt that is text, lists of turns begin with the prompt
    elif prompt is None or (_is_list(dataset, chosen) and not _is_list(dataset, prompt)):
        settings.append(f"dataset.options.text to {chosen}")
    else:  # the prompt, and what supplements it, are found by their names
        settings.append(f"dataset.options.label to {chosen}")
    *others, last = settings
    advice = f"{', '.join(others)} and {last}" if others else last
    return (
        f"holds preferences (columns '{short(chosen)}' and '{short(rejected)}'), which no method "
        f"here learns; to learn the chosen answers alone, set {advice}; a trainer of preferences, "
        "such as TRL's DPOTrainer, can be compared by the method command, or its checkpoint by "
        "hpml-bench score"
    )


def _ends_with_answer(turns: Any) -> bool:
    """Return whether a cell of turns ends with one of the assistant, or can't be read as turns."""
    try:
        return _turns(turns, "")[-1].role == "assistant"
    except (ValueError, IndexError):
        return True  # told when the rows are read


def _is_list(dataset: Dataset, column: str) -> bool:
    from datasets import LargeList, List

    return isinstance(dataset.features[column], list | List | LargeList)


def as_conversations(
    dataset: Dataset, file: str, columns: Columns, separator: str = "\n\n"
) -> Dataset:
    """Return a table's rows as `contents`, `roles`, `choices` and `place`
    (plugins.dataset.LoadedData), and more.

    Further columns are `unread`, the keys of a row's turns that have a value and are not read;
    `bad`, the reason why a row is no conversation; and LoadedData's `weights`, `fields`, `tools`
    and `messages` where a row has any.
    """
    from datasets import Value

    text, texts = Value("string"), [Value("string")]
    types = {"contents": texts, "roles": texts, "choices": texts, "unread": texts}
    optional = {
        "weights": [Value("float64")],
        "fields": texts,
        "tools": text,
        "messages": Value("bool"),
    }
    kinds = {name: repr(feature) for name, feature in dataset.features.items()}
    mixed = frozenset(name for name, kind in kinds.items() if kind.startswith("Json("))
    # only columns of JSON keep apart a key without a value and one that other rows have
    exact = frozenset(name for name, kind in kinds.items() if "Json(" in kind)
    row = partial(_convert, columns=columns, separator=separator, mixed=mixed, exact=exact)
    found = converted(dataset, file, columns.read, row, types | optional)
    return found.remove_columns([name for name in optional if not any(found[name])])


def rows_of(conversations: list[list[str]]) -> Dataset:
    """Return questions with their answers as rows of conversations; a text without a question is
    one turn.
    """
    from datasets import Dataset, Features, Value

    columns: dict[str, list[list[str]]] = {
        "contents": conversations,
        "roles": [["user", "assistant"][-len(turns) :] for turns in conversations],
        "choices": [[] for _ in conversations],
    }
    return Dataset.from_dict(
        columns, features=Features({name: [Value("string")] for name in columns})
    )


def ask_for_classes(loaded: LoadedData, question: str) -> LoadedData:
    """Return texts with classes as conversations: `{text}` of the question is the text, the class's
    name the answer.

    All names are choices of each row. Spaces at the question's end begin the names, as
    lm-evaluation-harness has them.
    """
    asks = question.rstrip(" ")
    names = [question[len(asks) :] + name for name in loaded.label_names]

    def asked(row: Mapping[str, Any]) -> dict[str, Any]:
        text = "\n".join(row[name] for name in ("text", PAIR) if name in row)
        turns = [asks.replace("{text}", text), names[row["label"]]]
        return {"contents": turns, "roles": ["user", "assistant"], "choices": names}

    splits = {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}
    made = {
        name: rows
        and rows.map(
            asked, remove_columns=[c for c in ("text", PAIR, "label") if c in rows.column_names]
        )
        for name, rows in splits.items()
    }
    return replace(loaded, **made, label_names=())


def _convert(
    *cells: Any, columns: Columns, separator: str, mixed: frozenset[str], exact: frozenset[str]
) -> tuple[Any, ...]:
    """Return the values of a row's columns; a ValueError of this function and those below
    continues `FILE: row 3`.
    """
    named = zip(columns.read, cells, strict=True)
    row = {name: cell if name in exact else _without_nulls(cell) for name, cell in named}
    for column in mixed & set(row):
        if not isinstance(row[column], str | None):
            value = short(str(row[column]))
            raise ValueError(  # noqa: TRY004
                f"holds {value!r}, which is or looks like no text, in column {column!r}"
            )
    turns, choices = _turns_and_choices(row, columns, separator)
    system = _cell(row[columns.system], columns.system) if columns.system else ""
    if system.strip() and turns and turns[0].role == "system":
        raise ValueError(
            f"has a system prompt in column {columns.system!r} and one among its turns; remove one"
        )
    turns = [Turn("system", system), *turns] if system.strip() else turns
    tools: Any = row[columns.tools] if columns.tools else []
    with suppress(ValueError):
        tools = json.loads(tools) if isinstance(tools, str) and tools.strip() else tools or []
    if not isinstance(tools, list):
        raise ValueError(  # noqa: TRY004
            f"holds no list in column {columns.tools!r}; give definitions of tools, or empty it"
        )
    if not turns or turns[-1].role != "assistant":
        last = turns[-1].role if turns else "system"
        raise ValueError(
            f"ends with a turn of the {last}; there is no answer to learn, so remove that turn"
        )
    if any(turn.role == "system" for turn in turns[1:]):
        raise ValueError("has a system prompt after its first turn; move it to the front")
    of_turns = columns.kind == "turns"
    unread = _unread_keys(row[column] for column in (columns.text[0], columns.label) if column)
    weights = [turn.weight for turn in turns]
    fields = [json.dumps(turn.fields) if turn.fields else "" for turn in turns]
    contents, roles = [turn.content for turn in turns], [turn.role for turn in turns]
    definitions = json.dumps(tools) if tools else ""
    more = ([] if all(weights) else weights, fields if any(fields) else [], definitions, of_turns)
    return contents, roles, choices, sorted(unread), *more


def _unread_keys(cells: Iterable[Any]) -> set[str]:
    """Return the keys of turns that have a value and are not read."""
    turns = [turn for cell in cells if isinstance(cell, list) for turn in cell]
    mappings = [turn for turn in turns if isinstance(turn, dict)]
    keys = {key for turn in mappings for key, value in turn.items() if value not in EMPTY}
    return keys - READ_KEYS


def _turns_and_choices(
    row: Mapping[str, Any], columns: Columns, separator: str
) -> tuple[list[Turn], list[str]]:
    first, completion = columns.text[0], columns.label or ""
    if columns.kind == "turns":
        return _turns(row[first], first), []
    if columns.kind == "text":
        return [Turn("assistant", _joined(row, columns.text, separator))], []
    answer = row[completion]
    if isinstance(
        row[first], list
    ):  # TRL's: both are lists of turns, of which the completion's are learnt
        before = [
            turn._replace(weight=float(turn.role != "assistant"))
            for turn in _turns(row[first], first)
        ]
        if isinstance(answer, str):
            return [*before, Turn("assistant", _joined(row, (completion,), ""))], []
        return [*before, *_turns(answer, completion)], []
    column = columns.choices or ""
    choices = [
        _joined({column: choice}, (column,), "") for choice in (row[column] or [] if column else [])
    ]
    chosen = _choice(answer, choices) if choices else _joined(row, (completion,), "")
    return [Turn("user", _joined(row, columns.text, separator)), Turn("assistant", chosen)], choices


def _without_nulls(value: Any) -> Any:
    """Return a value without keys of None, which `datasets` adds to the mappings of a list."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _joined(row: Mapping[str, Any], columns: Sequence[str], separator: str) -> str:
    """Return the texts of a row's columns, empty ones left out; one of them must have some."""
    parts = [_cell(row[column], column) for column in columns]
    joined = separator.join(part for part in parts if part.strip())
    if not joined:
        raise ValueError(
            f"has no text in column {' or '.join(map(repr, columns))}; fill it or remove the row"
        )
    return joined


def _cell(cell: Any, column: str) -> str:
    """Return a cell's text as it was written; empty where there is none."""
    if isinstance(cell, list | dict):
        raise ValueError(  # noqa: TRY004 - told as a row's fault
            f"holds no text in column {column!r}, unlike the rows before it; give all rows one "
            f"shape"
        )
    if cell is None or (isinstance(cell, str | int) and not isinstance(cell, bool)):
        return "" if cell is None else str(cell)
    raise ValueError(
        f"holds {short(str(cell))!r} as a {type(cell).__name__} in column {column!r}, so that its "
        "own text is lost; give it as text, which in JSON must not look like a date"
    )


def _choice(answer: Any, choices: Sequence[str]) -> str:
    """Return the choice that a cell names: a number by its place from 0, a text by itself, its
    place or its letter.
    """
    if isinstance(answer, str) and answer in choices:
        return answer
    letter = isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().isalpha()
    with suppress(ValueError):
        number = ord(answer.strip().upper()) - ord("A") if letter else int(str(answer))
        if 0 <= number < len(choices):
            return choices[number]
    raise ValueError(
        f"has the answer {short(str(answer))!r}, which names none of its {len(choices)} choices"
    )


def _turns(cell: Any, column: str) -> list[Turn]:
    if isinstance(cell, dict) and any(isinstance(cell.get(key), str) for key in ("role", "from")):
        cell = [cell]  # one turn, as the answers of LLaMA-Factory's preferences are
    if isinstance(cell, dict) and all(isinstance(values, list) for values in cell.values()):
        # some versions of `datasets` give a list of mappings as a mapping of lists
        cell = [dict(zip(cell, values, strict=True)) for values in zip(*cell.values(), strict=True)]
    if isinstance(cell, str):
        raise ValueError(  # noqa: TRY004
            f"holds text in column {column!r}, not a list of turns as json, jsonl and parquet can "
            f"hold"
        )
    if not isinstance(cell, list) or not cell:
        raise ValueError(f"has no list of turns in column {column!r}; give all rows one shape")
    turns = [_turn(turn, number) for number, turn in enumerate(cell, 1)]
    return [
        turn for turn in turns if turn.content.strip() or turn.role != "system"
    ]  # an empty one is none


def _turn(turn: Any, number: int) -> Turn:
    if not isinstance(turn, dict):
        raise ValueError(f"has a turn {number} that is no mapping of role and content")  # noqa: TRY004
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    content = _parts(
        turn.get("content") if turn.get("content") is not None else turn.get("value"), number
    )
    weight = _weight(turn, number)
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(
            f"has a turn {number} of the role {short(str(role))!r}; known are {', '.join(ROLES)}"
        )
    if turn.get("function_call") not in EMPTY:
        raise ValueError(
            f"has a turn {number} with the key 'function_call', which is not read; give the call "
            "in a list 'tool_calls', as [{'type': 'function', 'function': {'name': ..., "
            "'arguments': ...}}]"
        )
    fields = {key: turn[key] for key in FIELDS if turn.get(key) not in (None, "", [])}
    if role == "function_call":
        try:  # a call, or a list of them
            called = json.loads(content)
        except (ValueError, TypeError):
            key = next((key for key in ("content", "value") if key in turn), "content")
            raise ValueError(
                f"has a turn {number} of the role function_call whose '{key}' is no JSON; write "
                f"the call there, or take the role assistant and give the call in a list "
                f"'tool_calls'"
            ) from None
        calls = called if isinstance(called, list) else [called]
        content, fields = (
            "",
            fields | {"tool_calls": [{"type": "function", "function": call} for call in calls]},
        )
    calls = fields.get("tool_calls", [])
    given = calls if isinstance(calls, list) else [None]
    functions = [call.get("function", call) if isinstance(call, dict) else None for call in given]
    named = all(
        isinstance(function, dict) and isinstance(function.get("name"), str)
        for function in functions
    )
    if not named or (calls and ROLES[role] != "assistant"):
        raise ValueError(
            f"has a turn {number} whose tool_calls are not the assistant's list of calls with names"
        )
    if content is None and (calls or ROLES[role] == "tool"):
        content = ""
    if not isinstance(content, str):
        raise ValueError(f"has a turn {number} whose content is no text")  # noqa: TRY004
    if not (content.strip() or calls or ROLES[role] in {"system", "tool"}):
        raise ValueError(f"has an empty turn {number}; fill it or remove the row")
    if weight not in (0, 1):
        raise ValueError(
            f"has the weight {short(repr(weight))} in turn {number}; write the number 1 to learn "
            f"the turn or 0 to leave it out"
        )
    return Turn(ROLES[role], content, float(weight), fields)


def _weight(turn: Mapping[str, Any], number: int) -> Any:
    """Return a turn's weight, from whichever of its keys says whether it is learnt."""
    given = {key: turn[key] for key in ("weight", *WHETHER_LEARNT) if turn.get(key) is not None}
    for key, value in given.items():
        if key != "weight" and value not in (0, 1):
            raise ValueError(
                f"has a turn {number} with {short(str(value))!r} for '{key}'; give false (not "
                f"learnt) or true"
            )
    if len({float(value) for value in given.values() if value in (0, 1)}) > 1:
        raise ValueError(
            f"has a turn {number} whose keys {' and '.join(map(repr, given))} disagree on whether "
            f"it is learnt; keep one of them"
        )
    return next(iter(given.values()), 1.0)


def _parts(content: Any, number: int) -> Any:
    """Return the text of a content that is a list of parts, each of text; any other content as
    it is.
    """
    if not isinstance(content, list) or not all(
        isinstance(part, dict) and "type" in part for part in content
    ):
        return content
    texts = []
    for part in content:
        texts.append(part.get("value") if part.get("text") is None else part["text"])
        if part["type"] != "text" or not isinstance(texts[-1], str):
            kind = short(str(part["type"]))
            raise ValueError(
                f"has a turn {number} with a part of the type {kind!r}; only text is read"
            )
    return "".join(texts)
