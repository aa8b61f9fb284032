"""Several suites, or data sets, on one page: methods by rank in each, mean ranks over all, and
which of them differ.

The first screen says it from an `PageSummary` whose score is the mean rank, whose costs are
multiples of each suite's cheapest method, and whose verdicts are those of `statistics.over_suites`.
Verdicts within a suite are its own page's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpml_bench import statistics
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import (
    Axis,
    Key,
    Method,
    PageSummary,
    Pair,
    Score,
    Setup,
    Values,
)
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Text
from hpml_bench.records.numbers import (
    MISSING,
    Cell,
    capitalized,
    cell,
    p_cell,
    p_value,
    rank,
    sentence_list,
)
from hpml_bench.select.comparability import versions
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import count_of, sanitize


@dataclass(frozen=True)
class OfSuite:
    """A suite, or a data set, among several: its own answer, and what ranks and names it."""

    answer: PageSummary
    values: statistics.Values  # method -> seed -> score, of the seeds that enter the means
    source: tuple[str, ...]  # what makes it the suite it is: model, data and task
    about: Mapping[str, Cell]  # column -> cell of its row in the table of suites
    folder: str = ""
    started: str = ""  # when its newest run began; empty where that isn't recorded
    version: str = ""  # version of the package that made it
    block: str = ""  # group of suites that depend on each other; empty where it stands alone

    @classmethod
    def of(cls, results: Results) -> OfSuite:
        answer, reference, shown = (
            answer_of(results),
            results.reference,
            results.shown(results.quality),
        )
        settings = reference.spec.settings
        about: dict[str, Cell] = {
            "Suite": answer.suite,
            "Model": answer.model,
            "Data": answer.data,
            "Task": settings.task.name,
            "Score": answer.score.title,
            "Test rows": cell(answer.rows, "d"),
            "Seeds": answer.seeds,
            "Budget": answer.setup.budget,
            "Device": answer.setup.device,
            "Protocol": reference.protocol_id or MISSING,
        }
        source = (
            settings.backbone,
            settings.dataset.model_dump_json(),
            settings.task.model_dump_json(),
        )
        version = sanitize(versions(reference).get("hpml-bench", ""), 40)
        return cls(answer, shown, source, about, str(results.folder), reference.started, version)

    @property
    def name(self) -> str:
        return self.answer.suite

    @property
    def kinds(self) -> dict[str, str]:
        return {method.name: method.kind for method in self.answer.methods}

    def score(self, name: str) -> float | None:
        return self.answer.value(name, "score") if name in self.answer.by_name else None


@dataclass(frozen=True)
class Suites:
    """The suites of a page: those that are ranked, those that are not, with the reason, and the
    methods ranked.
    """

    ranked: tuple[OfSuite, ...]
    apart: Mapping[str, str]  # suite or method -> why it enters no rank
    methods: tuple[str, ...]
    noun: Literal["suite", "data set"] = "suite"
    look: int = 1  # number, from 1, of the look at these results, by `digest`
    declared_looks: int = 0  # number of looks that the first one declared; 0 where none was

    @classmethod
    def of(cls, results: Sequence[Results]) -> Suites:
        return cls.among(tuple(map(OfSuite.of, results)))

    @classmethod
    def among(
        cls, suites: Sequence[OfSuite], noun: Literal["suite", "data set"] = "suite"
    ) -> Suites:
        """Choose the suites to rank, and methods that all have as one kind; a UserError where
        under two are left.
        """
        ranked: list[OfSuite] = []
        apart: dict[str, str] = {}
        for suite in suites:
            same = next((other.name for other in ranked if other.source == suite.source), None)
            name = suite.name if suite.name not in apart else f"{suite.name} ({suite.folder})"
            if not suite.answer.methods:
                apart[name] = "no run ended well"
            elif same is not None:
                apart[name] = (
                    f"it has the model, data and task of {same}, and would count them twice"
                )
            else:
                ranked.append(suite)
        if len(ranked) < 2:
            why = "; ".join(f"{name}: {reason}" for name, reason in apart.items())
            raise UserError(
                f"a page over {noun}s takes two or more of different model, data or task "
                f"({why or 'one'})"
            )
        shared = dict.fromkeys(name for suite in ranked for name in suite.kinds)
        others: dict[str, str] = {}
        for name in shared:
            lacking = [suite.name for suite in ranked if suite.score(name) is None]
            kinds = {suite.kinds[name] for suite in ranked if name in suite.kinds}
            if lacking:
                others[name] = (
                    f"{sentence_list(lacking)} {'has' if len(lacking) == 1 else 'have'} no score "
                    f"of it"
                )
            elif len(kinds) > 1:
                others[name] = f"it is {sentence_list(sorted(kinds))} in different suites"
        methods = tuple(name for name in shared if name not in others)
        if len(methods) < 2:
            names, compared = sentence_list([suite.name for suite in ranked]), ranked[0].answer.noun
            raise UserError(
                f"{names} share fewer than two {compared}s, so that nothing can be ranked over them"
            )
        return cls(tuple(ranked), apart | others, methods, noun)

    @property
    def compared(self) -> str:
        return self.ranked[0].answer.noun

    @cached_property
    def found(self) -> statistics.OverSuites:
        suites = [(self._scores(suite), suite.answer.score.better) for suite in self.ranked]
        return statistics.over_suites(suites, self.blocks, self.spent)

    @property
    def by_rank(self) -> list[str]:
        return sorted(self.methods, key=self.found.ranks.__getitem__)

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Number of each suite's block, from 0: those of a group share one, any other has its
        own.
        """
        names = [suite.block or at for at, suite in enumerate(self.ranked)]
        return tuple(map(list(dict.fromkeys(names)).index, names))

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """Name of each block, with the number of its suites where they are several."""
        counts = Counter(self.blocks)
        return tuple(
            f"{suite.block} ({counts[at]} tasks as one)" if counts[at] > 1 else suite.name
            for at, suite in dict(zip(self.blocks, self.ranked, strict=True)).items()
        )

    @property
    def digest(self) -> str:
        """Digest of the scores that are ranked, in any order of the suites."""
        # without the last digits of means, which the order of an input's lines changes
        each = (
            [suite.source, name, seed, f"{score:.10g}"]
            for suite in self.ranked
            for name, of in self._scores(suite).items()
            for seed, score in of.items()
        )
        return hashlib.sha256(json.dumps(sorted(each)).encode()).hexdigest()

    def _scores(self, suite: OfSuite) -> dict[str, dict[int, float]]:
        return {name: dict(suite.values[name]) for name in self.methods}

    @property
    def tested(self) -> bool:
        return len(self.titles) >= self.least

    @property
    def least(self) -> int:
        return statistics.least_suites(len(self.methods), spent=self.spent)

    @property
    def spent(self) -> float:
        """Share of the 5 % that this look may use."""
        return statistics.spent_at(self.look, self.declared_looks)

    def interval(self, name: str) -> tuple[float, float] | tuple[None, None]:
        """Return the ends of a mean rank's interval; none where nothing is tested: few suites
        have few resamples.
        """
        return self.found.intervals[name] if self.tested else (None, None)


