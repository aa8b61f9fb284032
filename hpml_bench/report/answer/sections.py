"""Sections that follow from an answer alone: places, every pair in numbers, each method or system."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Fold, Section, Table, Text
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import Axis, Method, PageSummary, Pair
from hpml_bench.report.tables import MISSING, Cell, capitalized, number, p_cell, rank, sentence_list, table

SAID = {"better": "better", "worse": "worse", "open": "can't tell", "equal": "equal", "untested": "not tested"}
VERDICTS = {"different": "differs", "undecided": "can't tell", "equivalent": "equal", "untested": "not tested"}
BY_COST = {
    "time": {"better": "faster", "worse": "slower"},
    "memory": {"better": "less", "worse": "more"},
    "size": {"better": "smaller", "worse": "larger"},
}
MARK = "‡"
UNCERTAIN = (
    "Less certain: the differences are skewed, or come from a few test rows; the test then finds differences too often."
)
MOST = 20
"""Methods over which a fold leaves out the others: they would be most of the page, and stand in the matrix."""
LIKE_FIRST = "The columns are those of the first table of pairs."


def places(answer: PageSummary) -> Table:
    """Return a row per method with its place, its score and the score's interval."""
    unit = f" ({answer.score.unit})" if answer.score.unit else ""
    rows: list[list[Cell]] = []
    for method in answer.methods:
        if (score := method.values.get("score")) is None:
            continue
        ends = [
            None if end is None else (terms.score_text(answer, end, unit=False), end) for end in (score.low, score.high)
        ]
        shown = (terms.score_text(answer, score.mean, unit=False), score.mean)
        rows.append([method.name, rank(method.rank_range), shown, *ends, len(score.runs)])
    notes = [
        f"A place is an interval of ranks. It begins after the {answer.noun}s shown better and ends before those shown "
        f"worse. Low and high: 95 % of the mean, for {answer.judged}."
    ]
    columns = (capitalized(answer.noun), "Place", f"{capitalized(answer.score.title)}{unit}", "Low", "High", "Runs")
    return table("places", f"{capitalized(answer.noun)}s by {answer.score.title}", columns, rows, notes)


# Every pair in numbers


def pair_tables(answer: PageSummary) -> Iterator[Table]:
    """Yield a table of pairs for the score and each tested cost; the first explains the columns of all."""
    notes = list(_reading(answer))
    tested: list[Axis | None] = [None, *(axis for axis in answer.axes if axis.tested)]
    for axis in tested:
        if answer.pairs.get("score" if axis is None else axis.tested or ""):
            yield _pairs(answer, axis, notes)
            notes = [LIKE_FIRST]


def _pairs(answer: PageSummary, axis: Axis | None, notes: list[str]) -> Table:
    metric = "score" if axis is None else axis.tested or ""
    pairs, by_rows = answer.pairs[metric], answer.over == "row"
    margin = answer.score.margin if axis is None else axis.margin
    if any(pair.uncertain for pair in pairs):
        notes = [*notes, f"{MARK} {UNCERTAIN}"]
    value = (
        "score" if axis is None else metric if any(metric in method.values for method in answer.methods) else axis.id
    )
    named = [method.name for method in answer.methods if value in method.values]
    never = [f"{a} and {b}" for a, b in combinations(named, 2) if answer.pair(metric, a, b) is None]
    if never:
        notes = [*notes, f"Never compared, since they share no seed: {sentence_list(never)}."]
    if axis is None:
        what, name, title = "Difference", answer.score.id, answer.score.title
        unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    else:
        what, unit, name = "Factor", "", metric
        title = f"{axis.title.lower()}{' over set-up' if axis.tested != axis.id else ''}"
    columns = ["Pair", "Verdict", f"{what}{unit}", "Interval", "p", "p (adjusted)"]
    columns += ["p of the margin", "p of the margin (Holm)"] if margin else []
    columns += [] if by_rows else ["Detectable"]
    columns += ["Rows to decide"] if by_rows and axis is None else ["Seeds to decide", "Seeds"]
    rows = [_row(answer, axis, pair, margin=bool(margin)) for pair in pairs]
    return table(f"pairs_{name}", f"Pairs by {title}", columns, rows, notes)


