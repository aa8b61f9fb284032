"""Sections that follow from an answer alone: places, every pair in numbers, each method or system."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Fold, Section, Table, Text
from hpml_bench.report.answer import words
from hpml_bench.report.answer.model import Axis, Method, PageSummary, Pair
from hpml_bench.report.numbers import MISSING, Cell, capitalized, count_of, number, p_cell, rank, sentence_list
from hpml_bench.report.tables import table

VERDICTS = {"different": "differs", "undecided": "can't tell", "equivalent": "equal", "untested": "not tested"}
MARK = "‡"
UNCERTAIN = (
    "Less certain: the differences are skewed, or come from a few test rows; the test then finds differences too often."
)
LIKE_FIRST = "The columns are those of the first table of pairs."


def places(answer: PageSummary) -> Table:
    """Return a row per method with its place, its score and the score's interval."""
    unit = f" ({answer.score.unit})" if answer.score.unit else ""
    rows: list[list[Cell]] = []
    for method in answer.methods:
        if score := method.values.get("score"):
            shown = (None if v is None else (_score(answer, v), v) for v in (score.mean, score.low, score.high))
            rows.append([method.name, rank(method.rank_range), *shown, len(score.runs)])
    notes = [
        f"A place is an interval of ranks. It begins after the {answer.noun}s shown better and ends before those shown "
        f"worse. Low and high: 95 % of the mean, for {answer.judged}."
    ]
    columns = (capitalized(answer.noun), "Place", f"{capitalized(answer.score.title)}{unit}", "Low", "High", "Runs")
    return table("places", f"{capitalized(answer.noun)}s by {answer.score.title}", columns, rows, notes)


def _score(answer: PageSummary, value: float) -> str:
    return answer.score.text(value, unit=False)


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
    tested = [method.name for method in answer.methods if metric in method.values]
    named = tested or [method.name for method in answer.methods if axis and axis.id in method.values]
    if never := [f"{a} and {b}" for a, b in combinations(named, 2) if answer.pair(metric, a, b) is None]:
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
    if (least := pair.detectable) is not None:
        share = f"{number(least, '.2g' if least < 100 else '.0f')} %"
        detectable = (share if axis else _gap(answer, least), least)
    needed: Cell = MISSING
    if pair.verdict == "undecided":
        beyond = MISSING if pair.decided_low is None else "none" if axis is None else "> 10,000"
        needed = (number(pair.need, "d"), float(pair.need)) if pair.need else beyond
    better = f"{pair.winner} is better{', within the margin' if pair.within_margin else ''}"
    verdict = better if pair.winner else VERDICTS[pair.verdict]
    return [
        f"{pair.a} {'−' if axis is None else '/'} {pair.b}", verdict + (f" {MARK}" if pair.uncertain else ""),
        (_gap(answer, pair.difference) if axis is None else number(pair.difference, ".3f"), pair.difference),
        _between(answer, pair.decided_low, pair.decided_high, ratio=axis is not None), p_cell(pair.p),
        p_cell(pair.p_adjusted), *([p_cell(pair.p_margin), p_cell(pair.p_margin_adjusted)] if margin else []),
        *([] if answer.over == "row" else [detectable]), needed, *([] if by_rows else [pair.shared]),
    ]  # fmt: skip


def _gap(answer: PageSummary, value: float) -> str:
    return answer.gap_text(value, unit=False)


def _between(answer: PageSummary, low: float | None, high: float | None, *, ratio: bool = False) -> str:
    if low is None or high is None:
        return MISSING
    return f"[{', '.join(number(end, '.3f') if ratio else _gap(answer, end) for end in (low, high))}]"


def _reading(answer: PageSummary) -> Iterator[str]:
    costs = [axis for axis in answer.axes if axis.tested]
    factors = " Costs: factors first / second within a seed, paired t of logarithms." if costs else ""
    yield (
        f"{answer.tests} For {answer.judged} ({answer.rows_text}).{factors} Each interval is at the level of its "
        "pair's test: it leaves out 0, or a factor of 1, just where the two are shown to differ."
    )
    margins = [f"{answer.margin_text} of a score"] if answer.score.margin else []
    margins += [f"{100 * share:g} % of a cost" for share in {axis.margin for axis in costs if axis.margin}]
    equal = "Equal: p of the margin (Holm) below 5 %, the larger of two one-sided tests of a difference of "
    equal = f"{equal}{', '.join(margins)} or more. " if margins else ""
    spent = f"{100 * statistics.ALPHA * statistics.spent_at(answer.look, answer.declared_looks):.2g} %"
    share = f"One pair is tested: its adjusted p is scaled by the share of 5 % that this page, look {answer.look} at "
    share += f"these results, may use: {spent}."
    if answer.tested != 1:
        share = (
            f"Adjusted over the {count_of(answer.tested, 'tested pair')} of all metrics of this page: under "
            "noise near normal the chance of any false claim is at most 5 %, of which this page, look "
            f"{answer.look} at these results, may use {spent}. With three {answer.noun}s or more, differences are "
            "adjusted by Shaffer's procedure (1986; if costs are tested too, the score has 60 % of the level), with "
            "two by Holm's (1979). Adjusted p are scaled to 5 %."
        )
    yield f"Better: p (adjusted) below 5 %. {equal}{share}"
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
    if not answer.methods:
        return None
    stands = " How they stand to each other is in the matrix above." if answer.decided else ""
    intro = Text(sentences=(f"What each is, and what it cost.{stands}",))
    folds = (_fold(answer, method) for method in answer.methods)
    return Section(slug="each", title=f"Each {answer.noun}", blocks=(intro, *folds), question="methods", folded=False)


def _fold(answer: PageSummary, method: Method) -> Fold:
    n, noun = answer.number[method.name], "options" if answer.noun == "method" else "runs"
    facts = table(f"method_{n}", f"{method.name}: scores, costs, {noun}", ("What", "Value"), _facts(answer, method))
    title = f"{n} {method.name}" if answer.numbered else method.name
    return Fold(title=title, about=words.verdict(answer, method.name).in_full, blocks=(facts,), anchor=f"m-{n}")


def _facts(answer: PageSummary, method: Method) -> Iterator[list[Cell]]:
    score, run = method.values.get("score"), "seed" if answer.noun == "method" else "run"
    if score is not None:
        unit = f" ({answer.score.unit})" if answer.score.unit else ""
        ends = [_score(answer, end) for end in (score.low, score.high) if end is not None]
        own = f"; 95 % interval of its own {' to '.join(ends)}" if ends else ""
        what = f"{capitalized(answer.score.title)}{unit}, {count_of(len(score.runs), run)}"
        yield [what, _score(answer, score.mean) + own]
        yield [f"{capitalized(run)} by {run}", ", ".join(_score(answer, value) for value in score.runs)]
    for axis in answer.axes:
        if axis.id in method.values:
            yield [axis.title, _cost(answer, axis, method)]
    for title, value in method.settings:
        yield [title, value]
    if late := answer.under.get(method.name):
        yield ["At the end", f"still improving in {late} of {count_of(method.seeds, 'run')}"]


def _cost(answer: PageSummary, axis: Axis, method: Method) -> str:
    values = method.values[axis.id]
    text = axis.text(values.mean)
    if not axis.exact and values.low is not None and values.high is not None:
        low, high = (axis.text(end, unit=False, mean=values.mean) for end in (values.low, values.high))
        text += f"; 95 % interval {low} to {high}"
    added = [key for key in method.values if key not in {"score", *(other.id for other in answer.axes)}]
    if axis.key == "memory" and added:
        text += f"; training adds {axis.text(method.values[added[0]].mean)}"
    return text
