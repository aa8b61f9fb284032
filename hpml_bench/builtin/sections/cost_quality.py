"""Cost against the score: charts of the score against time and memory, and the Pareto front as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, section_of, sentence_list, spreads, table
from hpml_bench.statistics import Membership

order = 40
question = "cost"
about = "the score against time and memory, and the Pareto front"


def section(results: Results) -> Section | None:
    """Return a scatter per cost with the methods on its front, and the front over all headline metrics."""
    if results.quality not in results.headline or len(results.headline) < 2:
        return None
    from hpml_bench.report.pictures.charts import trade_off

    sentences: list[str] = []
    figures: list[Picture] = []
    for cost in results.headline[1:]:
        front = results.front((results.quality, cost))
        on = [method for method, of in front.items() if of.place == "on"]
        figure = trade_off(results, cost, results.quality, f"{results.quality}_against_{cost}", on)
        if figure is not None:
            figures.append(figure)
            sentences += _sentences(results, cost, front)
    if not figures:
        return None
    text = Text(sentences=tuple(sentences)) if sentences else None
    slug = f"cost-{Quantity.of(results, results.quality).slug}"
    return section_of(slug, f"Cost against {results.score_title}", text, _front(results), *figures)


def _sentences(results: Results, cost: str, front: Mapping[str, Membership]) -> list[str]:
    """Return a sentence on the front of score and one cost: methods on it, off it (dominated by which), undecided."""
    title = f"{Quantity.of(results, results.quality).heading} against {Quantity.of(results, cost).title}"
    if not front:
        return []
    on = [method for method, of in front.items() if of.place == "on"]
    open_ = [method for method, of in front.items() if of.place == "undecided"]
    missing = [method for method in results.methods if method not in front]
    if not on and len(open_) == len(front) and not missing:
        return [f"{title}: the places of all methods are undecided."]
    parts = [f"on the front {sentence_list(on)}"] if on else []
    parts += [f"undecided {sentence_list(open_)}"] if open_ else []
    off = [f"{method} (dominated by {sentence_list(of.by)})" for method, of in front.items() if of.place == "off"]
    parts += [f"off it {sentence_list(off)}"] if off else []
    parts += [f"not placed, for lack of a cost, {sentence_list(missing)}"] if missing else []
    return [f"{title}: {'; '.join(parts)}."]


def _front(results: Results) -> Table | None:
    """Return each method's place on the front over score, training time and memory."""
    if len(results.methods) < 2:
        return None
    quantities = [Quantity.of(results, metric) for metric in results.headline]
    front = results.front(results.headline)
    rows: list[list[Cell]] = []
    for method in results.methods:
        place, by = (front[method].place, front[method].by) if method in front else (MISSING, ())
        rows.append([method, place, ", ".join(by) or MISSING, *spreads(results, method, quantities)])
    notes = [
        "By the verdicts of this page. On: against each other method shown to be better in some column, so that none "
        "can be as good in all. Off: some other method is shown to be better in one column and better or equivalent in "
        "the others. Undecided: neither is shown, as where methods were not tested against each other."
    ]
    columns = ("method", "On the front", "Dominated by", *(quantity.header for quantity in quantities))
    names = sentence_list([quantity.title for quantity in quantities])
    return table("pareto", f"Pareto front over {names}", columns, rows, notes)
