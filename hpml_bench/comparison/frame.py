"""Verdicts as a frame, a row per pair of systems and data set."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.answer.summary import needed
from hpml_bench.report.judge import judge
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

MOST_LOOKS = 1000  # largest number of a look, of which 5 % leave a level that is a number
COLUMNS = (
    "dataset", "a", "b", "difference", "low", "high", "p", "p_adjusted", "verdict", "better", "scope", "need", "rows",
    "seeds", "skewed",
)  # fmt: skip


def verdicts_of(
    frame: pd.DataFrame, *, score: str | None = None, margin: float | None = None,
    better: Literal["higher", "lower"] = "higher", bounds: tuple[float, float] | None = None, shared: bool = False,
    independent: bool = False, largest_difference: float | None = None, look: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """Return the verdicts on a frame's systems; see `hpml_bench.compare`."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"compare takes a pandas DataFrame and got a {type(frame).__name__}; give pd.DataFrame(...)")
    if better not in {"higher", "lower"}:
        raise UserError(f"better is '{better}'; choose higher or lower")
    if isinstance(look, bool) or not isinstance(look, numbers.Integral) or not 0 < look <= MOST_LOOKS:
        raise UserError(f"look is {sanitize(repr(look), 60)}; give a whole number from 1 to {MOST_LOOKS:,}")
    for name, given in (("margin", margin), ("largest_difference", largest_difference)):
        if given is not None and not 0 < _number(given) < math.inf:
            raise UserError(f"{name} is {sanitize(repr(given), 60)}; give a difference above 0, in the score's unit")
    if bounds is not None:
        try:
            low, high = map(_number, bounds)
        except (TypeError, ValueError):  # no pair
            low = high = math.nan
        if math.isnan(low) or math.isnan(high):
            advice = "give two numbers, the least and the largest score, as (0, 1)"
            raise UserError(f"bounds are {sanitize(repr(bounds), 60)}; {advice}")
        bounds = low, high
    found = assemble(
        [of_frame(frame, score)], lower=better == "lower", bounds=bounds, shared=shared, independent=independent,
        largest=None if largest_difference is None else float(largest_difference),
    )  # fmt: skip
    rows: list[Sequence[Any]] = []
    for scores in found:
        judged = judge(replace(scores, look=int(look)), None if margin is None else float(margin))
        for c in judged.score:
            seeds = len(scores.means[c.a].keys() & scores.means[c.b].keys())
            need = needed(judged, c) if c.verdict == "undecided" else None
            rows.append((
                scores.dataset, c.a, c.b, c.difference.mean, *(c.deciding or (None, None)), c.p, c.p_adjusted,
                c.verdict, c.winner(scores.score.better), judged.holds_for, need, scores.count, seeds, c.uncertain,
            ))  # fmt: skip
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    floats = ("low", "high", "p", "p_adjusted")
    return made.astype(dict.fromkeys(floats, "float64") | dict.fromkeys(("need", "rows", "seeds"), "Int64"))


def _number(given: object) -> float:
    """Return a number, of numpy too, as a float; NaN of anything else, a truth value among them."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        return math.nan
    try:
        return float(given)
    except OverflowError:  # an integer beyond floats
        return math.inf
