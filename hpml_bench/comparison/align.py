"""Alignment of one data set's scores by run and row, and of its costs by run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.comparison.doubtful import LARGEST, check_copies
from hpml_bench.comparison.inputs import CONTENT, COUNT, GROUP, HOST, ROW, SCORE, SEED, SYSTEM, WHERE
from hpml_bench.report.results import UNRANKED
from hpml_bench.report.scores import AlignedScores, CostDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_Rows = dict[str, dict[int, "NDArray[np.float64]"]]  # system -> run -> score of each row
MOST_DECIMALS = 6
"""Decimals of a cost from which its values are no rounded ones."""


def aligned(part: pd.DataFrame, of: AlignedScores, costs: tuple[CostDefinition, ...], *, shared: bool) -> AlignedScores:
    """Return the scores of one data set."""
    with_rows = part[ROW].notna()
    if with_rows.any() and not with_rows.all():
        a, b = part[WHERE][with_rows].iloc[0], part[WHERE][~with_rows].iloc[0]
        raise UserError(f"{b} has no row and {a} has one: give all inputs rows, or compare them apart")
    seeds = tuple(sorted(dict.fromkeys(part[SEED]), key=_by_number))
    part = part.assign(run=part[SEED].map({seed: at for at, seed in enumerate(seeds)}))
    by_run, remarks = _by_run(part, costs)
    own = part[part[[cost.column for cost in costs if cost.column in part]].notna().any(axis=1)]  # runs with costs
    spread = HOST in part and (own[HOST].fillna("").groupby(own["run"]).nunique() > 1).any()
    unranked = of.unranked or (UNRANKED["hosts"] if spread else "")
    of = replace(of, systems=tuple(dict.fromkeys(part[SYSTEM])), seeds=seeds, costs=by_run, unranked=unranked,
                 remarks=(*of.remarks, *remarks))  # fmt: skip
    _check_once(part, [SYSTEM, "run", ROW] if with_rows.any() else [SYSTEM, "run"])
    return _with_rows(part, of, shared=shared) if with_rows.any() else _with_means(part, of)


def _by_number(seed: str) -> tuple[bool, float, str]:
    try:
        return False, float(seed), seed
    except ValueError:
        return True, 0.0, seed


def _check_once(part: pd.DataFrame, key: list[str]) -> None:
    for _, again in part[part.duplicated(key)].iloc[:1].iterrows():
        same = (part[key].astype(str) == again[key].astype(str)).all(axis=1)
        first = part[WHERE][same].iloc[0]
        row = f", row '{sanitize(again[ROW], 60)}'" if ROW in key else ""
        run = f", seed {sanitize(again[SEED], 20)}" if again[SEED] else ""
        raise UserError(
            f"{again[WHERE]}: '{again[SYSTEM]}'{run}{row} is there already ({first}); keep one, or tell runs apart by "
            "a column seed, data sets by a column dataset"
        )


def _by_run(
    part: pd.DataFrame, costs: tuple[CostDefinition, ...]
) -> tuple[dict[CostDefinition, dict[str, dict[int, float]]], list[str]]:
    """Return each cost by system and run, and remarks on columns that are none, as readers of tables can't know."""
    found: dict[CostDefinition, dict[str, dict[int, float]]] = {}
    unread: dict[str, list[str]] = {}
    for cost in costs:
        if cost.column not in part:
            continue
        there = part[part[cost.column].notna()]
        values = there[cost.column].to_numpy(dtype=float)
        for at in np.flatnonzero(~(np.abs(values) < LARGEST))[:1]:
            advice = f"give a number below {LARGEST:g}, or leave it empty"
            raise UserError(f"{there[WHERE].iloc[at]}: {sanitize(cost.title, 40)} is {values[at]:g}; {advice}")
        if len(there) == len(part) and (values == values[0]).all() and not (cost.key or cost.stands_for):
            value = f"{sanitize(cost.title, 40)} ({values[0]:.12g}{cost.unit and f' {cost.unit}'})"
            unread.setdefault("Equal in all lines, and so no cost that compares", []).append(value)
            continue
        if (values < 0).any():
            unread.setdefault("With values below 0, and so no cost", []).append(sanitize(cost.title, 40))
            continue
        runs = there.groupby([SYSTEM, "run"], sort=False)[cost.column]
        for at in np.flatnonzero((runs.transform("first") != there[cost.column]).to_numpy())[:1]:
            line = there.iloc[at]
            raise UserError(
                f"{line[WHERE]}: {sanitize(cost.title, 40)} differs within a run of '{line[SYSTEM]}'; a cost is a "
                "run's total or mean, in each of its lines: sum it up, or remove the column"
            )
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


def _unlike(part: pd.DataFrame, column: str) -> tuple[pd.Series[Any], pd.Series[Any]] | None:
    """Return the first line whose value isn't that of its row's first line with one, and that line; None if alike."""
    known = part[part[column].notna()]
    first = known.groupby(ROW, sort=False)[[column, WHERE]].transform("first")
    at = next(iter(np.flatnonzero((first[column] != known[column]).to_numpy())), None)
    return None if at is None else (known.iloc[at], first.iloc[at])


