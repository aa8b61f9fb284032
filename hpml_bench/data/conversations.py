"""Conversations of a table: columns of turns, of prompt and completion, or of text, found by name; cells to turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpml_bench.config.base import Frozen
from hpml_bench.data.columns import Column, listed, short, told
from hpml_bench.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TURN_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog")
PROMPT_NAMES = ("prompt", "instruction", "question", "query", "q")
EXTRA_NAMES = ("input", "context")
"""Columns that may stand beside a prompt, as Alpaca's `input` does, and be empty."""
ANSWER_NAMES = ("completion", "response", "output", "answer", "a")
TEXT_NAMES = ("text", "content", "body")
CHOICE_NAMES = ("choices", "options", "endings")
SYSTEM_NAMES = ("system", "system_prompt")
READ_KEYS = frozenset({"role", "content", "from", "value"})
"""Keys of a turn; others are left unread."""
LISTS = frozenset({"List", "LargeList", "Sequence"})
"""Names that versions of `datasets` have for the type of a list."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
"""Names of who speaks, ShareGPT's included, and what they are called here."""

Turn = tuple[str, str]
"""Role and content."""


class Shape(Frozen):
    """Which columns hold what; one of the first three is there."""

    turns: str | None = None
    """Column of lists of turns: `role` and `content`, or ShareGPT's `from` and `value`."""
    prompt: tuple[str, ...] = ()
    """Columns of the prompt, joined; those empty in a row are left out."""
    text: tuple[str, ...] = ()
    """Columns of texts without a prompt."""
    completion: str | None = None
    choices: str | None = None
    system: str | None = None
    """Column of a system prompt, which may be empty."""

    def __str__(self) -> str:
        """Return the columns as notes show them."""
        if self.text:
            return f"text: {', '.join(self.text)}"
        parts = {"turns": self.turns, "prompt": ", ".join(self.prompt), "completion": self.completion}
        parts |= {"choices": self.choices, "system prompt": self.system}
        return "; ".join(f"{what}: {columns}" for what, columns in parts.items() if columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(
            name for name in (self.turns, *self.prompt, *self.text, self.completion, self.choices, self.system) if name
        )


def find_shape(dataset: Dataset, where: str, text: Sequence[Column] = (), label: Column | None = None) -> Shape:
    """Return which columns hold conversations: as given, else by name.

    A column called messages or conversations (of lists of turns); else a prompt (prompt, instruction, question, query
    or q, with Alpaca's input or a context) and a completion (completion, response, output, answer or a); else text. A
    column called system or system_prompt is the system prompt of the first two.

    Args:
        dataset: the table.
        where: what to call it in an error.
        text: columns of the prompt, or with no `label` that of turns or text, by name or 1-based position.
        label: column of the completion.

    Raises:
        UserError: a given column isn't there, or none is found.

    """
    names = list(dataset.column_names)
    given = tuple(_given(column, names, where) for column in text)
    answer = None if label is None else _given(label, names, where)
    choices = _called([name for name in names if _is_list(dataset, name)], CHOICE_NAMES)
    system = _called([name for name in names if not _is_list(dataset, name)], SYSTEM_NAMES)

    if given and answer is None:
        answer = _called([name for name in names if name not in given], ANSWER_NAMES)
        if len(given) == 1 and _is_list(dataset, given[0]) and not (answer and _is_list(dataset, answer)):
            return Shape(turns=given[0], system=system)
        if answer is None:
            return Shape(text=given)
    turns = None if given or answer else _called(names, TURN_NAMES)
    if turns:
        return Shape(turns=turns, system=system)
    answer = answer or _called(names, ANSWER_NAMES)
    if not given:
        found = (_called(names, PROMPT_NAMES), _called(names, EXTRA_NAMES))
        given = tuple(name for name in found if name and name != answer)
    if given and answer:
        system = system if system not in {*given, answer} else None
        return Shape(prompt=given, completion=answer, choices=choices, system=system)
    plain = _called(names, TEXT_NAMES)
    if plain:
        return Shape(text=(plain,))
    raise UserError(
        f"{where}: no columns look like conversations: none is called {' or '.join(TURN_NAMES[:2])}, or "
        f"{' or '.join(PROMPT_NAMES[:3])} with {' or '.join(ANSWER_NAMES[:4])}, or text; name them with "
        f"dataset.options.text and dataset.options.label ({listed(names)})"
    )


def _given(column: Column, names: list[str], where: str) -> str:
    if isinstance(column, str) and column in names:
        return column
    if isinstance(column, int) and 1 <= column <= len(names):
        return names[column - 1]
    raise UserError(f"{where}: there is no column {column!r}; the columns are {listed(names)}")


def _called(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for known in wanted for name in names if name.strip().lower() == known), None)


