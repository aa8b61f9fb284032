"""The answer in sentences, computed from the numbers: a difference is claimed only where it is real over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpml_bench import statistics
from hpml_bench.records import Section, Text
from hpml_bench.report.results import Results
from hpml_bench.report.steady import throughput_flags
from hpml_bench.report.tables import Quantity, number, p_value, sentence_list
from hpml_bench.statistics import Comparison

order = 10
COSTS = {
    "train_seconds": ("trained fastest", "training time"),
    "peak_memory_mb": ("used the least memory", "peak memory"),
    "samples_per_second": ("processed the most samples per second", "throughput"),
}
PROFILE = {"test_accuracy": "accuracy", "train_seconds": "training time", "peak_memory_mb": "memory"}
FEW = 5
"""Seeds under which a takeaway says that they are few."""


def section(results: Results) -> Section | None:
    """Return the takeaways: accuracy, each cost, then every method's standing."""
    if not results.compared:
        ended = "Every run that ended well was set apart" if results.ok else "No run of this suite ended well"
        status = f"{ended}, so there is nothing to compare; the reasons are listed below."
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
        yield _caveat(results)
        yield from _profiles(results)


def _caveat(results: Results) -> str:
    """Say once what every p above is, and that few seeds tell little."""
    n = len(results.seeds)
    text = "Each p is of a paired t test over seeds, Holm-adjusted over the pairs of its metric"
    return f"{text}; {n} seeds are few: only large differences can be found." if n < FEW else f"{text}."


def _ends(results: Results, metric: str) -> str:
    """Say between which values a metric lies, without a claim that they differ."""
    quantity = Quantity.of(results, metric)
    means = {m: interval.mean for m in results.methods if (interval := results.interval(m, metric))}
    if len(means) == 1:
        return _alone(quantity, means)
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[low] == means[high]:
        return f"{quantity.heading}: {quantity.text(means[low], unit=True)} for every method."
    text = f"{quantity.text(means[low], unit=True)} ({low}) and {quantity.text(means[high], unit=True)} ({high})"
    apart = (
        "; the classification layer, which every method trains, is counted apart"
        if metric == "trainable_percent"
        else ""
    )
    return f"{quantity.heading} lies between {text}{apart}."


def _alone(quantity: Quantity, means: Mapping[str, float]) -> str:
    """Say that a single method has a value, with which nothing can be compared."""
    ((method, mean),) = means.items()
    return f"{quantity.heading} was measured for {method} alone: {quantity.text(mean, unit=True)}."


def _best(results: Results, metric: str, feat: str) -> str:
    """Say which method leads on a metric, whom it really beats, and from whom it can't be told apart."""
    quantity, comparisons = Quantity.of(results, metric), results.comparisons(metric)
    means = {m: interval.mean for m in results.methods if (interval := results.interval(m, metric))}
    if len(means) == 1:
        return _alone(quantity, means)
    chosen = max if quantity.metric.better == "higher" else min
    best = chosen(means, key=means.__getitem__)
    own = [c for c in comparisons if best in {c.a, c.b} and c.p is not None]
    beaten = [c for c in own if c.differs and best == (c.higher if chosen is max else c.lower)]
    tied = [c for c in own if not c.differs]
    if not beaten:
        return _no_difference(quantity, means, comparisons)
    values = results.values(metric)
    factors = metric in COSTS and min(value for by_seed in values.values() for value in by_seed.values()) > 0
    lead = _ratios(quantity, beaten, best, values) if factors else _gaps(quantity, beaten, best, means)
    text = f"{best} {feat}: {quantity.text(means[best], unit=True)}; {lead}."
    if tied:
        names = sentence_list([_other(c, best) for c in tied])
        text += f" It can't be told apart from {names} with {tied[0].difference.n} seeds."
    unsteady = [m for m in throughput_flags(results) if m in {best, *(_other(c, best) for c in beaten)}]
    if metric == "samples_per_second" and unsteady:
        text += f" Not shown to be a steady state for {sentence_list(unsteady)}."
    return text


def _no_difference(quantity: Quantity, means: Mapping[str, float], comparisons: Sequence[Comparison]) -> str:
    """Say that a metric has no leader, and why not."""
    low, high = quantity.text(min(means.values()), unit=True), quantity.text(max(means.values()), unit=True)
    span = f"the means lie between {low} and {high}" if low != high else f"every mean is {low}"
    start = f"By {quantity.title} the leader can't be told: {span}"
    adjusted = [c.p_adjusted for c in comparisons if c.p_adjusted is not None]
    if not adjusted:
        return f"{start}, and no two methods share two seeds to be compared on."
    if real := [c for c in comparisons if c.differs]:
        pairs = [
            f"{c.higher} is above {c.lower} by {quantity.difference(c, swap=c.difference.mean < 0)} ({_evidence([c])})"
            for c in real
        ]
        return f"{start}, and the method with the best mean is ahead of no other significantly; {sentence_list(pairs)}."
    return f"{start}, and no pair differs significantly (smallest Holm-adjusted p {p_value(min(adjusted))})."


def _gaps(quantity: Quantity, beaten: Sequence[Comparison], best: str, means: Mapping[str, float]) -> str:
    """Return `ahead of B by 1.3 points [0.7, 1.9] (p 0.010)` for each method beaten, the nearest first."""
    nearest = sorted(beaten, key=lambda c: abs(means[_other(c, best)] - means[best]))
    leads = [
        f"{_other(c, best)} by {quantity.difference(c, swap=c.difference.mean < 0)} ({_evidence([c])})" for c in nearest
    ]
    return f"ahead of {sentence_list(leads)}"


def _ratios(quantity: Quantity, beaten: Sequence[Comparison], best: str, values: statistics.Values) -> str:
    """Return `B took 2.00 times that and C 2.90 times`: a cost is judged by its factor, over the seeds both have."""
    higher = quantity.metric.better == "higher"
    ratio = {}
    for other in (_other(c, best) for c in beaten):
        shared = sorted(values[best].keys() & values[other].keys())
        ratio[other] = sum(values[other][seed] for seed in shared) / sum(values[best][seed] for seed in shared)
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
    pairs = sum(c.p is not None for metric in cited for c in adjusted[metric])
    told: dict[str, list[str]] = {}
    for method in results.methods:
        nouns: dict[str, list[str]] = {}
        for metric in cited:
            if method in ranks[metric]:
                standing = _standing(*ranks[metric][method], len(ranks[metric]))
                nouns.setdefault(standing, []).append(PROFILE[metric])
        if nouns:
            text = "; ".join(f"{standing} in {sentence_list(of)}" for standing, of in nouns.items())
            told.setdefault(text, []).append(method)
    if not told:
        return
    yield (
        f"Standings in {sentence_list([PROFILE[metric] for metric in cited])} are by Holm over all {pairs} pairs of "
        f"the {len(cited)} metrics, so they tell less apart than the tables of one metric."
    )
    yield from (f"{sentence_list(methods)}: {text}." for text, methods in told.items())


def _standing(low: int, high: int, k: int) -> str:
    """Return a rank interval of k methods in words."""
    if (low, high) == (1, k):
        return "not told apart from any other"
    if low == high:
        return {1: "the best", k: "the worst"}.get(low, f"rank {low} of {k}")
    if low == 1:
        return f"among the best (rank {low}–{high} of {k})"
    return f"rank {low}–{high} of {k}"
