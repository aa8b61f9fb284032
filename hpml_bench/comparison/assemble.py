"""Alignment of what readers found by run and row; an input that can't be aligned is refused."""

from __future__ import annotations

import math
import numbers
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpml_bench.comparison.align import aligned, check, refuse
from hpml_bench.comparison.inputs import (
    COUNT,
    DATASET,
    GROUP,
    LONGEST,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    InputScores,
)
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.scores import AlignedScores, ScoreDefinition
from hpml_bench.judge.summarize import needed
from hpml_bench.judge.verdicts import judge
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

ALONE = ("Only one system has scores of", "No system has scores of")
"""Beginnings of remarks on data sets that aren't compared."""
INPUT = "input"  # column: place of the input among those given


def assemble(
    measured: Sequence[InputScores],
    *,
    lower: bool = False,
    bounds: tuple[float, float] | None = None,
    shared: bool = False,
    independent: bool = False,
    largest: float | None = None,
    title: str = "scores",
) -> tuple[AlignedScores, ...]:
    """Return the scores of each data set, those that compare two systems or more; a UserError for
    what can't be meant.

    `measured`: what readers found; `lower`: a lower score is better, of inputs that don't say it;
    `bounds`: least and largest score, and `largest`: largest difference of a row between two
    systems, whatever the inputs say; `shared`: compare the rows that all systems have, else
    different rows are an error; `independent`: the systems' errors are independent, so that means
    without rows may be tested; `title`: name of a data set that the inputs don't name.
    """
    import pandas as pd

    if not measured:
        raise UserError("there is nothing to compare; name a file or folder with scores")
    if contrary := [
        one for one in measured if lower and one.directed and one.score.better == "higher"
    ]:
        name = sanitize(contrary[0].score.name, 40)
        raise UserError(
            f"{_named(contrary[0])} says that a higher {name} is better; leave --lower out"
        )
    measured = [
        replace(one, score=_declared(one.score, lower, bounds, largest)) for one in measured
    ]
    frame = pd.concat(
        [_prepared(one).assign(**{INPUT: at}) for at, one in enumerate(measured)], ignore_index=True
    )
    if not len(frame):
        raise UserError(
            f"{_named(measured[0])} has no run with a score; a comparison takes two systems or more"
        )
    frame[SYSTEM] = _shown(frame, SYSTEM)
    frame[DATASET] = _shown(frame, DATASET)
    parts = {str(name): part for name, part in frame.groupby(DATASET, sort=False)}
    alone = [name for name, part in parts.items() if part[SYSTEM].nunique() < 2]
    if len(alone) == len(parts):
        what = (
            f"'{frame[SYSTEM].iloc[0]}' is the only "
            f"system{' of its data set' if len(parts) > 1 else ''}"
        )
        raise UserError(f"{frame[WHERE].iloc[0]}: {what}; a comparison takes two or more")
    lost = dict.fromkeys(
        name for one in measured for name in _datasets(one) if name and name not in parts
    )
    apart = (
        *(f"{ALONE[0]} {sanitize(name, 60)}: it isn't compared." for name in alone),
        *(f"{ALONE[1]} {sanitize(name, 60)}: its runs failed." for name in lost),
    )
    found = []
    for name, part in parts.items():
        inputs = [measured[at] for at in part[INPUT].unique()]
        score, costs = _score(inputs), {cost.column: cost for one in inputs for cost in one.costs}
        check(part, score)
        if name in alone:
            continue
        about = [one for one in measured if not (own := _datasets(one)) or name in own]
        of = replace(
            _described(name, score, inputs, about), title=name or title, independent=independent
        )
        found.append(
            aligned(
                part, replace(of, remarks=(*of.remarks, *apart)), [*costs.values()], shared=shared
            )
        )
    return tuple(found)