def _is_list(dataset: Dataset, column: str) -> bool:
    return isinstance(dataset.features[column], list) or type(dataset.features[column]).__name__ in LISTS


def as_conversations(dataset: Dataset, file: str, shape: Shape, separator: str = "\n\n") -> Dataset:
    """Return a table's rows as `contents`, `roles`, `choices` and `place` (plugins.dataset.LoadedData), and `unread`.

    The last has the keys of a row's turns that hold something and are not read, such as `weight`.

    Raises:
        UserError: a column is missing, or a row is no conversation that ends with an answer; names the row.

    """
    from datasets import Features, Value

    missing = [column for column in shape.columns if column not in dataset.column_names]
    if missing:
        raise UserError(f"{file}: there is no column '{missing[0]}'; there is {listed(dataset.column_names)}")
    texts = [Value("string")]
    with told(file):
        return dataset.map(
            _convert,
            batched=True,
            with_indices=True,
            remove_columns=dataset.column_names,
            features=Features(
                {"contents": texts, "roles": texts, "choices": texts, "place": Value("string"), "unread": texts}
            ),
            fn_kwargs={"file": file, "shape": shape, "separator": separator, "mixed": _mixed(dataset)},
        )


def _mixed(dataset: Dataset) -> frozenset[str]:
    """Return the columns whose cells are of several types: there `datasets` reads the text "01" as the number 1."""
    return frozenset(name for name, feature in dataset.features.items() if type(feature).__name__ == "Json")


def _convert(
    batch: Mapping[str, list[Any]],
    positions: list[int],
    file: str,
    shape: Shape,
    separator: str,
    mixed: frozenset[str],
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"contents": [], "roles": [], "choices": [], "place": [], "unread": []}
    for place, position in enumerate(positions):
        row = {name: batch[name][place] for name in shape.columns}
        try:
            _check_mixed(row, mixed)
            turns, choices = _row(row, shape, separator)
            turns = [*_system(row, shape, turns), *turns]
            _check(turns)
        except ValueError as error:
            raise UserError(f"{file}: row {position + 1} {error}") from None
        found["roles"].append([role for role, _ in turns])
        found["contents"].append([content for _, content in turns])
        found["choices"].append(choices)
        found["unread"].append(_unread(row[shape.turns]) if shape.turns else [])
        found["place"].append(f"{file}: row {position + 1}")
    return found


def _row(row: Mapping[str, Any], shape: Shape, separator: str) -> tuple[list[Turn], list[str]]:
    """Return a row's turns and choices.

    Raises:
        ValueError: it has none; says why, as it goes on after `row 3`.

    """
    if shape.turns:
        return _turns(row[shape.turns], shape.turns), []
    if shape.text:
        return [("assistant", _joined(row, shape.text, separator))], []
    answer = row[shape.completion or ""]
    if isinstance(row[shape.prompt[0]], list):  # TRL's: both are lists of turns
        return [*_turns(row[shape.prompt[0]], shape.prompt[0]), *_turns(answer, shape.completion or "")], []
    choices = [_text(choice, shape.choices or "") for choice in row[shape.choices] or []] if shape.choices else []
    said = _choice(answer, choices) if choices else _text(answer, shape.completion or "")
    return [("user", _joined(row, shape.prompt, separator)), ("assistant", said)], choices


def _system(row: Mapping[str, Any], shape: Shape, turns: Sequence[Turn]) -> list[Turn]:
    """Return the system prompt of its own column as a turn, where there is one and the turns have none.

    Raises:
        ValueError: both have one.

    """
    said = _cell(row[shape.system], shape.system) if shape.system else ""
    if not said.strip():
        return []
    if turns[0][0] == "system":
        raise ValueError(f"has a system prompt in column {shape.system!r} and one among its turns; remove one")
    return [("system", said)]