def _with_rows(part: pd.DataFrame, of: AlignedScores, *, shared: bool) -> AlignedScores:
    if CONTENT in part and (unlike := _unlike(part, CONTENT)):
        line, first = unlike
        raise UserError(
            f"{line[WHERE]}: row '{sanitize(line[ROW], 60)}' is another one than in {first[WHERE]}, by their "
            "contents; compare results of the same version of the data"
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
    binary = bool(np.isin(every, (0.0, 1.0)).all()) and (of.score.low, of.score.high) in {(None, None), (0.0, 1.0)}
    binary = binary if of.score.binary is None else of.score.binary
    of, groups = replace(of, binary=binary), _groups(part, rows)
    missing = {name: np.isnan(list(by.values())).any(axis=0) for name, by in values.items()}
    left = np.any(list(missing.values()), axis=0)
    check_copies(of, values)
    if not left.any():
        return _of_rows(of, values, groups)
    if left.all():
        raise UserError(f"{part[WHERE].iloc[0]}: no row of {of.title} is in every run of every system; compare fewer")
    low, high = of.ends
    worst, seen = (low, every.min()) if of.score.better == "higher" else (high, every.max())
    worst = float(seen) if worst is None else worst
    filled = {name: {run: np.nan_to_num(x, nan=worst) for run, x in by.items()} for name, by in values.items()}
    kept = {name: {run: x[~left] for run, x in by.items()} for name, by in values.items()}
    return replace(
        _of_rows(of, kept, None if groups is None else groups[~left]),
        unshared=int(left.sum()),
        lacking={name: int(lost.sum()) for name, lost in missing.items() if lost.any()},
        # a missing row may differ by the whole range
        filled=_of_rows(replace(of, score=replace(of.score, largest=None)), filled, groups),
    )


def _of_rows(of: AlignedScores, rows: _Rows, groups: NDArray[np.int64] | None) -> AlignedScores:
    means = {name: {run: float(scores.mean()) for run, scores in by.items()} for name, by in rows.items()}
    count = len(next(iter(next(iter(rows.values())).values())))
    return replace(of, rows=rows, means=means, count=count, groups=groups)


def _unequal(part: pd.DataFrame, table: pd.DataFrame, of: AlignedScores) -> str:
    """Return the sentence on the first run that lacks rows of another one; `table` has runs by rows."""
    lacks = table.isna()
    runs = part[[SYSTEM, "run"]].drop_duplicates().itertuples(index=False, name=None)
    system, run = next(key for key in runs if lacks.loc[key].any())
    missing = lacks.columns[lacks.loc[system, run]][0]
    other = part[part[ROW] == missing].iloc[0]
    seed = f", seed {sanitize(of.seeds[run], 20)}," if of.seeds[run] else ""
    return (
        f"'{system}'{seed} has {(~lacks.loc[system, run]).sum():,} of {len(lacks.columns):,} rows of {of.title}: it "
        f"lacks row '{sanitize(missing, 60)}', which '{other[SYSTEM]}' has ({other[WHERE]}); add the rows, or compare "
        "those that all have by --shared"
    )


def _groups(part: pd.DataFrame, rows: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the group of each row, numbered; None where rows have none."""
    import pandas as pd

    missing = part[GROUP].isna()
    if missing.all():
        return None
    if missing.any():
        where = part[WHERE][missing].iloc[0]
        raise UserError(f"{where}: group is missing; give every row its group, a row alone one of its own")
    if unlike := _unlike(part, GROUP):
        line, first = unlike
        raise UserError(
            f"{line[WHERE]}: row '{sanitize(line[ROW], 60)}' is in group '{sanitize(line[GROUP], 40)}', and elsewhere "
            f"in '{sanitize(first[GROUP], 40)}'; give it one group in all lines"
        )
    found = pd.factorize(part.drop_duplicates(ROW).set_index(ROW)[GROUP][list(rows)])[0]
    return found if len(np.unique(found)) < len(rows) else None


def _with_means(part: pd.DataFrame, of: AlignedScores) -> AlignedScores:
    """Return scores of which only means are known."""
    counts = part[COUNT].to_numpy(dtype=float)
    known = np.isfinite(counts)
    if known.any() and not known.all():
        lack = ", ".join(dict.fromkeys(map(str, part[SYSTEM][~known])))
        lacking = f"Nothing is tested by rows, since their number isn't known of {sanitize(lack, 300)}."
        of = replace(of, remarks=(*of.remarks, lacking))
    elif known.any():
        for at in np.flatnonzero(counts != counts[0])[:1]:
            line, first = part.iloc[at], part.iloc[0]
            raise UserError(
                f"{line[WHERE]}: '{line[SYSTEM]}' has {counts[at]:,.0f} rows of {of.title} and '{first[SYSTEM]}' "
                f"{first[COUNT]:,.0f} ({first[WHERE]}); compare scores of the same rows"
            )
    means = _of_runs(part, SCORE)
    check_copies(of, {name: {run: np.array([mean]) for run, mean in by.items()} for name, by in means.items()})
    return replace(of, means=means, count=int(counts[0]) if known.all() else None)