def _row(answer: PageSummary, axis: Axis | None, pair: Pair, *, margin: bool) -> list[Cell]:
    by_rows = answer.over == "row" and axis is None
    detectable: Cell = MISSING
    if pair.detectable is not None:
        shown = (
            f"{number(pair.detectable, '.2g' if pair.detectable < 100 else '.0f')} %"
            if axis
            else _gap(answer, pair.detectable)
        )
        detectable = (shown, pair.detectable)
    needed: Cell = MISSING
    if pair.verdict == "undecided":
        beyond = MISSING if pair.decided_low is None else "none" if axis is None else "> 10,000"
        needed = (number(pair.need, "d"), float(pair.need)) if pair.need else beyond
    verdict = (
        f"{pair.winner} is better{', within the margin' if pair.within_margin else ''}"
        if pair.winner
        else VERDICTS[pair.verdict]
    )
    return [
        f"{pair.a} {'−' if axis is None else '/'} {pair.b}",
        verdict + (f" {MARK}" if pair.uncertain else ""),
        (_gap(answer, pair.difference) if axis is None else number(pair.difference, ".3f"), pair.difference),
        _between(answer, pair.decided_low, pair.decided_high, ratio=axis is not None),
        p_cell(pair.p),
        p_cell(pair.p_adjusted),
        *([p_cell(pair.p_margin), p_cell(pair.p_margin_adjusted)] if margin else []),
        *([] if answer.over == "row" else [detectable]),
        needed,
        *([] if by_rows else [pair.shared]),
    ]


def _gap(answer: PageSummary, value: float) -> str:
    return terms.gap_text(answer, value, unit=False)


def _between(answer: PageSummary, low: float | None, high: float | None, *, ratio: bool = False) -> str:
    """Return an interval of a difference, or of a factor, as `[low, high]`."""
    if low is None or high is None:
        return MISSING
    return f"[{', '.join(number(end, '.3f') if ratio else _gap(answer, end) for end in (low, high))}]"


def _reading(answer: PageSummary) -> Iterator[str]:
    """Yield how the tables of pairs are read."""
    costs = [axis for axis in answer.axes if axis.tested]
    factors = " Costs: factors first / second within a seed, paired t of logarithms." if costs else ""
    yield (
        f"{answer.tests} For {answer.judged} ({answer.rows_text}).{factors} Each interval is at the level of its "
        "pair's test: it leaves out 0, or a factor of 1, just where the two are shown to differ."
    )
    margins = [f"{terms.margin_text(answer)} of a score"] if answer.score.margin else []
    margins += [f"{100 * share:g} % of a cost" for share in {axis.margin for axis in costs if axis.margin}]
    equal = (
        "Equal: p of the margin (Holm) below 5 %, the larger of two one-sided tests of a difference of "
        f"{', '.join(margins)} or more. "
        if margins
        else ""
    )
    spent = 100 * statistics.ALPHA * statistics.spent_at(answer.look, answer.declared_looks)
    one = (
        f"One pair is tested: its adjusted p is scaled by the share of 5 % that this page, look {answer.look} at these "
        f"results, may use: {spent:.2g} %."
    )
    yield f"Better: p (adjusted) below 5 %. {equal}" + (
        one
        if answer.tested == 1
        else f"Adjusted over the {terms.count_of(answer.tested, 'tested pair')} of "
        "all metrics of this page: under noise near normal the chance of any false claim is at most 5 %, of which this "
        f"page, look {answer.look} at these results, may use {spent:.2g} %. Of three {answer.noun}s on differences are "
        "adjusted by Shaffer's procedure (1986; with costs the score has 60 % of the level), else by Holm's (1979). "
        "Adjusted p are scaled to 5 %."
    )
    if answer.over == "seed":
        yield (
            "Detectable: smallest true difference that so many seeds would detect in 80 % of repetitions, at the first "
            "step's level. Seeds to decide: how many would decide with a chance of 80 % at the next look, were the "
            f"difference as measured. Under {answer.least} shared seeds there is no verdict."
        )


def rounds_table(answer: PageSummary) -> Table | None:
    """Return the looks of a sweep that ends when it is decided: who was in the race, and who left; None without any."""
    if not answer.rounds:
        return None
    rows: list[list[Cell]] = [
        [number(at, "d"), one.seeds, ", ".join(one.methods),
         ", ".join(f"{name} (behind {by})" for name, by in one.left.items()) or MISSING]
        for at, one in enumerate(answer.rounds, 1)
    ]  # fmt: skip
    end = f"It ended since {answer.ended}." if answer.ended else "It hasn't ended."
    notes = (
        f"{end} {answer.runs} runs, of {answer.most_runs} were each method to have the most seeds that were declared.",
        f"Each of the {answer.declared_looks} declared looks may use the same share of 5 %. Who is shown to be behind "
        "leaves with its pairs as they are then; the family stays whole.",
    )
    return table("rounds", "Rounds of the race", ("round", "seeds", "in the race", "left"), rows, notes)


