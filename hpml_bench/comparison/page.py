"""The page of a comparison, of one data set or over several."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpml_bench import statistics
from hpml_bench.comparison.assemble import ALONE
from hpml_bench.comparison.looks import Asked, at_look
from hpml_bench.judge.scores import AlignedScores, entering
from hpml_bench.judge.summarize import cost_scale, entering_means, score_scale, summarize
from hpml_bench.judge.summary import PageSummary
from hpml_bench.judge.verdicts import NOT_INDEPENDENT, Verdicts, judge
from hpml_bench.page.answer.sections import (
    deciding_section,
    each_section,
    matrix_section,
    pair_tables,
    places,
    turns,
)
from hpml_bench.page.over_suites import OfSuite, Suites
from hpml_bench.page.render import Page, page_of_suites, write_page
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Question, Section, Table, Text
from hpml_bench.records.numbers import MISSING, Cell, capitalized, number
from hpml_bench.select.comparability import grouped
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import count_of, sanitize

FORMATS = ("html", "md")


class Written(NamedTuple):
    """Files that were written of a comparison."""

    pages: list[
        Page
    ]  # the page, or that over several data sets; the data sets' own where there is none over them
    files: list[Path]
    apart: tuple[str, ...]  # what isn't ranked, and why, as sentences


TAKEN = frozenset({"figures", "tables", "report.html", "report.md", "report.json", "looks.json"})
"""Names in the folder of a page."""


def write(
    found: Sequence[AlignedScores],
    out: Path,
    formats: Sequence[str] = FORMATS,
    margin: float | None = None,
    asked: Asked | None = None,
) -> Written:
    """Write the page of a comparison; of several data sets a page each, and one over them if they
    share systems.

    `asked` says in which list looks are counted, that of `out` where it is None. A UserError where
    a page can't be written, or would replace one of other data.
    """
    asked, judged = asked or Asked(out), [judge(one, margin) for one in found]
    folders = folders_of([one.scores.title for one in judged]) if len(judged) > 1 else [""]
    place = out.relative_to(asked.folder)
    compared = [
        at_look(one, margin, asked, _within(place / folder))
        for one, folder in zip(judged, folders, strict=True)
    ]
    pages = [page_of(one) for one in compared]
    if len(compared) == 1:
        return Written(pages, write_page(pages[0], out, formats), ())
    files, sets = list[Path](), list[OfSuite]()
    for one, page, folder in zip(compared, pages, folders, strict=True):
        files += write_page(page, out / folder, formats)
        answer, scores = page.answer, one.scores
        about: dict[str, Cell] = {
            "Data set": scores.title,
            "Score": answer.score.title,
            "Rows": answer.rows_text,
            "Runs": answer.runs,
            "Systems": len(answer.methods),
            "Verdicts hold for": answer.judged,
            "Page": f"{folder}/report.html",
        }
        values = {name: dict(of) for name, of in entering_means(one).items()}
        sets.append(
            OfSuite(
                answer,
                values,
                (scores.dataset,),
                about,
                scores.title,
                version=version("hpml-bench"),
                block=scores.block,
            )
        )
    try:
        suites = Suites.among(sets, "data set")
    except UserError as error:  # each has its page
        return Written(
            pages, files, (*_unranked(compared), f"There is no page over the data sets: {error}.")
        )
    over = page_of_suites(suites, asked.folder, asked.look, _within(place), asked.looks)
    apart = grouped(suites.apart, suites.apart.__getitem__).items()
    said = (
        f"Not ranked over the data sets, since {why}: {', '.join(names)}." for why, names in apart
    )
    return Written([over], write_page(over, out, formats), (*_unranked(compared), *said))


def folders_of(titles: Iterable[str]) -> list[str]:
    """Return a folder of its own for each data set, beside the files of a page."""
    folders = list[str]()
    for title in titles:
        plain_name = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")[:60] or "data"
        taken = TAKEN | {name.lower() for name in folders}  # disks may ignore case
        names = (plain_name, *(f"{plain_name}-{at}" for at in range(2, len(taken) + 3)))
        folders.append(next(name for name in names if name.lower() not in taken))
    return folders


def _within(place: Path) -> str:
    """Return a folder below that of the list of looks as it is noted there."""
    return "" if place == Path() else place.as_posix()


def _unranked(compared: Sequence[Verdicts]) -> Iterator[str]:
    """Yield what isn't ranked within the data sets, and why."""
    yield from (remark for remark in compared[0].scores.remarks if remark.startswith(ALONE))
    for one in compared:
        if one.scores.changed:
            yield f"{one.scores.title}: {one.scores.changed}"
        if one.why:
            yield f"{one.scores.title}: no pair of scores is tested: {one.why}."
        if one.scores.failed:
            yield f"{one.scores.title}: {count_of(len(one.scores.failed), 'run')} without a score."


