"""Costs: time, memory, latency and size in one table."""

from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.judged import MEMORY
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import Axis, PageSummary
from hpml_bench.page.answer import words
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Section, Text
from hpml_bench.records.numbers import Cell, number
from hpml_bench.system.text import sanitize

order = 38
ADDED = MEMORY[0]
BESIDE = {
    "samples_per_second": "Samples a second",
    "latency_ms_p50": "One answer (ms)",
    "trainable_percent": "Weights trained (%)",
}
"""Metrics beside the costs of the answer, and their headers."""


def section(results: Results) -> Section | None:
    answer = answer_of(results)
    columns: list[tuple[str, dict[str, Cell]]] = []  # headers, and cells by method
    for axis in answer.axes:
        header = f"{axis.title}{'' if axis.own_units else f' ({axis.unit})'}"
        columns.append((header, _values(answer, axis, axis.id)))
        fastest = answer.winner("time") if axis.key == "time" and axis.tested else None
        if fastest:
            columns.append(
                (
                    f"Times as long as {words.label(answer, fastest)}",
                    _factors(answer, axis, fastest),
                )
            )
        if axis.key == "memory" and axis.id != ADDED and (added := _values(answer, axis, ADDED)):
            columns.append((f"Of it by training ({axis.unit})", added))
    for name in results.measured(*BESIDE):
        quantity, means = quantity_of(results, name), results.means(name)
        columns.append(
            (
                BESIDE[name],
                {sanitize(method): quantity.cell(mean) for method, mean in means.items()},
            )
        )
    if not columns:
        return None
    rows = [
        [method.name, *(cells.get(method.name) for _, cells in columns)]
        for method in answer.methods
    ]
    over = (
        f"the {answer.shared} seeds that all methods share"
        if answer.shared
        else f"{answer.seeds} seeds"
    )
    over = (
        "one seed"
        if answer.seeds == 1
        else "each method's own seeds"
        if answer.shared == 0
        else over
    )
    where = f", measured on {answer.setup.host}" if answer.setup.host else ""
    notes = [f"Means over {over}{where}; other machines differ."]
    headers = ("Method", *(header for header, _ in columns))
    shown = table("costs", "What each method costs", headers, rows, notes)
    # on costs that are open, and which memory is meant; rows of the first screen name who wins
    sentences = [
        f"Which {what} is undecided: {words.several(answer, best, 'or')}."
        for key, what in (("time", "trains fastest"), ("memory", "needs least memory"))
        if len(best := answer.best(key)) > 1
    ]
    memory = answer.axis("memory")
    if memory and memory.tested == ADDED != memory.id:
        sentences.append(
            "Verdicts on memory are on what training adds; limits are on the total peak."
        )
    text, about = (
        Text(sentences=tuple(sentences)) if sentences else None,
        "time, memory, latency, size",
    )
    return section_of(
        "costs", "Costs in one table", text, shown, question="cost", about=about, folded=False
    )


def _values(answer: PageSummary, axis: Axis, metric: str) -> dict[str, Cell]:
    saving = (
        m for m in answer.methods if metric in m.values and not (axis.key == "size" and m.base)
    )
    found = {method.name: method.values[metric].mean for method in saving}
    return {name: (axis.text(value, unit=False), value) for name, value in found.items()}


def _factors(answer: PageSummary, axis: Axis, fastest: str) -> dict[str, Cell]:
    """Return how many times as long as the fastest each method trains, with its interval."""
    cells: dict[str, Cell] = {fastest: ("1", 1.0)}
    for method in answer.methods:
        pair = answer.pair(axis.tested or "", method.name, fastest)
        if pair is not None:
            factor, low, high = pair.seen_from(method.name, ratio=True)
            between = (
                ""
                if low is None or high is None
                else f" [{number(low, '.2f')}, {number(high, '.2f')}]"
            )
            cells[method.name] = (f"{number(factor, '.2f')}{between}", factor)
    return cells
