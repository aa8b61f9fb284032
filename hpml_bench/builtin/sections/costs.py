"""Costs: time, memory, latency and size in one table, and against the score with the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import Axis, PageSummary
from hpml_bench.report.results import MEMORY, Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, section_of, sentence_list, spreads, table
from hpml_bench.statistics import Membership
from hpml_bench.system.text import sanitize

order = 38
ADDED = MEMORY[0]
BESIDE = {
    "samples_per_second": "Samples a second",
    "latency_ms_p50": "One answer (ms)",
    "trainable_percent": "Weights trained (%)",
}
"""Metrics beside the costs of the answer, and their headers."""
Column = tuple[str, dict[str, Cell]]
"""Header, and the cells by method."""


def sections(results: Results) -> Iterator[Section | None]:
    """Yield the table of costs, and the score against each cost that is compared."""
    yield _costs(results)
    yield _against_score(results)


# One table


def _costs(results: Results) -> Section | None:
    answer = answer_of(results)
    columns = [*_columns(answer), *_beside(results)]
    if not columns:
        return None
    rows = [[method.name, *(cells.get(method.name) for _, cells in columns)] for method in answer.methods]
    over = f"the {answer.shared} seeds that all methods share" if answer.shared else f"{answer.seeds} seeds"
    over = "one seed" if answer.seeds == 1 else "each method's own seeds" if answer.shared == 0 else over
    where = f", measured on {answer.setup.host}" if answer.setup.host else ""
    notes = [f"Means over {over}{where}; other machines differ."]
    headers = ("Method", *(header for header, _ in columns))
    shown = table("costs", "What each method costs", headers, rows, notes)
    sentences = tuple(_sentences(answer))
    text = Text(sentences=sentences) if sentences else None
    about = "time, memory, latency, size"
    return section_of("costs", "Costs in one table", text, shown, question="cost", about=about, folded=False)


def _columns(answer: PageSummary) -> Iterator[Column]:
    for axis in answer.axes:
        yield f"{axis.title}{f' ({axis.unit})' if axis.key != 'size' else ''}", _values(answer, axis.id)
        fastest = answer.winner("time") if axis.key == "time" and axis.tested else None
        if fastest:
            yield f"Times as long as {terms.label(answer, fastest)}", _factors(answer, axis, fastest)
        if axis.key == "memory" and axis.id != ADDED and (added := _values(answer, ADDED)):
            yield f"Of it by training ({axis.unit})", added


def _values(answer: PageSummary, metric: str) -> dict[str, Cell]:
    """Return the means of a cost; a base model saves nothing."""
    size = next((axis.key == "size" for axis in answer.axes if axis.id == metric), False)
    found = {m.name: m.values[metric].mean for m in answer.methods if metric in m.values and not (size and m.base)}
    return {name: (terms.cost_text(answer, metric, value, unit=False), value) for name, value in found.items()}


def _factors(answer: PageSummary, axis: Axis, fastest: str) -> dict[str, Cell]:
    """Return how many times as long as the fastest each method trains, with its interval."""
    cells: dict[str, Cell] = {fastest: ("1", 1.0)}
    for method in answer.methods:
        pair = answer.pair(axis.tested or "", method.name, fastest)
        if pair is not None:
            factor, low, high = terms.seen_from(pair, method.name, ratio=True)
            between = "" if low is None or high is None else f" [{number(low, '.2f')}, {number(high, '.2f')}]"
            cells[method.name] = (f"{number(factor, '.2f')}{between}", factor)
    return cells


def _beside(results: Results) -> Iterator[Column]:
    for name in results.measured(*BESIDE):
        scale, digits = Quantity.of(results, name).scale, ".2g" if name == "trainable_percent" else ".3g"
        means = {sanitize(method): mean * scale for method, mean in results.means(name).items()}
        yield BESIDE[name], {method: (number(mean, digits) if mean else "0", mean) for method, mean in means.items()}


def _sentences(answer: PageSummary) -> Iterator[str]:
    """Yield which method trains fastest and which takes least memory, as far as that is shown."""
    time, memory = answer.axis("time"), answer.axis("memory")
    if time and (fastest := answer.best("time")):
        if winner := answer.winner("time"):
            yield f"{terms.label(answer, winner)} trains fastest: {_cost(answer, winner, time.id)}."
        elif len(fastest) > 1:
            yield f"Which trains fastest is undecided: {terms.several(answer, fastest, 'or')}."
    if memory and (least := answer.best("memory")):
        if len(least) > 1:
            yield f"Which needs least memory is undecided: {terms.several(answer, least, 'or')}."
        elif answer.winner("memory") and memory.id != ADDED and ADDED in answer.by_name[least[0]].values:
            added, peak = _cost(answer, least[0], ADDED), _cost(answer, least[0], memory.id)
            yield f"{terms.label(answer, least[0])} adds least memory in training: {added} of its {peak} peak."
        elif answer.winner("memory"):
            yield f"{terms.label(answer, least[0])} needs least memory: {_cost(answer, least[0], memory.id)}."
    if memory and memory.tested == ADDED != memory.id:
        yield "Verdicts are on what training adds; limits are on the total peak."
    if answer.unranked:
        yield f"Costs are shown, not ranked: {answer.unranked}."


def _cost(answer: PageSummary, name: str, metric: str) -> str:
    value = answer.value(name, metric)
    return MISSING if value is None else terms.cost_text(answer, metric, value)


# Against the score


def _against_score(results: Results) -> Section | None:
    """Return a scatter per cost with the methods on its front, and the front over all compared metrics."""
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
            sentences += [_of_front(results, cost, front)] if front else []
    if not figures:
        return None
    text = Text(sentences=tuple(sentences)) if sentences else None
    slug = f"cost-{Quantity.of(results, results.quality).slug}"
    about = "the score against time and memory, and the Pareto front"
    title = f"Cost against {results.score_title}"
    return section_of(slug, title, text, _front(results), *figures, question="cost", about=about)


def _of_front(results: Results, cost: str, front: Mapping[str, Membership]) -> str:
    """Return a sentence on the front of score and one cost: methods on it, off it (dominated by which), undecided."""
    title = f"{Quantity.of(results, results.quality).heading} against {Quantity.of(results, cost).title}"
    off = [f"{method} (dominated by {sentence_list(of.by)})" for method, of in front.items() if of.place == "off"]
    places = {
        "on the front": [method for method, of in front.items() if of.place == "on"],
        "undecided": [method for method, of in front.items() if of.place == "undecided"],
        "off it": off,
        "not placed, for lack of a cost,": [method for method in results.methods if method not in front],
    }
    if len(places["undecided"]) == len(results.methods):
        return f"{title}: the places of all methods are undecided."
    return f"{title}: {'; '.join(f'{place} {sentence_list(of)}' for place, of in places.items() if of)}."


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
