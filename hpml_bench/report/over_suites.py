"""Several suites on one page: methods by rank in each, mean ranks over all, and which of them differ.

The first screen says it from an `Answer` whose score is the mean rank, whose costs are multiples of each suite's
cheapest method, and whose verdicts are those of `statistics.over_suites`. Verdicts within a suite are its own page's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpml_bench import statistics
from hpml_bench.errors import UserError
from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Text
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.model import Answer, Axis, Key, Method, Pair, Score, Setup, Values
from hpml_bench.report.answer.numbers import answer_of
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, cell, number, p_cell, rank, section_of, sentence_list, table

TITLES: dict[Key, str] = {"time": "Training time", "memory": "Peak memory", "size": "Saved size"}


@dataclass(frozen=True)
class OfSuite:
    """A suite among several: its results and its own answer."""

    results: Results
    answer: Answer

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.answer.suite

    @cached_property
    def source(self) -> tuple[str, str, str]:
        """Model, data and task, which make it the suite it is."""
        settings = self.results.reference.spec.settings
        return settings.backbone, settings.dataset.model_dump_json(), settings.task.model_dump_json()

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each method, by name."""
        return {method.name: method.kind for method in self.answer.methods}


@dataclass(frozen=True)
class Suites:
    """The suites of a page: those that are ranked, those that are not, with the reason, and the methods ranked."""

    ranked: tuple[OfSuite, ...]
    apart: Mapping[str, str]
    """Suite or method -> why it enters no rank."""
    methods: tuple[str, ...]

    @classmethod
    def of(cls, results: Sequence[Results]) -> Suites:
        """Choose what is ranked.

        Raises:
            UserError: under two suites can be ranked, or they share under two methods.

        """
        ranked: list[OfSuite] = []
        apart: dict[str, str] = {}
        for suite in (OfSuite(one, answer_of(one)) for one in results):
            same = next((other.name for other in ranked if other.source == suite.source), None)
            name = suite.name if suite.name not in apart else f"{suite.name} ({suite.results.folder})"
            if not suite.answer.methods:
                apart[name] = "no run ended well"
            elif same is not None:
                apart[name] = f"it has the model, data and task of {same}, and would count them twice"
            else:
                ranked.append(suite)
        if len(ranked) < 2:
            why = "; ".join(f"{name}: {reason}" for name, reason in apart.items())
            raise UserError(f"a page over suites takes two or more of different model, data or task ({why or 'one'})")
        methods, others = _shared(ranked)
        if len(methods) < 2:
            names = sentence_list([suite.name for suite in ranked])
            raise UserError(f"{names} share under two methods, so nothing can be ranked over them")
        return cls(tuple(ranked), apart | others, methods)

    @cached_property
    def found(self) -> statistics.OverSuites:
        """Ranks, intervals and tests."""
        return statistics.over_suites([(self._scores(suite), suite.answer.score.better) for suite in self.ranked])

    def _scores(self, suite: OfSuite) -> dict[str, dict[int, float]]:
        """Return the ranked methods' values by seed, of the seeds that enter the suite's means."""
        shown = suite.results.shown(suite.results.quality)
        return {name: shown[name] for name in self.methods}

    @property
    def tested(self) -> bool:
        """Whether there are suites enough for a test."""
        return len(self.ranked) >= self.least

    @property
    def least(self) -> int:
        """Suites that a test of so many methods takes."""
        return statistics.least_suites(len(self.methods))

    def interval(self, name: str) -> tuple[float, float] | tuple[None, None]:
        """Return the ends of a mean rank's interval; none where nothing is tested: few suites have few resamples."""
        return self.found.intervals[name] if self.tested else (None, None)


