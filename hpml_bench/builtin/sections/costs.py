"""Costs of each method in one table: time, memory, latency, size, share of the parameters trained."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.blocks import Section, Text
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import Answer, Axis
from hpml_bench.report.results import MEMORY, Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, number, section_of, table
from hpml_bench.system.text import sanitize

order = 38
question = "cost"
about = "time, memory, latency, size"
folded = False
ADDED = MEMORY[0]
BESIDE = ("samples_per_second", "latency_ms_p50", "trainable_percent")
"""Metrics beside the costs of the answer."""
HEADERS = {
    "samples_per_second": "Samples a second",
    "latency_ms_p50": "One answer (ms)",
    "trainable_percent": "Weights trained (%)",
}
Column = tuple[str, dict[str, Cell]]
"""Header, and the cells by method."""


def section(results: Results) -> Section | None:
    """Return the table with what it says in words; None where no cost was measured."""
    answer = answer_of(results)
    columns = [*_columns(answer), *_beside(results)]
    if not columns:
        return None
    rows = [[method.name, *(cells.get(method.name) for _, cells in columns)] for method in answer.methods]
    headers = ("Method", *(header for header, _ in columns))
    shown = table("costs", "What each method costs", headers, rows, _notes(answer))
    sentences = tuple(_sentences(answer))
    return section_of("costs", "Costs in one table", Text(sentences=sentences) if sentences else None, shown)


def _columns(answer: Answer) -> Iterator[Column]:
    for axis in answer.axes:
        yield f"{axis.title}{f' ({axis.unit})' if axis.key != 'size' else ''}", _values(answer, axis.id)
        fastest = answer.winner("time") if axis.key == "time" and axis.tested else None
        if fastest:
            yield f"Times as long as {terms.label(answer, fastest)}", _factors(answer, axis, fastest)
        if axis.key == "memory" and axis.id != ADDED and (added := _values(answer, ADDED)):
            yield f"Of it by training ({axis.unit})", added


def _values(answer: Answer, metric: str) -> dict[str, Cell]:
    """Return the means of a cost; a base model saves nothing."""
    size = next((axis.key == "size" for axis in answer.axes if axis.id == metric), False)
    found = {m.name: m.v[metric].m for m in answer.methods if metric in m.v and not (size and m.base)}
    return {name: (terms.cost_text(answer, metric, value, unit=False), value) for name, value in found.items()}


def _factors(answer: Answer, axis: Axis, fastest: str) -> dict[str, Cell]:
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
        quantity = Quantity.of(results, name)
        means = results.means(name)
        digits = ".2g" if name == "trainable_percent" else ".3g"
        yield (
            HEADERS[name],
            {
                sanitize(method): (number(mean * quantity.scale, digits) if mean else "0", mean * quantity.scale)
                for method, mean in means.items()
            },
        )


def _sentences(answer: Answer) -> Iterator[str]:
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
        elif answer.winner("memory") is None:
            pass
        elif memory.id != ADDED and ADDED in answer.by_name[least[0]].v:
            added, peak = _cost(answer, least[0], ADDED), _cost(answer, least[0], memory.id)
            yield f"{terms.label(answer, least[0])} adds least memory in training: {added} of its {peak} peak."
        else:
            yield f"{terms.label(answer, least[0])} needs least memory: {_cost(answer, least[0], memory.id)}."
    if memory and memory.tested == ADDED != memory.id:
        yield "Verdicts are on what training adds; limits are on the total peak."
    if answer.unranked:
        yield f"Costs are shown, not ranked: {answer.unranked}."


def _cost(answer: Answer, name: str, metric: str) -> str:
    value = answer.value(name, metric)
    return MISSING if value is None else terms.cost_text(answer, metric, value)


def _notes(answer: Answer) -> list[str]:
    over = f"the {answer.shared} seeds that all methods share" if answer.shared else f"{answer.seeds} seeds"
    if answer.seeds == 1:
        over = "one seed"
    elif answer.shared == 0:
        over = "each method's own seeds"
    where = f", measured on {answer.setup.host}" if answer.setup.host else ""
    return [f"Means over {over}{where}; other machines differ."]
