"""The sections of a comparison's page, each with the question that it answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from hpml_bench import statistics
from hpml_bench.comparison.answer import Compared
from hpml_bench.comparison.scores import Scores
from hpml_bench.comparison.verdicts import NOT_INDEPENDENT, Scope
from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Text
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.deciding import deciding_section, turns
from hpml_bench.report.answer.matrix import matrix_section
from hpml_bench.report.answer.model import Answer
from hpml_bench.report.tables import MISSING, Cell, capitalized, number, p_cell, rank, section_of, table

SAID = {"better": "better", "worse": "worse", "open": "can't tell", "equal": "equal", "untested": "not tested"}
TESTS: Mapping[Scope, str] = {
    "seeds and rows": "Differences within seed and row, in a two-way analysis of variance and a paired t test over "
    "seeds; p is the larger.",
    "rows": "Differences within a row. Where all scores are one of two values: McNemar's exact test. Else "
    "Student's t, with what few rows can't show: rare rows that carry the difference.",
    "seeds": "Differences within a seed: the paired t test, on these very rows.",
    "shares": "Shares of rows, without the rows: unpaired; p is the larger of Agresti and Caffo's (2000) and "
    "of Fisher's exact test.",
    "none": "Nothing is tested.",
}
"""How pairs are tested."""


def sections_of(compared: Compared, answer: Answer) -> Iterator[Section]:
    """Yield the sections of a page, each with its question."""
    of: list[tuple[Question, Section | None]] = [
        ("best", section_of("places", "Places", _places(answer))),
        ("cost", section_of("costs", "Costs", _costs(compared, answer))),
        ("sure", matrix_section(answer)),
        ("sure", deciding_section(answer)),
        ("sure", section_of("more", "What more data would give", _more(compared))),
        ("sure", section_of("pairs", "Every pair in numbers", _pairs(compared, answer))),
        ("methods", Section(slug="each", title="Each system", blocks=tuple(_folds(compared, answer)))),
        ("setup", section_of("read", "What was read", *_read(compared))),
        ("wrong", section_of("problems", "What is missing", *_problems(compared.scores, answer))),
        ("reading", section_of("reading", "The tests", Text(sentences=_reading(compared, answer)))),
    ]
    for question, section in of:
        if section is not None:
            yield section.model_copy(update={"question": question, "folded": section.slug == "pairs"})


def _places(answer: Answer) -> Table:
    unit = f" ({answer.score.unit})" if answer.score.unit else ""
    rows: list[list[Cell]] = []
    for method in answer.methods:
        score = method.v["score"]
        ends = [
            MISSING if end is None else (terms.score_text(answer, end, unit=False), end) for end in (score.lo, score.hi)
        ]
        rows.append([method.name, rank(method.place), (terms.score_text(answer, score.m, unit=False), score.m), *ends,
                     method.seeds])  # fmt: skip
    notes = [
        "A place is an interval of ranks. It begins after the systems shown better and ends before those shown worse. "
        f"Low and high: 95 % of the mean, for {answer.judged}."
    ]
    columns = ("System", "Place", f"{capitalized(answer.score.title)}{unit}", "Low", "High", "Runs")
    return table("places", f"Systems by {answer.score.title}", columns, rows, notes)


def _costs(compared: Compared, answer: Answer) -> Table | None:
    """Return all costs of each system, also those that the first screen leaves out."""
    costs = compared.scores.costs
    if not costs:
        return None
    rows: list[list[Cell]] = []
    for method in answer.methods:
        runs = [list(values.get(method.name, {}).values()) for values in costs.values()]
        means = [float(np.mean(of)) if of else None for of in runs]
        rows.append([method.name, *(MISSING if mean is None else (terms.three_digits(mean), mean) for mean in means)])
    columns = ("System", *(f"{capitalized(c.title)} ({c.unit})" if c.unit else capitalized(c.title) for c in costs))
    notes = ["Means over runs, as the input has them; less is better.", *(c.about for c in costs if c.about)]
    notes += [f"{cost.title} isn't ranked: {why}." for cost, why in compared.verdicts.unranked.items()]
    return table("costs", "Costs of each system", columns, rows, notes)


def _pairs(compared: Compared, answer: Answer) -> Table:
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    by_rows, margin = compared.by_rows, answer.score.margin
    rows: list[list[Cell]] = []
    for pair, c in zip(answer.pairs["score"], compared.verdicts.score, strict=True):
        relation = f"{pair.w} is better" if pair.w else {"untested": "not tested"}.get(pair.v, pair.v)
        between = (
            MISSING
            if pair.wlo is None or pair.whi is None
            else f"[{terms.gap_text(answer, pair.wlo, unit=False)}, {terms.gap_text(answer, pair.whi, unit=False)}]"
        )
        need = number(pair.need, "d") if pair.need and pair.v == "undecided" else MISSING
        rows.append([f"{pair.a} − {pair.b}", relation + (" ‡" if pair.skew else ""),
                     (terms.gap_text(answer, pair.d, unit=False), pair.d), between, p_cell(pair.p), p_cell(pair.ph),
                     *([p_cell(c.p_equivalent_adjusted)] if margin else []), need])  # fmt: skip
    notes = [
        f"{TESTS[compared.verdicts.scope]} Intervals are at the level of the pair's test: without 0 just where there "
        "is a verdict that they differ. p is adjusted by Shaffer's procedure over a metric's pairs (of three systems "
        "or more; the score has 60 % of the level beside costs), else by Holm's over all "
        f"{terms.count_of(answer.tested, 'tested pair')} of the page, and scaled so that below 5 % is a verdict."
    ]
    if any(pair.skew for pair in answer.pairs["score"]):
        notes.append("‡ The differences are skewed, or few rows carry them, where tests claim too much.")
    what = "rows" if by_rows else "seeds"
    columns = ("Pair", "Verdict", f"Difference{unit}", "Interval", "p", "p (adjusted)",
               *(["p of the margin (Holm)"] if margin else []), f"{capitalized(what)} to decide")  # fmt: skip
    return table(f"pairs_{answer.score.id}", f"Pairs by {answer.score.title}", columns, rows, notes)


def _folds(compared: Compared, answer: Answer) -> Iterator[Fold]:
    """Yield a fold per system, the best mean first: scores of its runs, costs, and each other system."""
    for at, method in enumerate(answer.methods, 1):
        about = words.verdict(answer, method.name).in_full
        seeds = [compared.scores.seeds[run] or "the one run" for run in compared.runs(method.name)]
        scores = zip(seeds, method.v["score"].runs, strict=True)
        facts: list[list[Cell]] = [
            [f"Score, {seed}" if seed == "the one run" else f"Score, seed {seed}", terms.score_text(answer, value)]
            for seed, value in scores
        ]
        facts += [
            [axis.title, terms.cost_text(answer, axis.id, method.v[axis.id].m)]
            for axis in answer.axes
            if axis.id in method.v
        ]
        rows: list[list[Cell]] = []
        for other in answer.methods:
            pair = answer.pair("score", method.name, other.name)
            if pair is not None:
                d = terms.seen_from(pair, method.name)[0]
                relation = SAID[answer.relation("score", method.name, other.name)]
                rows.append([other.name, (terms.gap_text(answer, d, unit=False), d), relation])
        yield Fold(
            title=f"{at} {method.name}" if answer.numbered else method.name,
            about=about,
            blocks=(
                table(f"method_{at}", f"{method.name}: scores and costs", ("What", "Value"), facts),
                table(f"against_{at}", f"{method.name} against each other system", ("Against", "Difference", "Verdict"),
                      rows),
            ),
            anchor=f"m-{at}",
        )  # fmt: skip


def _read(compared: Compared) -> Iterator[Table | Text]:
    scores = compared.scores
    yield table("sources", "Inputs", ("Input",), [[source] for source in scores.sources])
    if scores.remarks:
        yield Text(sentences=scores.remarks)


def _problems(scores: Scores, answer: Answer) -> Iterator[Table | Text]:
    if scores.unshared:
        yield Text(sentences=(answer.lacking, "Rows may be missing because a system failed there."))
        yield table("lacking", "Rows that a system lacks", ("System", "Rows"), list(scores.lacking.items()))
    if scores.failed:
        rows: list[list[Cell]] = [[f.system, f.seed or MISSING, f.status, f.where] for f in scores.failed]
        yield table("failed", "Runs without a score", ("System", "Seed", "Status", "Where"), rows)


def _more(compared: Compared) -> Text | None:
    """Return what a comparison without rows, or seeds, lacks."""
    sentences = []
    if compared.scores.rows is not None and not compared.scores.foreseen:
        sentences.append("A range of the score (--range): without it verdicts presume no row beyond those seen.")
    if compared.scores.rows is None:
        sentences.append("Scores row by row: the same rows are paired, which finds smaller differences.")
        if compared.verdicts.why == NOT_INDEPENDENT:
            sentences.append("Or --independent: no system's error makes another's likelier or rarer.")
    if compared.scores.shared_seeds < statistics.LEAST_SEEDS:
        costs = " and ranks by cost" if compared.scores.costs else ""
        most = max(len(of) for of in compared.scores.means.values())
        these = "Three seeds that all systems share" if most >= statistics.LEAST_SEEDS else "Three seeds of each system"
        sentences.append(f"{these}: verdicts for other seeds too{costs}.")
        sentences += _fewest_seeds(compared.scores) if most >= statistics.LEAST_SEEDS else []
    return Text(sentences=tuple(sentences)) if sentences else None


def _fewest_seeds(scores: Scores) -> list[str]:
    """Return a sentence on the two systems that share fewest seeds."""
    names, runs = scores.systems, scores.means
    pairs = [(len(runs[a].keys() & runs[b].keys()), a, b) for a, b in itertools.combinations(names, 2)]
    shared, a, b = min(pairs)
    return [f"{a} and {b} share {terms.count_of(shared, 'seed') if shared else 'none'}."]


def _reading(compared: Compared, answer: Answer) -> tuple[str, ...]:
    scores, found = compared.scores, compared.verdicts
    sentences = [TESTS[found.scope], "All pairs of a page, by score and tested cost, share 5 % of error."]
    if scores.groups is not None:
        sentences.append("Rows of a group depend on each other, so groups are what another sample replaces.")
    if not any(c.margin for c in found.score):
        sentences.append("No margin is given, so no pair is shown equal. Give --margin.")
    return (*sentences, turns(answer)) if turns(answer) else tuple(sentences)
