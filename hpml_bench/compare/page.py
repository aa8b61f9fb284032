"""The page of a comparison: its answer and sections, of one data set or over several."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hpml_bench import statistics
from hpml_bench.compare.measured import Cost
from hpml_bench.compare.scores import Scores
from hpml_bench.compare.verdicts import Scope, Verdicts, verdicts
from hpml_bench.plugins.blocks import Fold, Question, Section, Table, Text
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.deciding import deciding_section
from hpml_bench.report.answer.matrix import matrix_section
from hpml_bench.report.answer.model import Answer, Axis, Failure, Method, Pair, Score, Setup, Values
from hpml_bench.report.answer.pairs import pair_of, plain
from hpml_bench.report.over_suites import OfSuite, Suites
from hpml_bench.report.render import Page, page_of_suites, write_page
from hpml_bench.report.tables import MISSING, Cell, capitalized, number, p_cell, rank, section_of, table
from hpml_bench.statistics import Comparison

FORMATS = ("html", "md")
SAID = {"better": "better", "worse": "worse", "open": "can't tell", "equal": "equal", "untested": "not tested"}
TESTS: Mapping[Scope, str] = {
    "seeds and rows": "Differences within seed and row, in a two-way analysis of variance and a paired t test over "
    "seeds; p is the larger.",
    "rows": "Differences within a row. Where rows are right or wrong, of one run each: McNemar's exact test. Else "
    "Student's t, with what few rows can't show: rare rows that carry the difference.",
    "seeds": "Differences within a seed: the paired t test, on these very rows.",
    "shares": "Shares of rows, without the rows: unpaired, after Agresti and Caffo (2000).",
    "none": "Nothing is tested.",
}
"""How pairs are tested."""


@dataclass(frozen=True)
class Compared:
    """The systems of one data set with the verdicts on them."""

    scores: Scores
    verdicts: Verdicts

    @classmethod
    def of(cls, scores: Scores, margin: float | None = None) -> Compared:
        """Return the systems with every pair decided."""
        return cls(scores, verdicts(scores, margin))

    @property
    def scale(self) -> float:
        """100 where scores are shown as per cent: shares of rows that are right."""
        shares = self.verdicts.scope == "shares" and (self.scores.score.low, self.scores.score.high) == (0.0, 1.0)
        return 100.0 if self.scores.binary or shares else 1.0

    @property
    def by_rows(self) -> bool:
        """Whether verdicts are for other rows alone."""
        return self.verdicts.scope in {"rows", "shares", "none"}

    def needed(self, c: Comparison) -> int | None:
        """Return the seeds that would decide a pair, or the rows, also where groups of rows are tested."""
        scores, need = self.scores, c.seeds_needed
        if need is None or not self.by_rows:
            return need
        return math.ceil(need * (scores.count or 0) / (scores.group_count or scores.count or 1))

    def runs(self, name: str) -> dict[int, float]:
        """Return a system's scores that enter its mean: of the runs that all share, where verdicts are over runs."""
        own = dict(self.scores.means[name])
        shared = set.intersection(*(set(of) for of in self.scores.means.values()))
        if self.by_rows or len(shared) < statistics.LEAST_SEEDS:
            return own
        return {run: value for run, value in own.items() if run in shared}


def write(
    found: Sequence[Scores], out: Path, formats: Sequence[str] = FORMATS, margin: float | None = None
) -> tuple[Page, list[Path]]:
    """Write the page of a comparison and return it with its files; of several data sets also a page each.

    Raises:
        UserError: the data sets share under two systems, each having its page by then; or a page can't be written.

    """
    compared = [Compared.of(one, margin) for one in found]
    if len(compared) == 1:
        page = page_of(compared[0])
        return page, write_page(page, out, formats)
    pages = [page_of(one) for one in compared]
    folders = _folders(compared)
    for page, folder in zip(pages, folders, strict=True):
        write_page(page, out / folder, formats)
    sets = [_suite(one, page.answer, folder) for one, page, folder in zip(compared, pages, folders, strict=True)]
    over = page_of_suites(Suites.among(sets, "data set"))
    return over, write_page(over, out, formats)


def _folders(compared: Sequence[Compared]) -> list[str]:
    """Return a folder's name for each data set."""
    taken: list[str] = []
    for one in compared:
        plain_name = re.sub(r"[^A-Za-z0-9._-]+", "-", one.scores.title).strip("-.")[:60] or "data"
        taken.append(plain_name if plain_name not in taken else f"{plain_name}-{len(taken) + 1}")
    return taken