def _check_mixed(row: Mapping[str, Any], mixed: frozenset[str]) -> None:
    """Refuse what is no text in a column of several types: `datasets` has read texts that look like numbers as such.

    Raises:
        ValueError: it is none.

    """
    for column in mixed & set(row):
        if not isinstance(row[column], str | None):
            found = short(str(row[column]))
            raise ValueError(f"holds {found!r}, which is or looks like no text, in column {column!r}")  # noqa: TRY004


def _joined(row: Mapping[str, Any], columns: Sequence[str], separator: str) -> str:
    parts = [_cell(row[column], column) for column in columns]
    found = separator.join(part for part in parts if part.strip())
    if not found:
        raise ValueError(f"has no text in column {' or '.join(map(repr, columns))}; fill it or remove the row")
    return found


def _text(cell: Any, column: str) -> str:
    return _joined({column: cell}, (column,), "")


def _cell(cell: Any, column: str) -> str:
    """Return a cell's text as it was written; empty where there is none."""
    if isinstance(cell, list | dict):
        raise ValueError(f"holds no text in column {column!r}, unlike the rows before it; give all rows one shape")  # noqa: TRY004 - told as a row's fault
    if cell is None or (isinstance(cell, str | int) and not isinstance(cell, bool)):
        return "" if cell is None else str(cell)
    raise ValueError(
        f"holds {short(str(cell))!r} as a {type(cell).__name__} in column {column!r}, so that its own text is lost; "
        "give it as text, which in JSON must not look like a date"
    )


def _choice(answer: Any, choices: Sequence[str]) -> str:
    """Return the choice that a cell names: by its text, its number from 0, or its letter from A."""
    if not isinstance(answer, bool) and str(answer) in choices:
        return str(answer)
    letter = isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().isalpha()
    try:
        number = ord(answer.strip().upper()) - ord("A") if letter else int(str(answer))
        if 0 <= number < len(choices):
            return choices[number]
    except ValueError:
        pass
    raise ValueError(f"has the answer {short(str(answer))!r}, which names none of its {len(choices)} choices")


def _turns(cell: Any, column: str) -> list[Turn]:
    if isinstance(cell, dict):  # of lists, as some versions of `datasets` give a list of mappings
        cell = [dict(zip(cell, values, strict=True)) for values in zip(*cell.values(), strict=True)]
    if isinstance(cell, str):
        raise ValueError(f"holds text in column {column!r}, not a list of turns as json, jsonl and parquet can hold")  # noqa: TRY004
    if not isinstance(cell, list) or not cell:
        raise ValueError(f"has no list of turns in column {column!r}; give all rows one shape")
    return [_turn(turn, number) for number, turn in enumerate(cell, 1)]


def _unread(turns: Any) -> list[str]:
    """Return the keys of turns that hold something and are not read."""
    keys = (key for turn in turns if isinstance(turn, dict) for key, value in turn.items() if value is not None)
    return sorted(set(keys) - READ_KEYS)


def _turn(turn: Any, number: int) -> Turn:
    if not isinstance(turn, dict):
        raise ValueError(f"has a turn {number} that is no mapping of role and content")  # noqa: TRY004
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"has a turn {number} of the role {short(str(role))!r}; known are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise ValueError(f"has a turn {number} whose content is no text")  # noqa: TRY004
    if not content.strip():
        raise ValueError(f"has an empty turn {number}; fill it or remove the row")
    return ROLES[role], content


def _check(turns: Sequence[Turn]) -> None:
    """Refuse a conversation without an answer at its end.

    Raises:
        ValueError: it ends with somebody else, or a system prompt stands inside.

    """
    if turns[-1][0] != "assistant":
        raise ValueError(f"ends with a turn of the {turns[-1][0]}; there is no answer to learn, so remove that turn")
    if any(role == "system" for role, _ in turns[1:]):
        raise ValueError("has a system prompt after its first turn; move it to the front")
