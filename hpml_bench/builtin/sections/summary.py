"""Scores of the test rows beside some costs: mean and spread, ranks, the Pareto front, each seed
drawn.
"""

from collections.abc import Iterator

from hpml_bench.judge.caveats import unsteady
from hpml_bench.judge.judged import MEMORY, TIME
from hpml_bench.judge.results import Results
from hpml_bench.page.pictures.charts import reliability_chart, strip
from hpml_bench.page.tables import quantity_of, section_of, spreads, table
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.records.numbers import MISSING, Cell, fact, rank, sentence_list
from hpml_bench.select.comparability import grouped

order = 55
MOST_FACTS = 6
COSTS = (
    TIME,
    "samples_per_second",
    *MEMORY,
    "grad_norm",
    "trainable_percent",
)  # columns beside the scores


def section(results: Results) -> Section | None:
    if not results.compared:
        return None
    figures = [strip(results, metric) for metric in results.measured(results.quality, TIME)]
    figures.append(reliability_chart(results))
    about = "every metric of the test rows, each seed drawn"
    return section_of(
        "summary", "All scores", scores_table(results), *figures, question="best", about=about
    )


def scores_table(results: Results) -> Table:
    shown = results.measured(*results.test_metrics, *COSTS)
    quantities = [quantity_of(results, name) for name in shown]
    decided = any(c.verdict != "untested" for pairs in results.family.values() for c in pairs)
    ranks = (
        results.ranks(results.quality) if decided and results.quality in results.headline else {}
    )
    front = results.front(results.headline) if decided and len(results.headline) > 1 else {}
    counts = {method: len(results.runs(method)) for method in results.methods}
    unequal = len(set(counts.values())) > 1
    score = quantity_of(results, results.quality).heading if ranks else ""
    columns = ["method", *(quantity.header for quantity in quantities)]
    columns += (
        [f"{score} rank"] * bool(ranks) + ["Pareto front"] * bool(front) + ["Seeds"] * unequal
    )
    places = {
        method: f"{of.place} ({', '.join(of.by)})" if of.by else of.place
        for method, of in front.items()
    }
    rows: list[list[Cell]] = []
    for method in results.methods:
        ends = [rank(ranks.get(method))] * bool(ranks) + [places.get(method, MISSING)] * bool(front)
        rows.append(
            [method, *spreads(results, method, quantities), *ends, *[counts[method]] * unequal]
        )
    uneven: dict[str, list[str]] = {}  # seeds of a mean -> titles, where methods lack seeds
    for quantity in quantities:
        values = (results.values(quantity.metric.name), results.shown(quantity.metric.name))
        own, entered = ({frozenset(seeds) for seeds in by_method.values()} for by_method in values)
        if len(own) > 1:
            seeds = ", ".join(map(str, sorted(next(iter(entered)))))
            over = f"seeds {seeds}" if len(entered) == 1 else "each method's own seeds"
            uneven.setdefault(over, []).append(quantity.title)
    n = len(results.seeds)
    caption = (
        "One seed"
        if n == 1
        else f"Mean ± standard deviation over {'up to ' if uneven else ''}{n} seeds"
    )
    notes = [results.guess.sentence] if results.guess else []
    notes += [
        fact(f"{key[:1].upper()}{key[1:]}", value) for key, value in results.reference.notes.items()
    ][:MOST_FACTS]
    notes += [_of_ranks(results)] if ranks else []
    notes += [
        *_of_methods(results),
        *(f"Means of {sentence_list(of)} are over {over}." for over, of in uneven.items()),
    ]
    return table("summary", caption, columns, rows, [*notes, *_of_runs(results)])


def _of_ranks(results: Results) -> str:
    text = (
        "A rank goes from 1 + the number of methods shown to be better to k − the number shown to "
        "be worse, of k methods, by the verdicts of this page; overlapping ranks do not mean equal."
    )
    front = sentence_list([results.definitions[metric].title for metric in results.headline])
    meaning = (
        f" Pareto front: on = shown to beat every other method in at least one of {front}; off = "
        f"another method "
        "(named) is shown better in one and better or equal in the rest; undecided = neither."
    )
    return f"{text}{meaning if results.costs_ranked else ''}"


def _of_methods(results: Results) -> Iterator[str]:
    """Yield notes on what methods lack: seeds, and costs of some seeds with the reason."""
    if results.measured("trainable_percent"):
        yield (
            "The trainable share leaves out the head, which every method trains and which is "
            "counted apart."
        )
    for method in results.methods:
        own = results.verdicts.raced.get(method, max(results.seeds) + 1)
        if lacking := sorted(
            {s for s in results.seeds if s < own} - {run.spec.seed for run in results.runs(method)}
        ):
            yield f"{method} lacks seed {', '.join(map(str, lacking))}."
    reasons = {run.run_id: "ran on another host than most of its seed" for run in results.astray}
    reasons |= {run.run_id: "had neighbours on its host" for run in results.beside}
    for method in results.methods:
        uncosted = (run for run in results.runs(method) if run.run_id not in results.costed_ids)
        for why, runs in grouped(
            uncosted, lambda run: reasons.get(run.run_id, "ran in another environment")
        ).items():
            yield (
                f"{method} has no costs of seed {', '.join(str(run.spec.seed) for run in runs)}: "
                f"it {why}."
            )


def _of_runs(results: Results) -> Iterator[str]:
    settings = results.reference.spec.settings
    if settings.select != "last":
        yield (
            "Scores are of each run's best step by validation rows, whose scores flatter it; test "
            "rows never chose."
        )
    if settings.patience is not None:
        yield (
            f"A training ended at most {settings.patience} evaluations later; costs are of all "
            f"steps that it took."
        )
    if results.unrun:
        yield f"In the suite and never run: {', '.join(results.unrun)}."
    if results.absent:
        yield f"No comparable run: {', '.join(results.absent)} (see Failures)."
    if drifting := unsteady(results, "drifts"):
        yield f"Step times drift for {sentence_list(list(drifting))} (see Throughput)."
    if len(results.machines) > 1:
        yield (
            "Times and memory are of the runs in the environment that most share (see Environment)."
        )
    if not results.costs_ranked:
        yield f"Times and memory rank nothing: {results.aligned.unranked} (see Runs)."
