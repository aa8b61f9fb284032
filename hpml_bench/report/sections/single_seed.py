"""With one seed: what its test rows can tell, which is the noise of the test set and not that of training."""

from __future__ import annotations

from itertools import combinations

from hpml_bench import statistics
from hpml_bench.report.blocks import Section, Table
from hpml_bench.report.guessing import guess
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, number, p_value, table

order = 31
LABEL = (
    "Test-set noise only: another seed of the same method may differ by more than these intervals, so nothing here "
    "ranks methods. Run more seeds for that."
)


def section(results: Results) -> Section | None:
    """Return binomial intervals and McNemar's tests; nothing with several seeds or without predictions."""
    if len(results.seeds) != 1:
        return None
    blocks = [block for block in (_intervals(results), _pairs(results)) if block is not None]
    title = "One seed: test-set noise only"
    return Section(slug="single-seed", title=title, blocks=tuple(blocks)) if blocks else None


def _intervals(results: Results) -> Table | None:
    rows: list[list[Cell]] = []
    for method in results.methods:
        for right in results.scores(method).values():
            low, high = statistics.binomial_interval(int(right.sum()), right.size)
            share = 100 * float(right.mean())
            between = f"[{number(100 * low, '.1f')}, {number(100 * high, '.1f')}]"
            size = (number(right.size, "d"), float(right.size))
            rows.append([method, (number(share, ".1f"), share), between, size])
    columns = ("method", "Accuracy (%)", "95 % interval", "Test rows")
    notes = [f"Wilson's score interval of a proportion. {LABEL}"]
    if found := guess(results):
        notes.append(found.sentence)
    return table("binomial", "Accuracy of one seed, test-set noise only", columns, rows, notes) if rows else None


def _pairs(results: Results) -> Table | None:
    right = {method: one for method in results.methods for one in results.scores(method).values()}
    counts = {
        (a, b): (int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum()))
        for a, b in combinations(right, 2)
    }
    p = [statistics.mcnemar(*only) for only in counts.values()]
    rows: list[list[Cell]] = [
        [
            f"{a} against {b}",
            (number(only_a, "d"), float(only_a)),
            (number(only_b, "d"), float(only_b)),
            (p_value(plain), plain),
            (p_value(adjusted), adjusted),
            "these two models differ" if adjusted < statistics.ALPHA else "undecided",
        ]
        for ((a, b), (only_a, only_b)), plain, adjusted in zip(counts.items(), p, statistics.holm(p), strict=True)
    ]
    columns = ("Pair", "Only first right", "Only second right", "p", "p (Holm)", "Verdict")
    notes = [f"McNemar's exact test over the test rows, Holm over these pairs. {LABEL}"]
    return table("mcnemar", "Pairs on one seed, test-set noise only", columns, rows, notes) if rows else None
