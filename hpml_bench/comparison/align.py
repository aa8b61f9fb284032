"""Alignment of one data set's scores by run and row, and of its costs by run; and numbers that
stand for another thing.

The latter are per cent beside shares, signs of missing rows, and copies of seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.comparison.inputs import (
    CONTENT,
    COUNT,
    GROUP,
    HOST,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
)
from hpml_bench.judge.judged import UNRANKED
from hpml_bench.judge.scores import AlignedScores, CostDefinition, ScoreDefinition
from hpml_bench.statistics.over_rows import MOST_ROWS
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_Rows = dict[str, dict[int, "NDArray[np.float64]"]]  # system -> run -> score of each row
SMALLEST, LARGEST = 1e-50, 1e50
"""Sizes of scores and costs whose fourth powers, of which degrees of freedom are made, are
numbers.
"""
SENTINELS = (
    -1.0,
    -9.0,
    -99.0,
    -999.0,
    -9999.0,
    999.0,
    9999.0,
    99999.0,
)  # numbers that tools write where there is none
FAR = 5.0  # factor by which a sentinel above 0 exceeds all other scores
PER_CENT = (20.0, 500.0)
"""Least and largest factor between means of two systems that may be a hundred, one being in per
cent.
"""
VARYING, MANY = 10, 6
"""Rows, means and costs that vary over seeds from which two seeds that agree in all are no
chance, and number of seeds from which a half that repeats the others is none.
"""
MOST_DECIMALS = 6  # decimals of a cost from which its values are no rounded ones


def aligned(
    part: pd.DataFrame, of: AlignedScores, costs: Sequence[CostDefinition], *, shared: bool
) -> AlignedScores:
    """Return the scores of one data set."""
    with_rows = part[ROW].notna()
    if with_rows.any() and not with_rows.all():
        a, b = part[WHERE][with_rows].iloc[0], part[WHERE][~with_rows].iloc[0]
        raise UserError(
            f"{b} has no row and {a} has one: give all inputs rows, or compare them apart"
        )
    named, width = part[SEED].unique(), part[SEED].str.len().max()  # whole numbers in their order
    key = {
        seed: (False, seed.zfill(width), seed) if seed.isdecimal() else (True, seed, seed)
        for seed in named
    }
    seeds = tuple(sorted(named, key=key.__getitem__))
    part = part.assign(run=part[SEED].map({seed: at for at, seed in enumerate(seeds)}))
    by_run, remarks = _by_run(part, costs)
    own = part[
        part[[cost.column for cost in costs if cost.column in part]].notna().any(axis=1)
    ]  # runs with costs
    spread = HOST in part and (own[HOST].fillna("").groupby(own["run"]).nunique() > 1).any()
    unranked = of.unranked or (UNRANKED["hosts"] if spread else "")
    of = replace(
        of,
        systems=tuple(dict.fromkeys(part[SYSTEM])),
        seeds=seeds,
        costs=by_run,
        unranked=unranked,
        remarks=(*of.remarks, *remarks),
    )
    line = [SYSTEM, "run", *([ROW] if with_rows.any() else [])]
    again = part.duplicated(line)
    if again.any():
        first = part.groupby(line, sort=False)[WHERE].transform("first")[again].iloc[0]
        shown = {SYSTEM: "'{line[system]}'", "run": "seed {line[seed]}", ROW: "row '{line[row]}'"}
        which = ", ".join(shown[name] for name in line if name != "run" or (part[SEED] != "").any())
        advice = "keep one, or tell runs apart by a column seed, data sets by a column dataset"
        refuse(part, again, f"{which} is there already ({{first}}); {advice}", first=first)
    return _with_rows(part, of, shared=shared) if with_rows.any() else _with_means(part, of)


def refuse(lines: pd.DataFrame, wrong: Any, said: str, **more: object) -> None:
    """Raise a UserError that names the place of the first line that is wrong, if one is, and says
    what of it.

    `said` is a format of `line`, its cells by column, whose texts are cut to 60 characters, and of
    `more`.
    """
    for at in np.flatnonzero(wrong)[:1]:
        cells = lines.iloc[at].map(
            lambda cell: sanitize(cell, 60) if isinstance(cell, str) else cell
        )
        raise UserError(f"{lines[WHERE].iloc[at]}: {said.format(line=cells, **more)}")


def _by_run(
    part: pd.DataFrame, costs: Sequence[CostDefinition]
) -> tuple[dict[CostDefinition, dict[str, dict[int, float]]], list[str]]:
    """Return each cost by system and run, and remarks on columns that are none, as readers of
    tables can't know.
    """
    found: dict[CostDefinition, dict[str, dict[int, float]]] = {}
    unread: dict[str, list[str]] = {}
    for cost in costs:
        if cost.column not in part:
            continue
        there, title = part[part[cost.column].notna()], sanitize(cost.title, 40)
        values = there[cost.column].to_numpy(dtype=float)
        what = "{title} is not a number below {largest:g}; give one, or leave it empty"
        refuse(there, ~(np.abs(values) < LARGEST), what, title=title, largest=LARGEST)
        if (
            len(there) == len(part)
            and (values == values[0]).all()
            and not (cost.key or cost.stands_for)
        ):
            value = f"{title} ({values[0]:.12g}{cost.unit and f' {cost.unit}'})"
            unread.setdefault("Equal in all lines, and so no cost that compares", []).append(value)
            continue
        if (values < 0).any():
            unread.setdefault("With values below 0, and so no cost", []).append(title)
            continue
        runs = there.groupby([SYSTEM, "run"], sort=False)[cost.column]
        what = (
            "{title} differs within a run of '{line[system]}'; a cost is a run's total or mean, "
            "in each of its lines"
        )
        differs = runs.transform("first") != there[cost.column]
        refuse(there, differs, f"{what}: sum it up, or remove the column", title=title)
        if len(there):
            decimals = (n for n in range(MOST_DECIMALS) if (values.round(n) == values).all())
            grid = next((10.0**-n for n in decimals), None)  # of which all values are multiples
            known = cost if cost.exact is not None else replace(cost, grid=grid)
            found[known] = _of_runs(there.drop_duplicates([SYSTEM, "run"]), cost.column)
    return found, [f"{why}: {', '.join(titles)}." for why, titles in unread.items()]


def _of_runs(lines: pd.DataFrame, column: str) -> dict[str, dict[int, float]]:
    """Return a column by system and run, of which each has one line."""
    found: dict[str, dict[int, float]] = {}
    for system, run, value in zip(lines[SYSTEM], lines["run"], lines[column], strict=True):
        found.setdefault(str(system), {})[int(run)] = float(value)
    return found


def _refuse_unlike(part: pd.DataFrame, column: str, said: str) -> None:
    """Refuse a line whose value isn't that of its row's `first` line with one."""
    known = part[part[column].notna()]
    first = known.groupby(ROW, sort=False)[[column, WHERE]].transform("first")
    wrong = first[column] != known[column]
    if wrong.any():
        there = first[wrong].iloc[0]
        shown = dict(there) | {column: sanitize(there[column], 40)}
        refuse(known, wrong, f"row '{{line[row]}}' is {said}", first=shown)


def _with_rows(part: pd.DataFrame, of: AlignedScores, *, shared: bool) -> AlignedScores:
    if CONTENT in part:
        advice = "compare results of the same version of the data"
        _refuse_unlike(
            part, CONTENT, f"another one than in {{first[where]}}, by their contents; {advice}"
        )
    rows = [*dict.fromkeys(part[ROW])]
    table = part.pivot(index=[SYSTEM, "run"], columns=ROW, values=SCORE)[rows]
    if not shared and table.isna().any(axis=None):
        raise UserError(_unequal(part, table, of))
    values: _Rows = {name: {} for name in of.systems}
    for (system, run), scores in zip(table.index, table.to_numpy(dtype=float), strict=True):
        values[system][run] = scores
    every = np.unique([scores for by in values.values() for scores in by.values()])
    every = every[~np.isnan(every)]
    binary = bool(np.isin(every, (0.0, 1.0)).all()) and (of.score.low, of.score.high) in {
        (None, None),
        (0.0, 1.0),
    }
    binary = binary if of.score.binary is None else of.score.binary
    of, groups = replace(of, binary=binary), _groups(part, rows)
    missing = {name: np.isnan(list(by.values())).any(axis=0) for name, by in values.items()}
    left = np.any(list(missing.values()), axis=0)
    check_copies(of, values)
    ids = np.array(_told_apart(part, rows), dtype=object)
    of = replace(of, row_ids=tuple(ids[~left]))
    if not left.any():
        return _of_rows(of, values, groups)
    if left.all():
        raise UserError(
            f"{part[WHERE].iloc[0]}: no row of {of.title} is in every run of every system; "
            f"compare fewer"
        )
    kept = {name: {run: x[~left] for run, x in by.items()} for name, by in values.items()}
    return replace(
        _of_rows(of, kept, None if groups is None else groups[~left]),
        unshared=int(left.sum()),
        lacking={name: int(lost.sum()) for name, lost in missing.items() if lost.any()},
        filled=_filled(of, values, groups, (float(every.min()), float(every.max()))),
    )


def _filled(
    scores: AlignedScores,
    values: _Rows,
    groups: NDArray[np.int64] | None,
    seen: tuple[float, float],
) -> tuple[AlignedScores, AlignedScores]:
    """Return all rows twice: the least score where one is missing, and the largest; those seen
    without a known one.
    """
    whole = replace(
        scores, score=replace(scores.score, largest=None)
    )  # a missing row may differ by the whole range
    least, largest = (
        extreme if end is None else end for end, extreme in zip(scores.ends, seen, strict=True)
    )

    def filled_with(score: float) -> AlignedScores:
        rows = {
            name: {run: np.nan_to_num(row_scores, nan=score) for run, row_scores in by_run.items()}
            for name, by_run in values.items()
        }
        return _of_rows(whole, rows, groups)

    return filled_with(least), filled_with(largest)


def _told_apart(part: pd.DataFrame, rows: Sequence[str]) -> list[str]:
    """Return what tells each row from those of other data: what it holds where that is known of
    all, else its id.
    """
    if CONTENT not in part or part[CONTENT].isna().any():
        return [*rows]
    return [*part.drop_duplicates(ROW).set_index(ROW)[CONTENT][[*rows]].map(str)]


def _of_rows(of: AlignedScores, rows: _Rows, groups: NDArray[np.int64] | None) -> AlignedScores:
    means = {
        name: {run: float(scores.mean()) for run, scores in by.items()} for name, by in rows.items()
    }
    count = len(next(iter(next(iter(rows.values())).values())))
    return replace(of, rows=rows, means=means, count=count, groups=groups)


def _unequal(part: pd.DataFrame, table: pd.DataFrame, of: AlignedScores) -> str:
    """Return the sentence on the first run that lacks rows of another one; `table` has runs by
    rows.
    """
    lacks = table.isna()
    runs = part[[SYSTEM, "run"]].drop_duplicates().itertuples(index=False, name=None)
    system, run = next(key for key in runs if lacks.loc[key].any())
    missing = lacks.columns[lacks.loc[system, run]][0]
    other = part[part[ROW] == missing].iloc[0]
    seed = f", seed {sanitize(of.seeds[run], 20)}," if of.seeds[run] else ""
    return (
        f"'{system}'{seed} has {(~lacks.loc[system, run]).sum():,} of {len(lacks.columns):,} rows "
        f"of {of.title}: it lacks row '{sanitize(missing, 60)}', which '{other[SYSTEM]}' has "
        f"({other[WHERE]}); add the rows, or compare those that all have by --shared"
    )


def _groups(part: pd.DataFrame, rows: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the group of each row, numbered; None where rows have none."""
    import pandas as pd

    if part[GROUP].isna().all():
        return None
    refuse(
        part,
        part[GROUP].isna(),
        "group is missing; give every row its group, a row alone one of its own",
    )
    what = (
        "in group '{line[group]}', and elsewhere in '{first[group]}'; give it one group in all "
        "lines"
    )
    _refuse_unlike(part, GROUP, what)
    found = pd.factorize(part.drop_duplicates(ROW).set_index(ROW)[GROUP][list(rows)])[0]
    return found if len(np.unique(found)) < len(rows) else None


