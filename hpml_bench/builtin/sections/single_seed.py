"""Single seed: intervals and tests over the test rows, for the noise of the test set, not that of training."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING, Any

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, cell, limits, p_cell, section_of, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

order = 31
question = "sure"
about = "intervals and tests over test rows"
LABEL = (
    "Test-set noise only: another seed of the same method may differ by more than these intervals, so nothing here "
    "ranks methods. Run more seeds for that."
)
DIFFER = "these two models differ"
Scores = dict[str, "NDArray[Any]"]
Pairs = dict[str, tuple["NDArray[Any]", "NDArray[Any]"]]


def section(results: Results) -> Section | None:
    """Return intervals and tests over the test rows; nothing with several seeds or without predictions.

    Where rows are right or wrong: Wilson's interval and McNemar's test; else, and where rows have groups, Student's t
    over the scores of rows or groups.
    """
    if len(results.seeds) != 1 or results.quality not in results.definitions:
        return None
    scores = {method: of for method in results.methods for of in results.scores(method).values()}
    pairs = {f"{a} against {b}": (scores[a], scores[b]) for a, b in combinations(scores, 2)}
    tests = _mcnemar(pairs) if _rows_are_independent_binary(results) else _paired(results, pairs)
    return section_of("single-seed", "One seed: test-set noise only", _intervals(results, scores), tests)


def _rows_are_independent_binary(results: Results) -> bool:
    """Return whether rows are right or wrong and independent, as Wilson's interval and McNemar's test presume."""
    return results.task.binary and results.test_groups is None


def _intervals(results: Results, scores: Scores) -> Table:
    score, count = Quantity.of(results, results.quality), cell(results.test_rows, "d")
    rows = [[method, _value(score, of), _interval(results, score, of), count] for method, of in scores.items()]
    how = (
        "Wilson's score interval of a proportion"
        if _rows_are_independent_binary(results)
        else f"Student's t over {_whose(results)} scores, whose mean is the {score.title}"
    )
    notes = [f"{how}. {LABEL}"]
    if found := results.guess:
        notes.append(found.sentence)
    columns = ("method", score.header, "95 % interval", "Test rows")
    name = "binomial" if _rows_are_independent_binary(results) else "one_seed"
    caption = f"{score.heading} of one seed, test-set noise only"
    return table(name, caption, columns, rows, notes)


def _whose(results: Results) -> str:
    """Return the units whose scores are taken as independent, rows or groups, in the genitive."""
    return "the rows'" if results.test_groups is None else f"the {results.test_groups:,} groups'"


def _value(score: Quantity, scores: NDArray[Any]) -> Cell:
    return cell(score.scale * float(scores.mean()), score.metric.format)


def _interval(results: Results, score: Quantity, scores: NDArray[Any]) -> str:
    """Return the 95 % interval of a method's mean score over test rows, within the score's bounds."""
    if _rows_are_independent_binary(results):
        ends: tuple[float, float] | None = statistics.binomial_interval(int(scores.sum()), scores.size)
    else:
        ends = statistics.rows_interval(scores)
    if ends is None:
        return MISSING
    bounded = results.within_bounds(results.quality, statistics.Interval(1, float(scores.mean()), None, *ends))
    return limits(score.scale * (bounded.low or 0.0), score.scale * (bounded.high or 0.0), score.metric.format)


def _tested(pairs: Iterable[str], shown: Iterable[tuple[Cell, Cell]], p: list[float]) -> list[list[Cell]]:
    """Return a row for each pair: what is shown of it, its p, and the verdict."""
    return [
        [pair, *of, p_cell(plain), p_cell(adjusted), DIFFER if adjusted < statistics.ALPHA else "undecided"]
        for pair, of, plain, adjusted in zip(pairs, shown, p, statistics.holm(p), strict=True)
    ]


def _mcnemar(pairs: Pairs) -> Table:
    counts = [(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in pairs.values()]
    shown = [(cell(only_a, "d"), cell(only_b, "d")) for only_a, only_b in counts]
    rows = _tested(pairs, shown, [statistics.mcnemar(*only) for only in counts])
    columns = ("Pair", "Only first right", "Only second right", "p", "p (Holm)", "Verdict")
    notes = [f"McNemar's exact test over the test rows, Holm over these pairs. {LABEL}"]
    return table("mcnemar", "Pairs on one seed, test-set noise only", columns, rows, notes)


def _paired(results: Results, pairs: Pairs) -> Table:
    score = Quantity.of(results, results.quality)
    differences = [a.astype(float) - b for a, b in pairs.values()]
    found = [statistics.rows_evidence(of) for of in differences]
    p = [statistics.p_different(one) if one else 1.0 for one in found]
    rows = _tested(pairs, ((_value(score, of), _between(score, of)) for of in differences), p)
    columns = ("Pair", "Difference", "95 % interval", "p", "p (Holm)", "Verdict")
    notes = [
        f"Differences of the first less the second; Student's t over {_whose(results)} differences of scores, Holm "
        f"over these pairs. {LABEL}"
    ]
    unit = f" (differences in {score.difference_unit})" if score.difference_unit else ""
    return table("one_seed_pairs", f"Pairs on one seed, test-set noise only{unit}", columns, rows, notes)


def _between(score: Quantity, of: NDArray[Any]) -> str:
    found = statistics.rows_interval(of)
    return limits(score.scale * found[0], score.scale * found[1], score.metric.format) if found else MISSING
