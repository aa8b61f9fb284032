"""Which look at its data a page of a comparison is."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench.judge.looks import Data, Declarations, Taken, changed_since, look_at, sketch
from hpml_bench.judge.scores import AlignedScores
from hpml_bench.judge.verdicts import Verdicts, judge
from hpml_bench.system.errors import UserError

# rows of one system that agree in two files by chance in one of 65,536 cases, if half are right
LEAST_PREFIX = 16


class Asked(NamedTuple):
    """What the user says of looks, and where they are counted."""

    folder: Path  # with the list of looks
    look: int | None = None  # number of this look, from 1
    looks: int | None = None  # number of looks that will be taken


def at_look(found: Verdicts, margin: float | None, asked: Asked, page: str) -> Verdicts:
    """Return the verdicts at the look which a page in the folder `page` below the list's is.

    Of one suite's runs the records count looks.
    """
    scores = found.scores
    if asked.looks is not None and (scores.facts or scores.race):
        raise UserError(
            f"--looks {asked.looks}: the records of {scores.title} count its looks; leave --looks "
            f"out"
        )
    data, declared, tested = (
        _data(scores),
        _declarations(found),
        bool(found.tested) and not scores.facts,
    )
    digest = _digest(scores) if tested else ""
    taken = look_at(
        asked.folder,
        digest,
        data,
        scores.systems,
        asked.look,
        declared=declared,
        looks=asked.looks,
        page=page,
        tested=tested,
    )
    if (
        scores.facts and scores.score.margin is not None
    ):  # the suite declared it before its first run
        by_suite = declared.model_copy(update={"margin": scores.score.margin})
        taken = taken._replace(changed=changed_since(by_suite, declared))
    look = asked.look or max(scores.look, taken.look)
    if Taken(look, taken.declared, taken.changed) == Taken(
        scores.look, scores.looks, scores.changed
    ):
        return found
    return judge(replace(scores, look=look, looks=taken.declared, changed=taken.changed), margin)


def _digest(scores: AlignedScores) -> str:
    """Return a digest of the scores and costs, in any order of an input's lines."""
    runs = sorted((name, scores.seeds[run], run) for name, of in scores.means.items() for run in of)
    values = scores.rows or scores.means
    table = np.array([np.atleast_1d(values[name][run]) for name, _, run in runs], dtype=float)
    costs = sorted(
        (cost.title, name, scores.seeds[run], f"{value:.10g}")
        for cost, by_system in scores.costs.items()
        for name, by_run in by_system.items()
        for run, value in by_run.items()
    )
    named = repr(([run[:2] for run in runs], costs)).encode()
    return hashlib.sha256(named + table[:, np.lexsort(table)].tobytes()).hexdigest()


def _declarations(found: Verdicts) -> Declarations:
    score = found.scores.score
    implied = found.scores.binary and (score.low, score.high) == (0.0, 1.0)
    return Declarations(
        metric=score.name,
        worst=score.better if found.scores.filled else "",
        bounds=(None, None) if implied else (score.low, score.high),
        largest=score.largest,
        margin=found.margin,
    )


def _data(scores: AlignedScores) -> Data:
    name = scores.dataset or scores.title
    return Data(of=name, by_file=not scores.dataset, rows=sketch(_row_ids(scores, name)))


def _row_ids(scores: AlignedScores, name: str) -> Iterator[str]:
    """Yield what tells the rows of a data set from those of another one."""
    ids = scores.row_ids
    if not ids or not all(one.isascii() and one.isdecimal() for one in ids):
        yield from ids
        return
    # Whole numbers are mostly places in a file, which every file has. So they are those of their
    # file, by its name, and those of another one whose first rows have the same scores, as if rows
    # were appended to it.
    yield f"file {name}"
    numbers = np.array([float(one) for one in ids])
    yield from _prefixes(scores, np.argsort(numbers, kind="stable"))
    if numbers.max() - numbers.min() >= len(ids) or numbers.min() > 1:
        yield from ids


def _prefixes(scores: AlignedScores, order: NDArray[np.int64]) -> Iterator[str]:
    """Yield digests of the scores of each run's first 16, 32, 64, ... rows; of unequal scores,
    as others have them.
    """
    for name, by_run in (scores.rows or {}).items():
        for run, values in by_run.items():
            ordered, length = np.asarray(values, dtype=float)[order], LEAST_PREFIX
            while length <= len(ordered):
                if np.ptp(ordered[:length]):
                    digest = hashlib.sha256(ordered[:length].tobytes()).hexdigest()
                    yield f"scores {name} {scores.seeds[run]} {digest}"
                length *= 2
