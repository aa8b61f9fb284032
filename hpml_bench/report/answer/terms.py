"""Numbers and names of an answer as text: one place decides digits, units and how methods are named."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpml_bench.report.answer.model import Axis, PageSummary, Pair
from hpml_bench.report.tables import number, sentence_list

NAMED = 3
"""Methods that a sentence names; of more it says how many."""
BYTES = ((1e3, "GB"), (1.0, "MB"), (1e-3, "kB"), (1e-6, "B"))


def score_text(answer: PageSummary, value: float, *, unit: bool = True) -> str:
    return with_unit(number(value, f".{answer.score.digits}f"), answer.score.unit if unit else "")


def score_of(answer: PageSummary, name: str) -> str:
    value = answer.value(name, "score")
    return "no score" if value is None else score_text(answer, value)


def gap_text(answer: PageSummary, value: float, *, unit: bool = True) -> str:
    """Return a difference of scores, with one digit more than scores where their roundings would belie it."""
    return _gap(answer, value, answer.gap_digits, unit=unit)


def margin_text(answer: PageSummary) -> str:
    """Return the margin of equality as declared: a rounded one would claim more, or less."""
    margin, most = answer.score.margin, answer.gap_digits + 6
    exact = (digits for digits in range(1, most) if math.isclose(round(margin, digits), margin, rel_tol=1e-9))
    return _gap(answer, margin, next(exact, most), unit=True)


def _gap(answer: PageSummary, value: float, digits: int, *, unit: bool) -> str:
    text = number(value, f".{digits}f")
    if not unit or not answer.score.difference_unit:
        return text
    of = answer.score.difference_unit
    return f"{text} {'point' if of == 'points' and text in {'1', '1.0', '1.00'} else of}"


def cost_text(answer: PageSummary, axis_id: str, value: float, *, unit: bool = True) -> str:
    """Return a cost in three digits with its unit; sizes of files in the unit that suits each, so always with it."""
    axis = next((axis for axis in answer.axes if axis.id == axis_id), None)
    if axis is not None and own_units(axis):
        factor, name = next(((f, u) for f, u in BYTES if value >= f), BYTES[-1])
        amount = value / factor
        return f"{number(amount, '.1f' if amount < 9.95 and name != 'B' else '.0f')} {name}"
    shown = axis.unit if axis is not None else next((a.unit for a in answer.axes if a.key == "memory"), "")
    return with_unit(three_digits(value), shown if unit else "")


def three_digits(value: float) -> str:
    """Return a cost in three digits, and at most four decimals."""
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return number(value, f".{min(digits, 4)}f")


def own_units(axis: Axis) -> bool:
    """Return whether each value of a cost is shown in a unit of its own: sizes of files, which span powers of ten."""
    return axis.key == "size" and axis.unit == "MB"


def label(answer: PageSummary, name: str) -> str:
    """Return a method's name in sentences: `no. 3` where methods are numbered, `the base model` where that is one."""
    if answer.by_name[name].base:
        return "the base model"
    return f"no. {answer.number[name]}" if answer.numbered else name


def row_name(answer: PageSummary, name: str) -> str:
    """Return a method's name for its row: `none (base model)`."""
    return f"{name} (base model)" if answer.by_name[name].base else name


def several(answer: PageSummary, names: Sequence[str], last: str = "and") -> str:
    """Return methods in words: all of up to three, else two and how many others; numbers as ranges."""
    base = [label(answer, name) for name in names if answer.by_name[name].base]
    trained = [name for name in names if not answer.by_name[name].base]
    if answer.numbered:
        ranges = [f"no. {_ranges(sorted(answer.number[name] for name in trained))}"] if trained else []
        return sentence_list([*ranges, *base], last)
    if len(names) <= NAMED:
        return sentence_list([*trained, *base], last)
    return sentence_list([*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"], last)


def _ranges(numbers: Sequence[int]) -> str:
    """Return `1–3, 5`."""
    runs: list[list[int]] = []
    for one in numbers:
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def seen_from(pair: Pair, name: str, *, ratio: bool = False) -> tuple[float, float | None, float | None]:
    """Return difference (or factor) of a pair, of `name` against the other, and its interval at its test's level."""
    if pair.a == name:
        return pair.difference, pair.decided_low, pair.decided_high
    low, high = (None if end is None else 1 / end if ratio else -end for end in (pair.decided_high, pair.decided_low))
    return 1 / pair.difference if ratio else -pair.difference, low, high


def ordinal(n: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `11th`."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def count_of(n: int, noun: str) -> str:
    """Return `1 run`, `1,000 runs`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def set_apart(n: int) -> str:
    return f"{count_of(n, 'run')} {'is' if n == 1 else 'are'} set apart and not compared"


def with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text
