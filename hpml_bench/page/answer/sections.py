"""Tables and sections that follow from an answer alone: places, pairs, what would decide, each
method or system.
"""

from collections.abc import Iterator
from itertools import combinations

from hpml_bench import statistics
from hpml_bench.judge.summary import Axis, Method, PageSummary, Pair
from hpml_bench.page.answer import words
from hpml_bench.page.answer.screen import difference
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Fold, Mark, Section, Table, Tabs, Text
from hpml_bench.records.numbers import (
    MISSING,
    Cell,
    capitalized,
    number,
    p_cell,
    rank,
    sentence_list,
    titled,
)
from hpml_bench.statistics import ALPHA
from hpml_bench.statistics.over_rows import MOST_ROWS
from hpml_bench.system.text import count_of

VERDICTS = {
    "different": "differs",
    "undecided": "can't tell",
    "equivalent": "equal",
    "untested": "not tested",
}
MARK = "‡"
UNCERTAIN = (
    "Less certain: the differences are skewed, or come from a few test rows; the test then finds "
    "differences too often."
)
SIGNS: dict[Mark, str] = {"better": "▲", "worse": "▼", "open": "?", "equal": "="}
LEGEND = (
    "Read a row: its {} against each column. ▲ shown better, ▼ shown worse, ? can't tell, = equal."
)
FAULT = 0.2
"""Share of seeds with a fault, such as a collapse, that no test of few seeds bounds; n show none
by (1 - 0.2)^n.
"""
SHOWN = 4  # open pairs that are named; the others are counted
CHECKPOINTS = "these checkpoints"
"""Header of the column of verdicts on trained models alone."""


def answer_table(answer: PageSummary) -> Table:
    score, best = answer.score, answer.methods[0].name if answer.methods else ""
    columns = (
        answer.noun,
        titled(score.title, score.unit),
        titled("difference", score.difference_unit),
        "low",
        "high",
        "verdict",
        "can't tell from",
        *([CHECKPOINTS] if answer.checkpoints else []),
        *(titled(axis.title.lower(), axis.unit) for axis in answer.axes),
    )
    caption = (
        f"{capitalized(answer.noun)}s by {score.title}, with the difference to the best mean, and "
        "low and high at its test's level"
    )
    caption += ", over the seeds that two share" if answer.shared is not None else ""
    return table(
        "answer",
        caption,
        columns,
        [_answer_cells(answer, method.name, best) for method in answer.methods],
    )


def _answer_cells(answer: PageSummary, name: str, best: str) -> Iterator[Cell]:
    mean, gap = (
        answer.value(name, "score"),
        difference(answer, name, best) if name != best else None,
    )
    yield name
    yield None if mean is None else (answer.score.text(mean, unit=False), mean)
    for value in gap or (None,) * 3:
        yield None if value is None else (answer.gap_text(value, unit=False), value)
    behind = ", ".join(answer.related(name, "worse"))
    yield words.verdict(answer, name).chip or (f"behind {behind}" if behind else None)
    yield ", ".join(answer.related(name, "open")) or None
    if answer.checkpoints:
        better = [pair.winner for pair in answer.checkpoints if name in {pair.a, pair.b}]
        beaten_by = [winner for winner in better if winner not in {None, name}]
        yield (
            f"behind {', '.join(sorted(filter(None, beaten_by), key=answer.number.__getitem__))}"
            if beaten_by
            else None
        )
    for axis in answer.axes:
        cost = answer.value(name, axis.id)
        yield (
            None
            if cost is None
            else (number(cost) if axis.own_units else axis.text(cost, unit=False), cost)
        )


def places(answer: PageSummary) -> Table:
    rows: list[list[Cell]] = []
    for method in answer.methods:
        if score := method.values.get("score"):
            ends = (
                None if v is None else (answer.score.text(v, unit=False), v)
                for v in (score.low, score.high)
            )
            mean = answer.score.text(score.mean, unit=False), score.mean
            rows.append([method.name, rank(method.rank_range), mean, *ends, len(score.runs)])
    notes = [
        f"A place is an interval of ranks. It begins after the {answer.noun}s shown better and "
        f"ends before those shown worse. Low and high: 95 % of the mean, for {answer.judged}."
    ]
    scored = titled(capitalized(answer.score.title), answer.score.unit)
    columns = (capitalized(answer.noun), "Place", scored, "Low", "High", "Runs")
    return table(
        "places", f"{capitalized(answer.noun)}s by {answer.score.title}", columns, rows, notes
    )