def answer_over(suites: Suites) -> PageSummary:
    found, ranked, first = suites.found, suites.ranked, suites.ranked[0].answer
    sets = len(suites.titles)
    axes = tuple(
        Axis(key=axis.key, id=f"relative_{axis.key}", title=axis.title, unit="×", tested=None)
        for axis in first.axes
        if all(suite.answer.axis(axis.key) for suite in ranked)
    )
    return PageSummary(
        suite=" + ".join(suite.name for suite in ranked)
        if suites.noun == "suite"
        else f"{len(ranked)} data sets",
        description=f"{capitalized(first.noun)}s ranked in each of {len(ranked)} {suites.noun}s.",
        model=_same(suite.answer.model for suite in ranked),
        data=f"{len(ranked)} {suites.noun}s",
        rows=sets,
        seeds=sets,
        shared=None,
        rows_text=f"{count_of(sets, suites.noun)}: {', '.join(suites.titles)}",
        runs=sum(suite.answer.runs for suite in ranked),
        planned=sum(suite.answer.planned for suite in ranked),
        tested=len(found.pairs) if suites.tested else 0,
        judged=f"other {suites.noun}s like these",
        chance=100 * statistics.ALPHA,
        setup=_setup(suites, axes),
        score=Score(
            id="mean_rank",
            title="mean rank",
            unit="",
            better="lower",
            digits=2,
            difference_unit="",
            margin=0.0,
        ),
        axes=axes,
        methods=_methods(suites, axes),
        pairs={"score": _pairs(suites)},
        under={
            name: late
            for name in suites.methods
            if (late := sum(suite.answer.under.get(name, 0) for suite in ranked))
        },
        guess=None,
        failures=tuple(failure for suite in ranked for failure in suite.answer.failures),
        unranked=f"they are means over {suites.noun}s" if axes else None,
        over=suites.noun,
        least=suites.least,
        noun=first.noun,
    )


