"""Seeds or rows that would decide the open pairs of an answer's scores."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.blocks import Section, Text
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.model import PageSummary, Pair
from hpml_bench.report.tables import section_of
from hpml_bench.statistics.over_rows import MOST_ROWS

FAULT = 0.2
"""Share of seeds with a fault, such as a collapse, that no test of few seeds bounds; n show none by (1 - 0.2)^n."""
SHOWN = 4
"""Open pairs that are named; the others are counted."""


def deciding_section(answer: PageSummary) -> Section | None:
    """Return what each open pair would take, and what the verdicts hold for; None with a single method."""
    if len(answer.methods) < 2:
        return None
    pairs = answer.pairs.get("score", ())
    pending = sorted((pair for pair in pairs if pair.verdict == "undecided"), key=lambda pair: _place(answer, pair))
    blocks = [Text(sentences=(_headline(answer, len(pending), len(pairs)),))]
    if pending:
        lines = [_line(answer, pair) for pair in pending[:SHOWN]]
        more = [f"{len(pending) - SHOWN} more: see every pair in numbers."] * (len(pending) > SHOWN)
        blocks.append(Text(sentences=(*lines, *more)))
    if scope := tuple(_scope(answer)):
        blocks.append(Text(sentences=(" ".join(scope),)))
    return section_of("deciding", "What would decide", *blocks)


def _place(answer: PageSummary, pair: Pair) -> tuple[int, ...]:
    return tuple(sorted((answer.number[pair.a], answer.number[pair.b])))


def _headline(answer: PageSummary, pending: int, pairs: int) -> str:
    if answer.untested:
        return f"No pair of scores is tested: {answer.untested}."
    if not any(pair.verdict != "untested" for pair in answer.pairs.get("score", ())):
        return f"No pair of scores is tested. Run each {answer.noun} with the same {answer.least} seeds or more."
    if not pending:
        return "Every tested pair of scores is decided."
    if pairs == 1:
        return "The pair of scores is open."
    return f"{pending} of {terms.count_of(pairs, 'pair')} of scores {'is' if pending == 1 else 'are'} open."


def _line(answer: PageSummary, pair: Pair) -> str:
    one, other = sorted((pair.a, pair.b), key=answer.number.__getitem__)
    gap = terms.gap_text(answer, abs(pair.difference))
    apart = f"{terms.label(answer, one)} or {terms.label(answer, other)}: {gap} apart."
    fixed = "" if answer.rounds else ", fixed before,"
    if pair.need:
        return f"{apart} With a gap of that size, about {pair.need:,} {answer.over}s{fixed} would decide."
    if answer.lacking:
        return f"{apart} The missing rows may turn it."
    if answer.over == "row":
        return f"{apart} Not even {MOST_ROWS:,} rows would decide."
    return f"{apart} More seeds alone won't decide; use more than {answer.rows_text}."


def turns(answer: PageSummary) -> str:
    """Return what no order of runs bounds where costs of two methods over three seeds are ranked; empty elsewhere."""
    costs = [pair for metric, pairs in answer.pairs.items() if metric != "score" for pair in pairs]
    costs = [pair for pair in costs if pair.verdict != "untested"]
    if (
        len({name for pair in costs for name in (pair.a, pair.b)}) != 2
        or min(pair.shared for pair in costs) > answer.least
    ):
        return ""
    return f"No order of two {answer.noun}s over three seeds bounds a disturbance that returns every few runs."


def _scope(answer: PageSummary) -> Iterator[str]:
    """Yield what the verdicts hold for; nothing where there is none."""
    if not answer.decided:
        return
    by = "score and costs" if any(axis.tested for axis in answer.axes) else "score"
    yield f"The page compares {terms.count_of(answer.tested, 'pair')} by {by}, for {answer.judged}."
    if answer.over == "row":
        yield f"With rows drawn at random and fixed before, at most {answer.chance:g} % of pages hold a wrong verdict."
        if answer.noun == "method" and answer.seeds < answer.least:
            few = f"{terms.count_of(answer.seeds, 'seed')} can't rank methods"
            yield f"{few}: another seed may order them otherwise. Run {answer.least} or more."
        yield "“Can't tell” doesn't mean equal."
        return
    fixed = "looks declared" if answer.rounds else "seeds fixed"
    yield f"With near-normal noise and {fixed} before, at most {answer.chance:g} % of pages hold a wrong verdict."
    n = min(pair.shared for pairs in answer.pairs.values() for pair in pairs if pair.verdict != "untested")
    missed = 100 * (1 - FAULT) ** n
    yield f"For seeds like these: {n} show no fault of {100 * FAULT:g} % of seeds with a chance of {missed:.2g} %."
    yield f"{'Verdicts hold at this budget. ' if answer.noun == 'method' else ''}“Can't tell” doesn't mean equal."