# The matrix


def matrix_section(answer: PageSummary) -> Section | None:
    tested: list[Axis | None] = [None, *(axis for axis in answer.axes if axis.tested)]
    named = {
        _label(answer, axis): made for axis in tested if (made := _matrix(answer, axis)) is not None
    }
    if not answer.decided or not named:
        return None
    tabs = Tabs(name="matrix", labels=tuple(named), tables=tuple(named.values()))
    legend = Text(sentences=(LEGEND.format(answer.noun),))
    return section_of("matrix", "Every pair", legend, tabs, question="sure", folded=False)


def _label(answer: PageSummary, axis: Axis | None) -> str:
    if axis is None:
        return capitalized(answer.score.title)
    return axis.title if axis.tested == axis.id else "Memory added"


def _matrix(answer: PageSummary, axis: Axis | None) -> Table | None:
    key, metric = ("score", "score") if axis is None else (axis.key, axis.tested or "")
    compared = {name for pair in answer.pairs.get(metric, ()) for name in (pair.a, pair.b)}
    names = [method.name for method in answer.methods if method.name in compared]
    if len(names) < 2:
        return None
    numbers = answer.number if answer.numbered else {}
    rows: list[list[Cell]] = []
    marks: list[tuple[Mark | None, ...]] = []
    for name in names:
        stands = [_matrix_cell(answer, key, metric, name, other) for other in names]
        rows.append([f"{numbers[name]} {name}" if numbers else name, *(cell for cell, _ in stands)])
        marks.append((None, *(mark for _, mark in stands)))
    difference_of = f"{titled('difference', answer.score.difference_unit)}, row less column"
    what = difference_of if axis is None else "factor, row over column"
    heads = (capitalized(answer.noun), *(str(numbers.get(name, name)) for name in names))
    made = table(f"matrix_{metric}", f"{_label(answer, axis)}: {what}", heads, rows)
    return made.model_copy(update={"marks": tuple(marks)})


def _matrix_cell(
    answer: PageSummary, key: str, metric: str, name: str, other: str
) -> tuple[Cell, Mark | None]:
    pair = None if name == other else answer.pair(metric, name, other)
    if pair is None:
        return (MISSING if name != other else " ", None), None
    value, relation = (
        pair.seen_from(name, ratio=metric != "score")[0],
        answer.relation(key, name, other),
    )
    text = answer.gap_text(value, unit=False) if metric == "score" else f"× {number(value, '.2f')}"
    if metric == "score" and value > 0 and text.strip("0.,"):
        text = f"+{text}"
    return (
        ((text, value), None)
        if relation == "untested"
        else ((f"{text} {SIGNS[relation]}", value), relation)
    )


# What would decide


def deciding_section(answer: PageSummary) -> Section | None:
    if len(answer.methods) < 2:
        return None
    pairs = answer.pairs.get("score", ())
    place = answer.number
    pending = [pair for pair in pairs if pair.verdict == "undecided"]
    pending.sort(key=lambda pair: sorted((place[pair.a], place[pair.b])))
    blocks = [Text(sentences=(_headline(answer, len(pending), len(pairs)),))]
    if pending:
        lines = [_open_pair(answer, pair) for pair in pending[:SHOWN]]
        more = [f"{len(pending) - SHOWN} more: see every pair in numbers."] * (len(pending) > SHOWN)
        blocks.append(Text(sentences=(*lines, *more)))
    if odd := tuple(_odd_places(answer)):
        blocks.append(Text(sentences=odd))
    if scope := tuple(_scope(answer)):
        blocks.append(Text(sentences=(" ".join(scope),)))
    return section_of("deciding", "What would decide", *blocks, question="sure", folded=False)


