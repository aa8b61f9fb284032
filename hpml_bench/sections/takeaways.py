"""The answer in sentences, computed from the numbers: a difference is claimed only where it is real over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpml_bench import statistics
from hpml_bench.records import Section, Text
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity, number, p_value, sentence_list
from hpml_bench.statistics import Comparison

order = 10
COSTS = {
    "train_seconds": ("trained fastest", "training time"),
    "peak_memory_mb": ("used the least memory", "peak memory"),
    "samples_per_second": ("processed the most samples per second", "throughput"),
}
PROFILE = {"test_accuracy": "accuracy", "train_seconds": "training time", "peak_memory_mb": "memory"}


def section(results: Results) -> Section | None:
    """Return the takeaways: accuracy, each cost, then every method's standing."""
    if not results.compared:
        status = "No run of this suite ended well, so there is nothing to compare; the failures are listed below."
        return Section(slug="takeaways", title="Key takeaways", blocks=(Text(sentences=(status,)),))
    sentences = tuple(_sentences(results)) or ("The runs measured nothing that could be compared.",)
    return Section(slug="takeaways", title="Key takeaways", blocks=(Text(sentences=sentences),))


def _sentences(results: Results) -> Iterator[str]:
    few = len(results.seeds) < 2
    if len(results.methods) < 2:
        yield f"Only {results.methods[0]} has comparable runs, so there is nothing to compare it with."
        return
    if few:
        yield (
            "There is one seed only: differences between seeds can't be estimated, so no method is called better than "
            "another. Run more with --seeds."
        )
    if results.measured("test_accuracy"):
        yield (
            _ends(results, "test_accuracy") if few else _best(results, "test_accuracy", "reached the highest accuracy")
        )
    costs = results.measured(*COSTS)
    if results.one_machine:
        for metric in costs:
            yield _ends(results, metric) if few else _best(results, metric, COSTS[metric][0])
    elif costs:
        nouns = sentence_list([COSTS[metric][1] for metric in costs])
        yield f"The runs come from different hardware or versions, so {nouns} are not ranked."
    if results.measured("trainable_percent"):
        yield _ends(results, "trainable_percent")
    if not few:
        yield from _profiles(results)


def _ends(results: Results, metric: str) -> str:
    """Say between which values a metric lies, without a claim that they differ."""
    quantity = Quantity.of(results, metric)
    means = {m: interval.mean for m in results.methods if (interval := results.interval(m, metric))}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[low] == means[high]:
        return f"{quantity.heading}: {quantity.text(means[low], unit=True)} for every method."
    return (
        f"{quantity.heading} lies between {quantity.text(means[low], unit=True)} ({low}) "
        f"and {quantity.text(means[high], unit=True)} ({high})."
    )


def _best(results: Results, metric: str, feat: str) -> str:
    """Say which method leads on a metric, whom it really beats, and from whom it can't be told apart."""
    quantity, comparisons = Quantity.of(results, metric), results.comparisons(metric)
    means = {m: interval.mean for m in results.methods if (interval := results.interval(m, metric))}
    chosen = max if quantity.metric.better == "higher" else min
    best = chosen(means, key=means.__getitem__)
    own = [c for c in comparisons if best in {c.a, c.b} and c.p is not None]
    beaten = [c for c in own if c.differs and best == (c.higher if chosen is max else c.lower)]
    tied = [c for c in own if not c.differs]
    if not beaten:
        return _no_difference(quantity, means, comparisons)
    lead = _ratios if metric in COSTS and min(means.values()) > 0 else _gaps
    text = f"{best} {feat}: {quantity.text(means[best], unit=True)}; {lead(quantity, beaten, best, means)}."
    if tied:
        names = sentence_list([_other(c, best) for c in tied])
        text += f" It can't be told apart from {names} with {tied[0].difference.n} seeds."
    return text