def _shared(suites: Sequence[OfSuite]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the methods that every suite has a score of, as the same kind; and why others are not ranked."""
    names = dict.fromkeys(name for suite in suites for name in suite.kinds)
    why: dict[str, str] = {}
    for name in names:
        lacking = [suite.name for suite in suites if suite.answer.by_name.get(name) is None
                   or "score" not in suite.answer.by_name[name].v]  # fmt: skip
        kinds = {suite.kinds[name] for suite in suites if name in suite.kinds}
        if lacking:
            why[name] = f"{sentence_list(lacking)} {'has' if len(lacking) == 1 else 'have'} no score of it"
        elif len(kinds) > 1:
            why[name] = f"it is {sentence_list(sorted(kinds))} in different suites"
    return tuple(name for name in names if name not in why), why


def answer_over(suites: Suites) -> Answer:
    """Return the answer over suites."""
    found, ranked, first = suites.found, suites.ranked, suites.ranked[0].answer
    axes = tuple(_axis(key) for key in TITLES if all(suite.answer.axis(key) for suite in ranked))
    lost = {name: sum(p.winner not in {None, name} for p in found.pairs if name in {p.a, p.b}) for name in found.ranks}
    won = {name: sum(p.winner == name for p in found.pairs) for name in found.ranks}
    methods = []
    for name in sorted(suites.methods, key=lambda one: found.ranks[one]):
        low, high = suites.interval(name)
        v = {"score": Values(m=found.ranks[name], lo=low, hi=high, runs=found.by_suite[name])}
        v |= {axis.id: value for axis in axes if (value := _relative(suites, axis.key, name)) is not None}
        place = (1 + lost[name], len(suites.methods) - won[name]) if suites.tested else None
        own = first.by_name[name]
        methods.append(Method(name=name, kind=own.kind, base=own.base, place=place, seeds=len(ranked), v=v))
    failures = tuple(failure for suite in ranked for failure in suite.answer.failures)
    return Answer(
        suite=" + ".join(suite.name for suite in ranked),
        description=f"Methods ranked in each of {len(ranked)} suites.",
        model=_same(suite.answer.model for suite in ranked),
        data=f"{len(ranked)} suites",
        rows=len(ranked),
        rows_text=f"{len(ranked)} suites: {', '.join(suite.name for suite in ranked)}",
        seeds=len(ranked),
        shared=None,
        runs=sum(suite.answer.runs for suite in ranked),
        planned=sum(suite.answer.planned for suite in ranked),
        tested=len(found.pairs) if suites.tested else 0,
        judged="other suites like these",
        chance=100 * statistics.ALPHA,
        setup=Setup(
            budget=f"{terms.count_of(min(suite.answer.seeds for suite in ranked), 'seed')} or more in each",
            device=_same(suite.answer.setup.device for suite in ranked),
            host=_same(suite.answer.setup.host for suite in ranked),
            rates=_same(suite.answer.setup.rates for suite in ranked),
            memory="costs: multiples of each suite's cheapest",
        ),
        score=Score(id="mean_rank", title="mean rank", unit="", better="lower", digits=2,
                    difference_unit="", margin=0.0),
        axes=axes,
        methods=tuple(methods),
        pairs={"score": tuple(_pair(pair, suites) for pair in found.pairs)},
        under=_late(suites),
        guess=None,
        failures=failures,
        unranked="they are means over suites",
        over="suite",
        least=suites.least,
    )  # fmt: skip


def _same(texts: Iterable[str]) -> str:
    """Return the text that all share, else nothing."""
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def _late(suites: Suites) -> dict[str, int]:
    """Return method -> runs over all suites that were still improving when they ended."""
    runs = {name: sum(suite.answer.under.get(name, 0) for suite in suites.ranked) for name in suites.methods}
    return {name: n for name, n in runs.items() if n}


def _axis(key: Key) -> Axis:
    return Axis(key=key, id=f"relative_{key}", title=TITLES[key], unit="×", tested=None)


def _relative(suites: Suites, key: Key, name: str) -> Values | None:
    """Return the geometric mean over suites of a cost over that of each suite's cheapest ranked method."""
    factors = []
    for suite in suites.ranked:
        axis = suite.answer.axis(key)
        costs = {one: suite.answer.value(one, axis.id) if axis else None for one in suites.methods}
        least = min((cost for cost in costs.values() if cost), default=None)
        cost = costs[name]
        if not cost or least is None:
            return None
        factors.append(cost / least)
    return Values(m=math.exp(math.fsum(map(math.log, factors)) / len(factors)), runs=tuple(factors))


def _pair(pair: statistics.RankPair, suites: Suites) -> Pair:
    decided: statistics.Verdict = "different" if pair.winner else "undecided"
    p, adjusted = (pair.p, pair.p_adjusted) if suites.tested else (None, None)
    return Pair(
        a=pair.a,
        b=pair.b,
        v=decided if suites.tested else "untested",
        w=pair.winner if suites.tested else None,
        d=pair.difference,
        lo=None,
        hi=None,
        wlo=None,
        whi=None,
        p=p,
        ph=adjusted,
        need=None,
        n=len(suites.ranked),
    )


# The sections


def sections_over(suites: Suites) -> tuple[Section, ...]:
    """Return the sections of the page: places in each suite, mean ranks, wins, what is not compared, the suites."""
    questions: dict[Question, Section | None] = {
        "best": section_of("places", "Places in each suite", _places(suites)),
        "sure": section_of("ranks", "Mean ranks", _friedman(suites), _mean_ranks(suites), _wins(suites)),
        "methods": Section(slug="each", title="Each method", blocks=tuple(_folds(suites))),
        "setup": section_of("suites", "The suites", _suites(suites)),
        "wrong": section_of("apart", "What is not compared", _apart(suites)),
    }
    there = {question: found for question, found in questions.items() if found is not None}
    return tuple(found.model_copy(update={"question": key, "folded": False}) for key, found in there.items())


def _places(suites: Suites) -> Table:
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for suite in suites.ranked for name in suite.kinds):
        cells: list[Cell] = []
        for suite in suites.ranked:
            method = suite.answer.by_name.get(name)
            value = suite.answer.value(name, "score") if method else None
            shown = MISSING if value is None else terms.score_text(suite.answer, value)
            place = f"{rank(method.place)}: " if method and method.place else ""
            cells.append((f"{place}{shown}", value))
        rows.append([name, *cells])
    columns = ["method", *(f"{suite.name}, {suite.answer.score.title}" for suite in suites.ranked)]
    notes = [
        "A place is an interval of ranks, by the verdicts of the suite's own page. "
        "Each suite's verdicts hold at 5 %; one without places has too few seeds. Scores are means over seeds."
    ]
    return table("places", "Place and score of each method in each suite", columns, rows, notes)