def _headline(answer: PageSummary, pending: int, pairs: int) -> str:
    if answer.untested:
        return f"No pair of scores is tested: {answer.untested}."
    if not answer.tested_by_score:
        return (
            f"No pair of scores is tested. Run each {answer.noun} with the same {answer.least} "
            f"seeds or more."
        )
    if not pending:
        return "Every tested pair of scores is decided."
    if pairs == 1:
        return "The pair of scores is open."
    return (
        f"{pending} of {count_of(pairs, 'pair')} of scores {'is' if pending == 1 else 'are'} open."
    )


def _odd_places(answer: PageSummary) -> Iterator[str]:
    """Yield why a method with a worse mean may be best where one with a better mean is behind."""
    for name in answer.top:
        mean, score = answer.value(name, "score"), answer.by_name[name].values.get("score")
        better = [
            method.name
            for method in answer.methods[: answer.number[name] - 1]
            if method.name not in answer.top and method.name in answer.tested_by_score
        ]
        if not better or mean is None or score is None or score.low is None or score.high is None:
            continue
        ends = f"{answer.score.text(score.low, unit=False)} to {answer.score.text(score.high)}"
        behind = words.several(answer, better)
        label = words.label(answer, name)
        yield (
            f"{capitalized(label) if answer.numbered else label} may be best although {behind}, "
            f"with a better mean, {'is' if len(better) == 1 else 'are'} behind: its own score is "
            f"less certain ({ends}), so that no {answer.noun} is shown to beat it."
        )


def _missed(answer: PageSummary, pair: Pair) -> str:
    """Return what p an open pair with a p under 5 % would need as one of several; empty for
    others.
    """
    if (
        pair.p is None
        or pair.p >= ALPHA
        or pair.p_adjusted is None
        or not ALPHA <= pair.p_adjusted < 1
    ):
        return ""
    shared = (
        f"as one of {answer.tested} pairs, at look {answer.look}"
        if answer.tested > 1
        else f"at look {answer.look}"
    )
    # an adjusted p that equals another pair's is that of an earlier step, whose level isn't this
    # pair's
    others = [one for pairs in answer.pairs.values() for one in pairs if one is not pair]
    if any(one.p_adjusted == pair.p_adjusted for one in others):
        return f" Its p, {pair.p:.2g}, isn't enough {shared}."
    needed = ALPHA * pair.p / pair.p_adjusted
    return f" Its p, {pair.p:.2g}, isn't enough: {shared}, it would have to be below {needed:.2g}."


def _open_pair(answer: PageSummary, pair: Pair) -> str:
    one, other = sorted((pair.a, pair.b), key=answer.number.__getitem__)
    gap = answer.gap_text(abs(pair.difference))
    smallest = 10.0**-answer.gap_digits
    if 0 < abs(pair.difference) < smallest / 2:  # it would be shown as 0.0
        gap = f"less than {answer.gap_text(smallest)}"
    apart = (
        f"{words.label(answer, one)} or {words.label(answer, other)}: {gap} "
        f"apart.{_missed(answer, pair)}"
    )
    fixed = "" if answer.rounds else ", fixed before,"
    if pair.need:
        return (
            f"{apart} With a gap of that size, about {pair.need:,} {answer.over}s{fixed} would "
            f"decide."
        )
    if answer.lacking:
        return f"{apart} The missing rows may turn it."
    if answer.over == "row":
        return f"{apart} Not even {MOST_ROWS:,} rows would decide."
    return (
        f"{apart} More seeds alone won't decide: too few test rows. Use more than "
        f"{answer.rows_text}."
    )


def turns(answer: PageSummary) -> str:
    """Return what no order of runs bounds where costs of two methods over three seeds are
    ranked; empty elsewhere.
    """
    costs = [
        p
        for by, pairs in answer.pairs.items()
        if by != "score"
        for p in pairs
        if p.verdict != "untested"
    ]
    if (
        len({name for p in costs for name in (p.a, p.b)}) != 2
        or min(p.shared for p in costs) > answer.least
    ):
        return ""
    return (
        f"No order of two {answer.noun}s over three seeds bounds a disturbance that returns every "
        f"few runs."
    )


