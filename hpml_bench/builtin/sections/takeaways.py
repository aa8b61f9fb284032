"""Takeaways, the answer in sentences: each claim is a verdict of the page's one family of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Text
from hpml_bench.records.run import FAILED
from hpml_bench.report.comparability import grouped
from hpml_bench.report.guessing import beside_guess
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.report.tables import Quantity, section_of, sentence_list
from hpml_bench.report.under_trained import STILL_FALLING, under_trained
from hpml_bench.statistics import Comparison
from hpml_bench.suite.settings import identity

order = 10
question = "best"
about = "each verdict in a sentence"

OVER_SETUP, PEAK = MEMORY
MAX_HOSTS = 8
"""Number of hosts that are named."""


def section(results: Results) -> Section | None:
    """Return the takeaways: score and each cost, the front, and what limits them."""
    if not results.compared:
        ended = "Every run that ended well was set apart" if results.left_out.excluded else "No run ended well"
        status = f"{ended}, so there is nothing to compare; the reasons are listed below."
        sentences: tuple[str, ...] = (status,)
    else:
        sentences = tuple(_sentences(results)) or ("The runs measured nothing that could be compared.",)
    return section_of("takeaways", "All that the verdicts say", Text(sentences=sentences))


def _sentences(results: Results) -> Iterator[str]:
    if len(results.methods) < 2:
        yield f"Only {results.methods[0]} has comparable runs, so there is nothing to compare it with."
        yield from _guessing(results)
        yield from _failures(results)
        return
    tested = [c for pairs in results.family.values() for c in pairs if c.verdict != "untested"]
    if not tested:
        have = "one seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
        yield (
            f"No method is called better than another: the runs have {have}, and a verdict needs two methods that "
            f"share {statistics.LEAST_SEEDS} or more. Run more with --seeds."
        )
    for metric in results.headline:
        yield from _standing(results, metric)
    yield from _front(results)
    yield from _guessing(results)
    yield from _learning(results)
    yield from _limits(results)
    if tested:
        yield _family(results, tested)


def _standing(results: Results, metric: str) -> Iterator[str]:
    """Yield a sentence on a metric: its leader, the methods that it beats, and the equivalent or undecided ones."""
    quantity, pairs = Quantity.of(results, metric), results.comparisons(metric)
    means = results.means(metric)
    if len(means) == 1:
        ((method, mean),) = means.items()
        yield f"{quantity.heading} was measured for {method} alone: {quantity.text(mean, unit=True)}."
        return
    if not any(c.verdict != "untested" for c in pairs):
        yield _between(quantity, means)
        return
    leader = leading(results, metric)
    if leader is None:
        yield f"By {quantity.title} no method leads: each is shown to be worse than another on the seeds they share."
        return
    own = [c for c in pairs if leader in {c.a, c.b}]
    said = _lead(results, quantity, leader, means) + _wins(results, quantity, leader, own)
    yield f"{said}.{_rest(results, quantity, leader, own)}{_whole_peak(results, metric)}"


def leading(results: Results, metric: str) -> str | None:
    """Return the method with the best mean of those that no test on shared seeds shows to be worse than another.

    Only tested methods can lead, so that a lucky few seeds can't. Where means are over different seeds and don't
    compare, the method that beats most others leads.
    """
    better, pairs = results.definitions[metric].better, results.comparisons(metric)
    tested = {method for c in pairs if c.verdict != "untested" for method in (c.a, c.b)}
    able = [method for method in unbeaten(results, metric) if method in tested]
    if not able:
        return None
    if results.uneven(metric) and not results.common_seeds(metric):  # means don't compare: the one that beats most
        return max(able, key=lambda method: sum(c.winner(better) == method for c in pairs))
    means = {method: mean for method, mean in results.means(metric).items() if method in able}
    return (max if better == "higher" else min)(means, key=means.__getitem__)


def unbeaten(results: Results, metric: str) -> list[str]:
    """Return the methods that no test on shared seeds shows to be worse than another."""
    better = results.definitions[metric].better
    beaten = {c.other(winner) for c in results.comparisons(metric) if (winner := c.winner(better))}
    return [method for method in results.methods if method in results.values(metric) and method not in beaten]


def _lead(results: Results, quantity: Quantity, leader: str, means: Mapping[str, float]) -> str:
    """Return a clause on the leader and its mean, called the best only where all means can be compared and one is."""
    name, value = quantity.metric.name, quantity.text(means[leader], unit=True)
    best = (max if quantity.metric.better == "higher" else min)(means.values())
    alone = means[leader] == best and list(means.values()).count(best) == 1
    if results.uneven(name) or len(means) < len(results.methods) or not alone:
        shared = results.common_seeds(name) if results.uneven(name) else None
        over = f" over the {len(shared)} seeds that all methods share" if shared else ""
        if results.uneven(name) and not shared:  # means over seeds of their own don't compare
            others = [method for method in unbeaten(results, name) if method != leader]
            return f"No method is shown to be better by {quantity.title} than {sentence_list([leader, *others])}"
        same = [method for method, mean in means.items() if mean == means[leader] and method != leader]
        alike = f", as has {sentence_list(same)}" if same and not results.uneven(name) else ""
        return f"No method is shown to be better by {quantity.title} than {leader}, which has {value}{over}{alike}"
    if name == results.quality:
        extreme = "highest" if quantity.metric.better == "higher" else "lowest"
        return f"{leader} has the {extreme} mean {quantity.title}: {value}"
    least = "added the least memory over set-up" if name == OVER_SETUP else "needed the least memory"
    return f"{leader} {'trained fastest' if name == TIME else least} on average: {value}"


def _whole_peak(results: Results, metric: str) -> str:
    """Return the range of whole peaks, where methods are ranked by the memory that training adds to a process."""
    if metric != OVER_SETUP or not results.measured(PEAK):
        return ""
    peak, means = Quantity.of(results, PEAK), results.means(PEAK)
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    ends = f"{peak.text(means[low])} ({low}) to {peak.text(means[high], unit=True)} ({high})"
    return f" Ranked is what training adds; the peak of the whole process, not ranked, is {ends}."


def _wins(results: Results, quantity: Quantity, leader: str, own: Sequence[Comparison]) -> str:
    """Return the methods that the leader is shown to beat, the nearest first; of a cost with the factor."""
    beaten = sorted(
        (c for c in own if c.winner(quantity.metric.better) == leader), key=lambda c: abs(c.difference.mean)
    )
    if not beaten:
        return f"; {leader} is not shown to be better than any other"
    within = f" (within {margin(results, quantity)})"
    leads = [(c.other(leader), quantity.lead(c, leader), within if c.equivalent else "") for c in beaten]
    if not beaten[0].ratio:
        named = [f"{other} by {lead}{note}" for other, lead, note in leads]
        return f"; {leader} is better than {sentence_list(named)}"
    of = f" as {'long' if quantity.metric.name == TIME else 'much'} as {leader}"
    first, lead, note = leads[0]
    named = [f"{first} took {lead}{of}{note}", *(f"{other} {lead}{note}" for other, lead, note in leads[1:])]
    return f"; {sentence_list(named)}"


def _rest(results: Results, quantity: Quantity, leader: str, own: Sequence[Comparison]) -> str:
    """Return sentences on the pairs of the leader that are not decided in its favour."""
    by_verdict, text = grouped(own, lambda c: c.verdict), ""
    if even := by_verdict.get("equivalent"):
        names = sentence_list([c.other(leader) for c in even])
        text += f" Equivalent to it: {names} (within {margin(results, quantity)})."
    if open_ := by_verdict.get("undecided"):
        text += f" Undecided against {sentence_list([_undecided(results, quantity, leader, c) for c in open_])}."
    if never := by_verdict.get("untested"):
        names = sentence_list([c.other(leader) for c in never])
        text += f" {leader} is not tested against {names}: that takes {statistics.LEAST_SEEDS} shared seeds."
    met = {leader, *(c.other(leader) for c in own)}
    if missing := [method for method in results.values(quantity.metric.name) if method not in met]:
        text += f" Never compared with {sentence_list(missing)}: no shared seed."
    if without := [method for method in results.methods if method not in results.values(quantity.metric.name)]:
        text += f" Not measured there: {sentence_list(without)}."
    return text


def margin(results: Results, quantity: Quantity) -> str:
    """Return the margin within which methods count as equivalent, in words."""
    if quantity.metric.name == results.quality:
        return quantity.difference(results.quality_margin)
    return f"{100 * results.margin.cost:g} %"


def _undecided(results: Results, quantity: Quantity, leader: str, c: Comparison) -> str:
    """Return the other method, what these seeds could have found, and how many would decide."""
    n = c.difference.n
    shown, _ = quantity.found(c)
    unit = "" if c.ratio or shown in {"–", "none"} else quantity.difference_unit
    what = "no difference on this scale" if shown == "none" else f"{shown} {unit}".strip()
    found = f"{n} seeds could have found {what}" if shown != "–" else f"{n} seeds don't tell its spread"
    return f"{c.other(leader)} ({found}; {enough(results, quantity, c)})"


def enough(results: Results, quantity: Quantity, c: Comparison) -> str:
    """Return how many seeds would decide a pair, in words."""
    if not c.evidence:
        return "how many would decide is unknown"
    if c.seeds_needed is not None:
        return f"about {c.seeds_needed:,} would decide"
    if quantity.metric.name == results.quality:
        return f"no number of seeds up to 10,000 would decide on {results.test_rows_in_words}"
    return "over 10,000 would decide"


def _between(quantity: Quantity, means: Mapping[str, float]) -> str:
    """Return a sentence on a metric's range, without a claim of a difference."""
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[low] == means[high]:
        return f"{quantity.heading}: {quantity.text(means[low], unit=True)} for every method."
    ends = f"{quantity.text(means[low], unit=True)} ({low}) and {quantity.text(means[high], unit=True)} ({high})"
    return f"{quantity.heading} lies between {ends}; no pair has the seeds for a verdict."