def _suite(one: Compared, answer: Answer, folder: str) -> OfSuite:
    about: dict[str, Cell] = {
        "Data set": one.scores.title, "Score": answer.score.title, "Rows": answer.rows_text,
        "Runs": answer.runs, "Systems": len(answer.methods), "Verdicts hold for": answer.judged,
        "Page": f"{folder}/report.html",
    }  # fmt: skip
    values = {name: one.runs(name) for name in one.scores.systems}
    return OfSuite(answer, values, (one.scores.dataset,), about, one.scores.title, version=version("hpml-bench"))


def page_of(compared: Compared) -> Page:
    """Return the page of one data set."""
    answer, scores = answer_of(compared), compared.scores
    facts = {
        "Data": scores.title,
        "Inputs": str(len(scores.sources)),
        "Systems": str(len(scores.systems)),
        "Rows": answer.rows_text,
        "Runs": answer.setup.budget or f"{answer.runs} in all",
        "Score": f"{answer.score.title}, {answer.score.better} is better",
        "Range of a row": _range_text(scores),
        "Verdicts hold for": answer.judged,
    }
    return Page(
        answer=answer,
        sections=tuple(_sections(compared, answer)),
        facts=facts,
        problems=len(scores.failed) + bool(scores.unshared),
        newest="",
        version=version("hpml-bench"),
        styles={},
    )


# The answer


def answer_of(compared: Compared) -> Answer:
    """Return the answer of one data set."""
    scores, found = compared.scores, compared.verdicts
    axes = _axes(scores, found)
    sign = -1.0 if scores.score.better == "higher" else 1.0
    methods = sorted(
        (_method(compared, name, axes) for name in scores.systems), key=lambda method: sign * method.v["score"].m
    )
    pairs = {"score": tuple(_pair(compared, c) for c in found.score)}
    pairs |= {
        axis.id: tuple(pair_of(c, "lower") for c in found.costs[cost]) for cost, axis in axes.items() if axis.tested
    }
    runs = sum(len(of) for of in scores.means.values())
    uneven = not compared.by_rows and len({frozenset(of) for of in scores.means.values()}) > 1
    untested_costs = any(axis.tested is None and not axis.exact for axis in axes.values())
    return Answer(
        suite=scores.title,
        description="",
        model="",
        data=scores.title,
        rows=scores.count or 0,
        rows_text=_rows_text(scores),
        seeds=max(len(of) for of in scores.means.values()),
        shared=(len(compared.runs(scores.systems[0])) if scores.shared_seeds else 0) if uneven else None,
        runs=runs,
        planned=runs + len(scores.failed),
        tested=sum(c.verdict != "untested" for of in (found.score, *found.costs.values()) for c in of),
        judged=found.holds_for,
        chance=100 * statistics.ALPHA,
        setup=Setup(budget=_runs_text(scores) if compared.by_rows else "", device="", host="", rates="", memory=""),
        score=_score(compared, [method.v["score"].m for method in methods]),
        axes=tuple(axes.values()),
        methods=tuple(methods),
        pairs=pairs,
        under={},
        guess=None,
        failures=tuple(
            Failure(method=failure.system, seed=_seed(failure.seed, at), status=failure.status)
            for at, failure in enumerate(scores.failed)
        ),
        unranked="ranks take three seeds that all systems share" if untested_costs else None,
        untried=tuple(dict.fromkeys(f.system for f in scores.failed if f.system not in scores.systems)),
        over="row" if compared.by_rows else "seed",
        least=statistics.LEAST_SEEDS,
        noun="system",
        untested=found.why,
    )


def _seed(text: str, at: int) -> int:
    return int(text) if text.isdigit() else at


def _rows_text(scores: Scores) -> str:
    if scores.count is None:
        return "number of rows not known"
    groups = "" if scores.groups is None else f" in {scores.group_count:,} groups"
    left = f", {scores.unshared:,} left out" if scores.unshared else ""
    return f"{terms.count_of(scores.count, 'row')}{groups}{left}"


def _range_text(scores: Scores) -> str:
    if scores.binary:
        return "0 or 1"
    low, high = scores.score.low, scores.score.high
    if low is not None and high is not None:
        return f"{number(low)} to {number(high)}"
    seen = [of for by_run in (scores.rows or {}).values() for of in by_run.values()]
    return f"{number(float(np.min(seen)))} to {number(float(np.max(seen)))}, as seen" if seen else "not known"


def _runs_text(scores: Scores) -> str:
    counts = sorted({len(of) for of in scores.means.values()})
    if counts == [1]:
        return "one run of each system"
    return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs of each system"


def _score(compared: Compared, means: Sequence[float]) -> Score:
    score = compared.scores.score
    percent = compared.scale != 1.0
    largest = max(map(abs, means))
    digits = 1 if percent else max(0, min(6, 2 - math.floor(math.log10(largest)))) if largest else 2
    margin = next((c.margin for c in compared.verdicts.score if c.margin), 0.0)
    return Score(
        id=_slug(score.name, "_") or "score",
        title=score.name,
        unit="%" if percent else "",
        better=score.better,
        digits=digits,
        difference_unit="points" if percent else "",
        margin=compared.scale * margin,
    )


