"""Comparisons of methods with each other: a matrix, what would decide, every pair in numbers, a
fold per method.
"""

from collections.abc import Iterator

from hpml_bench import statistics
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import own_interval, score_scale
from hpml_bench.page.answer import sections as of_answer
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.numbers import MISSING, Cell, capitalized, cell, p_cell, rank, sentence_list

order = 30
ROWS_COLUMNS = (
    "Pair",
    "Difference",
    "95 % interval",
    "p",
    "Sign-flip p",
    "Least sign-flip p",
    "Seeds with first higher",
    "Seeds",
)


def sections(results: Results) -> Iterator[Section | None]:
    """Yield how methods stand to each other; nothing of pairs with one method, or without a
    score.
    """
    answer = answer_of(results)
    yield of_answer.matrix_section(answer)
    yield of_answer.deciding_section(answer)
    if len(results.methods) > 1 and results.headline:
        seeds = len(results.seeds) > 1
        means, these = (
            (_intervals(results), _these_rows(results))
            if seeds
            else (of_answer.places(answer), None)
        )
        fronts = tuple(_fronts(results))
        said = Text(sentences=fronts) if fronts else None
        tables = (
            of_answer.rounds_table(answer),
            means,
            said,
            *of_answer.pair_tables(answer),
            these,
        )
        about = "every pair in numbers: intervals, p values, seeds to decide"
        yield section_of(
            "comparisons", "Which differences are real", *tables, question="sure", about=about
        )
    yield of_answer.each_section(answer)


def _intervals(results: Results) -> Table:
    """Return means with intervals over seeds and ranks by verdicts, and the score's interval for
    other rows too.
    """
    metrics = results.measured(*results.headline, "samples_per_second")
    columns, cells = ["method"], {method: list[Cell]([method]) for method in results.methods}
    for name in metrics:
        quantity = quantity_of(results, name)
        ranks = results.ranks(name) if name in results.headline else {}
        columns.append(quantity.header)
        for method in results.methods:
            interval = results.interval(method, name)
            shown = (
                f"{quantity.text(interval.mean)} {quantity.between(interval)}"
                if interval
                else MISSING
            )
            cells[method].append(
                f"{shown}, rank {rank(ranks[method])}" if method in ranks else shown
            )
    compared = sentence_list([results.definitions[name].title for name in results.headline])
    scores = [
        results.definitions[name].title for name in results.test_metrics if name != results.quality
    ]
    others = ["throughput", *(title.removeprefix("test ") for title in reversed(scores)), "latency"]
    notes = [
        "Mean and 95 % interval over seeds: Student's t, each by itself, for other seeds on this "
        "very test set. Ranks are intervals: 1 + methods shown to be better, to k − methods shown "
        "worse, by the verdicts below.",
        f"Compared by {compared} alone; the other metrics ({', '.join(others)} and so on) stand "
        "without test. At one budget the throughput says what the training time says.",
    ]
    if results.verdicts.scope in {"seeds and rows", "rows"} and results.quality in results.headline:
        score = quantity_of(results, results.quality)
        columns.append(f"{score.heading}, other rows too")
        for method in results.methods:
            low, high = (
                own_interval(results.verdicts, method)
                if method in results.verdicts.scores.means
                else (0, None)
            )
            cells[method].append(
                MISSING if high is None else f"[{score.text(low)}, {score.text(high)}]"
            )
        notes.append(
            f"Other rows too: 95 % interval for {results.verdicts.holds_for}. Intervals are each "
            f"method's own: methods "
            "share rows, so that differences, in the tables of pairs, carry less of their noise."
        )
    return table(
        "intervals", "Means with 95 % intervals, and rank intervals", columns, cells.values(), notes
    )


def _fronts(results: Results) -> Iterator[str]:
    """Yield of each cost the methods on its Pareto front with the score, those off it, by whom,
    and the undecided.
    """
    for cost in results.headline[1:]:
        front = results.front((results.quality, cost))
        of: dict[str, list[str]] = {"on the front": [], "undecided": [], "off it": []}
        for method, place in front.items():
            by = f" (dominated by {sentence_list(place.by)})" if place.by else ""
            of[{"on": "on the front", "off": "off it"}.get(place.place, place.place)].append(
                f"{method}{by}"
            )
        of["not placed, for lack of a cost,"] = [
            method for method in results.methods if method not in front
        ]
        title = (
            f"{results.definitions[results.quality].title} against "
            f"{results.definitions[cost].title}"
        )
        if len(of["undecided"]) == len(results.methods):
            yield f"{capitalized(title)}: the places of all methods are undecided."
        elif front:
            places = (f"{where} {sentence_list(who)}" for where, who in of.items() if who)
            yield f"{capitalized(title)}: {'; '.join(places)}."


def _these_rows(results: Results) -> Table | None:
    """Return the score's pairs for other seeds on these very test rows: a description without
    claims.
    """
    if results.quality not in results.headline:
        return None
    answer, scale = answer_of(results), score_scale(results.aligned)[0]

    def gap(value: float) -> str:
        return answer.gap_text(scale * value, unit=False)

    rows = list[list[Cell]]()
    for c in statistics.compare_pairs(
        results.values(results.quality), grid=results.grid(results.quality)
    ):
        of = c.difference
        between = (
            MISSING if of.low is None or of.high is None else f"[{gap(of.low)}, {gap(of.high)}]"
        )
        tests = map(p_cell, (c.p, c.p_sign_flip, c.sign_flip_floor))
        first = (f"{c.a} − {c.b}", (gap(of.mean), scale * of.mean), between)
        rows.append([*first, *tests, cell(c.superiority, ".2f"), of.n])
    rounding = ", with the variance of rounding to one row" if results.task.binary else ""
    notes = [
        f"For other seeds on these {answer.rows_text} alone: another test set may order the "
        "methods otherwise, so that no verdict of this page rests on it alone. p: paired t over "
        f"seeds, of shared variances{rounding}, each pair's own and not adjusted for their number. "
        "Least sign-flip p: the least that so many seeds can give, 2 / 2ⁿ. Seeds with first "
        "higher: their share, ties half."
    ]
    caption = f"Pairs by {answer.score.title}, on these very test rows"
    return table("pairs_on_these_rows", caption, ROWS_COLUMNS, rows, notes)