# Each method, or system


def each_section(answer: PageSummary) -> Section | None:
    """Return a fold per method, the best mean first; None without one."""
    if not answer.methods:
        return None
    few = len(answer.methods) <= MOST
    stands = "How it stands to each other is in the matrix above."
    said = "What it is, what it cost, and how it stands to each other."
    intro = Text(sentences=(said,) if few else ("What each is, and what it cost.", stands))
    return Section(
        slug="each", title=f"Each {answer.noun}", blocks=(intro, *(_fold(answer, method) for method in answer.methods))
    )


def _fold(answer: PageSummary, method: Method) -> Fold:
    n, noun = answer.number[method.name], "options" if answer.noun == "method" else "runs"
    facts = table(f"method_{n}", f"{method.name}: scores, costs, {noun}", ("What", "Value"), _facts(answer, method))
    blocks = [facts, *([_against(answer, method)] if 1 < len(answer.methods) <= MOST else [])]
    return Fold(
        title=f"{n} {method.name}" if answer.numbered else method.name,
        about=words.verdict(answer, method.name).in_full,
        blocks=tuple(blocks),
        anchor=f"m-{n}",
    )


def _facts(answer: PageSummary, method: Method) -> Iterator[list[Cell]]:
    score, run = method.values.get("score"), "seed" if answer.noun == "method" else "run"
    if score is not None:
        unit = f" ({answer.score.unit})" if answer.score.unit else ""
        ends = [terms.score_text(answer, end, unit=False) for end in (score.low, score.high) if end is not None]
        own = f"; 95 % interval of its own {' to '.join(ends)}" if ends else ""
        yield [
            f"{capitalized(answer.score.title)}{unit}, {terms.count_of(len(score.runs), run)}",
            terms.score_text(answer, score.mean, unit=False) + own,
        ]
        each = [terms.score_text(answer, value, unit=False) for value in score.runs]
        yield [f"{capitalized(run)} by {run}", ", ".join(each)]
    for axis in answer.axes:
        if axis.id in method.values:
            yield [axis.title, _cost(answer, axis, method)]
    for title, value in method.settings:
        yield [title, value]
    if late := answer.under.get(method.name):
        yield ["At the end", f"still improving in {late} of {terms.count_of(method.seeds, 'run')}"]


def _cost(answer: PageSummary, axis: Axis, method: Method) -> str:
    values = method.values[axis.id]
    text = terms.cost_text(answer, axis.id, values.mean)
    if not axis.exact and values.low is not None and values.high is not None:
        ends = [terms.cost_text(answer, axis.id, end, unit=False) for end in (values.low, values.high)]
        text += f"; 95 % interval {' to '.join(ends)}"
    added = [key for key in method.values if key not in {"score", *(other.id for other in answer.axes)}]
    if axis.key == "memory" and added:
        text += f"; training adds {terms.cost_text(answer, added[0], method.values[added[0]].mean)}"
    return text


def _against(answer: PageSummary, method: Method) -> Table:
    """Return the method's difference to each other one, its interval, and the verdicts by score and tested cost."""
    tested = [axis for axis in answer.axes if axis.tested]
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    columns = ["Against", f"{capitalized(answer.score.title)}{unit}", "Interval", "Verdict"]
    columns += ["Memory added" if axis.id != axis.tested else axis.title for axis in tested]
    rows: list[list[Cell]] = []
    for other in (other.name for other in answer.methods if other.name != method.name):
        gap: Cell = None
        between = MISSING
        if (pair := answer.pair("score", method.name, other)) is not None:
            d, low, high = terms.seen_from(pair, method.name)
            gap, between = (_gap(answer, d), d), _between(answer, low, high)
        costs = [(SAID | BY_COST.get(axis.key, {}))[answer.relation(axis.key, method.name, other)] for axis in tested]
        rows.append([other, gap, between, SAID[answer.relation("score", method.name, other)], *costs])
    caption = f"{method.name} against each other {answer.noun}"
    return table(f"against_{answer.number[method.name]}", caption, columns, rows)