def _slug(text: str, between: str) -> str:
    return re.sub(r"[^a-z0-9]+", between, text.lower()).strip(between)


def _axes(scores: Scores, found: Verdicts) -> dict[Cost, Axis]:
    axes: dict[Cost, Axis] = {}
    for at, cost in enumerate(scores.costs):
        key = f"cost-{_slug(cost.title, '-')}"
        key = f"cost-{at + 1}" if key == "cost-" or any(key == axis.key for axis in axes.values()) else key
        name = f"cost_{at + 1}"
        axes[cost] = Axis(key=key, id=name, title=capitalized(cost.title), unit=cost.unit,
                          tested=name if cost in found.costs else None, exact=cost.exact)  # fmt: skip
    return axes


def _method(compared: Compared, name: str, axes: Mapping[Cost, Axis]) -> Method:
    scores, found = compared.scores, compared.verdicts
    runs = compared.runs(name)
    mean = float(np.mean(list(runs.values())))
    low, high = _own_interval(compared, name, runs)
    scale = compared.scale
    v = {"score": Values(m=plain(scale * mean), lo=low, hi=high, runs=tuple(plain(scale * x) for x in runs.values()))}
    for cost, axis in axes.items():
        values = scores.costs[cost].get(name, {})
        if values:
            interval = statistics.mean_interval(list(values.values()))
            v[axis.id] = Values(m=plain(interval.mean), lo=interval.low, hi=interval.high, runs=tuple(values.values()))
    tested = any(c.verdict != "untested" for c in found.score)
    places = statistics.rank_intervals(found.score, scores.systems, scores.score.better) if tested else {}
    return Method(name=name, kind=name, place=places.get(name), seeds=len(scores.means[name]), v=v)


def _own_interval(compared: Compared, name: str, runs: Mapping[int, float]) -> tuple[float | None, float | None]:
    """Return the ends of a mean's own 95 % interval, within the range of the score, as shown."""
    scores, scope = compared.scores, compared.verdicts.scope
    low: float | None = None
    high: float | None = None
    mean = float(np.mean(list(runs.values())))
    if scope in {"seeds", "seeds and rows"}:
        grid = 1 / scores.count if scores.binary and scores.count else None
        interval = statistics.mean_interval(list(runs.values()), grid)
        low, high = interval.low, interval.high
    elif scope == "shares" and scores.count:
        least, most = scores.score.low or 0.0, scores.score.high or 1.0
        share = (mean - least) / (most - least)
        low, high = (least + (most - least) * end for end in statistics.share_interval(share, scores.count))
    elif scope == "rows":
        if scores.binary and scores.groups is None and len(runs) == 1 and scores.count:
            low, high = statistics.share_interval(mean, scores.count)
        else:
            units = np.mean(list(scores.units[name].values()), axis=0)
            low, high = statistics.rows_interval(units) or (mean, mean)
    if low is None or high is None:
        return None, None
    bounds = (0.0, 1.0) if scores.binary else (scores.score.low, scores.score.high)
    low = low if bounds[0] is None else max(low, bounds[0])
    high = high if bounds[1] is None else min(high, bounds[1])
    return plain(compared.scale * low), plain(compared.scale * high)


def _pair(compared: Compared, c: Comparison) -> Pair:
    """Return a pair; where verdicts are for other rows its counts are of rows, also where groups were tested."""
    made = pair_of(c, compared.scores.score.better, compared.scale)
    if not compared.by_rows:
        return made
    return made.model_copy(update={"n": compared.scores.count or 0, "need": compared.needed(c)})


# The sections


def _sections(compared: Compared, answer: Answer) -> Iterator[Section]:
    """Yield the sections of a page, each with its question."""
    of: list[tuple[Question, Section | None]] = [
        ("best", section_of("places", "Places", _places(answer))),
        ("cost", section_of("costs", "Costs", _costs(answer))),
        ("sure", matrix_section(answer)),
        ("sure", deciding_section(answer)),
        ("sure", section_of("more", "What more data would give", _more(compared))),
        ("sure", section_of("pairs", "Every pair in numbers", _pairs(compared, answer))),
        ("methods", Section(slug="each", title="Each system", blocks=tuple(_folds(compared, answer)))),
        ("setup", section_of("read", "What was read", *_read(compared))),
        ("wrong", section_of("problems", "What is missing", *_problems(compared.scores))),
        ("reading", section_of("reading", "The tests", Text(sentences=_reading(compared)))),
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
        "Low and high: 95 % of the mean, each by itself."
    ]
    columns = ("System", "Place", f"{capitalized(answer.score.title)}{unit}", "Low", "High", "Runs")
    return table("places", f"Systems by {answer.score.title}", columns, rows, notes)


