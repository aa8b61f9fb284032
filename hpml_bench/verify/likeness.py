"""Likeness: whether the losses of a run's test rows are another run's, changed a little, exchanged
or invented.

Two trainings of different seeds end at different weights, and so do the losses of all rows; those
of the references differ by a median of 1 to 60 percent. What is said here follows from how a
method's seeds differ from each other, so that a method whose seeds all answer nearly alike, as one
that was hardly trained, is not judged.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray

from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import grouped, method_of
from hpml_bench.verify.folder import Evidence, Finding, failed

LEAST_RUNS = 3  # seeds of a method from which a pair that is too much alike stands out
LEAST_ROWS = 100  # rows with a telling loss from which runs are compared
TELLING = 1e-3  # nats; smaller losses have few digits left in float32
NEAR = 2e-3  # relative difference of two losses that an edit may have made
COPIED, USUAL = 0.5, 0.1
"""Share of near rows of a pair from which it is a copy, and up to which most pairs of the method
must have.
"""
# distance to the other method's seeds, as a share of that to its own, below which a run is named
EXCHANGED = 0.8
COARSE = (
    0.1  # loss above which equal values in float32 need equal inputs: there are millions of values
)
LEAST_EQUAL = 10  # rows of one loss that are named
SEVERAL = 0.5  # share of rows with losses of their own


def near_copies(evidence: Evidence) -> Iterator[Finding]:
    """No run's losses are nearly those of another seed."""
    for records in grouped(_moved(evidence), method_of).values():
        losses = {record.run_id: evidence.traces[record.run_id].row_losses for record in records}
        shares = {
            (one, other): share
            for one, other in combinations(losses, 2)
            if (share := _near_share(losses[one], losses[other])) is not None
        }
        if len(records) < LEAST_RUNS or not shares or median(shares.values()) > USUAL:
            continue
        for (one, other), share in shares.items():
            if share >= COPIED:
                what = (
                    f"the losses of {share:.0%} of its test rows are within {NEAR:.1%} of those "
                    f"of {other}"
                )
                yield failed(
                    one,
                    (
                        f"{what}, and of {median(shares.values()):.0%} in most pairs of seeds: "
                        f"one is a copy"
                    ),
                )


def exchanged(evidence: Evidence) -> Iterator[Finding]:
    """Methods answer most like themselves in other seeds."""
    by_method = {
        method: {record.spec.seed: record for record in records}
        for method, records in grouped(_moved(evidence), method_of).items()
        if len(records) >= LEAST_RUNS
    }
    for one, other in combinations(by_method.values(), 2):
        for seed in sorted(one.keys() & other.keys()):
            if _like_the_other(evidence, seed, one, other) and _like_the_other(
                evidence, seed, other, one
            ):
                names = " and ".join(sorted((one[seed].run_id, other[seed].run_id)))
                what = (
                    "answer as the other one's method does in all other seeds, as if the answers "
                    "had been exchanged"
                )
                yield Finding("not checked", f"{names}: {what}: no file shows whether they were")


def repeated_losses(evidence: Evidence) -> Iterator[Finding]:
    """Rows that other runs tell apart have losses of their own."""
    losses = {
        record.run_id: evidence.traces[record.run_id].row_losses for record in evidence.compared
    }
    for record in evidence.compared:
        own = losses[record.run_id]
        values, rows_of = np.unique(own[own > COARSE], return_counts=True)
        # coarser numbers repeat by themselves, and so do all losses of a model that gives every
        # text one answer
        if record.spec.settings.precision != "fp32" or len(values) < SEVERAL * rows_of.sum():
            continue
        for value in values[rows_of >= LEAST_EQUAL]:
            rows = own == value
            others = [of_run[rows] for of_run in losses.values() if len(of_run) == len(own)]
            if max(len(np.unique(of_run)) for of_run in others) > SEVERAL * rows.sum():
                what = (
                    f"{rows.sum():,} of its test rows have one loss, {value:.7g}, and other runs "
                    f"tell them apart"
                )
                yield failed(record.run_id, what)


def _moved(evidence: Evidence) -> tuple[RunRecord, ...]:
    """Return the trained runs whose validation loss moved: a training without effect may equal
    any other.
    """
    return tuple(record for record in evidence.trained if not evidence.traces[record.run_id].still)


def _relative_differences(
    one: NDArray[np.float32], other: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Return the differences of two runs' losses [telling rows], as shares of the larger; None
    of too few rows.
    """
    if len(one) != len(other):
        return None
    larger = np.maximum(one, other)
    telling = np.isfinite(larger) & (larger > TELLING)
    if telling.sum() < LEAST_ROWS:
        return None
    return np.asarray(np.abs(one - other)[telling] / larger[telling])


def _near_share(one: NDArray[np.float32], other: NDArray[np.float32]) -> float | None:
    differences = _relative_differences(one, other)
    return None if differences is None else float((differences <= NEAR).mean())


def _like_the_other(
    evidence: Evidence, seed: int, own: Mapping[int, RunRecord], other: Mapping[int, RunRecord]
) -> bool:
    """Return whether a run is further from all its method's other seeds than from all of the
    other method's.
    """

    def distances(runs: Mapping[int, RunRecord]) -> list[float]:
        losses = [evidence.traces[run.run_id].row_losses for at, run in runs.items() if at != seed]
        pairs = (
            _relative_differences(evidence.traces[own[seed].run_id].row_losses, of_run)
            for of_run in losses
        )
        return [float(np.median(differences)) for differences in pairs if differences is not None]

    to_own, to_other = distances(own), distances(other)
    return bool(to_own and to_other) and max(to_other) < EXCHANGED * min(to_own)