def _methods(suites: Suites, axes: Sequence[Axis]) -> tuple[Method, ...]:
    """Return the methods by rank, with the ranks that they may have and their relative costs."""
    found, first, sets = suites.found, suites.ranked[0].answer, len(suites.titles)
    lost = {
        name: sum(p.winner not in {None, name} for p in found.pairs if name in {p.a, p.b})
        for name in found.ranks
    }
    won = {name: sum(p.winner == name for p in found.pairs) for name in found.ranks}
    methods = []
    for name in suites.by_rank:
        low, high = suites.interval(name)
        v = {"score": Values(mean=found.ranks[name], low=low, high=high, runs=found.by_suite[name])}
        v |= {
            axis.id: value
            for axis in axes
            if (value := _relative(suites, axis.key, name)) is not None
        }
        place = (1 + lost[name], len(suites.methods) - won[name]) if suites.tested else None
        own = first.by_name[name]
        methods.append(
            Method(name=name, kind=own.kind, base=own.base, rank_range=place, seeds=sets, values=v)
        )
    return tuple(methods)


def _pairs(suites: Suites) -> tuple[Pair, ...]:
    """Return the pairs by mean rank; without verdicts where there are too few suites for a test."""
    sets = len(suites.titles)
    return tuple(
        Pair(
            a=of.a,
            b=of.b,
            difference=of.difference,
            shared=sets,
            verdict="different" if of.winner else "undecided",
            winner=of.winner,
            p=of.p,
            p_adjusted=of.p_adjusted,
        )
        if suites.tested
        else Pair(
            a=of.a, b=of.b, difference=of.difference, shared=sets, verdict="untested", winner=None
        )
        for of in suites.found.pairs
    )


def _setup(suites: Suites, axes: Sequence[Axis]) -> Setup:
    """Return what the suites' set-ups have in common."""
    ranked, first = suites.ranked, suites.ranked[0].answer
    least = min(suite.answer.seeds for suite in ranked)
    return Setup(
        budget=f"{count_of(least, 'seed')} or more in each" if first.noun == "method" else "",
        device=_same(suite.answer.setup.device for suite in ranked),
        host=_same(suite.answer.setup.host for suite in ranked),
        rates=_same(suite.answer.setup.rates for suite in ranked),
        memory=f"costs: multiples of each {suites.noun}'s cheapest that is ranked" if axes else "",
    )


def _same(texts: Iterable[str]) -> str:
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def _relative(suites: Suites, key: Key, name: str) -> Values | None:
    """Return the geometric mean over suites of a cost over that of each suite's cheapest ranked
    method.
    """
    factors = []
    for answer in (suite.answer for suite in suites.ranked):
        axis = answer.axis(key)
        costs = {one: answer.value(one, axis.id) if axis else None for one in suites.methods}
        if not (cost := costs[name]):
            return None
        factors.append(cost / min(cost for cost in costs.values() if cost))
    return Values(
        mean=math.exp(math.fsum(map(math.log, factors)) / len(factors)), runs=tuple(factors)
    )


