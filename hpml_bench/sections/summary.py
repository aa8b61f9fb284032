"""The comparison in one table: a row a method, mean and spread over seeds."""

from __future__ import annotations

from hpml_bench.records import Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.steady import throughput_flags
from hpml_bench.report.tables import Cell, Quantity, fact, rank, sentence_list, table

order = 20
MAX_FACTS = 6
METRICS = (
    "test_accuracy", "test_macro_f1", "test_loss", "train_seconds", "samples_per_second", "peak_memory_mb",
    "grad_norm", "trainable_percent",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return the summary, with every seed's accuracy and training time drawn; without an ok run there is none."""
    if not results.compared:
        return None
    from hpml_bench.report.figures import strip

    figures = [strip(results, metric) for metric in results.measured("test_accuracy", "train_seconds")]
    drawn = tuple(figure for figure in figures if figure is not None)
    return Section(slug="summary", title="Summary", blocks=(summary_table(results), *drawn))


def summary_table(results: Results) -> Table:
    """Return the table that HTML, Markdown, wandb and the terminal show alike."""
    quantities = [Quantity.of(results, name) for name in results.measured(*METRICS)]
    ranks = results.ranks("test_accuracy") if results.measured("test_accuracy") and len(results.seeds) > 1 else {}
    columns = ["method", *(quantity.header for quantity in quantities)]
    counts = {method: len(results.runs(method)) for method in results.methods}
    uneven = len(set(counts.values())) > 1
    columns += (["Accuracy rank"] if ranks else []) + (["Seeds"] if uneven else [])
    rows: list[list[Cell]] = []
    for method in results.methods:
        cells = [quantity.spread(results.interval(method, quantity.metric.name)) for quantity in quantities]
        position = [rank(ranks.get(method))] if ranks else []
        seeds = [(str(counts[method]), float(counts[method]))] if uneven else []
        rows.append([method, *cells, *position, *seeds])
    n = len(results.seeds)
    caption = "One seed" if n == 1 else f"Mean ± standard deviation over {'up to ' if uneven else ''}{n} seeds"
    return table("summary", caption, columns, rows, _notes(results, bool(ranks)))


def _notes(results: Results, ranked: bool) -> list[str]:
    notes = [fact(f"{key[:1].upper()}{key[1:]}", value) for key, value in results.reference.notes.items()][:MAX_FACTS]
    if ranked:
        notes.append(
            "An accuracy rank goes from 1 + the number of methods significantly better to k − the number significantly "
            "worse, of k methods (paired t over seeds, Holm-adjusted); overlapping ranks do not mean equal."
        )
    if results.measured("trainable_percent"):
        notes.append("The trainable share leaves out the head, which every method trains and which is counted apart.")
    lacking = {m: sorted(set(results.seeds) - {r.spec.seed for r in results.runs(m)}) for m in results.methods}
    notes += [f"{m} lacks seed {', '.join(map(str, seeds))}." for m, seeds in lacking.items() if seeds]
    for name in results.measured(*METRICS):
        values, title = results.values(name), results.definitions[name].title
        unmeasured = {m: sorted({r.spec.seed for r in results.runs(m)} - set(of)) for m, of in values.items()}
        notes += [f"{m} has no {title} of seed {', '.join(map(str, of))}." for m, of in unmeasured.items() if of]
    absent = [method for method in results.all_methods if method not in results.methods]
    if absent:
        notes.append(f"No comparable run: {', '.join(absent)} (see Failures).")
    if flags := throughput_flags(results):
        notes.append(f"Throughput is not in a steady state for {sentence_list(list(flags))} (see Throughput).")
    if not results.one_machine:
        notes.append("Runs come from different hardware or versions: times and memory are not one comparison.")
    return notes