def _front(results: Results) -> Iterator[str]:
    """Yield a sentence on the methods on the Pareto front of the headline metrics, off it, and undecided."""
    if len(results.headline) < 2:
        return
    front = results.front(results.headline)
    names = sentence_list([Quantity.of(results, metric).title for metric in results.headline])
    places = {place: [m for m, of in front.items() if of.place == place] for place in ("on", "off", "undecided")}
    if not places["on"] and not places["off"]:
        return
    parts = [f"{place} it: {sentence_list(of)}" for place, of in places.items() if place != "undecided" and of]
    if places["undecided"]:
        parts.append(f"undecided: {sentence_list(places['undecided'])}")
    if without := [method for method in results.methods if method not in front]:
        parts.append(f"not placed, for want of a cost: {sentence_list(without)}")
    yield f"The Pareto front over {names}: {'; '.join(parts)}."


def _guessing(results: Results) -> Iterator[str]:
    found = results.guess
    if found is None:
        return
    shown = beside_guess(results)
    above, low = ([method for method, how in shown.items() if how == wanted] for wanted in ("rows", "not"))
    rows = f" Better than that in each of their runs, by the test rows alone: {sentence_list(above)}." if above else ""
    yield found.sentence + rows + (f" Not shown to be better than that: {sentence_list(low)}." if low else "")


