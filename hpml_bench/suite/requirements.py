"""What a value must be, in words, by pydantic's type of an error."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

WHOLE_NUMBER = "a whole number"
NUMBER = "a number"
BOOLEAN = "true or false"
MAPPING = "a mapping, as {KEY: VALUE}"
LIST = "a list, as [a, b]"
FIXED: Mapping[str, str] = {
    "int_type": WHOLE_NUMBER,
    "int_parsing": WHOLE_NUMBER,
    "int_parsing_size": WHOLE_NUMBER,
    "int_from_float": WHOLE_NUMBER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "a finite number",
    "bool_type": BOOLEAN,
    "bool_parsing": BOOLEAN,
    "dict_type": MAPPING,
    "mapping_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "list_type": LIST,
    "tuple_type": LIST,
}
"""Type of an error -> what the value must be."""
WITH_LIMIT: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda limits: f"more than {_plain(limits['gt'])}",
    "greater_than_equal": lambda limits: f"at least {_plain(limits['ge'])}",
    "less_than": lambda limits: f"less than {_plain(limits['lt'])}",
    "less_than_equal": lambda limits: f"at most {_plain(limits['le'])}",
    "literal_error": lambda limits: str(limits["expected"]),
    "string_pattern_mismatch": lambda limits: f"text that matches {limits['pattern']}",
    "string_too_short": lambda limits: f"at least {limits['min_length']} characters long",
    "string_too_long": lambda limits: f"at most {limits['max_length']} characters long",
    "too_short": lambda limits: f"of at least {limits['min_length']} entries",
    "too_long": lambda limits: f"of at most {limits['max_length']} entries",
}
"""Type of an error -> function of the limits that the field has, by pydantic's names for them."""


def requirement(error: ErrorDetails) -> str | None:
    """Return what the value of an error must be, as the end of "it must be"; None for an error that
    has words of its own, such as one that a validator raised.
    """
    kind = error["type"]
    if kind in FIXED:
        return FIXED[kind]
    if kind in WITH_LIMIT:
        return WITH_LIMIT[kind](error.get("ctx", {}))
    if kind == "string_type":
        # YAML reads words such as 3, 1e-3 or no as numbers and booleans
        is_plain = isinstance(error["input"], bool | int | float)
        return "text (in quotes)" if is_plain else "text"
    return None


def _plain(limit: float) -> str:
    """Return a limit as a person writes it: 0 for 0.0."""
    return str(int(limit)) if limit == int(limit) else str(limit)
