"""Differences that are real: intervals, rank intervals and every pair of methods, for the metrics that decide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.report.answer import terms
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, cell, p_cell, rank, section_of, sentence_list, table
from hpml_bench.statistics import Comparison

order = 30
question = "sure"
about = "every pair in numbers: intervals, p values, seeds to decide"
LIKE_FIRST = "The columns are those of the first table of pairs."
PAIR_COLUMNS = (
    "Pair", "Verdict", "Difference", "Interval", "p", "p (adjusted)", "p of the margin", "p of the margin (Holm)",
    "Could have found", "Seeds to decide", "Seeds",
)  # fmt: skip
ROWS_COLUMNS = (
    "Pair", "Difference", "95 % interval", "p", "Sign-flip p", "Least sign-flip p", "Seeds with first higher", "Seeds",
)  # fmt: skip
MARK = "‡"


def section(results: Results) -> Section | None:
    """Return intervals and pairwise tests; nothing with one method or one seed."""
    if len(results.methods) < 2 or len(results.seeds) < 2 or not results.headline:
        return None
    tables = [_intervals(results), *_all_pairs(results), _these_rows(results), _crossed(results)]
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


def _all_pairs(results: Results) -> Iterator[Table]:
    """Yield a table for every metric that has pairs; the first explains the columns of all."""
    tested = sum(c.verdict != "untested" for pairs in results.family.values() for c in pairs)
    share, spent = f"{100 * results.margin.cost:g}", 100 * statistics.ALPHA * statistics.spent_at(results.look)
    unit = "row" if results.test_groups is None else f"group of rows ({results.test_rows_in_words})"
    notes = [
        f"Scores: differences of the first less the second within a seed and {unit}, for "
        f"{results.judged_for} "
        "(p the larger, interval the wider, of a two-way analysis of variance and of the paired t over seeds). Costs: "
        "factors first / second within a seed (paired t of logarithms), for other seeds. Each interval is at the level "
        "of its pair's test: it leaves out 0, or a factor of 1, just where methods are shown to differ.",
        "Better: p (adjusted) below 5 %. Equivalent: p of the margin (Holm) below 5 %, the larger of two one-sided "
        f"tests of a difference of {_margin(results)} of a score, {share} % of a cost or more. Adjusted over the "
        f"{terms.count_of(tested, 'tested pair')} of all metrics of this page: under noise near normal the chance of "
        f"any false claim is at most 5 %, of which this page, look {results.look} at the suite's seeds, may use "
        f"{spent:.2g} %: 80 % of that for better (of three methods on by Shaffer 1986, 60 % of it for a score beside "
        "costs; else by Holm 1979), 15 % for equivalent (Holm), 5 % for guessing. Adjusted p are scaled to 5 %.",
        "Could have found: the least true difference found with a chance of 80 % by so many seeds at this spread, at "
        "the first step's level. Seeds to decide: how many would tell with a chance of 80 % at the next look, were the "
        "difference as measured; none where no number up to 10,000 is enough, as where the test rows alone leave too "
        "much open. "
        f"Under {statistics.LEAST_SEEDS} shared seeds there is no verdict.",
    ]
    for name in results.headline:
        if comparisons := results.comparisons(name):
            yield _pairs(results, Quantity.of(results, name), comparisons, notes)
            notes = [LIKE_FIRST]


def _margin(results: Results) -> str:
    """Return the margin of a score in its unit."""
    if results.quality not in results.definitions:
        return f"{results.quality_margin:g}"
    score = Quantity.of(results, results.quality)
    return f"{results.quality_margin * score.scale:.3g} {score.difference_unit}".strip()


def _pairs(results: Results, quantity: Quantity, comparisons: tuple[Comparison, ...], notes: list[str]) -> Table:
    name = quantity.metric.name
    rows = [_row(quantity, comparison, fixed=name == results.quality) for comparison in comparisons]
    ratio = any(c.ratio for c in comparisons)
    within = quantity.difference_unit
    unit = " (factors)" if ratio else f" (differences in {within})" if within else " (differences)"
    if any(c.uncertain for c in comparisons):
        notes = [
            *notes,
            f"{MARK} The seeds look like skewed noise of unequal spread, or few test rows carry the difference, where "
            "tests claim too much.",
        ]
    if name != results.quality and not ratio:
        notes = [*notes, "Some value is not above 0: costs are compared by differences, and no margin is tested."]
    met = {frozenset((c.a, c.b)) for c in comparisons}
    never = [f"{a} and {b}" for a, b in combinations(results.values(name), 2) if frozenset((a, b)) not in met]
    if never:
        notes = [*notes, f"Never compared, since they share no seed: {sentence_list(never)}."]
    columns = [("Factor" if ratio and column == "Difference" else column) for column in PAIR_COLUMNS]
    return table(f"pairs_{name}", f"Pairs by {quantity.title}{unit}", columns, rows, notes)


def _row(quantity: Quantity, c: Comparison, fixed: bool) -> list[Cell]:
    difference, between = quantity.compared(c)
    needed: Cell = MISSING
    if c.verdict == "undecided":
        if c.seeds_needed:
            needed = cell(c.seeds_needed, "d")
        elif c.evidence:
            needed = "none" if fixed else "> 10,000"
    return [
        f"{c.a} − {c.b}" if not c.ratio else f"{c.a} / {c.b}",
        verdict(quantity, c) + (f" {MARK}" if c.uncertain else ""),
        difference,
        between,
        *map(p_cell, (c.p, c.p_adjusted, c.p_equivalent, c.p_equivalent_adjusted)),
        quantity.found(c),
        needed,
        c.difference.n,
    ]


def verdict(quantity: Quantity, c: Comparison) -> str:
    """Return a pair's verdict in words."""
    if c.verdict == "untested":
        return "not tested"
    if c.verdict != "different":
        return c.verdict
    winner = c.winner(quantity.metric.better)
    verdict = f"{winner} is better" if winner else f"{c.higher} is higher"
    return f"{verdict}, within the margin" if c.equivalent else verdict


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