def _scope(answer: PageSummary) -> Iterator[str]:
    if not answer.decided:
        return
    by = "score and costs" if any(axis.tested for axis in answer.axes) else "score"
    yield f"The page compares {count_of(answer.tested, 'pair')} by {by}, for {answer.judged}."
    if answer.over == "row":
        yield (
            f"With rows drawn at random and fixed before, at most {answer.chance:g} % of pages "
            f"hold a wrong verdict."
        )
        if answer.noun == "method" and answer.seeds < answer.least:
            few = f"{count_of(answer.seeds, 'seed')} can't rank methods"
            yield f"{few}: another seed may order them otherwise. Run {answer.least} or more."
        yield "“Can't tell” doesn't mean equal."
        return
    fixed = "looks declared" if answer.rounds else "seeds fixed"
    yield (
        f"With near-normal noise and {fixed} before, at most {answer.chance:g} % of pages hold a "
        f"wrong verdict."
    )
    n = min(
        pair.shared
        for pairs in answer.pairs.values()
        for pair in pairs
        if pair.verdict != "untested"
    )
    missed = f"{100 * (1 - FAULT) ** n:.2g} %"
    yield (
        f"A fault in {100 * FAULT:g} % of seeds like these stays unseen in {n} with a chance of "
        f"{missed}."
    )
    yield (
        f"{'Verdicts hold at this budget. ' if answer.noun == 'method' else ''}“Can't tell” "
        f"doesn't mean equal."
    )


# Every pair in numbers


def pair_tables(answer: PageSummary) -> Iterator[Table]:
    """Yield a table of pairs for the score and each tested cost; the first explains the columns
    of all.
    """
    notes = list(_reading(answer))
    tested: list[Axis | None] = [None, *(axis for axis in answer.axes if axis.tested)]
    for axis in tested:
        if answer.pairs.get("score" if axis is None else axis.tested or ""):
            yield _pairs(answer, axis, notes)
            notes = ["The columns are those of the first table of pairs."]
    if answer.checkpoints:
        yield _checkpoint_pairs(answer)


def _pairs(answer: PageSummary, axis: Axis | None, notes: list[str]) -> Table:
    metric = "score" if axis is None else axis.tested or ""
    pairs, by_rows = answer.pairs[metric], answer.over == "row"
    margin = answer.score.margin if axis is None else axis.margin
    if any(pair.uncertain for pair in pairs):
        notes = [*notes, f"{MARK} {UNCERTAIN}"]
    tested = [method.name for method in answer.methods if metric in method.values]
    named = tested or [
        method.name for method in answer.methods if axis and axis.id in method.values
    ]
    if never := [
        f"{a} and {b}" for a, b in combinations(named, 2) if answer.pair(metric, a, b) is None
    ]:
        notes = [*notes, f"Never compared, since they share no seed: {sentence_list(never)}."]
    if axis is None:
        what, name, title = (
            titled("Difference", answer.score.difference_unit),
            answer.score.id,
            answer.score.title,
        )
    else:
        what, name = "Factor", metric
        title = f"{axis.title.lower()}{' over set-up' if axis.tested != axis.id else ''}"
    columns = ["Pair", "Verdict", what, "Interval", "p", "p (adjusted)"]
    columns += ["p of the margin", "p of the margin (adjusted)"] if margin else []
    columns += [] if by_rows else ["Detectable"]
    columns += ["Rows to decide"] if by_rows and axis is None else ["Seeds to decide", "Seeds"]
    rows = [_row(answer, axis, pair, margin=bool(margin)) for pair in pairs]
    return table(f"pairs_{name}", f"Pairs by {title}", columns, rows, notes)