def _no_difference(quantity: Quantity, means: Mapping[str, float], comparisons: Sequence[Comparison]) -> str:
    """Say that a metric has no leader, and why not."""
    low, high = quantity.text(min(means.values()), unit=True), quantity.text(max(means.values()), unit=True)
    span = f"the means lie between {low} and {high}" if low != high else f"every mean is {low}"
    start = f"By {quantity.title} the leader can't be told: {span}"
    adjusted = [c.p_adjusted for c in comparisons if c.p_adjusted is not None]
    if not adjusted:
        return f"{start}, and no two methods share two seeds to be compared on."
    if any(c.differs for c in comparisons):
        return f"{start}, and the method with the best mean is ahead of no other significantly."
    return f"{start}, and no pair differs significantly (smallest Holm-adjusted p {p_value(min(adjusted))})."


def _gaps(quantity: Quantity, beaten: Sequence[Comparison], best: str, means: Mapping[str, float]) -> str:
    """Return `ahead of B by 1.3 points [0.7, 1.9] (p 0.010)` for each method beaten, the nearest first."""
    nearest = sorted(beaten, key=lambda c: abs(means[_other(c, best)] - means[best]))
    leads = [
        f"{_other(c, best)} by {quantity.difference(c, swap=c.difference.mean < 0)} ({_evidence([c])})" for c in nearest
    ]
    return f"ahead of {sentence_list(leads)}"


def _ratios(quantity: Quantity, beaten: Sequence[Comparison], best: str, means: Mapping[str, float]) -> str:
    """Return `B took 2.00 times that and C 2.90 times`: a cost is judged by its factor."""
    higher = quantity.metric.better == "higher"
    ratio = {_other(c, best): means[_other(c, best)] / means[best] for c in beaten}
    factor = {method: 1 / r if higher else r for method, r in ratio.items()}
    verb = "that is {factor} times {method}'s" if higher else "{method} took {factor} times that"
    more = "{factor} times {method}'s" if higher else "{method} {factor} times"
    shown = [
        (more if index else verb).format(factor=number(factor[method], ".2f"), method=method)
        for index, method in enumerate(sorted(factor, key=factor.__getitem__))
    ]
    return f"{sentence_list(shown)} ({_evidence(beaten)})"


def _evidence(comparisons: Sequence[Comparison]) -> str:
    if all(c.exact for c in comparisons):
        return "exact"
    largest = p_value(max(c.p_adjusted or 0.0 for c in comparisons))
    text = f"p {largest}" if largest.startswith("<") else f"p = {largest}"
    return text if len(comparisons) == 1 else f"{'each ' if largest.startswith('<') else 'largest '}{text}"


def _other(comparison: Comparison, method: str) -> str:
    return comparison.b if comparison.a == method else comparison.a


def _profiles(results: Results) -> Iterator[str]:
    """Say of each method where it stands; Holm over all pairs of all the metrics these sentences cite."""
    cited = [metric for metric in results.measured(*PROFILE) if results.rankable(metric)]
    if len(cited) < 2:
        return
    adjusted = results.jointly(*cited)
    ranks = {
        metric: statistics.rank_intervals(
            adjusted[metric], list(results.values(metric)), results.definitions[metric].better
        )
        for metric in cited
    }
    for method in results.methods:
        nouns: dict[str, list[str]] = {}
        for metric in cited:
            if method in ranks[metric]:
                standing = _standing(*ranks[metric][method], len(ranks[metric]))
                nouns.setdefault(standing, []).append(PROFILE[metric])
        if nouns:
            yield f"{method}: {'; '.join(f'{standing} in {sentence_list(of)}' for standing, of in nouns.items())}."


def _standing(low: int, high: int, k: int) -> str:
    """Return a rank interval of k methods in words."""
    if (low, high) == (1, k):
        return "not told apart from any other"
    if low == high:
        return {1: "the best", k: "the worst"}.get(low, f"rank {low} of {k}")
    if low == 1:
        return f"among the best (rank {low}–{high} of {k})"
    return f"rank {low}–{high} of {k}"
