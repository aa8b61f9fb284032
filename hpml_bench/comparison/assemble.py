"""Alignment of what readers found by run and row; an input that can't be aligned is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hpml_bench.comparison.inputs import (
    CONTENT,
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
from hpml_bench.report.scores import AlignedScores, CostDefinition, ScoreDefinition
from hpml_bench.statistics.over_rows import MOST_ROWS
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_Rows = dict[str, dict[int, "NDArray[np.float64]"]]  # system -> run -> score of each row
INPUT = "input"
"""Column: place of the input among those given."""
SMALLEST, LARGEST = 1e-50, 1e50
"""Sizes of scores and costs whose fourth powers, of which degrees of freedom are made, are numbers."""


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
    """Return the scores of each data set, those that compare two systems or more.

    Args:
        measured: what readers found.
        lower: a lower score is better, whatever the inputs say.
        bounds: least and largest score, whatever the inputs say.
        shared: compare the rows that all systems have; else different rows are an error.
        independent: the systems' errors are independent, so that means without rows may be tested.
        largest: largest difference of a row between two systems, whatever the inputs say.
        title: name of a data set that the inputs don't name.

    Raises:
        UserError: a value is missing, no number, twice there or out of its range; inputs of a data set hold different
            scores or margins; rows differ between systems; a row is in two groups; a cost differs within a run; or
            there is one system alone.

    """
    import pandas as pd

    if not measured:
        raise UserError("there is nothing to compare; name a file or folder with scores")
    measured = [replace(one, score=_declared(one.score, lower, bounds, largest)) for one in measured]
    frame = pd.concat([_prepared(one).assign(**{INPUT: at}) for at, one in enumerate(measured)], ignore_index=True)
    if not len(frame):
        raise UserError(f"{_named(measured[0])} has no run with a score; a comparison takes two systems or more")
    frame[SYSTEM] = _shown(frame, SYSTEM)
    frame[DATASET] = _shown(frame, DATASET)
    parts = {str(name): part for name, part in frame.groupby(DATASET, sort=False)}
    alone = [name for name, part in parts.items() if part[SYSTEM].nunique() < 2]
    if len(alone) == len(parts):
        raise UserError(_only_one(frame, len(parts)))
    apart = _not_compared(measured, parts, alone)
    found = []
    for name, part in parts.items():
        inputs = [measured[at] for at in part[INPUT].unique()]
        first = inputs[0]
        score, costs = _score(inputs), _costs(inputs)
        _check(part, score)
        if name not in alone:
            about = [one for one in measured if not (own := _datasets(one)) or name in own]
            failed = (failure for one in about for failure in one.failed)
            of = replace(
                _empty(score),
                dataset=name,
                title=name or title,
                sources=tuple(dict.fromkeys(one.source for one in about if one.source)),
                remarks=(*dict.fromkeys(remark for one in about for remark in one.remarks), *apart),
                failed=tuple(failure for failure in failed if sanitize(failure.dataset, LONGEST) in {"", name}),
                look=max(one.look for one in inputs),
                block=next((one.block for one in inputs if one.block), ""),
                unranked=next((one.unranked for one in inputs if one.unranked), ""),
                facts=first.facts if len(inputs) == 1 else None,
                trained_on=first.trained_on if len({one.trained_on for one in inputs}) == 1 else "",
                independent=independent,
            )
            found.append(_aligned(part, of, costs, shared=shared))
    return tuple(found)


def _datasets(one: InputScores) -> set[str]:
    """Return the data sets, as shown, of an input's lines and failed runs; none where it names none."""
    named = {failure.dataset for failure in one.failed if failure.dataset}
    if DATASET in one.lines:
        named |= set(one.lines[DATASET].dropna().map(str))
    return {sanitize(name, LONGEST) for name in named}


def _only_one(frame: pd.DataFrame, datasets: int) -> str:
    """Return the sentence on inputs whose data sets have one system each."""
    only, of_its_own = frame[SYSTEM].iloc[0], " of its data set" if datasets > 1 else ""
    return f"{frame[WHERE].iloc[0]}: '{only}' is the only system{of_its_own}; a comparison takes two or more"


def _not_compared(
    measured: Sequence[InputScores], parts: Mapping[str, object], alone: Sequence[str]
) -> tuple[str, ...]:
    """Return a remark for each data set with scores of one system (`alone`), or of none."""
    lost = dict.fromkeys(name for one in measured for name in _datasets(one) if name and name not in parts)
    return (
        *(f"Only one system has scores of {sanitize(name, 60)}: it isn't compared." for name in alone),
        *(f"No system has scores of {sanitize(name, 60)}: its runs failed." for name in lost),
    )


