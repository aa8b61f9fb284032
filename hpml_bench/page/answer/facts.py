"""The facts of a first screen: difference, cost, what is cheaper and how sure that is, in short
sentences.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from hpml_bench.judge.summary import Axis, Key, PageSummary
from hpml_bench.page.answer.words import label, several
from hpml_bench.records.numbers import MINUS, capitalized
from hpml_bench.system.text import count_of

FEW_SEEDS, FEW_ROWS = (
    5,
    200,
)  # seeds, and test rows, under which only large differences can be found
SHOWN_WINNERS = 2  # methods whose checkpoints are named with those that they beat
OF_SUITES = {"time": " training", "memory": " memory", "size": " saved"}
"""Costs whose numbers say by their units what they are, and the word that says it; others go by
their title.
"""


class Fact(NamedTuple):
    """A line under the headline."""

    label: str
    text: str
    href: str  # anchor of the section that says more


def facts(answer: PageSummary) -> tuple[Fact, ...]:
    names = {
        name
        for pair in answer.pairs.get("score", ())
        if pair.uncertain
        for name in (pair.a, pair.b)
    }
    skewed = [method.name for method in answer.methods if method.name in names]
    care = (
        f"The noise looks skewed: verdicts on {several(answer, skewed)} are less sure."
        if skewed
        else ""
    )
    found = (
        Fact("Difference", _difference(answer), "#sure"),
        Fact("Cost", _cost(answer), "#cost"),
        Fact("Still improving?", _improving(answer), "#training"),
        Fact("Worth it?", _worth_it(answer), "#sure"),
        Fact("Cheaper", _cheaper(answer), "#cost"),
        Fact("Guessing", _guessing(answer), "#best"),
        Fact("Take care", care, "#wrong"),
        Fact("Sure?", _sure(answer), "#sure"),
        Fact("These checkpoints", _checkpoints(answer), "#sure"),
        Fact("Next", _next(answer), "#sure"),
    )
    return tuple(fact for fact in found if fact.text)


def _difference(answer: PageSummary) -> str:
    if len(answer.methods) < 2:
        return ""
    first, second = answer.methods[0].name, answer.methods[1].name
    pair = answer.pair("score", first, second)
    if pair is None:
        return f"No shared seeds: {label(answer, first)} and {label(answer, second)}."
    d, *ends = pair.seen_from(first)
    between = " to ".join(answer.gap_text(end, unit=False) for end in ends if end is not None)
    text = (
        f"{_opening(answer, label(answer, first))} {MINUS} {label(answer, second)}: "
        f"{answer.gap_text(d)}"
    )
    text += f", {between} at the level of its test" if between else ""
    own = f" (their {count_of(pair.shared, 'shared seed')})" if answer.shared is not None else ""
    within = (
        f" Shown to lie within the margin of {answer.margin_text}." if pair.within_margin else ""
    )
    return f"{text}{own}.{within}"


def _cost(answer: PageSummary) -> str:
    names = answer.top or tuple(method.name for method in answer.methods[:1])
    if len(names) == 2 and answer.axes:
        axes = [axis for axis in answer.axes if axis.key != "size"]
        lacks = {
            name: "not trained" if answer.by_name[name].base else "not measured" for name in names
        }
        parts = [
            f"{label(answer, name)}: {_prices(answer, [name], axes) or lacks[name]}"
            for name in names
        ]
        return f"{_opening(answer, '; '.join(parts))}."
    priced = [
        name
        for name in names
        if any(answer.value(name, axis.id) is not None for axis in answer.axes)
    ]
    found = _prices(
        answer, priced, answer.axes, OF_SUITES if len(priced) == 1 else {"size": OF_SUITES["size"]}
    )
    if not found:
        return ""
    unknown = [name for name in names if name not in priced and not answer.by_name[name].base]
    return (
        f"{_opening(answer, several(answer, priced))} alone: {found}." if unknown else f"{found}."
    )


def _prices(
    answer: PageSummary,
    names: Sequence[str],
    axes: Iterable[Axis],
    words: Mapping[Key, str] = MappingProxyType({}),
) -> str:
    """Return each cost of a method, or its range over several, with a word for what it is."""
    parts = []
    for axis in axes:
        known = (
            names
            if axis.key != "size"
            else [name for name in names if not answer.by_name[name].base]
        )
        values = [value for name in known if (value := answer.value(name, axis.id)) is not None]
        if values:
            low, high = (axis.text(end) for end in (min(values), max(values)))
            start = (
                low.rpartition(" ")[0] if low.rpartition(" ")[2] == high.rpartition(" ")[2] else low
            )
            span = high if low == high else f"{start} to {high}"
            parts.append(
                span + words.get(axis.key, "")
                if axis.key in OF_SUITES
                else f"{axis.title.lower()} {span}"
            )
    return ", ".join(parts)


def _improving(answer: PageSummary) -> str:
    late, trained = _late(answer)
    if not late:
        return ""
    kind = "methods" if len(trained) == len(answer.methods) else "trained methods"
    some = (
        any(answer.under[name] < answer.by_name[name].seeds for name in late)
        and answer.over == "seed"
    )
    if len(trained) == 1:
        return f"Yes{', in some runs' if some else ''}."
    share = (
        f"All {len(late)}" if len(late) == len(trained) > 1 else f"{len(late)} of {len(trained)}"
    )
    who = f": {several(answer, late)}" if len(late) < min(4, len(trained)) else ""
    return f"{share} {kind}{who}{', in some runs' if some else ''}."


def _late(answer: PageSummary) -> tuple[list[str], list[str]]:
    """Return the methods that were still improving when a run of theirs ended, and all that
    train.
    """
    names = [method.name for method in answer.methods if not method.base]
    return [method.name for method in answer.methods if method.name in answer.under], names


def _opening(answer: PageSummary, names: str) -> str:
    """Return names as the first words of a sentence: those of methods keep their case."""
    return capitalized(names) if answer.numbered else names


def _worth_it(answer: PageSummary) -> str:
    base = next((method.name for method in answer.methods if method.base), None)
    if base is None or not answer.tested_by_score:
        return ""
    over = answer.related(base, "worse")
    if not over:
        return "No method is shown to beat the base model."
    if len(over) == len(answer.methods) - 1:
        return ""
    return (
        f"Only {several(answer, over)} {'is' if len(over) == 1 else 'are'} shown to beat the base "
        f"model."
    )


def _cheaper(answer: PageSummary) -> str:
    """Return the method that trains faster than the first one and loses least by it, and the
    fastest one.
    """
    if answer.unranked and answer.methods[1:]:
        return f"Costs are shown, not ranked: {answer.unranked}."
    time = answer.axis("time") or next((axis for axis in answer.axes if axis.tested), None)
    if time is None or time.tested is None or not answer.top or answer.by_name[answer.top[0]].base:
        return ""
    lead = answer.top[0]
    if answer.value(lead, time.id) is None:
        return ""
    quicker = [
        name for name in answer.related(lead, "worse", time.key) if not answer.by_name[name].base
    ]
    if not quicker:
        return _nothing_cheaper(answer, lead, time)
    # of those that may be best the cheapest on average, where it isn't shown to be cheaper than the
    # first
    costs = {
        name: value for name in answer.top if (value := answer.value(name, time.id)) is not None
    }
    least, tied = min(costs, key=costs.__getitem__, default=lead), ""
    if least not in {lead, *quicker} and lead in costs and costs[least] <= 0.95 * costs[lead]:
        who, less = (
            _opening(answer, label(answer, least)),
            round(100 * (1 - costs[least] / costs[lead])),
        )
        tied = f"{who} may be best too: {less} % less {time.title.lower()} on average. "
    near, fastest = quicker[0], answer.winner(time.key)
    noun, most = ("time", "fastest") if time.key == "time" else (time.title.lower(), "least")
    pair = answer.pair(time.tested, near, lead)
    assert pair is not None  # noqa: S101 - they were compared, else it would not be shown to be quicker
    less = round(100 * (1 - pair.seen_from(near, ratio=True)[0]))
    text = (
        f"{_opening(answer, label(answer, near))}: {less} % less {noun} than "
        f"{label(answer, lead)}, "
    )
    text = f"{tied}{text}{_far(answer, near, lead)}"
    if (size := answer.axis("size")) and near in answer.top:
        own, other = (answer.value(method, size.id) or 0.0 for method in (near, lead))
        text += f", {other / own:.0f} times smaller file" if other > 1.95 * own > 0 else ""
    text += "."
    if fastest not in {None, near} and fastest in quicker:
        text += (
            f" {_opening(answer, label(answer, fastest))}: {most}, {_far(answer, fastest, lead)}."
        )
    return text


def _far(answer: PageSummary, name: str, lead: str) -> str:
    relation, pair = answer.relation("score", name, lead), answer.pair("score", lead, name)
    if pair is None or relation == "untested":
        return "scores not tested"
    gap = answer.gap_text(abs(pair.difference))
    if relation in {"open", "equal"}:
        return (
            f"equal by {answer.score.title}"
            if relation == "equal"
            else f"can't tell by {answer.score.title}"
        )
    return f"{gap} {'lower' if answer.score.better == 'higher' else 'higher'}"


def _nothing_cheaper(answer: PageSummary, lead: str, cost: Axis) -> str:
    if cost.key != "time":
        return (
            f"No {answer.noun} is shown to have a lower {cost.title.lower()} than "
            f"{label(answer, lead)}."
        )
    memory, size = answer.axis("memory"), answer.axis("size")
    if answer.winner("time") == lead and memory and answer.winner("memory") == lead:
        adds = "adds" if memory.tested != memory.id else "needs"
        text = f"No method trains faster or {adds} less memory."
        least = answer.best("size")
        if size and least and lead not in least:
            value = answer.value(least[0], size.id)
            text += (
                f" {_opening(answer, label(answer, least[0]))} saves less: "
                f"{size.text(value or 0.0)}."
            )
        return text
    n = min(
        (
            pair.shared
            for pair in answer.pairs.get(cost.tested or "", ())
            if pair.verdict != "untested"
        ),
        default=0,
    )
    return (
        f"No method is shown to train faster than {label(answer, lead)}: times vary too much over "
        f"{n} seeds."
    )


def _guessing(answer: PageSummary) -> str:
    below = answer.guess.below if answer.guess else ()
    if not below:
        return ""
    if len(below) == len(answer.methods):
        return "No method is shown to beat guessing."
    who = several(answer, below)
    who = capitalized(who) if answer.by_name[below[0]].base else who
    return f"{who} {'is' if len(below) == 1 else 'are'} not shown to beat guessing."


def _sure(answer: PageSummary) -> str:
    tested = [pair for pair in answer.pairs.get("score", ()) if pair.verdict != "untested"]
    if not tested:
        few = f"no two {answer.noun}s share {answer.least} {answer.over}s"
        few = (
            f"{answer.seeds} {answer.over}s are too few, {answer.least} are needed"
            if answer.ranks
            else few
        )
        return f"No: {few}." if answer.methods[1:] and not answer.untested else ""
    few = f"at most a {answer.chance:g} % chance of any wrong verdict"
    if answer.ranks:
        return f"For {answer.over}s like these: {few} over them."
    if answer.over == "row":
        rows = f" {capitalized(answer.rows_text)} are few." if 0 < answer.rows < FEW_ROWS else ""
        marked = (
            " Few rows carry some: these are less sure."
            if any(pair.uncertain for pair in tested)
            else ""
        )
        scope = f"For {answer.judged}:"
        if answer.noun == "method":
            alike = answer.seeds >= answer.least
            why = (
                "all seeds of a method score alike"
                if alike
                else "another seed may order the methods otherwise"
            )
            scope = f"Only for these trained models: {why}. For other test rows,"
        return f"{scope} {few}.{rows}{marked}"
    if (seeds := min(answer.seeds, max(pair.shared for pair in tested))) < FEW_SEEDS:
        rows = f" and {answer.rows_text}" if 0 < answer.rows < FEW_ROWS else ""
        found = any(pair.verdict == "different" for pair in tested)
        return (
            f"{'Only in part' if found else 'No'}: {seeds} seeds{rows} are few. Only large "
            f"differences show."
        )
    held = "at this budget and rates" if answer.noun == "method" else f"for {answer.judged}"
    if answer.winner("score"):
        return f"Yes, {held}: {few} here."
    unsure = (
        "between the two"
        if len(answer.top) == 2
        else "among these"
        if answer.top[1:]
        else "against all"
    )
    if untested := [
        method.name for method in answer.methods if method.name not in answer.tested_by_score
    ]:
        unsure = (
            f"for {several(answer, untested)}, which share{'s' if len(untested) == 1 else ''} too "
            f"few seeds"
        )
    return f"Not {unsure}. Verdicts hold {held}: {few} here."


def _checkpoints(answer: PageSummary) -> str:
    """Return which checkpoints are shown to beat which on other test rows, where the methods'
    verdicts are open.
    """
    beaten: dict[str, list[str]] = {}
    for pair in answer.checkpoints:
        methods = answer.pair("score", pair.a, pair.b)
        if pair.winner and not (methods and methods.winner):
            beaten.setdefault(pair.winner, []).append(pair.b if pair.winner == pair.a else pair.a)
    best_first = sorted(beaten, key=answer.number.__getitem__)
    parts = [
        (
            f"{label(answer, winner)} over "
            f"{several(answer, sorted(beaten[winner], key=answer.number.__getitem__))}"
        )
        for winner in best_first[:SHOWN_WINNERS]
    ]
    if not parts:
        return ""
    more = (
        f"; {len(best_first) - SHOWN_WINNERS} more below" if len(best_first) > SHOWN_WINNERS else ""
    )
    rows, _, these = answer.checkpoints_judged.partition(", ")
    return (
        f"Shown better on {rows}: {'; '.join(parts)}{more}. That holds for {these} "
        f"alone: other seeds may order the {answer.noun}s otherwise."
    )


def _next(answer: PageSummary) -> str:
    """Return what to do next: what decides most of what is open, else what to take."""
    if len(answer.methods) < 2 or answer.noun != "method" or answer.ranks:
        return ""
    if advice := _before_all_else(answer) or _undecided_at_the_top(answer):
        return advice
    if "neighbours" in (answer.unranked or ""):
        return "Repeat the runs one at a time to rank costs."
    return f"Take {several(answer, answer.top, 'or')}." if answer.top else ""


def _before_all_else(answer: PageSummary) -> str:
    """Return what to mend before methods are told apart; empty where nothing is in the way."""
    if answer.seeds < answer.least or not answer.tested_by_score:
        return (
            f"Run each method with the same {answer.least} seeds or more, better five (--seeds 5)."
        )
    late, trained = _late(answer)
    if len(late) > len(trained) / 2:
        return f"Train longer: {len(late)} of {len(trained)} were still improving."
    if answer.guess and len(answer.guess.below) == len(answer.methods):
        return (
            "Look at rows and labels (hpml-bench preview), then tune the rates (hpml-bench tune) "
            "or train longer: more seeds won't help while nothing beats guessing."
        )
    return ""


def _undecided_at_the_top(answer: PageSummary) -> str:
    """Return what tells the methods that may be best apart; empty where nothing is open."""
    among = (pair for pair in answer.pairs["score"] if {pair.a, pair.b} <= {*answer.top})
    opened = [pair for pair in among if pair.verdict == "undecided"]
    if not opened:
        return ""
    if answer.rows < FEW_ROWS:
        return f"Use more test rows: {answer.rows_text} leave much open."
    needs = [pair.need for pair in opened if pair.need]
    enough = f"about {min(needs):,} seeds" if needs else f"more than {answer.rows_text}"
    trained = [name for name in answer.top if not answer.by_name[name].base]
    unknown = any(answer.value(name, axis.id) is None for axis in answer.axes for name in trained)
    cheap = "" if unknown or not answer.axes else "; or take the cheapest of them"
    return f"To tell {several(answer, answer.top)} apart takes {enough}{cheap}."
