"""The sections of a comparison's page, each with the question that it answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Question, Section, Table, Text
from hpml_bench.report.answer.model import PageSummary
from hpml_bench.report.answer.sections import deciding_section, each_section, matrix_section, pair_tables, places, turns
from hpml_bench.report.answer.summary import cost_scale
from hpml_bench.report.judge import NOT_INDEPENDENT, Verdicts
from hpml_bench.report.numbers import MISSING, Cell, capitalized, count_of, number
from hpml_bench.report.scores import AlignedScores
from hpml_bench.report.tables import section_of, table
from hpml_bench.system.text import sanitize


def sections_of(found: Verdicts, answer: PageSummary) -> Iterator[Section]:
    """Yield the sections of a page, each with its question."""
    inputs = table("sources", "Inputs", ("Input",), [[source] for source in found.scores.sources])
    remarks = [Text(sentences=found.scores.remarks)] if found.scores.remarks else []
    of: list[tuple[Question, Section | None]] = [
        ("best", section_of("places", "Places", places(answer))),
        ("cost", section_of("costs", "Costs", _costs(found, answer))),
        ("sure", matrix_section(answer)),
        ("sure", deciding_section(answer)),
        ("sure", section_of("more", "What more data would give", _more(found))),
        ("sure", section_of("pairs", "Every pair in numbers", *pair_tables(answer))),
        ("methods", each_section(answer)),
        ("setup", section_of("read", "What was read", inputs, *remarks)),
        ("wrong", section_of("problems", "What is missing", *_problems(found.scores, answer))),
        ("reading", section_of("reading", "The tests", Text(sentences=_reading(found, answer)))),
    ]
    for question, section in of:
        if section is not None:
            yield section.model_copy(update={"question": question, "folded": section.slug == "pairs"})


def _costs(found: Verdicts, answer: PageSummary) -> Table | None:
    """Return all costs of each system, also those that the first screen leaves out."""
    scores, named = found.scores, {sanitize(name): name for name in found.scores.systems}
    shown = [(cost, *cost_scale(scores, cost)) for cost in scores.costs]
    if not shown:
        return None
    rows: list[list[Cell]] = []
    for method in answer.methods:
        runs = [(list(scores.costs[cost].get(named[method.name], {}).values()), scale) for cost, scale, _ in shown]
        means = [scale * float(np.mean(of)) if of else None for of, scale in runs]
        rows.append([method.name, *(None if mean is None else (number(mean), mean) for mean in means)])
    titles = [f"{capitalized(cost.title)} ({unit})" if unit else capitalized(cost.title) for cost, _, unit in shown]
    notes = ["Means over runs; less is better.", *(cost.about for cost, *_ in shown if cost.about)]
    notes += [f"{cost.title} isn't ranked: {found.unranked[cost.column]}." for cost in scores.costs
              if cost.column in found.unranked]  # fmt: skip
    noun = capitalized(answer.noun)
    return table("costs", f"Costs of each {answer.noun}", (noun, *titles), rows, notes)


def _problems(scores: AlignedScores, answer: PageSummary) -> Iterator[Table | Text]:
    if scores.unshared:
        yield Text(sentences=(answer.lacking, "Rows may be missing because a system failed there."))
        yield table("lacking", "Rows that a system lacks", ("System", "Rows"), list(scores.lacking.items()))
    if scores.failed:
        rows: list[list[Cell]] = [[f.system, f.seed or MISSING, f.status, f.where] for f in scores.failed]
        yield table("failed", "Runs without a score", ("System", "Seed", "Status", "Where"), rows)


def _more(found: Verdicts) -> Text | None:
    """Return what a comparison without rows, or seeds, lacks."""
    sentences, scores = [], found.scores
    if scores.rows is not None and not scores.foreseen:
        sentences.append("A range of the score (--range): without it verdicts presume no row beyond those seen.")
    if scores.rows is None:
        sentences.append("Scores row by row: the same rows are paired, which finds smaller differences.")
        if found.why == NOT_INDEPENDENT:
            sentences.append("Or --independent: no system's error makes another's likelier or rarer.")
    if scores.shared_seeds < statistics.LEAST_SEEDS:
        costs = " and ranks by cost" if scores.costs else ""
        enough = max(len(of) for of in scores.means.values()) >= statistics.LEAST_SEEDS
        these = "Three seeds that all systems share" if enough else "Three seeds of each system"
        sentences.append(f"{these}: verdicts for other seeds too{costs}.")
        if enough:  # the two that share fewest
            runs, pairs = scores.means, itertools.combinations(scores.systems, 2)
            shared, a, b = min((len(runs[a].keys() & runs[b].keys()), a, b) for a, b in pairs)
            sentences.append(f"{a} and {b} share {count_of(shared, 'seed') if shared else 'none'}.")
    return Text(sentences=tuple(sentences)) if sentences else None


def _reading(found: Verdicts, answer: PageSummary) -> tuple[str, ...]:
    shared = ["All pairs of a page, by score and tested cost, share 5 % of error."] if answer.tested > 1 else []
    sentences = [answer.tests, *shared]
    if found.scores.groups is not None:
        sentences.append("Rows of a group depend on each other, so groups are what another sample replaces.")
    if not found.margin:
        sentences.append("No margin is given, so no pair is shown equal. Give --margin.")
    return (*sentences, turns(answer)) if turns(answer) else tuple(sentences)