def _learning(results: Results) -> Iterator[str]:
    """Yield a sentence on methods that were still learning when their budget ended."""
    if found := under_trained(results):
        clauses = [f"{method} ({len(seeds)} of {len(results.runs(method))} runs)" for method, seeds in found.items()]
        yield (
            f"Under-trained: the validation loss was lowest at the last step, and over {100 * STILL_FALLING:.0f} % "
            f"below the evaluation before, for {sentence_list(clauses)}; with more steps ranks may turn."
        )


def _failures(results: Results) -> Iterator[str]:
    """Yield a sentence on methods with runs that did not end well, and the effect on the claims."""
    reference = identity(results.reference.spec.settings)
    by_method: dict[str, Counter[str]] = {}
    for record in results.left_out.unfinished:
        if record.status in FAILED and identity(record.spec.settings) == reference:
            by_method.setdefault(record.spec.method.name, Counter())[record.status] += 1
    if not by_method:
        return
    well = Counter(record.spec.method.name for record in results.compared)
    named = [
        f"{method} in {of.total()} of {of.total() + well[method]} runs "
        f"({', '.join(f'{status}: {n}' for status, n in sorted(of.items()))})"
        for method, of in by_method.items()
    ]
    late = any("timeout" in of for of in by_method.values())
    censored = " A time limit ends the slow runs, so that costs of the others are too low." if late else ""
    yield (
        f"Runs that ended otherwise than well: {sentence_list(named)}. Claims hold for runs that end well: a method of "
        f"which many don't looks better by them than it is.{censored}"
    )


