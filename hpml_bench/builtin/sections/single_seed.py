"""Single seed: intervals and tests over the test rows, for the noise of the test set, not that of training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, p_value, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

order = 31
LABEL = (
    "Test-set noise only: another seed of the same method may differ by more than these intervals, so nothing here "
    "ranks methods. Run more seeds for that."
)
DIFFER = "these two models differ"


def section(results: Results) -> Section | None:
    """Return intervals and tests over the test rows; nothing with several seeds or without predictions.

    Where rows are right or wrong: Wilson's interval and McNemar's test; else, and where rows have groups, Student's t
    over the scores of rows or groups.
    """
    if len(results.seeds) != 1 or results.quality not in results.definitions:
        return None
    blocks = [block for block in (_intervals(results), _pairs(results)) if block is not None]
    title = "One seed: test-set noise only"
    return Section(slug="single-seed", title=title, blocks=tuple(blocks)) if blocks else None


def _scores(results: Results) -> Iterator[tuple[str, NDArray[Any]]]:
    for method in results.methods:
        for scores in results.scores(method).values():
            yield method, scores


def _by_rows_alone(results: Results) -> bool:
    """Return whether rows are right or wrong and independent, as Wilson's interval and McNemar's test presume."""
    return results.task.binary and results.test_groups is None


def _intervals(results: Results) -> Table | None:
    score, count = Quantity.of(results, results.quality), results.test_rows
    rows = [
        [method, _value(score, of), _interval(results, score, of), (number(count, "d"), float(count))]
        for method, of in _scores(results)
    ]
    how = (
        "Wilson's score interval of a proportion"
        if _by_rows_alone(results)
        else f"Student's t over {_whose(results)} scores, whose mean is the {score.title}"
    )
    notes = [f"{how}. {LABEL}"]
    if found := results.guess:
        notes.append(found.sentence)
    columns = ("method", score.header, "95 % interval", "Test rows")
    name = "binomial" if _by_rows_alone(results) else "one_seed"
    caption = f"{score.heading} of one seed, test-set noise only"
    return table(name, caption, columns, rows, notes) if rows else None


def _whose(results: Results) -> str:
    """Return the units whose scores are taken as independent, rows or groups, in the genitive."""
    return "the rows'" if results.test_groups is None else f"the {results.test_groups:,} groups'"


def _value(score: Quantity, of: NDArray[Any]) -> Cell:
    mean = score.scale * float(of.mean())
    return number(mean, score.metric.format), mean


def _interval(results: Results, score: Quantity, of: NDArray[Any]) -> str:
    if _by_rows_alone(results):
        found: tuple[float, float] | None = statistics.binomial_interval(int(of.sum()), of.size)
    else:
        found = statistics.rows_interval(of)
    if found is None:
        return MISSING
    whole = results.within_bounds(results.quality, statistics.Interval(1, float(of.mean()), None, *found))
    low, high = (number(score.scale * end, score.metric.format) for end in (whole.low or 0.0, whole.high or 0.0))
    return f"[{low}, {high}]"


def _pairs(results: Results) -> Table | None:
    scores = dict(_scores(results))
    pairs = {f"{a} against {b}": (scores[a], scores[b]) for a, b in combinations(scores, 2)}
    return None if not pairs else _mcnemar(pairs) if _by_rows_alone(results) else _paired(results, pairs)


def _mcnemar(pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Table:
    counts = [(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in pairs.values()]
    p = [statistics.mcnemar(*only) for only in counts]
    rows: list[list[Cell]] = [
        [
            pair,
            (number(only_a, "d"), float(only_a)),
            (number(only_b, "d"), float(only_b)),
            (p_value(plain), plain),
            (p_value(adjusted), adjusted),
            DIFFER if adjusted < statistics.ALPHA else "undecided",
        ]
        for pair, (only_a, only_b), plain, adjusted in zip(pairs, counts, p, statistics.holm(p), strict=True)
    ]
    columns = ("Pair", "Only first right", "Only second right", "p", "p (Holm)", "Verdict")
    notes = [f"McNemar's exact test over the test rows, Holm over these pairs. {LABEL}"]
    return table("mcnemar", "Pairs on one seed, test-set noise only", columns, rows, notes)


def _paired(results: Results, pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Table:
    score = Quantity.of(results, results.quality)
    differences = [a.astype(float) - b for a, b in pairs.values()]
    found = [statistics.rows_evidence(of) for of in differences]
    p = [statistics.p_different(one) if one else 1.0 for one in found]
    rows: list[list[Cell]] = [
        [
            pair,
            _value(score, of),
            _between(score, of),
            (p_value(plain), plain),
            (p_value(adjusted), adjusted),
            DIFFER if adjusted < statistics.ALPHA else "undecided",
        ]
        for pair, of, plain, adjusted in zip(pairs, differences, p, statistics.holm(p), strict=True)
    ]
    columns = ("Pair", "Difference", "95 % interval", "p", "p (Holm)", "Verdict")
    notes = [
        f"Differences of the first less the second; Student's t over {_whose(results)} differences of scores, Holm "
        f"over these pairs. {LABEL}"
    ]
    unit = f" (differences in {score.difference_unit})" if score.difference_unit else ""
    return table("one_seed_pairs", f"Pairs on one seed, test-set noise only{unit}", columns, rows, notes)


def _between(score: Quantity, of: NDArray[Any]) -> str:
    found = statistics.rows_interval(of)
    if found is None:
        return MISSING
    low, high = (number(score.scale * end, score.metric.format) for end in found)
    return f"[{low}, {high}]"
