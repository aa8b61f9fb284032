"""Cautions: what went well and what did not, a sentence each, with where more of it stands."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.blocks import Section, Text
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import Answer
from hpml_bench.report.results import Results
from hpml_bench.report.steady import unsteady
from hpml_bench.report.tables import section_of, sentence_list
from hpml_bench.system.text import sanitize

order = 24
question = "wrong"
about = "what to keep in mind"
folded = False
WELL, MIND, BAD = "✓", "!", "✕"


def section(results: Results) -> Section | None:
    """Return a sentence for each check of the runs, marked by how it went."""
    answer = answer_of(results)
    lines = (*_runs(results, answer), *_verdicts(answer), *_costs(results, answer))
    return section_of("cautions", "Cautions", Text(sentences=tuple(f"{mark} {text}" for mark, text in lines)))


def _runs(results: Results, answer: Answer) -> Iterator[tuple[str, str]]:
    left = results.left_out
    if answer.failures:
        yield BAD, f"{len(answer.failures)} of {terms.count_of(answer.planned, 'run')} failed; they enter no mean."
    elif answer.runs:
        ended = "The run that was tried ended well and is compared"
        yield WELL, ended + "." if answer.runs == 1 else f"All {answer.runs:,} runs ended well and are compared."
    if apart := left.excluded_runs:
        yield MIND, f"{terms.set_apart(apart)}."
    if left.problems:
        yield BAD, f"{terms.count_of(len(left.problems), 'record')} can't be read."
    if answer.untried:
        yield MIND, f"Without a compared run: {sentence_list(answer.untried)}."
    if answer.shared is not None:
        over = f"the {answer.shared} seeds that all methods share" if answer.shared else "each method's own seeds"
        yield MIND, f"Methods lack seeds: means are over {over}, differences over those that a pair shares."
    if any(record.checks for record in results.compared):
        yield WELL, "Every compared run passed its arithmetic self-checks."


def _verdicts(answer: Answer) -> Iterator[tuple[str, str]]:
    if answer.guess and answer.guess.below:
        yield BAD, f"Not shown to beat guessing: {terms.several(answer, answer.guess.below)}."
    elif answer.guess and answer.guess.value is not None and answer.rows > 1:
        yield WELL, "Every method beats guessing."
    if answer.under:
        who = terms.several(answer, [method.name for method in answer.methods if method.name in answer.under])
        yield MIND, f"Still improving at the end: {who}. More steps may change the order."
    skewed = [f"{pair.a} and {pair.b}" for pairs in answer.pairs.values() for pair in pairs if pair.skew and pair.w]
    if skewed:
        pairs = sentence_list(list(dict.fromkeys(skewed))[: terms.NAMED])
        yield MIND, f"Skewed noise: take these verdicts with care: {pairs}."


def _costs(results: Results, answer: Answer) -> Iterator[tuple[str, str]]:
    if drifting := unsteady(results, "drifts"):
        yield (
            MIND,
            f"Speed drifted by over 5 % within some runs: {terms.several(answer, list(map(sanitize, drifting)))}.",
        )
    if answer.unranked:
        yield MIND, f"Costs are shown, not ranked: {answer.unranked}."
