"""Places of code fragments: what formatting changes, and which function has them."""

import pytest
from code_fragments import MODULE, Span, functions, occurrences, tokens

FORMATTED = """\
LIMIT = total(1, 2)


class Sums:
    limit = LIMIT

    @property
    def largest(self):
        return max(self.values, key=lambda value: value % 3)

    @largest.setter
    def largest(self, value):
        def checked():
            return min(value, LIMIT)

        self.values = [checked()]


if LIMIT:

    async def total(first, second):
        return {"first": first + second}
"""
REFORMATTED = """\
LIMIT = total(
    1,
    2,  # a comment, with "quotes
)


class Sums:
    limit = LIMIT
    @property
    def largest(self):
        return max(
            self.values,
            key=lambda value: value
            % 3,
        )
    @largest.setter
    def largest(self, value):
        def checked():
            return min( value, \\
                LIMIT )
        self.values = [
            checked(),
        ]


if LIMIT:
    async def total(
        first,
        second,
    ):
        return {
            "first": first
            + second,
        }
"""
PLACES = [
    ("LIMIT = total(1, 2)", MODULE),
    ("limit = LIMIT", MODULE),
    ("key=lambda value: value % 3)", "Sums.largest"),
    ("@property", "Sums.largest"),
    ("min(value, LIMIT)", "Sums.largest"),
    ("\nreturn min(value,\n    LIMIT)\n\nself.values = [checked(),\n]", "Sums.largest"),
    ('return {"first": first + second}', "total"),
    (" + second}", "total"),
    ("(first, second):", "total"),
]
"""Fragments, each with the function that has it once."""


@pytest.mark.parametrize("source", [FORMATTED, REFORMATTED], ids=["formatted", "reformatted"])
@pytest.mark.parametrize(("fragment", "function"), PLACES)
def test_formatting_moves_no_fragment(fragment: str, function: str, source: str) -> None:
    """It is in its function alone, once, and from its first token to its last one."""
    lines = functions(source)
    spans = {name: occurrences(fragment, source, lines[name]) for name in lines}
    assert [name for name in lines if spans[name]] == [function]
    [span] = spans[function]
    found_texts = [token.text for token in tokens(source[span.start : span.end])]
    assert found_texts == [token.text for token in tokens(fragment)]


def test_functions_are_named_by_their_classes() -> None:
    """A function in another one has no name of its own, and one under an `if` has its own."""
    assert list(functions(FORMATTED)) == [MODULE, "Sums.largest", "total"]


def test_a_fragment_that_is_in_no_one_function_is_not_found() -> None:
    """Neither a text that begins in one function and ends in another, nor a part of a token."""
    source = "def first():\n    return 10\n\n\ndef second():\n    return 20\n"
    for lines in functions(source).values():
        assert not occurrences("return 10 def second", source, lines)
        assert not occurrences("turn 10", source, lines)
        assert not occurrences("return 1", source, lines)


def test_each_occurrence_is_found() -> None:
    source = "def twice():\n    return 1 + 2 + 1+2\n"
    spans = occurrences("1 + 2", source, functions(source)["twice"])
    assert [source[span.start : span.end] for span in spans] == ["1 + 2", "1+2"]
    assert spans[0] == Span(source.index("1 + 2"), source.index(" + 1+2"))


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("x = 1.5e-4 - .5", ["x", "=", "1.5e-4", "-", ".5"]),
        ("a //= b ** -c", ["a", "//=", "b", "**", "-", "c"]),
        ("(a, b,  # both\n)", ["(", "a", ",", "b", ")"]),
        ("], sorted", ["]", ",", "sorted"]),
        ("named,", ["named", ","]),
        (r"""rb'a # \' b' "# c" # d""", [r"rb'a # \' b'", '"# c"']),
        ('f"""{one}\n"two" """ + s', ['f"""{one}\n"two" """', "+", "s"]),
        ("half 'a string", ["half", "'", "a", "string"]),
        (" \n# nothing\n", []),
    ],
)
def test_tokens_are_pythons(code: str, texts: list[str]) -> None:
    """Strings are whole, operators the longest, and a comma before a closing bracket is none."""
    assert [token.text for token in tokens(code)] == texts