# The sections


def sections_over(suites: Suites) -> tuple[Section, ...]:
    what = "What each suite ran" if suites.noun == "suite" else f"What each {suites.noun} has"
    ran = table(
        "suites",
        what,
        tuple(suites.ranked[0].about),
        [suite.about.values() for suite in suites.ranked],
    )
    no_rank = f"{capitalized(suites.noun)}s and {suites.compared}s that enter no rank"
    found: tuple[tuple[Question, str, str, Iterable[Text | Table | Fold]], ...] = (
        ("best", "places", f"Places in each {suites.noun}", [_places(suites)]),
        ("sure", "ranks", "Mean ranks", [_friedman(suites), _mean_ranks(suites), _wins(suites)]),
        ("methods", "each", f"Each {suites.compared}", _folds(suites)),
        ("setup", "suites", f"The {suites.noun}s", [ran]),
        (
            "wrong",
            "apart",
            "What is not compared",
            [table("apart", no_rank, ("Name", "Why"), suites.apart.items())],
        ),
    )
    made = (
        section_of(slug, title, *of, question=question, folded=False)
        for question, slug, title, of in found
    )
    return tuple(section for section in made if section is not None)


def _places(suites: Suites) -> Table:
    noun, titles = suites.compared, []
    for suite in suites.ranked:
        rows_alone = noun == "method" and suite.answer.over == "row"
        titles.append(
            f"{suite.name}, {suite.answer.score.title}{' (over rows)' if rows_alone else ''}"
        )
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for suite in suites.ranked for name in suite.kinds):
        cells: list[Cell] = []
        for suite in suites.ranked:
            value, place = (
                suite.score(name),
                suite.answer.by_name[name].rank_range if name in suite.kinds else None,
            )
            text = MISSING if value is None else suite.answer.score.text(value)
            cells.append((f"{rank(place)}: {text}" if place else text, value))
        rows.append([name, *cells])
    means = "Scores are means over seeds. " if noun == "method" else ""
    notes = [
        f"A place is an interval of ranks, by the verdicts of the {suites.noun}'s own page. One "
        f"without places has no test. {means}Places hold at 5 % in each {suites.noun} alone: one "
        f"in 20 may have a false one. This page's 5 % are for verdicts over {suites.noun}s."
    ]
    return table(
        "places",
        f"Place and score of each {noun} in each {suites.noun}",
        [noun, *titles],
        rows,
        notes,
    )


def _friedman(suites: Suites) -> Text:
    n, k, p, noun = (
        len(suites.titles),
        len(suites.methods),
        p_value(suites.found.p),
        suites.compared,
    )
    groups = Counter(suite.block for suite in suites.ranked if suite.block)
    sentences = [
        f"{count} tasks of {name} count as one: {noun}s are ranked by their mean rank over these."
        for name, count in groups.items()
        if count > 1
    ]
    if suites.tested:
        sentences += [
            f"Friedman's test over {n} {suites.noun}s and {k} {noun}s, as Iman and Davenport "
            f"correct it: p {p if p.startswith('<') else f'= {p}'}.",
            (
                f"At most 5 % of such pages hold a false verdict over {suites.noun}s, if these "
                f"are a fair sample."
            ),
        ]
    else:
        rare = f"under {suites.least} {suites.noun}s no result is rare enough"
        sentences += [f"Nothing is tested: with {k} {noun}s, {rare}."]
    if suites.tested or suites.look > 1 or suites.declared_looks:
        spent = f"{100 * suites.spent:.2g} % of the 5 %"
        declared = f", of {suites.declared_looks} declared," if suites.declared_looks else ""
        if suites.look > suites.declared_looks > 0:
            declared = f", after the {suites.declared_looks} declared,"
        sentences += [
            f"This is look {suites.look}{declared} at results in this folder: it has {spent}."
        ]
    if not (suites.tested and any(pair.winner for pair in suites.found.pairs)):
        # how many show a method that is always one place ahead, and as far ahead as the farthest
        # here
        far = max(suites.found.pairs, key=lambda pair: abs(pair.difference))
        places = abs(far.difference)
        one, as_far = (
            statistics.least_suites(k, of, suites.spent) for of in (1.0, max(1.0, places))
        )
        sentences += [f"One place apart in each {suites.noun} takes {one} {suites.noun}s to show."]
        if places > 1:
            sentences += [
                (
                    f"Two that are {places:.2f} places apart, as {far.a} and {far.b} are here, "
                    f"take {as_far}."
                )
            ]
    return Text(sentences=tuple(sentences))