def _described(
    name: str, score: ScoreDefinition, inputs: Sequence[InputScores], about: Sequence[InputScores]
) -> AlignedScores:
    """Return what is said of a data set: by inputs that have rows of it, and by those `about`
    it; without scores.
    """
    first = inputs[0]
    if len(inputs) > 1 and (raced := [one for one in inputs if one.race]):
        raise UserError(
            f"{_named(raced[0])}: results of a sweep with --until are compared alone: its methods "
            f"have other seeds"
        )
    failed = (failure for one in about for failure in one.failed)
    return AlignedScores(
        name,
        "",
        score,
        (),
        (),
        {},
        None,
        None,
        None,
        bool(score.binary),
        {},
        sources=tuple(dict.fromkeys(one.source for one in about if one.source)),
        remarks=tuple(dict.fromkeys(remark for one in about for remark in one.remarks)),
        failed=tuple(
            failure for failure in failed if sanitize(failure.dataset, LONGEST) in {"", name}
        ),
        look=max(one.look for one in inputs),
        block=next((one.block for one in inputs if one.block), ""),
        unranked=next((one.unranked for one in inputs if one.unranked), ""),
        race=first.race,
        facts=first.facts if len(inputs) == 1 else None,
        trained_on=first.trained_on if len({one.trained_on for one in inputs}) == 1 else "",
    )


def _datasets(one: InputScores) -> set[str]:
    """Return the data sets, as shown, of an input's lines and failed runs; none where it names
    none.
    """
    named = {failure.dataset for failure in one.failed if failure.dataset}
    if DATASET in one.lines:
        named |= set(one.lines[DATASET].dropna().map(str))
    return {sanitize(name, LONGEST) for name in named}


def _declared(
    score: ScoreDefinition, lower: bool, bounds: tuple[float, float] | None, largest: float | None
) -> ScoreDefinition:
    """Return a score with the direction, range and largest difference that are given."""
    if lower:
        score = replace(score, better="lower")
    if largest is not None:
        score = replace(score, largest=largest, largest_by="by --largest-difference")
    if bounds is None:
        return score
    if (score.binary and bounds != (0.0, 1.0)) or score.linear:
        known = "rows are right or wrong" if score.binary else "scores of rows are linearised"
        raise UserError(
            f"--range is for the scores of rows, and of {sanitize(score.name, 40)} {known}; leave "
            f"it away"
        )
    if not (np.isfinite(bounds).all() and bounds[0] < bounds[1]):
        raise UserError(
            f"the range {bounds[0]:g} to {bounds[1]:g} is none; give the least score, then the "
            f"largest"
        )
    return replace(score, low=bounds[0], high=bounds[1])


AGREED = (
    ("name", "score", "choose one that all have by --metric"),
    ("better", "direction", "add --lower if lower is better, or compare them apart"),
    ("low", "least score", "give the range by --range LOW,HIGH"),
    ("high", "largest score", "give the range by --range LOW,HIGH"),
    ("margin", "margin", "compare them apart"),
    ("largest", "largest difference", "give one by --largest-difference"),
)
"""Fields of a score that all inputs of a data set must share: what each is, and what to do where
they don't.
"""


def _score(inputs: Sequence[InputScores]) -> ScoreDefinition:
    """Return the score that all inputs of a data set hold."""

    def shown(value: object) -> str:
        return (
            "none"
            if value is None
            else sanitize(value if isinstance(value, str) else f"{value:g}", 40)
        )

    first = inputs[0]
    for of in inputs:
        for field, what, advice in AGREED:
            own, other = getattr(of.score, field), getattr(first.score, field)
            if own != other:
                both = (
                    f"{_named(of)} has the {what} {shown(own)} and {_named(first)} {shown(other)}"
                )
                raise UserError(f"{both}, of one data set; {advice}")
    return first.score


def _named(one: InputScores) -> str:
    return sanitize(
        one.source or (one.lines[WHERE].iloc[0] if len(one.lines) else "the input"), 300
    )


def _prepared(one: InputScores) -> pd.DataFrame:
    """Return the lines with every column that has a meaning; a run or data set without a name
    has an empty one.
    """
    lines = one.lines.reset_index(drop=True).copy()
    for column, nothing in ((SEED, ""), (DATASET, ""), (ROW, None), (GROUP, None), (COUNT, np.nan)):
        if column not in lines:
            lines[column] = nothing
    needed = [SYSTEM, SCORE, SEED, DATASET, *([ROW] if ROW in one.lines else [])]
    for column in needed:
        what = f"{column} is missing{' or not a number' if column == SCORE else ''}"
        refuse(
            lines, lines[column].isna(), f"{what}; give a value in each line, or leave the line out"
        )
    for column in (SYSTEM, SEED, DATASET, ROW, GROUP):
        lines[column] = lines[column].map(str, na_action="ignore")
    return lines


