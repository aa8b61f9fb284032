"""What accuracy costs: charts against time and memory, and the Pareto front with how sure it is."""

from __future__ import annotations

from hpml_bench import statistics
from hpml_bench.records import Figure, Section, Table, Text
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, Quantity, number, sentence_list, table

order = 40
GAIN = "test_accuracy"
COSTS = {"train_seconds": "training time", "peak_memory_mb": "peak memory"}
FRONT = (GAIN, "samples_per_second", "peak_memory_mb")
FEW = 4
"""Seeds shared by all methods under which a bootstrap over them has too few distinct samples for a probability."""


def section(results: Results) -> Section | None:
    """Return a scatter per cost, the Pareto front, and the methods that cost more for nothing that shows."""
    if not results.measured(GAIN):
        return None
    from hpml_bench.report.figures import trade_off

    sentences: list[str] = []
    figures: list[Figure] = []
    for cost in results.measured(*COSTS):
        front = efficient(results, (GAIN, cost)) if results.one_machine else ()
        figure = trade_off(results, cost, GAIN, f"{GAIN}_against_{cost}", front)
        if figure is None:
            continue
        figures.append(figure)
        if results.one_machine:
            verb = "is" if len(front) == 1 else "are"
            sentences.append(f"By means, {sentence_list(front)} {verb} efficient in accuracy against {COSTS[cost]}.")
            sentences += [
                f"{dear} costs significantly more {COSTS[cost]} than {sentence_list(cheap)} without being "
                "significantly more accurate."
                for dear, cheap in dispensable(results, cost).items()
            ]
    if not figures:
        return None
    if not results.one_machine:
        sentences.append(
            "The runs come from different hardware or versions: the costs drawn here are not one comparison, and no "
            "method is called efficient."
        )
    front_table = _front(results)
    blocks = (Text(sentences=tuple(sentences)), *((front_table,) if front_table else ()), *figures)
    return Section(slug="cost-accuracy", title="Cost against accuracy", blocks=blocks)


def efficient(results: Results, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Return the methods whose means on these metrics no other method's dominate."""
    means = {m: [i.mean for metric in metrics if (i := results.interval(m, metric))] for m in results.methods}
    points = {method: point for method, point in means.items() if len(point) == len(metrics)}
    return statistics.pareto_efficient(points, [results.definitions[metric].better for metric in metrics])


def dispensable(results: Results, cost: str) -> dict[str, tuple[str, ...]]:
    """Return each method that costs significantly more than others it doesn't significantly surpass, and those.

    Significant over the comparisons of both metrics as one family, since a sentence cites both.
    """
    comparisons = results.jointly(cost, GAIN)
    dearer = {(c.higher, c.lower) for c in comparisons[cost] if c.differs}
    surpasses = {(c.higher, c.lower) for c in comparisons[GAIN] if c.differs}
    tested = {frozenset((c.a, c.b)) for c in comparisons[GAIN] if c.p is not None}
    found = {
        a: tuple(b for b in results.methods if (a, b) in dearer - surpasses and frozenset((a, b)) in tested)
        for a in results.methods
    }
    return {a: others for a, others in found.items() if others}


def _front(results: Results) -> Table | None:
    """Return who is on the front over accuracy, throughput and memory, and with what probability."""
    metrics = results.measured(*FRONT)
    if len(metrics) < 2 or not results.one_machine or len(results.methods) < 2:
        return None
    quantities = [Quantity.of(results, metric) for metric in metrics]
    on_it = efficient(results, metrics)
    points = _points(results, metrics)
    shared = set.intersection(*map(set, points.values())) if points else set()
    better = [results.definitions[metric].better for metric in metrics]
    probability = statistics.front_probabilities(points, better) if len(shared) >= FEW else {}
    rows: list[list[Cell]] = []
    for method in results.methods:
        means = [quantity.spread(results.interval(method, quantity.metric.name)) for quantity in quantities]
        place = "yes" if method in on_it else "no"
        rows.append([method, place, _percent(probability.get(method)), *means])
    notes = [
        "On the front: no other method's means are as good in every column and better in one. The probability is the "
        "share of 10,000 bootstrap samples over seeds, paired across methods, in which that holds; with few "
        "seeds read it as sure, unsure or hardly."
    ]
    if any(set(by_seed) != shared for by_seed in points.values()):
        notes.append(
            "Some methods lack seeds: who is on the front is by the means shown, each over its method's own seeds; "
            f"all methods share {len(shared)} of {len(results.seeds)} seeds, and probabilities are over those alone."
        )
    columns = ("method", "On the front", "Probability (%)", *(quantity.header for quantity in quantities))
    names = sentence_list([quantity.title for quantity in quantities])
    return table("pareto", f"Pareto front over {names}", columns, rows, notes)


def _points(results: Results, metrics: tuple[str, ...]) -> dict[str, dict[int, list[float]]]:
    """Return method -> seed -> a value per metric, of the methods and seeds that have them all."""
    values = [results.values(metric) for metric in metrics]
    return {
        method: {
            seed: [of[method][seed] for of in values] for seed in set.intersection(*(set(of[method]) for of in values))
        }
        for method in results.methods
        if all(method in of for of in values)
    }


def _percent(share: float | None) -> Cell:
    if share is None:
        return "too few seeds", None
    text = "> 99" if 0.99 < share < 1 else "< 1" if 0 < share < 0.01 else number(100 * share, ".0f")
    return text, 100 * share