def _with_means(part: pd.DataFrame, of: AlignedScores) -> AlignedScores:
    """Return scores of which only means are known."""
    counts = part[COUNT].to_numpy(dtype=float)
    known = np.isfinite(counts)
    if known.any() and not known.all():
        lack = ", ".join(dict.fromkeys(map(str, part[SYSTEM][~known])))
        lacking = (
            f"Nothing is tested by rows, since their number isn't known of {sanitize(lack, 300)}."
        )
        of = replace(of, remarks=(*of.remarks, lacking))
    elif known.any():
        what = (
            "'{line[system]}' has {line[rows]:,.0f} rows of {of.title} and '{first[system]}' "
            "{first[rows]:,.0f}"
        )
        advice = "({first[where]}); compare scores of the same rows"
        refuse(part, counts != counts[0], f"{what} {advice}", of=of, first=part.iloc[0])
    means = _of_runs(part, SCORE)
    check_copies(
        of,
        {name: {run: np.array([mean]) for run, mean in by.items()} for name, by in means.items()},
    )
    return replace(of, means=means, count=int(counts[0]) if known.all() else None)


# Numbers that stand for another thing


def check(frame: pd.DataFrame, score: ScoreDefinition) -> None:
    """Check that a data set's scores and numbers of rows are numbers, in their range, and in one
    unit.
    """
    values, counts = frame[SCORE].to_numpy(dtype=float), frame[COUNT].to_numpy(dtype=float)
    what = "the score is {line[score]:g}; give a number below {largest:g}, or leave the row out"
    refuse(frame, ~(np.abs(values) < LARGEST), what, largest=LARGEST)
    if 0 < np.abs(values).max(initial=0.0) < SMALLEST:
        raise UserError(
            f"{frame[WHERE].iloc[0]}: all scores of {score.name} are below {SMALLEST:g}; give "
            f"them in a smaller unit"
        )
    low = -np.inf if score.low is None else score.low
    high = np.inf if score.high is None else score.high
    what = (
        "the score {line[score]:g} is outside its range {low:g} to {high:g}; mend it, or give the "
        "range by {option}"
    )
    outside = ((values < low) | (values > high)) & (not score.linear)
    refuse(frame, outside, what, low=low, high=high, option="--range LOW,HIGH")
    what = "the number of rows is {line[rows]:,.12g}; give a whole number from 1 to {most:,}"
    refuse(
        frame,
        (counts < 1) | (counts > MOST_ROWS) | (np.floor(counts) < counts),
        what,
        most=MOST_ROWS,
    )
    if score.low is None and score.high is None and not score.linear:
        for one in SENTINELS:
            at, others = values == one, values[values != one]
            far = len(others) and (others.min() >= 0 if one < 0 else 0 <= others.max() <= one / FAR)
            what = (
                "the score {line[score]:g} is far from all others, as a sign of a missing one is "
                "({count} of them)"
            )
            advice = "leave such rows out, or, if it is a score, give the range by --range LOW,HIGH"
            refuse(frame, at & bool(far), f"{what}; {advice}", count=at.sum())
        _check_units(frame)