def _empty(score: ScoreDefinition) -> AlignedScores:
    return AlignedScores("", "", score, (), (), {}, None, None, None, bool(score.binary), {})


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
        raise UserError(f"--range is for the scores of rows, and of {sanitize(score.name, 40)} {known}; leave it away")
    if not (np.isfinite(bounds).all() and bounds[0] < bounds[1]):
        raise UserError(f"the range {bounds[0]:g} to {bounds[1]:g} is none; give the least score, then the largest")
    return replace(score, low=bounds[0], high=bounds[1])


def _score(inputs: Sequence[InputScores]) -> ScoreDefinition:
    """Return the score that all inputs of a data set hold."""
    first = inputs[0].score
    for of in inputs:
        one, source, first_source = of.score, _named(of), _named(inputs[0])
        if one.name != first.name:
            raise UserError(
                f"{source} holds the score {sanitize(one.name, 40)} and {first_source} {sanitize(first.name, 40)}, of "
                "one data set; choose one that all have by --metric"
            )
        if one.better != first.better:
            raise UserError(
                f"{first.name}: higher is better in one of {first_source} and {source}, lower in the other; "
                "add --lower if lower is better, or compare them apart"
            )
        if (one.low, one.high) != (first.low, first.high):
            raise UserError(
                f"{first.name} has another range in {source} than in {first_source}; give it by --range LOW,HIGH"
            )
        if one.margin != first.margin:
            raise UserError(
                f"{source} declares the margin {_margin(one.margin)} and {first_source} {_margin(first.margin)}, "
                "of one data set; compare them apart"
            )
        if one.largest != first.largest:
            raise UserError(
                f"{source} declares the largest difference {_margin(one.largest)} and {first_source} "
                f"{_margin(first.largest)}, of one data set; give one by --largest-difference"
            )
    return first


def _margin(declared: float | None) -> str:
    return "none" if declared is None else f"{declared:g}"


def _named(one: InputScores) -> str:
    return sanitize(one.source or (one.lines[WHERE].iloc[0] if len(one.lines) else "the input"), 300)


def _costs(measured: Sequence[InputScores]) -> tuple[CostDefinition, ...]:
    by_column: dict[str, CostDefinition] = {}
    for one in measured:
        for cost in one.costs:
            if by_column.setdefault(cost.column, cost) != cost:
                raise UserError(
                    f"{_named(one)}: the cost {sanitize(cost.title, 40)} has another title or unit than "
                    "in the inputs before; rename one of the columns"
                )
    return tuple(by_column.values())


def _prepared(one: InputScores) -> pd.DataFrame:
    """Return the lines with every column that has a meaning; a run or data set without a name has an empty one."""
    lines = one.lines.reset_index(drop=True).copy()
    for column in (SEED, DATASET):
        if column not in lines:
            lines[column] = ""
    for column in (ROW, GROUP):
        if column not in lines:
            lines[column] = None
    if COUNT not in lines:
        lines[COUNT] = np.nan
    needed = [SYSTEM, SCORE, SEED, DATASET, *([ROW] if ROW in one.lines else [])]
    for column in needed:
        missing = lines[column].isna()
        if missing.any():
            where = lines[WHERE][missing].iloc[0]
            what = "missing or not a number" if column == SCORE else "missing"
            raise UserError(f"{where}: {column} is {what}; give a value in each line, or leave the line out")
    if GROUP in one.lines and one.lines[GROUP].isna().any() and one.lines[GROUP].notna().any():
        where = lines[WHERE][lines[GROUP].isna()].iloc[0]
        raise UserError(f"{where}: group is missing; give every row its group, a row alone one of its own")
    for column in (SYSTEM, SEED, DATASET, ROW, GROUP):
        lines[column] = lines[column].map(str, na_action="ignore")
    return lines


def _check(frame: pd.DataFrame, score: ScoreDefinition) -> None:
    """Check that a data set's scores and numbers of rows are numbers, in their range."""
    values, where = frame[SCORE].to_numpy(dtype=float), frame[WHERE].to_numpy()
    for at in np.flatnonzero(~(np.abs(values) < LARGEST))[:1]:
        raise UserError(
            f"{where[at]}: the score is {values[at]:g}; give a number below {LARGEST:g}, or leave the row out"
        )
    if 0 < np.abs(values).max(initial=0.0) < SMALLEST:
        raise UserError(f"{where[0]}: all scores of {score.name} are below {SMALLEST:g}; give them in a smaller unit")
    low = -np.inf if score.low is None else score.low
    high = np.inf if score.high is None else score.high
    outside = (values < low) | (values > high)
    for at in np.flatnonzero(outside)[: 0 if score.linear else 1]:
        raise UserError(
            f"{where[at]}: the score {values[at]:g} is outside its range {low:g} to {high:g}; mend it, or give "
            "the range by --range LOW,HIGH"
        )
    counts = frame[COUNT].to_numpy(dtype=float)
    whole = (counts >= 1) & (counts <= MOST_ROWS) & (np.floor(counts) == counts)
    for at in np.flatnonzero(~np.isnan(counts) & ~whole)[:1]:
        raise UserError(
            f"{where[at]}: the number of rows is {counts[at]:,.12g}; give a whole number from 1 to {MOST_ROWS:,}"
        )