def _costs(answer: Answer) -> Table | None:
    if not answer.axes:
        return None
    rows: list[list[Cell]] = []
    for method in answer.methods:
        cells: list[Cell] = []
        for axis in answer.axes:
            found = method.v.get(axis.id)
            cells.append(MISSING if found is None else (terms.cost_text(answer, axis.id, found.m, unit=False), found.m))
        rows.append([method.name, *cells])
    columns = ("System", *(f"{axis.title} ({axis.unit})" if axis.unit else axis.title for axis in answer.axes))
    notes = ["Means over runs, as the input has them; less is better."]
    return table("costs", "Costs of each system", columns, rows, notes)


def _pairs(compared: Compared, answer: Answer) -> Table:
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    by_rows, margin = compared.by_rows, answer.score.margin
    rows: list[list[Cell]] = []
    for pair, c in zip(answer.pairs["score"], compared.verdicts.score, strict=True):
        relation = f"{pair.w} is better" if pair.w else {"untested": "not tested"}.get(pair.v, pair.v)
        between = (
            MISSING
            if pair.lo is None or pair.hi is None
            else f"[{terms.gap_text(answer, pair.lo, unit=False)}, {terms.gap_text(answer, pair.hi, unit=False)}]"
        )
        need = number(pair.need, "d") if pair.need and pair.v == "undecided" else MISSING
        rows.append([f"{pair.a} − {pair.b}", relation + (" ‡" if pair.skew else ""),
                     (terms.gap_text(answer, pair.d, unit=False), pair.d), between, p_cell(pair.p), p_cell(pair.ph),
                     *([p_cell(c.p_equivalent_adjusted)] if margin else []), need])  # fmt: skip
    notes = [
        f"{TESTS[compared.verdicts.scope]} Each 95 % interval is its own pair's. Holm adjusts p over all "
        f"{terms.count_of(answer.tested, 'tested pair')} of the page, scores and costs; below 5 % is a verdict."
    ]
    if any(pair.skew for pair in answer.pairs["score"]):
        notes.append("‡ The differences are skewed, or few rows carry them, where tests claim too much.")
    what = "rows" if by_rows else "seeds"
    columns = ("Pair", "Verdict", f"Difference{unit}", "95 % interval", "p", "p (Holm)",
               *(["p of the margin (Holm)"] if margin else []), f"{capitalized(what)} to decide")  # fmt: skip
    return table(f"pairs_{answer.score.id}", f"Pairs by {answer.score.title}", columns, rows, notes)


def _folds(compared: Compared, answer: Answer) -> Iterator[Fold]:
    """Yield a fold per system, the best mean first: scores of its runs, costs, and each other system."""
    for at, method in enumerate(answer.methods, 1):
        verdict = words.verdict(answer, method.name)
        about = "; ".join(part for part in (verdict.chip, verdict.text, *verdict.costs, verdict.failed) if part)
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


def _problems(scores: Scores) -> Iterator[Table | Text]:
    if scores.unshared:
        yield Text(
            sentences=(f"{terms.count_of(scores.unshared, 'row')} that some system lacks: left out (--shared).",)
        )
    if scores.failed:
        rows: list[list[Cell]] = [[f.system, f.seed or MISSING, f.status, f.where] for f in scores.failed]
        yield table("failed", "Runs without a score", ("System", "Seed", "Status", "Where"), rows)


def _more(compared: Compared) -> Text | None:
    """Return what a comparison without rows, or seeds, lacks."""
    sentences = []
    if compared.scores.rows is not None and not compared.scores.bounded:
        sentences.append("A range of the score (--range): without it verdicts presume no row beyond those seen.")
    if compared.scores.rows is None:
        sentences.append("Scores row by row: the same rows are paired, which finds smaller differences.")
    if compared.scores.shared_seeds < statistics.LEAST_SEEDS:
        costs = " and ranks by cost" if compared.scores.costs else ""
        sentences.append(f"Three seeds of each system: verdicts for other seeds too{costs}.")
    return Text(sentences=tuple(sentences)) if sentences else None


def _reading(compared: Compared) -> tuple[str, ...]:
    scores, found = compared.scores, compared.verdicts
    sentences = [TESTS[found.scope], "All pairs of a page, by score and tested cost, share 5 % of error (Holm 1979)."]
    if scores.groups is not None:
        sentences.append("Rows of a group depend on each other, so groups are what another sample replaces.")
    if not any(c.margin for c in found.score):
        sentences.append("No margin is given, so no pair is shown equal. Give --margin.")
    return tuple(sentences)