def _limits(results: Results) -> Iterator[str]:
    """Yield sentences on limits of the claims: failures, lacking seeds, other machines, skewed noise."""
    yield from _failures(results)
    over: dict[str, list[str]] = {}
    for metric in results.headline:
        if results.uneven(metric):
            shared, own = results.common_seeds(metric), "over its method's own seeds, so that means do not compare"
            means = f"over the {len(shared)} that all share" if shared else own
            over.setdefault(means, []).append(Quantity.of(results, metric).title)
    for means, titles in over.items():
        yield (
            f"Methods lack seeds in {sentence_list(titles)}: a pair is judged on the seeds it shares, and each mean is "
            f"{means}."
        )
    if not results.one_machine:
        others = [record for runs in list(results.machines.values())[1:] for record in runs]
        yield (
            f"Costs are of the runs in the environment that most share; {len(others)} of {len(results.compared)} "
            "compared runs ran on other hardware, versions or settings and count for the score alone (see Environment)."
        )
    if results.beside:
        yield _beside(results)
    if results.margin_edited:
        yield "The suite's margins were edited after its first run; verdicts are by those declared before it."
    if results.astray or "hosts" in results.selection.unranked:
        yield _over_hosts(results)
    if results.test_groups is not None:
        yield (
            f"There are {results.test_rows_in_words}, whose rows are tested together: other test rows are other groups."
        )
    skewed = [
        f"{c.a} and {c.b} in {Quantity.of(results, metric).title}"
        for metric, pairs in results.family.items()
        for c in pairs
        if c.uncertain
    ]
    if skewed:
        yield (
            f"Of uncertain level: the noise of {sentence_list(skewed)} looks skewed and of unequal spread, or few test "
            "rows carry the difference, where tests claim too much (see the dots of the seeds)."
        )


def _beside(results: Results) -> str:
    """Return a sentence on whether costs of runs with neighbours count."""
    which = f"{len(results.beside)} of {len(results.compared)} compared runs"
    if "neighbours" not in results.selection.unranked:
        return (
            f"{which} had neighbours: others ran on their host meanwhile and slowed them, so that they count for the "
            "score alone (see Jobs and hosts)."
        )
    return (
        f"Methods are not ranked by costs: {which} had neighbours, others on their host meanwhile, which slow each "
        "other. Times and memory are shown as they were (see Jobs and hosts)."
    )


def _over_hosts(results: Results) -> str:
    """Return a sentence on costs of runs that shared no host with the others of their seed."""
    if results.costs_ranked:
        return (
            f"{len(results.astray)} of {len(results.compared)} compared runs ran on another host than the runs of "
            "their seed that costs are of, and count for the score alone (see Runs)."
        )
    named = f" ({hosts_in_words(results)})" if results.hosts else ""
    return (
        f"Methods are not ranked by costs: the runs of a seed were spread over hosts{named}, and hosts of one kind "
        "differ in speed too. The line unit: seed in the profile puts all runs of a seed on one host, and exclusive: "
        "true keeps others away from it. Times and memory are shown as they were (see Runs)."
    )


def hosts_in_words(results: Results) -> str:
    """Return the hosts whose costs count, the first of many."""
    named, more = results.hosts[:MAX_HOSTS], len(results.hosts) - MAX_HOSTS
    return sentence_list([*named, f"{more} more"] if more > 0 else named)


def _where(results: Results) -> str:
    """Return the hosts for which claims on costs hold, in words."""
    if not results.hosts:
        return "on this machine (taken as one: not every record names its host)"
    if len(results.hosts) == 1:
        return f"on {results.hosts[0]}"
    return f"on {hosts_in_words(results)}, where the runs of a seed share theirs"


def _family(results: Results, tested: Sequence[Comparison]) -> str:
    """Return sentences on the meaning and scope of the page's verdicts."""
    n = min(c.difference.n for c in tested)
    costs = f", costs for other seeds {_where(results)}" if results.costs_ranked else ""
    few = f" {n} seeds are few: only large differences can be found." if n < 5 else ""
    share = 100 * statistics.spent_at(results.look)
    earlier = (
        f" and those made before seeds were added (look {results.look}, which may use {share:.2g} % of that chance)"
    )
    looks = earlier if results.look > 1 else ""
    return (
        f"Better and equivalent are verdicts of one family of {len(tested)} tested pairs: under noise near normal the "
        f"chance of any false claim on this page{looks} is held to 5 %. Scores are judged for "
        f"{results.judged_for}{costs}; undecided does not mean equal. Seeds are said "
        "to decide where they do with a chance of 80 % at the first step of the next look, if the difference is as "
        f"measured; later steps ask less.{few}"
    )