def _shown(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return names as they are shown: of one printable line, of at most so many characters, and still different."""
    known: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in dict.fromkeys(frame[column]):
        known[name] = sanitize(name, LONGEST)
        if name and not known[name]:
            where = frame[WHERE][frame[column] == name].iloc[0]
            raise UserError(f"{where}: the {column}'s name has no printable character; rename it")
        if first.setdefault(unicodedata.normalize("NFKC", known[name]), name) != name:
            where = frame[WHERE][frame[column] == name].iloc[0]
            raise UserError(
                f"{where}: the {column} '{known[name]}' looks like another one, from which it differs by what isn't "
                f"shown, in how Unicode writes a letter, or after {LONGEST} characters; rename one"
            )
    return frame[column].map(known)


def _aligned(
    part: pd.DataFrame, of: AlignedScores, costs: tuple[CostDefinition, ...], *, shared: bool
) -> AlignedScores:
    """Return the scores of one data set."""
    with_rows = part[ROW].notna()
    if with_rows.any() and not with_rows.all():
        a, b = part[WHERE][with_rows].iloc[0], part[WHERE][~with_rows].iloc[0]
        raise UserError(f"{b} has no row and {a} has one: give all inputs rows, or compare them apart")
    seeds = tuple(sorted(dict.fromkeys(part[SEED]), key=_by_number))
    number = {seed: at for at, seed in enumerate(seeds)}
    part = part.assign(run=part[SEED].map(number))
    by_run, unread = _by_run(part, costs)
    remarks = tuple(f"{why}: {', '.join(titles)}." for why, titles in unread.items())
    systems = tuple(dict.fromkeys(part[SYSTEM]))
    of = replace(of, systems=systems, seeds=seeds, costs=by_run, remarks=(*of.remarks, *remarks))
    _check_once(part, [SYSTEM, "run", ROW] if with_rows.any() else [SYSTEM, "run"])
    if CONTENT in part and with_rows.any():
        _check_content(part)
    return _with_rows(part, of, shared=shared) if with_rows.any() else _with_means(part, of)


def _by_number(seed: str) -> tuple[bool, float, str]:
    try:
        return False, float(seed), seed
    except ValueError:
        return True, 0.0, seed


def _check_once(part: pd.DataFrame, key: list[str]) -> None:
    twice = part.duplicated(key)
    if twice.any():
        again = part[twice].iloc[0]
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
) -> tuple[dict[CostDefinition, dict[str, dict[int, float]]], dict[str, list[str]]]:
    """Return each cost by system and run, and reason -> columns that are none, as the readers of tables can't know.

    One that differs within a run is no cost of the run.
    """
    found: dict[CostDefinition, dict[str, dict[int, float]]] = {}
    unread: dict[str, list[str]] = {}
    for cost in costs:
        if cost.column not in part:
            continue
        there = part[part[cost.column].notna()]
        values = there[cost.column].to_numpy(dtype=float)
        for at in np.flatnonzero(~(np.abs(values) < LARGEST))[:1]:
            raise UserError(
                f"{there[WHERE].iloc[at]}: {sanitize(cost.title, 40)} is {values[at]:g}; give a number below "
                f"{LARGEST:g}, or leave it empty"
            )
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
        by_system: dict[str, dict[int, float]] = {}
        firsts = there.drop_duplicates([SYSTEM, "run"])
        for system, run, value in zip(firsts[SYSTEM], firsts["run"], firsts[cost.column], strict=True):
            by_system.setdefault(str(system), {})[int(run)] = float(value)
        if by_system:
            found[cost] = by_system
    return found, unread


def _check_content(part: pd.DataFrame) -> None:
    """Check that a row's id means the same row in all inputs that say what their rows hold."""
    known = part[part[CONTENT].notna()]
    first = known.groupby(ROW, sort=False)[[CONTENT, WHERE]].transform("first")
    for at in np.flatnonzero((first[CONTENT] != known[CONTENT]).to_numpy())[:1]:
        line = known.iloc[at]
        raise UserError(
            f"{line[WHERE]}: row '{sanitize(line[ROW], 60)}' is another one than in {first[WHERE].iloc[at]}, by their "
            "contents; compare results of the same version of the data"
        )


def _with_rows(part: pd.DataFrame, of: AlignedScores, *, shared: bool) -> AlignedScores:
    import pandas as pd

    rows = pd.Index(dict.fromkeys(part[ROW]))
    place = part.assign(place=rows.get_indexer(part[ROW]))
    there = place.groupby([SYSTEM, "run"], sort=False)["place"]
    if (there.size() != len(rows)).any() and not shared:
        raise UserError(_unequal(place, rows, of))
    values: _Rows = {name: {} for name in of.systems}
    for system, run, own in _runs(place):
        ordered = np.full(len(rows), np.nan)
        ordered[own["place"].to_numpy()] = own[SCORE].to_numpy(dtype=float)
        values[system][run] = ordered
    every = np.unique([scores for by in values.values() for scores in by.values()])
    every = every[~np.isnan(every)]
    binary = bool(np.isin(every, (0.0, 1.0)).all()) and (of.score.low, of.score.high) in {(None, None), (0.0, 1.0)}
    binary = binary if of.score.binary is None else of.score.binary
    of, groups = replace(of, binary=binary), _groups(place, len(rows))
    missing = {name: np.isnan(list(by.values())).any(axis=0) for name, by in values.items()}
    left = np.any(list(missing.values()), axis=0)
    if not left.any():
        return _of_rows(of, values, groups)
    if left.all():
        raise UserError(f"{place[WHERE].iloc[0]}: no row of {of.title} is in every run of every system; compare fewer")
    low, high = of.ends
    worst = low if of.score.better == "higher" else high
    if worst is None:
        worst = float(every.min() if of.score.better == "higher" else every.max())
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


def _runs(place: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Yield system, run and lines of each run."""
    for name, by_run in place.groupby(SYSTEM, sort=False):
        for run, own in by_run.groupby("run", sort=False):
            yield str(name), int(str(run)), own


def _unequal(place: pd.DataFrame, rows: pd.Index[str], of: AlignedScores) -> str:
    """Return the sentence on the first run that lacks rows of another one."""
    for system, run, own in _runs(place):
        missing = np.setdiff1d(np.arange(len(rows)), own["place"])
        if len(missing):
            other = place[place["place"] == missing[0]].iloc[0]
            seed = f", seed {sanitize(of.seeds[run], 20)}," if of.seeds[run] else ""
            return (
                f"'{system}'{seed} has {len(own):,} of {len(rows):,} rows of {of.title}: it lacks row "
                f"'{sanitize(rows[missing[0]], 60)}', which '{other[SYSTEM]}' has ({other[WHERE]}); add the rows, or "
                "compare those that all have by --shared"
            )
    raise AssertionError("some run lacks a row")


def _groups(place: pd.DataFrame, count: int) -> NDArray[np.int64] | None:
    """Return the group of each row, numbered; None where rows have none."""
    import pandas as pd

    named = place[place[GROUP].notna()]
    if not len(named):
        return None
    if len(named) < len(place):
        where = place[WHERE][place[GROUP].isna()].iloc[0]
        raise UserError(f"{where}: group is missing; give every row its group, a row alone one of its own")
    first = named.groupby("place")[GROUP].transform("first")
    for at in np.flatnonzero((first != named[GROUP]).to_numpy())[:1]:
        line = named.iloc[at]
        raise UserError(
            f"{line[WHERE]}: row '{sanitize(line[ROW], 60)}' is in group '{sanitize(line[GROUP], 40)}', and elsewhere "
            f"in '{sanitize(first.iloc[at], 40)}'; give it one group in all lines"
        )
    found = np.zeros(count, dtype=np.int64)
    found[named["place"].to_numpy()] = pd.factorize(named[GROUP])[0]
    return found if len(np.unique(found)) < count else None


def _with_means(part: pd.DataFrame, of: AlignedScores) -> AlignedScores:
    """Return scores of which only means are known."""
    counts = part[COUNT].to_numpy(dtype=float)
    known = np.isfinite(counts)
    if known.any():
        for at in np.flatnonzero(counts != counts[known][0])[:1]:
            line, first = part.iloc[at], part[known].iloc[0]
            has = f"{counts[at]:,.0f} rows" if known[at] else "no number of rows"
            raise UserError(
                f"{line[WHERE]}: '{line[SYSTEM]}' has {has} of {of.title} and '{first[SYSTEM]}' "
                f"{first[COUNT]:,.0f} ({first[WHERE]}); compare scores of the same rows"
            )
    means: dict[str, dict[int, float]] = {name: {} for name in of.systems}
    for system, run, value in zip(part[SYSTEM], part["run"], part[SCORE], strict=True):
        means[str(system)][int(run)] = float(value)
    return replace(of, means=means, count=int(counts[0]) if known.all() else None)