def _shown(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return names as they are shown: of one printable line, of at most so many characters, and
    still different.
    """
    known: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in dict.fromkeys(frame[column]):
        shown = known[name] = sanitize(name, LONGEST)
        unseen = bool(name) and not shown
        refuse(
            frame,
            unseen and frame[column] == name,
            f"the {column}'s name has no printable character; rename it",
        )
        alike = first.setdefault(unicodedata.normalize("NFKC", shown), name) != name
        why = (
            f"by what isn't shown, in how Unicode writes a letter, or after {LONGEST} characters; "
            f"rename one"
        )
        what = f"the {column} '{{shown}}' looks like another one, from which it differs {why}"
        refuse(frame, alike and frame[column] == name, what, shown=shown)
    return frame[column].map(known)


MOST_LOOKS = 1000  # largest number of a look, of which 5 % leave a level that is a number
COLUMNS = (
    "dataset",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "p",
    "p_adjusted",
    "verdict",
    "better",
    "scope",
    "need",
    "rows",
    "seeds",
    "skewed",
)


def verdicts_of(  # noqa: PLR0913 - the options of `compare`
    frame: pd.DataFrame,
    *,
    score: str | None = None,
    margin: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    bounds: tuple[float, float] | None = None,
    shared: bool = False,
    independent: bool = False,
    largest_difference: float | None = None,
    look: int = 1,
    looks: int | None = None,
) -> pd.DataFrame:
    """Return the verdicts on a frame's systems; see `hpml_bench.compare`."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise UserError(
            f"compare takes a pandas DataFrame and got a {type(frame).__name__}; give "
            f"pd.DataFrame(...)"
        )
    if better not in {"higher", "lower"}:
        raise UserError(f"better is '{better}'; choose higher or lower")
    for name, count in (("look", look), ("looks", 1 if looks is None else looks)):
        if (
            isinstance(count, bool)
            or not isinstance(count, numbers.Integral)
            or not 0 < count <= MOST_LOOKS
        ):
            raise UserError(
                f"{name} is {sanitize(repr(count), 60)}; give a whole number from 1 to "
                f"{MOST_LOOKS:,}"
            )
    for name, given in (("margin", margin), ("largest_difference", largest_difference)):
        if given is not None and not 0 < _number(given) < math.inf:
            raise UserError(
                f"{name} is {sanitize(repr(given), 60)}; give a difference above 0, in the "
                f"score's unit"
            )
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
        [of_frame(frame, score)],
        lower=better == "lower",
        bounds=bounds,
        shared=shared,
        independent=independent,
        largest=None if largest_difference is None else float(largest_difference),
    )
    rows: list[Sequence[Any]] = []
    for scores in found:
        counted = replace(scores, look=int(look), looks=int(looks or 0))
        judged = judge(counted, None if margin is None else float(margin))
        for c in judged.score:
            seeds = len(scores.means[c.a].keys() & scores.means[c.b].keys())
            need = needed(judged, c) if c.verdict == "undecided" else None
            rows.append(
                (
                    scores.dataset,
                    c.a,
                    c.b,
                    c.difference.mean,
                    *(c.deciding or (None, None)),
                    c.p,
                    c.p_adjusted,
                    c.verdict,
                    c.winner(scores.score.better),
                    judged.holds_for,
                    need,
                    scores.count,
                    seeds,
                    c.uncertain,
                )
            )
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    floats = ("low", "high", "p", "p_adjusted")
    return made.astype(
        dict.fromkeys(floats, "float64") | dict.fromkeys(("need", "rows", "seeds"), "Int64")
    )


def _number(given: object) -> float:
    """Return a number, of numpy too, as a float; NaN of anything else, a truth value among them."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        return math.nan
    try:
        return float(given)
    except OverflowError:  # an integer beyond floats
        return math.inf
