"""Summary of the comparison, one row per method: mean and spread over seeds, ranks and place on the front."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.report.steady import unsteady
from hpml_bench.report.tables import (
    Cell,
    Quantity,
    fact,
    rank,
    section_of,
    sentence_list,
    spreads,
    table,
    unranked_because,
)

order = 20
question = "best"
about = "every metric of the test rows, each seed drawn"
MAX_FACTS = 6
COSTS = (TIME, "samples_per_second", *MEMORY, "grad_norm", "trainable_percent")


def section(results: Results) -> Section | None:
    """Return the summary, with every seed's score and training time drawn; None without an ok run."""
    if not results.compared:
        return None
    from hpml_bench.report.pictures.charts import strip

    figures = [strip(results, metric) for metric in results.measured(results.quality, TIME)]
    return section_of("summary", "All scores", summary_table(results), *figures)


def _shown(results: Results) -> tuple[str, ...]:
    return results.measured(*results.test_metrics, *COSTS)


def summary_table(results: Results) -> Table:
    """Return the table that HTML, Markdown, wandb and the terminal show alike."""
    quantities = [Quantity.of(results, name) for name in _shown(results)]
    decided = any(c.verdict != "untested" for pairs in results.family.values() for c in pairs)
    ranks = results.ranks(results.quality) if decided and results.quality in results.headline else {}
    front = results.front(results.headline) if decided and len(results.headline) > 1 else {}
    counts = {method: len(results.runs(method)) for method in results.methods}
    uneven = len(set(counts.values())) > 1
    score = Quantity.of(results, results.quality).heading if ranks else ""
    columns = ["method", *(quantity.header for quantity in quantities)]
    columns += [f"{score} rank"] * bool(ranks) + ["Pareto front"] * bool(front) + ["Seeds"] * uneven
    rows: list[list[Cell]] = []
    for method in results.methods:
        place = front[method].place if method in front else "–"
        ends = [rank(ranks.get(method))] * bool(ranks) + [place] * bool(front)
        rows.append([method, *spreads(results, method, quantities), *ends, *[counts[method]] * uneven])
    return table("summary", _caption(results), columns, rows, _notes(results, bool(ranks)))


def _caption(results: Results) -> str:
    n = len(results.seeds)
    if n == 1:
        return "One seed"
    lacking = [name for name in _shown(results) if results.uneven(name)]
    return f"Mean ± standard deviation over {'up to ' if lacking else ''}{n} seeds"


def _seeds(results: Results) -> list[str]:
    """Return notes on the seeds of means, where methods lack some."""
    metrics: dict[str, list[str]] = {}
    for name in _shown(results):
        if results.uneven(name):
            shared = results.common_seeds(name)
            over = f"seeds {', '.join(map(str, sorted(shared)))}" if shared else "each method's own seeds"
            metrics.setdefault(over, []).append(results.definitions[name].title)
    return [f"Means of {sentence_list(titles)} are over {over}." for over, titles in metrics.items()]


def _notes(results: Results, ranked: bool) -> list[str]:
    found = results.guess
    notes = [found.sentence] if found else []
    notes += [fact(f"{key[:1].upper()}{key[1:]}", value) for key, value in results.reference.notes.items()][:MAX_FACTS]
    if ranked:
        notes.append(
            "A rank goes from 1 + the number of methods shown to be better to k − the number shown to be worse, of k "
            f"methods, by the verdicts of this page; overlapping ranks do not mean equal.{_of_front(results)}"
        )
    if results.measured("trainable_percent"):
        notes.append("The trainable share leaves out the head, which every method trains and which is counted apart.")
    lacking = {m: sorted(set(results.seeds) - {r.spec.seed for r in results.runs(m)}) for m in results.methods}
    notes += [f"{m} lacks seed {', '.join(map(str, seeds))}." for m, seeds in lacking.items() if seeds]
    notes += _without_costs(results)
    notes += _seeds(results)
    if results.unrun:
        notes.append(f"In the suite and never run: {', '.join(results.unrun)}.")
    if results.absent:
        notes.append(f"No comparable run: {', '.join(results.absent)} (see Failures).")
    if drifting := unsteady(results, "drifts"):
        notes.append(f"Step times drift for {sentence_list(list(drifting))} (see Throughput).")
    if not results.one_machine:
        notes.append("Times and memory are of the runs in the environment that most share (see Environment).")
    if not results.costs_ranked:
        notes.append(f"Times and memory are of runs that {unranked_because(results)}; they rank nothing (see Runs).")
    return notes


def _of_front(results: Results) -> str:
    """Return a sentence that explains the Pareto front, where costs rank methods."""
    if not results.costs_ranked:
        return ""
    front = [results.definitions[metric].title for metric in results.headline]
    return (
        f" On the Pareto front is who is shown to beat each other method in one of {sentence_list(front)}, off it who "
        "some other method is shown to beat in one of these and to match or beat in the others."
    )


def _without_costs(results: Results) -> list[str]:
    """Return notes on seeds of methods that enter no cost, with the reason."""
    notes = []
    reasons = {record.run_id: "ran on another host than most of its seed" for record in results.astray}
    reasons |= {record.run_id: "had neighbours on its host" for record in results.beside}
    elsewhere = "ran in another environment"
    for method in results.methods:
        without = [record for record in results.runs(method) if record.run_id not in results.selection.costed]
        for why in (elsewhere, *dict.fromkeys(reasons.values())):
            seeds = [str(record.spec.seed) for record in without if reasons.get(record.run_id, elsewhere) == why]
            notes += [f"{method} has no costs of seed {', '.join(seeds)}: it {why}."] if seeds else []
    return notes
