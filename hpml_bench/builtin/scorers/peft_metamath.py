"""PEFT's accuracy on MetaMathQA and GSM8K (huggingface/peft,
method_comparison/MetaMathQA/utils.py: get_accuracy).
"""

from decimal import Decimal

from hpml_bench.plugins.scorer import Scorer

MARKS = (
    "The answer is: ",
    "The answer is ",
    "The final answer is: ",
    "The final answer is ",
    "#### ",
)
"""Marks before a final answer, by precedence: the first of these that occurs anywhere counts."""


class PeftMetaMath(Scorer):
    """Equality of what two texts call their final answer, by PEFT's rules."""

    title = "right answers, as PEFT counts them"
    definition = (
        "Share of the test rows whose final answer equals the one asked for, as PEFT's method "
        "comparison counts it: the rest of the line after a mark, as numbers where both are (with "
        "fractions, without commas), else as text. The mark is the first that the answer has of "
        "'The answer is: ', 'The answer is ', 'The final answer is: ', 'The final answer is ' and "
        "'#### ', where it stands last; an answer without one is wrong."
    )

    def score(self, answer: str, expected: str) -> float:
        given, wanted = final_answer(answer), final_answer(expected)
        return float(given is not None and wanted is not None and _value(given) == _value(wanted))


def final_answer(text: str) -> str | None:
    """Return the rest of the line after the last of a text's mark; None where there is no mark."""
    text = text.strip().rstrip(".!?")
    mark = next((mark for mark in MARKS if mark in text), None)
    return (
        None if mark is None else text.rpartition(mark)[2].strip().split("\n", 1)[0].strip(" .!?$%")
    )


def _value(text: str) -> float | str:
    parts = text.split("/")
    try:
        numbers = [Decimal(part.strip()) for part in parts]
        if len(numbers) > 2:
            return text
        return float(numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0])
    except (ArithmeticError, ValueError):
        return text