def _row(answer: PageSummary, axis: Axis | None, pair: Pair, *, margin: bool) -> list[Cell]:
    by_rows = answer.over == "row" and axis is None
    detectable: Cell = MISSING
    if (least := pair.detectable) is not None:
        share = f"{number(least, '.2g' if least < 100 else '.0f')} %"
        detectable = (share if axis else answer.gap_text(least, unit=False), least)
    needed: Cell = MISSING
    if pair.verdict == "undecided":
        beyond = MISSING if pair.decided_low is None else "none" if axis is None else "> 10,000"
        needed = (number(pair.need, "d"), float(pair.need)) if pair.need else beyond
    decided = [end for end in (pair.decided_low, pair.decided_high) if end is not None]
    ends = [number(end, ".3f") if axis else answer.gap_text(end, unit=False) for end in decided]
    better = f"{pair.winner} is better{', within the margin' if pair.within_margin else ''}"
    verdict = better if pair.winner else VERDICTS[pair.verdict]
    return [
        f"{pair.a} {'−' if axis is None else '/'} {pair.b}",
        verdict + (f" {MARK}" if pair.uncertain else ""),
        (
            number(pair.difference, ".3f")
            if axis
            else answer.gap_text(pair.difference, unit=False),
            pair.difference,
        ),
        f"[{', '.join(ends)}]" if ends else MISSING,
        p_cell(pair.p),
        p_cell(pair.p_adjusted),
        *([p_cell(pair.p_margin), p_cell(pair.p_margin_adjusted)] if margin else []),
        *([] if answer.over == "row" else [detectable]),
        needed,
        *([] if by_rows else [pair.shared]),
    ]


def _checkpoint_pairs(answer: PageSummary) -> Table:
    """Return the table of pairs of checkpoints: verdicts for other rows and these trained
    models.
    """
    rows: list[list[Cell]] = []
    for pair in answer.checkpoints:
        ends = [
            answer.gap_text(end, unit=False) for end in (pair.low, pair.high) if end is not None
        ]
        rows.append(
            [
                f"{pair.a} − {pair.b}",
                (f"{pair.winner}'s are better" if pair.winner else VERDICTS["undecided"])
                + (f" {MARK}" if pair.uncertain else ""),
                (answer.gap_text(pair.difference, unit=False), pair.difference),
                f"[{', '.join(ends)}]" if ends else MISSING,
                p_cell(pair.p),
                p_cell(pair.p_adjusted),
            ]
        )
    columns = (
        "Pair",
        "Verdict",
        titled("Difference", answer.score.difference_unit),
        "Interval",
        "p",
        "p (adjusted)",
    )
    notes = [
        f"For {answer.checkpoints_judged}: the test over rows of the means of each row's scores, "
        f"McNemar's where rows "
        "are right or wrong in all runs, else Student's t with guards against rare rows. "
        f"It is no claim on the {answer.noun}s: other seeds may order them otherwise.",
        (
            "Each pair has an equal share of the score's part of the 5 %: docs/ledger.md says why "
            "that is enough."
        ),
    ]
    if any(pair.uncertain for pair in answer.checkpoints):
        notes.append(f"{MARK} {UNCERTAIN}")
    return table(
        "pairs_checkpoints",
        f"Pairs by {answer.score.title}: these checkpoints",
        columns,
        rows,
        notes,
    )


def _reading(answer: PageSummary) -> Iterator[str]:
    costs = [axis for axis in answer.axes if axis.tested]
    factors = (
        " Costs: factors first / second within a seed, paired t of logarithms." if costs else ""
    )
    yield (
        f"{answer.tests} For {answer.judged} ({answer.rows_text}).{factors} Each interval is at "
        f"the level of its "
        "pair's test: it leaves out 0, or a factor of 1, just where the two are shown to differ."
    )
    margins = [f"{answer.margin_text} of a score"] if answer.score.margin else []
    margins += [
        f"{100 * share:g} % of a cost" for share in {axis.margin for axis in costs if axis.margin}
    ]
    equal = (
        "Equal: p of the margin (adjusted) below 5 %, the larger of two one-sided tests of a "
        "difference of "
    )
    equal = f"{equal}{', '.join(margins)} or more. " if margins else ""
    spent = (
        f"{100 * statistics.ALPHA * statistics.spent_at(answer.look, answer.declared_looks):.2g} %"
    )
    look = words.look_text(answer)
    share = (
        f"One pair is tested: its adjusted p is scaled by the share of 5 % that this page, {look} "
        f"at "
    )
    share += f"these results, may use: {spent}."
    if answer.tested != 1:
        share = (
            f"Adjusted over the {count_of(answer.tested, 'tested pair')} of all metrics of this "
            "page: under noise near normal the chance of any false claim is at most 5 %, of which "
            f"this page, {look} at these results, may use {spent}. If costs are tested too, the "
            f"score has 60 % of the differences' level. With three {answer.noun}s or more, "
            "differences are adjusted by Shaffer's procedure (1986), with two by Holm's with "
            "weights (1979). Adjusted p are scaled to 5 %."
        )
    yield f"Better: p (adjusted) below 5 %. {equal}{share}"
    if answer.over == "seed":
        yield (
            "Detectable: smallest true difference that so many seeds would detect in 80 % of "
            "repetitions, at the first step's level. Seeds to decide: how many would decide with "
            "a chance of 80 % at the next look, were the difference as measured. Under "
            f"{answer.least} shared seeds there is no verdict."
        )