def _check_units(frame: pd.DataFrame) -> None:
    """Check that no system is in per cent where another is in shares."""
    known = {
        str(name): of[SCORE].to_numpy(dtype=float) for name, of in frame.groupby(SYSTEM, sort=False)
    }
    means = {
        name: float(of.mean()) for name, of in known.items() if of.min() >= 0 and of.max() <= 100
    }
    shares = {name: mean for name, mean in means.items() if known[name].max() <= 1 and mean}
    others = {name: mean for name, mean in means.items() if known[name].max() > 1}
    if len(means) < len(known) or not shares or not others:
        return
    small, large = max(shares, key=shares.__getitem__), max(others, key=others.__getitem__)
    alike = PER_CENT[0] <= means[large] / means[small] <= PER_CENT[1]
    what = (
        "'{large[0]}' scores {large[1]:.3g} and '{small[0]}' {small[1]:.3g}, as per cent and "
        "shares do; give both in"
    )
    what += " one unit, or, where they are, the range by --range LOW,HIGH"
    refuse(
        frame,
        (frame[SYSTEM] == large) & alike,
        what,
        large=(large, means[large]),
        small=(small, means[small]),
    )


def check_copies(
    of: AlignedScores, scores: Mapping[str, Mapping[int, NDArray[np.float64]]]
) -> None:
    """Check that no seed's scores, of rows or means, and costs are another's in all systems,
    unless by chance.
    """
    costs = [by for values in of.costs.values() for by in values.values()]
    first: dict[bytes, int] = {}
    copies: dict[int, int] = {}
    for run in range(len(of.seeds)):
        found = [
            *(by.get(run, np.empty(0)) for by in scores.values()),
            [by.get(run, np.nan) for by in costs],
        ]
        if (
            original := first.setdefault(b"|".join(np.asarray(one).tobytes() for one in found), run)
        ) != run:
            copies[run] = original
    varying = sum(int((np.ptp(list(by.values()), axis=0) > 0).sum()) for by in scores.values())
    varying += sum(len(set(by.values())) > 1 for by in costs)
    many = len(of.seeds) >= MANY and 2 * len(copies) >= len(of.seeds)
    if (
        varying and copies and (varying >= VARYING or many)
    ):  # where none varies, runs are known to repeat each other
        run, original = next(iter(copies.items()))
        raise UserError(
            f"{of.title}: seeds {sanitize(of.seeds[original], 20)} and "
            f"{sanitize(of.seeds[run], 20)} have the same "
            "scores and costs in all systems, as copies have; keep one of them"
        )
