"""Differences that are real: intervals, rank intervals and every pair of methods, for the metrics that decide."""

from __future__ import annotations

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.sections import pair_tables, places, rounds_table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, cell, p_cell, rank, section_of, sentence_list, table

order = 30
question = "sure"
about = "every pair in numbers: intervals, p values, seeds to decide"
ROWS_COLUMNS = (
    "Pair", "Difference", "95 % interval", "p", "Sign-flip p", "Least sign-flip p", "Seeds with first higher", "Seeds",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return intervals and pairwise tests; nothing with one method, or without a score."""
    if len(results.methods) < 2 or not results.headline:
        return None
    seeds = len(results.seeds) > 1
    answer = answer_of(results)
    means = [_intervals(results)] if seeds else [places(answer)]
    beyond = [_these_rows(results), _crossed(results)] if seeds else []
    tables = [rounds_table(answer), *means, *pair_tables(answer), *beyond]
    return section_of("comparisons", "Which differences are real", *tables)


def _intervals(results: Results) -> Table:
    metrics = results.measured(*results.headline, "samples_per_second")
    columns, cells = ["method"], {method: [method] for method in results.methods}
    for name in metrics:
        quantity = Quantity.of(results, name)
        ranks = results.ranks(name) if name in results.headline else {}
        columns.append(quantity.header)
        for method in results.methods:
            interval = results.interval(method, name)
            shown = f"{quantity.text(interval.mean)} {quantity.between(interval)}" if interval else MISSING
            cells[method].append(f"{shown}, rank {rank(ranks[method])}" if method in ranks else shown)
    notes = [
        "Mean and 95 % interval over seeds: Student's t, each by itself, for other seeds on this very test set. Ranks "
        "are intervals: 1 + methods shown to be better, to k − methods shown worse, by the verdicts below."
    ]
    compared = sentence_list([results.definitions[name].title for name in results.headline])
    scores = [results.definitions[name].title for name in results.test_metrics if name != results.quality]
    others = ["throughput", *(title.removeprefix("test ") for title in reversed(scores)), "latency"]
    notes.append(
        f"Compared by {compared} alone; the other metrics ({', '.join(others)} and so on) stand "
        "without test. At one budget the throughput says what the training time says."
    )
    if found := results.guess:
        notes.append(found.sentence)
    return table("intervals", "Means with 95 % intervals, and rank intervals", columns, cells.values(), notes)


def _these_rows(results: Results) -> Table | None:
    """Return the score's pairs for other seeds on these very test rows: a description without claims."""
    if results.quality not in results.headline:
        return None
    score = Quantity.of(results, results.quality)
    rows: list[list[Cell]] = [
        [
            f"{c.a} − {c.b}",
            score.cell(c.difference.mean),
            score.between(c.difference),
            *map(p_cell, (c.p, c.p_sign_flip, c.sign_flip_floor)),
            cell(c.superiority, ".2f"),
            c.difference.n,
        ]
        for c in results.on_these_rows()
    ]
    notes = [
        f"For other seeds on these {results.test_rows_in_words} alone: another test set may order the methods "
        "otherwise, so that no verdict of this page rests on it alone. p: paired t over seeds, of shared variances"
        f"{', with the variance of rounding to one row' if results.task.binary else ''}, each pair's own and not "
        "adjusted for their number. "
        "Least sign-flip p: the least that so many seeds can give, 2 / 2ⁿ. Seeds with first higher: their share, "
        "ties half."
    ]
    caption = f"Pairs by {score.title}, on these very test rows"
    return table("pairs_on_these_rows", caption, ROWS_COLUMNS, rows, notes)


def _crossed(results: Results) -> Table | None:
    """Return each method's score with intervals for other seeds alone and for other seeds and test rows."""
    quality = results.quality
    if quality not in results.headline:
        return None
    score, rows = Quantity.of(results, quality), list[list[Cell]]()
    for method in results.methods:
        if one := results.beyond(method):
            own = statistics.mean_interval([of.mean() for of in results.scores(method).values()], results.grid(quality))
            ends = [score.between(interval) for interval in (results.within_bounds(quality, own), one)]
            rows.append([method, one.n, score.cell(one.mean), *ends])
    training = "" if results.reference.spec.settings.vary_data else "; both are conditional on these training rows"
    notes = [
        "Over seeds: for other seeds on this very test set. Over seeds and rows: for other seeds and another test set "
        f"of this size from the same source{training}. The wider of the two is shown as the latter. Intervals are "
        "each method's own: methods share rows, so that differences, in the table of pairs, carry less of their noise."
    ]
    if found := results.guess:
        notes.append(found.sentence)
    columns = ("Method", "Seeds", score.header, "95 % over seeds", "95 % over seeds and rows")
    return table("crossed", f"{score.heading} beyond this test set", columns, rows, notes)