def _mean_ranks(suites: Suites) -> Table:
    found = suites.found
    rows: list[list[Cell]] = []
    for name in suites.by_rank:
        low, high = suites.interval(name)
        rows.append(
            [
                name,
                cell(found.ranks[name], ".2f"),
                cell(low, ".2f"),
                cell(high, ".2f"),
                *(cell(r, ".3g") for r in found.by_suite[name]),
            ]
        )
    columns = [suites.compared, "Mean rank", "Low", "High", *suites.titles]
    notes = [
        f"1 is best; ties share their mean rank. Ranks are among the {suites.compared}s that all "
        f"{suites.noun}s have. Low and high: 95 % of the mean rank over other {suites.noun}s like "
        f"these. There are none under {suites.least} {suites.noun}s."
    ]
    return table("ranks", "Ranks by mean score", columns, rows, notes)


def _wins(suites: Suites) -> Table:
    rows: list[list[Cell]] = []
    tests = {frozenset((pair.a, pair.b)): pair for pair in suites.found.pairs if suites.tested}
    for a, b in itertools.combinations(suites.methods, 2):
        relations: list[str] = [suite.answer.relation("score", a, b) for suite in suites.ranked]
        wins, losses, untested = map(relations.count, ("better", "worse", "untested"))
        ties, pair = len(relations) - wins - losses - untested, tests.get(frozenset((a, b)))
        found = (
            (p_cell(pair.p_adjusted), pair.winner or "can't tell") if pair else (None, "not tested")
        )
        rows.append([f"{a} against {b}", wins, ties, losses, untested, *found])
    over = (f"p over {suites.noun}s (Holm)", f"Better over {suites.noun}s")
    columns = ("Pair", "Wins", "Ties", "Losses", "Not tested", *over)
    notes = [
        f"A win is a difference that the {suites.noun}'s own page shows. A tie is undecided there, "
        f"or shown equal. Over {suites.noun}s: exact sign-flip test of the differences of ranks, "
        f"with a guard against rare {suites.noun}s. p (Holm) is no less than Friedman's, and "
        f"scaled: this look has {100 * suites.spent:.2g} % of the 5 %."
    ]
    return table(
        "wins",
        f"First {suites.compared} against the second, in {suites.noun}s",
        columns,
        rows,
        notes,
    )


def _folds(suites: Suites) -> Iterator[Fold]:
    found = suites.found
    titles = {axis.key: axis.title for suite in suites.ranked for axis in suite.answer.axes}
    for n, name in enumerate(suites.by_rank, 1):
        rows: list[list[Cell]] = []
        for suite, block in zip(suites.ranked, suites.blocks, strict=True):
            answer, method = suite.answer, suite.answer.by_name[name]
            costs = {
                axis.key: axis.text(method.values[axis.id].mean)
                for axis in answer.axes
                if axis.id in method.values
            }
            score, own = (
                answer.score.text(method.values["score"].mean),
                cell(found.by_suite[name][block]),
            )
            rows.append(
                [
                    suite.name,
                    own,
                    rank(method.rank_range),
                    score,
                    *(costs.get(key) for key in titles),
                ]
            )
        columns = (capitalized(suites.noun), "Rank", "Place by verdicts", "Score", *titles.values())
        shown = table(f"method_{n}", f"{name} in each {suites.noun}", columns, rows)
        yield Fold(
            title=name, about=f"mean rank {found.ranks[name]:.2f}", blocks=(shown,), anchor=f"m-{n}"
        )
