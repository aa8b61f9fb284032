"""Method by method: scores by seed, costs, rate and options of each, and how it stands to each other method."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_bench.plugins.blocks import Fold, Section, Table, Text
from hpml_bench.records.tuning import find
from hpml_bench.report.answer import terms, words
from hpml_bench.report.answer.model import Answer, Axis, Method
from hpml_bench.report.answer.numbers import answer_of
from hpml_bench.report.results import MEMORY, Results
from hpml_bench.report.tables import MISSING, Cell, capitalized, option_list, table
from hpml_bench.system.text import sanitize

order = 105
question = "methods"
about = "scores by seed, costs, options, and every other method"
folded = False
ADDED = MEMORY[0]
SAID = {"better": "better", "worse": "worse", "open": "can't tell", "equal": "equal", "untested": "not tested"}
MOST = 20
"""Methods over which a fold leaves out the others: they would be most of the page, and stand in the matrix."""
BY_COST = {
    "time": {"better": "faster", "worse": "slower"},
    "memory": {"better": "less", "worse": "more"},
    "size": {"better": "smaller", "worse": "larger"},
}


def section(results: Results) -> Section | None:
    """Return a fold per method, the best mean first; None without a compared run."""
    answer = answer_of(results)
    if not answer.methods:
        return None
    few = len(answer.methods) <= MOST
    stands = "How it stands to each other method is in the matrix above."
    said = "What it is, what it cost, and how it stands to each other method."
    intro = Text(sentences=(said,) if few else ("What each is, and what it cost.", stands))
    folds = [_fold(results, answer, method) for method in answer.methods]
    return Section(slug="each", title="Each method", blocks=(intro, *folds))


def _fold(results: Results, answer: Answer, method: Method) -> Fold:
    n = answer.number[method.name]
    about = words.verdict(answer, method.name).in_full
    title = f"{n} {method.name}" if answer.numbered else method.name
    facts = table(
        f"method_{n}", f"{method.name}: scores, costs, options", ("What", "Value"), _facts(results, answer, method)
    )
    blocks = [facts, *([_against(answer, method)] if 1 < len(answer.methods) <= MOST else [])]
    return Fold(title=title, about=about, blocks=tuple(blocks), anchor=f"m-{n}")


def _facts(results: Results, answer: Answer, method: Method) -> Iterator[list[Cell]]:
    labels = {sanitize(label): label for label in results.methods}  # an answer's names are of one printable line
    spec = results.runs(labels[method.name])[0].spec.method
    score = method.v.get("score")
    if score is not None:
        unit = f" ({answer.score.unit})" if answer.score.unit else ""
        ends = [end for end in (score.lo, score.hi) if end is not None]
        own = f"; 95 % interval of its own {' to '.join(terms.score_text(answer, end, unit=False) for end in ends)}"
        mean = terms.score_text(answer, score.m, unit=False)
        yield [
            f"{capitalized(answer.score.title)}{unit}, {terms.count_of(len(score.runs), 'seed')}",
            mean + (own if ends else ""),
        ]
        yield ["Seed by seed", ", ".join(terms.score_text(answer, value, unit=False) for value in score.runs)]
    for axis in answer.axes:
        if axis.id in method.v and not (axis.key == "size" and method.base):
            yield [axis.title, _cost(answer, axis, method)]
    yield ["Kind", method.kind]
    yield ["Learning rate", f"{spec.lr:g}{_tuned(results, method)}"]
    if spec.optimizer is not None:
        yield ["Optimizer", spec.optimizer.name]
    yield ["Options", option_list(spec.options) or "none"]
    late = answer.under.get(method.name)
    if late:
        yield ["At the end", f"still improving in {late} of {terms.count_of(method.seeds, 'run')}"]


def _cost(answer: Answer, axis: Axis, method: Method) -> str:
    values = method.v[axis.id]
    text = terms.cost_text(answer, axis.id, values.m)
    if not axis.exact and values.lo is not None and values.hi is not None:
        ends = [terms.cost_text(answer, axis.id, end, unit=False) for end in (values.lo, values.hi)]
        text += f"; 95 % interval {' to '.join(ends)}"
    if axis.key == "memory" and axis.id != ADDED and ADDED in method.v:
        text += f"; training adds {terms.cost_text(answer, ADDED, method.v[ADDED].m)}"
    return text


def _tuned(results: Results, method: Method) -> str:
    record = find(results.folder, results.suite)
    trials = [len(tuned.trials) for tuned in record.methods if sanitize(tuned.name) == method.name] if record else []
    return f", tuned in {terms.count_of(trials[0], 'trial')}" if trials and trials[0] else ""


def _against(answer: Answer, method: Method) -> Table:
    """Return the method's difference to each other one, its interval, and the verdicts by score and tested cost."""
    tested = [axis for axis in answer.axes if axis.tested]
    unit = f" ({answer.score.difference_unit})" if answer.score.difference_unit else ""
    columns = ["Against", f"{capitalized(answer.score.title)}{unit}", "Interval", "Verdict"]
    columns += ["Memory added" if axis.id != axis.tested else axis.title for axis in tested]
    rows: list[list[Cell]] = []
    for other in (other.name for other in answer.methods if other.name != method.name):
        pair, relation = answer.pair("score", method.name, other), answer.relation("score", method.name, other)
        gap: Cell = None
        between = MISSING
        if pair is not None:
            d, low, high = terms.seen_from(pair, method.name)
            gap = (terms.gap_text(answer, d, unit=False), d)
            if low is not None and high is not None:
                between = f"[{terms.gap_text(answer, low, unit=False)}, {terms.gap_text(answer, high, unit=False)}]"
        costs = [_by_cost(answer, axis, method.name, other) for axis in tested]
        rows.append([other, gap, between, SAID[relation], *costs])
    caption = f"{method.name} against each other method"
    return table(f"against_{answer.number[method.name]}", caption, columns, rows)


def _by_cost(answer: Answer, axis: Axis, name: str, other: str) -> str:
    relation = answer.relation(axis.key, name, other)
    return (SAID | BY_COST[axis.key])[relation]
