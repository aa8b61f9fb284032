"""Places of code fragments in functions, found by tokens, which reformatting leaves.

Two texts are the same fragment where they have the same tokens. Whitespace, line breaks, comments
and a comma before a closing bracket make no difference. A fragment need not be a whole expression:
its brackets may be unbalanced, which is why the standard library's tokenizer is not used.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from token import EXACT_TOKEN_TYPES

MODULE = "<module>"
"""Stands for a function's name where code is in no function."""

NUMBER = r"(?:\d|\.\d)(?:[eE][+-]\d|[\w.])*"
STRING_PREFIX = r"(?:[bBfFrRuU]|[bBfF][rR]|[rR][bBfF])?"
STRING_BODIES = (
    r'"""(?:[^\\]|\\.)*?"""',
    r"'''(?:[^\\]|\\.)*?'''",
    r'"(?:[^"\\\n]|\\.)*"',
    r"'(?:[^'\\\n]|\\.)*'",
)
STRING = f"{STRING_PREFIX}(?:{'|'.join(STRING_BODIES)})"
LONGEST_OPERATORS_FIRST = sorted(EXACT_TOKEN_TYPES, key=len, reverse=True)
OPERATOR = "|".join(map(re.escape, LONGEST_OPERATORS_FIRST))
IGNORED = r"\s+|\\\n|\#[^\n]*"
PATTERN = re.compile(
    # the last kind is any character that Python does not know, such as the quote of half a string
    f"(?P<ignored>{IGNORED})|(?P<token>{STRING}|{NUMBER}|\\w+|{OPERATOR}|.)",
    re.DOTALL,
)
CLOSING_BRACKETS = {")", "]", "}"}


@dataclass(frozen=True)
class Token:
    """A token's text, and the offsets in the code between which it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Span:
    """A part of a source text: the offset of its first character, and that after its last."""

    start: int
    end: int


def tokens(code: str) -> list[Token]:
    """Return the tokens of a file or a fragment, without any comma before a closing bracket."""
    every_token = [
        Token(match["token"], match.start(), match.end())
        for match in PATTERN.finditer(code)
        if match["token"] is not None
    ]
    kept = [
        current
        for current, following in pairwise(every_token)
        if not (current.text == "," and following.text in CLOSING_BRACKETS)
    ]
    return kept + every_token[-1:]


def functions(source: str) -> dict[str, set[int]]:
    """Return the numbers of the lines of each function, by its name; MODULE has all other lines.

    A method is named `Class.method`. A function in a function belongs to the outer one. Functions
    of one name, such as a property's getter and setter, count as one.
    """
    lines: dict[str, set[int]] = {MODULE: set(range(1, source.count("\n") + 2))}
    for name, definition in _definitions(ast.parse(source), ""):
        decorators = [decorator.lineno for decorator in definition.decorator_list]
        first_line = min([definition.lineno, *decorators])
        last_line = definition.end_lineno or definition.lineno
        function_lines = set(range(first_line, last_line + 1))
        lines.setdefault(name, set()).update(function_lines)
        lines[MODULE] -= function_lines
    return lines


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Yield the functions in a module or class, and in its classes, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{prefix}{child.name}.")
        else:  # such as an `if` around a definition
            yield from _definitions(child, prefix)


def occurrences(fragment: str, source: str, function_lines: set[int]) -> list[Span]:
    """Return each place in these lines of a source where the fragment's tokens stand."""
    wanted = [token.text for token in tokens(fragment)]
    source_tokens = tokens(source)
    source_texts = [token.text for token in source_tokens]
    spans = []
    for first in range(len(source_texts) - len(wanted) + 1):
        last = first + len(wanted) - 1
        if source_texts[first : last + 1] != wanted:
            continue
        span = Span(source_tokens[first].start, source_tokens[last].end)
        if {_line(source, span.start), _line(source, span.end)} <= function_lines:
            spans.append(span)
    return spans


def _line(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1