def _friedman(suites: Suites) -> Text:
    n, k, p = len(suites.ranked), len(suites.methods), suites.found.p
    if not suites.tested:
        said = f"Nothing is tested: with {k} methods, under {suites.least} suites no result is rare enough."
        return Text(sentences=(said,))
    return Text(
        sentences=(
            f"Friedman's test over {n} suites and {k} methods, as Iman and Davenport correct it: "
            f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}.",
            "At most 5 % of such pages hold a false verdict, if the suites are a sample of those that it is for.",
        )
    )


def _mean_ranks(suites: Suites) -> Table:
    found = suites.found
    rows: list[list[Cell]] = []
    for name in sorted(suites.methods, key=lambda one: found.ranks[one]):
        low, high = suites.interval(name)
        rows.append([name, cell(found.ranks[name], ".2f"), cell(low, ".2f"), cell(high, ".2f"),
                     *(cell(r, ".3g") for r in found.by_suite[name])])  # fmt: skip
    columns = ["method", "Mean rank", "Low", "High", *(suite.name for suite in suites.ranked)]
    notes = [
        "1 is best; ties share their mean rank. Ranks are among the methods that all suites have. "
        "Low and high: 95 % of mean ranks over resampled suites, and seeds within them (percentile bootstrap). "
        f"There are none under {suites.least} suites."
    ]
    return table("ranks", "Ranks by mean score", columns, rows, notes)


def _wins(suites: Suites) -> Table:
    """Return for each pair the suites in which one is shown to be better, and the test over suites."""
    rows: list[list[Cell]] = []
    tests = {frozenset((pair.a, pair.b)): pair for pair in suites.found.pairs}
    for a, b in itertools.combinations(suites.methods, 2):
        relations = [suite.answer.relation("score", a, b) for suite in suites.ranked]
        counts = [relations.count("better"), sum(r in {"open", "equal"} for r in relations), relations.count("worse")]
        pair = tests[frozenset((a, b))]
        p, winner = (pair.p_adjusted, pair.winner or "can't tell") if suites.tested else (None, "not tested")
        rows.append([f"{a} against {b}", *counts, relations.count("untested"), p_cell(p), winner])
    columns = ("Pair", "Wins", "Ties", "Losses", "Not tested", "p over suites (Holm)", "Better over suites")
    notes = [
        "A win is a difference that the suite's own page shows. A tie is undecided there, or shown equal. "
        "Over suites: exact sign-flip test of the differences of ranks, adjusted by Holm, no less than Friedman's p."
    ]
    return table("wins", "First method against the second, in suites", columns, rows, notes)


def _folds(suites: Suites) -> Iterator[Fold]:
    """Yield a fold per ranked method, the best mean rank first: its rank, place, score and costs in each suite."""
    found = suites.found
    for n, name in enumerate(sorted(suites.methods, key=lambda one: found.ranks[one]), 1):
        rows: list[list[Cell]] = []
        for suite, own in zip(suites.ranked, found.by_suite[name], strict=True):
            answer, method = suite.answer, suite.answer.by_name[name]
            costs = [_cost(answer, key, name) for key in TITLES]
            score = terms.score_text(answer, method.v["score"].m)
            rows.append([suite.name, cell(own, ".3g"), rank(method.place), score, *costs])
        columns = ("Suite", "Rank", "Place by verdicts", "Score", *TITLES.values())
        shown = table(f"method_{n}", f"{name} in each suite", columns, rows)
        yield Fold(title=name, about=f"mean rank {found.ranks[name]:.2f}", blocks=(shown,), anchor=f"m-{n}")


def _cost(answer: Answer, key: Key, name: str) -> Cell:
    axis = answer.axis(key)
    value = answer.value(name, axis.id) if axis else None
    return MISSING if axis is None or value is None else terms.cost_text(answer, axis.id, value)


def _suites(suites: Suites) -> Table:
    rows: list[list[Cell]] = []
    for suite in suites.ranked:
        answer, reference = suite.answer, suite.results.reference
        rows.append([answer.suite, answer.model, answer.data, reference.spec.settings.task.name, answer.score.title,
                     (number(answer.rows, "d"), float(answer.rows)), answer.seeds, answer.setup.budget,
                     answer.setup.device, reference.protocol_id or MISSING])  # fmt: skip
    columns = ("Suite", "Model", "Data", "Task", "Score", "Test rows", "Seeds", "Budget", "Device", "Protocol")
    return table("suites", "What each suite ran", columns, rows)


def _apart(suites: Suites) -> Table | None:
    if not suites.apart:
        return None
    rows: list[list[Cell]] = [[name, reason] for name, reason in suites.apart.items()]
    return table("apart", "Suites and methods that enter no rank", ("Name", "Why"), rows)