def rounds_table(answer: PageSummary) -> Table | None:
    if not answer.rounds:
        return None
    rows: list[list[Cell]] = [
        [
            number(at, "d"),
            one.seeds,
            ", ".join(one.methods),
            ", ".join(f"{name} (behind {by})" for name, by in one.left.items()) or MISSING,
        ]
        for at, one in enumerate(answer.rounds, 1)
    ]
    end = f"It ended since {answer.ended}." if answer.ended else "It hasn't ended."
    most = f", of {answer.most_runs} were each method to have the most seeds that were declared"
    most = most if answer.runs <= answer.most_runs else ""
    notes = (
        f"{end} {answer.runs} runs{most}.",
        f"Each of the {answer.declared_looks} declared looks may use the same share of 5 %. Who is "
        "shown to be behind leaves with its pairs as they are then; the family stays whole.",
    )
    return table(
        "rounds", "Rounds of the race", ("round", "seeds", "in the race", "left"), rows, notes
    )


# Each method, or system


def each_section(answer: PageSummary) -> Section | None:
    if not answer.methods:
        return None
    stands = " How they stand to each other is in the matrix above." if answer.decided else ""
    blocks: list[Text | Fold] = [Text(sentences=(f"What each is, and what it cost.{stands}",))]
    for n, method in enumerate(answer.methods, 1):
        caption = (
            f"{method.name}: scores, costs, {'options' if answer.noun == 'method' else 'runs'}"
        )
        facts = table(f"method_{n}", caption, ("What", "Value"), _facts(answer, method))
        title, about = (
            f"{n} {method.name}" if answer.numbered else method.name,
            words.verdict(answer, method.name),
        )
        blocks.append(Fold(title=title, about=about.in_full, blocks=(facts,), anchor=f"m-{n}"))
    return section_of("each", f"Each {answer.noun}", *blocks, question="methods", folded=False)


def _facts(answer: PageSummary, method: Method) -> Iterator[list[Cell]]:
    score, run = method.values.get("score"), "seed" if answer.noun == "method" else "run"
    if score is not None:
        ends = [
            answer.score.text(end, unit=False) for end in (score.low, score.high) if end is not None
        ]
        own = f"; 95 % interval of its own {' to '.join(ends)}" if ends else ""
        what = (
            f"{titled(capitalized(answer.score.title), answer.score.unit)}, "
            f"{count_of(len(score.runs), run)}"
        )
        yield [what, answer.score.text(score.mean, unit=False) + own]
        yield [
            f"{capitalized(run)} by {run}",
            ", ".join(answer.score.text(value, unit=False) for value in score.runs),
        ]
    shown = {"score", *(axis.id for axis in answer.axes)}
    for axis in answer.axes:
        if values := method.values.get(axis.id):
            text = axis.text(values.mean)
            if not axis.exact and values.low is not None and values.high is not None:
                low, high = (
                    axis.text(end, unit=False, mean=values.mean)
                    for end in (values.low, values.high)
                )
                text += f"; 95 % interval {low} to {high}"
            added = [key for key in method.values if key not in shown]
            if axis.key == "memory" and added:
                text += f"; training adds {axis.text(method.values[added[0]].mean)}"
            yield [axis.title, text]
    for title, value in method.settings:
        yield [title, value]
    if late := answer.under.get(method.name):
        yield ["At the end", f"still improving in {late} of {count_of(method.seeds, 'run')}"]