def page_of(found: Verdicts) -> Page:
    """Return the page of one data set."""
    answer, scores = summarize(found), found.scores
    low, high = scores.score.low, scores.score.high
    seen = [of for by_run in (scores.rows or {}).values() for of in by_run.values()]
    if scores.binary:
        limits = "0 or 1"
    elif low is not None and high is not None:
        limits = f"{number(low)} to {number(high)}"
    else:
        limits = (
            f"{number(float(np.min(seen)))} to {number(float(np.max(seen)))}, as seen"
            if seen
            else "not known"
        )
    facts = {
        "Data": scores.title,
        "Inputs": str(len(scores.sources)),
        f"{capitalized(scores.noun)}s": str(len(scores.systems)),
        "Rows": answer.rows_text,
        "Runs": answer.setup.budget or f"{answer.runs} in all",
        "Score": f"{answer.score.title}, {answer.score.better} is better",
        "Range of a row": limits,
        "Verdicts hold for": answer.judged,
    }
    if (largest := scores.score.largest) is not None:
        unit = f" {answer.score.difference_unit}" if answer.score.difference_unit else ""
        facts["Largest difference of a row"] = (
            f"{score_scale(scores)[0] * largest:g}{unit}, {scores.score.largest_by}"
        )
    return Page(
        answer=answer,
        sections=tuple(sections_of(found, answer)),
        facts=facts,
        newest="",
        problems=len(scores.failed) + bool(scores.unshared),
        version=version("hpml-bench"),
    )


def sections_of(found: Verdicts, answer: PageSummary) -> Iterator[Section]:
    """Yield the sections of a page, each with its question."""
    scores, missing = found.scores, list[Table | Text]()
    inputs = table("sources", "Inputs", ("Input",), [[source] for source in scores.sources])
    remarks = [Text(sentences=scores.remarks)] if scores.remarks else []
    if scores.unshared:
        lacking = table(
            "lacking", "Rows that a system lacks", ("System", "Rows"), list(scores.lacking.items())
        )
        missing += [
            Text(sentences=(answer.lacking, "Rows may be missing because a system failed there.")),
            lacking,
        ]
    if scores.failed:
        rows: list[list[Cell]] = [
            [f.system, f.seed or MISSING, f.status, f.where] for f in scores.failed
        ]
        missing.append(
            table("failed", "Runs without a score", ("System", "Seed", "Status", "Where"), rows)
        )
    tests = [answer.tests]
    if answer.tested > 1:
        tests.append("All pairs of a page, by score and tested cost, share 5 % of error.")
    if scores.groups is not None:
        tests.append(
            "Rows of a group depend on each other, so groups are what another sample replaces."
        )
    if not found.margin:
        tests.append(
            "No margin was declared, so no pair is shown equal. Give --margin before the first "
            "look."
        )
    tests += [turns(answer)] if turns(answer) else []
    of: list[tuple[Question, Section | None]] = [
        ("best", section_of("places", "Places", places(answer))),
        ("cost", section_of("costs", "Costs", _costs(found, answer))),
        ("sure", matrix_section(answer)),
        ("sure", deciding_section(answer)),
        ("sure", section_of("more", "What more data would give", _more(found))),
        ("sure", section_of("pairs", "Every pair in numbers", *pair_tables(answer))),
        ("methods", each_section(answer)),
        ("setup", section_of("read", "What was read", inputs, *remarks)),
        ("wrong", section_of("problems", "What is missing", *missing)),
        ("reading", section_of("reading", "The tests", Text(sentences=tuple(tests)))),
    ]
    for question, section in of:
        if section is not None:
            yield section.model_copy(
                update={"question": question, "folded": section.slug == "pairs"}
            )


def _costs(found: Verdicts, answer: PageSummary) -> Table | None:
    """Return all costs of each system, also those that the first screen leaves out."""
    scores, named = found.scores, {sanitize(name): name for name in found.scores.systems}
    shown = [(cost, *cost_scale(scores, cost)) for cost in scores.costs]
    if not shown:
        return None
    rows: list[list[Cell]] = []
    for method in answer.methods:
        of = (
            (entering(scores.costs[cost]).get(named[method.name], {}), scale)
            for cost, scale, _ in shown
        )
        runs = [(list(by_run.values()), scale) for by_run, scale in of]
        means = [scale * float(np.mean(of)) if of else None for of, scale in runs]
        rows.append(
            [method.name, *(None if mean is None else (number(mean), mean) for mean in means)]
        )
    titles = [
        f"{capitalized(cost.title)} ({unit})" if unit else capitalized(cost.title)
        for cost, _, unit in shown
    ]
    notes = ["Means over runs; less is better.", *(cost.about for cost, *_ in shown if cost.about)]
    notes += [
        f"{cost.title} isn't ranked: {found.unranked[cost.column]}."
        for cost in scores.costs
        if cost.column in found.unranked
    ]
    noun = capitalized(answer.noun)
    return table("costs", f"Costs of each {answer.noun}", (noun, *titles), rows, notes)


def _more(found: Verdicts) -> Text | None:
    """Return what a comparison without rows, or seeds, lacks."""
    sentences, scores = [], found.scores
    if scores.rows is not None and not scores.foreseen:
        sentences.append(
            "A range of the score (--range, before the first look): without it verdicts presume no "
            "row beyond those seen."
        )
    if scores.rows is None:
        sentences.append(
            "Scores row by row: the same rows are paired, which finds smaller differences."
        )
        if found.why == NOT_INDEPENDENT:
            sentences.append(
                "Or --independent: no system's error makes another's likelier or rarer."
            )
    if scores.shared_seeds < statistics.LEAST_SEEDS:
        costs = " and ranks by cost" if scores.costs else ""
        enough = max(len(of) for of in scores.means.values()) >= statistics.LEAST_SEEDS
        these = "Three seeds that all systems share" if enough else "Three seeds of each system"
        sentences.append(f"{these}: verdicts for other seeds too{costs}.")
    return Text(sentences=tuple(sentences)) if sentences else None
