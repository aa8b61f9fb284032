"""What accuracy costs: against training time and against memory, with the efficient methods marked."""

from __future__ import annotations

from hpml_bench import statistics
from hpml_bench.records import Figure, Section, Text
from hpml_bench.report.results import Results
from hpml_bench.report.tables import sentence_list

order = 40
GAIN = "test_accuracy"
COSTS = {"train_seconds": "training time", "peak_memory_mb": "peak memory"}


def section(results: Results) -> Section | None:
    """Return a scatter per cost, and which methods are Pareto-efficient by their means."""
    if not results.measured(GAIN):
        return None
    from hpml_bench.report.figures import trade_off

    sentences: list[str] = []
    figures: list[Figure] = []
    for cost in results.measured(*COSTS):
        front = efficient(results, cost)
        figure = trade_off(results, cost, GAIN, f"{GAIN}_against_{cost}", front)
        if figure is None:
            continue
        figures.append(figure)
        sentences.append(
            f"By means, {sentence_list(front)} {'is' if len(front) == 1 else 'are'} efficient in accuracy against "
            f"{COSTS[cost]}."
        )
        if results.one_machine:
            sentences += [
                f"{dear} costs significantly more {COSTS[cost]} than {sentence_list(cheap)} without being "
                "significantly more accurate."
                for dear, cheap in dispensable(results, cost).items()
            ]
    if not figures:
        return None
    if not results.one_machine:
        sentences.append(
            "The runs come from different hardware or versions: the costs drawn here are not one comparison."
        )
    return Section(
        slug="cost-accuracy", title="Cost against accuracy", blocks=(Text(sentences=tuple(sentences)), *figures)
    )


def efficient(results: Results, cost: str) -> tuple[str, ...]:
    """Return the methods whose mean accuracy and mean cost no other method dominates."""
    points = {}
    for method in results.methods:
        gain, paid = results.interval(method, GAIN), results.interval(method, cost)
        if gain and paid:
            points[method] = (gain.mean, paid.mean)
    return statistics.pareto_efficient(points, ("higher", "lower"))


def dispensable(results: Results, cost: str) -> dict[str, tuple[str, ...]]:
    """Return each method that costs significantly more than others it doesn't significantly surpass, and those."""
    dearer = {(c.higher, c.lower) for c in results.comparisons(cost) if c.differs}
    surpasses = {(c.higher, c.lower) for c in results.comparisons(GAIN) if c.differs}
    tested = {frozenset((c.a, c.b)) for c in results.comparisons(GAIN) if c.p is not None}
    found = {
        a: tuple(b for b in results.methods if (a, b) in dearer - surpasses and frozenset((a, b)) in tested)
        for a in results.methods
    }
    return {a: others for a, others in found.items() if others}
