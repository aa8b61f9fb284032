"""The sentences of an answer: headline, set-up line, verdict per method, rows of a terminal; from
its numbers alone.

At most 20 words a sentence. Words: *may be best* (none is shown better), *behind* (those named are
shown better), *can't tell* (undecided), *equal* (shown to differ by less than the margin).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from hpml_bench import statistics
from hpml_bench.judge.summary import Axis, PageSummary
from hpml_bench.records.numbers import NAMED, capitalized, number, ordinal, sentence_list, with_unit
from hpml_bench.system.text import count_of

BECAUSE = {
    "oom_cuda": "out of GPU memory",
    "oom_host": "out of memory",
    "diverged": "loss not finite",
    "timeout": "time limit",
    "killed": "ended by a signal",
    "invalid": "a self-check failed",
    "failed": "ended with an error",
    "unsupported": "the method can't run with this model",
    "interrupted": "stopped by the user",
}
"""Reasons of runs that did not end well, in short."""
FAR_APART = 1.25  # factor from the least to the most of a method's runs from which both are shown
SHORT = {"time": "time", "memory": "memory", "size": "saved"}  # headers of costs in a terminal


class Verdict(NamedTuple):
    """Texts of a method's row."""

    chip: str  # badge, such as `may be best`; empty for most methods
    text: str  # relation to the others, such as `behind full; can't tell from adapter`
    more: tuple[str, ...] = ()
    """Costs in which it alone is best, such as `fastest`, and seeds where it lacks some: `3 of 5
    seeds`.
    """
    failed: str = ""  # its failed runs, such as `1 run failed`

    @property
    def in_full(self) -> str:
        return "; ".join(part for part in (self.chip, self.text, *self.more, self.failed) if part)


# The headline


def headline(answer: PageSummary) -> str:
    if not answer.methods:
        return "No run ended well, so there is nothing to compare."
    first, score = answer.methods[0].name, answer.score
    if len(answer.methods) == 1:
        return (
            f"Only {_whole(answer, first)} has comparable runs: there is nothing to compare it "
            f"with."
        )
    if answer.guess and (guessed := answer.guess.score) is not None:
        best = answer.value(first, "score")
        ahead = best is not None and (
            best > guessed if score.better == "higher" else best < guessed
        )
        beats = "is shown to beat" if ahead else "beats"
        return f"No {answer.noun} {beats} guessing ({answer.score.text(guessed)} {score.title})."
    if not answer.tested_by_score:
        return _nothing_tested(answer)
    if not answer.top:
        return f"Each {answer.noun} loses to another: none is best."
    return _several_best(answer) if answer.top[1:] else _one_best(answer, answer.top[0])


def _nothing_tested(answer: PageSummary) -> str:
    first, what = answer.methods[0].name, answer.over
    named = _whole(answer, first)
    have = f"One {what}" if answer.seeds == 1 else f"{answer.seeds} {what}s"
    ask = f"{have} can't rank {answer.noun}s: take {answer.least} or more."
    if answer.untested:
        ask = f"Nothing is tested: {answer.untested}."
    elif answer.seeds >= answer.least:
        ask = (
            f"{capitalized(answer.noun)}s that share fewer than {answer.least} {what}s can't be "
            f"ranked."
        )
    best = answer.value(first, "score")
    tied = [
        method.name
        for method in answer.methods
        if best is not None and answer.value(method.name, "score") == best
    ]
    if len(tied) > 1:
        who = capitalized(several(answer, tied)) if answer.numbered else several(answer, tied)
        return f"{who} have the {_extreme(answer)}, {score_of(answer, first)} each. {ask}"
    who = capitalized(named) if answer.by_name[first].base else named
    return f"{who} has the {_extreme(answer)}, {score_of(answer, first)}. {ask}"


def _one_best(answer: PageSummary, best: str) -> str:
    value, title = score_of(answer, best), answer.score.title
    named = _whole(answer, best)
    if answer.winner("score") != best or best != answer.methods[0].name:
        return f"No {answer.noun} is shown to beat {named}: {value} {title}."
    if answer.by_name[best].base:
        return f"No method beats the base model: {value} {title} without training."
    if won := [_won(axis)[0] for axis in answer.axes if answer.winner(axis.key) == best]:
        return f"{best} {sentence_list([f'has the {_extreme(answer)} ({value})', *won])}."
    follows = next(method.name for method in answer.methods if method.name != best)
    return (
        f"{best} scores best: {value} {title}; {_whole(answer, follows)} follows with "
        f"{score_of(answer, follows)}."
    )


def _several_best(answer: PageSummary) -> str:
    top, title = answer.top, answer.score.title
    values = [value for name in top if (value := answer.value(name, "score")) is not None]
    low, high = min(values), max(values)
    about = f"{answer.score.text(low, unit=False)} to {answer.score.text(high)}"
    if high - low <= answer.score.margin:
        rough = number(
            (low + high) / 2, f".{max(0, answer.score.digits - 1)}f"
        )  # a digit less than scores
        about = f"about {with_unit(rough, answer.score.unit)}"
    doubtful = any(map(answer.unproven, top)) or len(answer.tested_by_score) < len(answer.methods)
    if all(answer.relation("score", *pair) == "equal" for pair in combinations(top, 2)):
        others = len(answer.methods) - len(top)
        if doubtful or any(len(answer.related(name, "better")) < others for name in top):
            return f"{_top(answer, 'and')} are equal: {about} {title}. None is shown to beat them."
        return f"{_top(answer, 'and')} score best and equal: {about} {title}."
    if len(top) == 2 and not doubtful:
        first, other = (_whole(answer, name) for name in top)
        if top != tuple(
            method.name for method in answer.methods[:2]
        ):  # one between them is shown to be worse
            ahead = f"{first} has the {_extreme(answer)}, {score_of(answer, top[0])}"
            return f"{ahead}; {other}, {score_of(answer, top[1])}, isn't shown to be worse."
        if len(answer.methods) == 2:
            return f"Neither {first} nor {other} is shown better: {about} {title}."
    measured = "These rows" if answer.over == "row" else "These runs"
    return f"{_top(answer, 'or')} may be best, at {about} {title}. {measured} can't tell which."


def _top(answer: PageSummary, last: str) -> str:
    if len(answer.top) <= 4:
        return sentence_list([_whole(answer, name) for name in answer.top], last)
    return f"{len(answer.top)} of {len(answer.methods)} {answer.noun}s"


def _whole(answer: PageSummary, name: str) -> str:
    """Return a method's own name, also where sentences number methods."""
    return "the base model" if answer.by_name[name].base else name


def _extreme(answer: PageSummary) -> str:
    return f"{'highest' if answer.score.better == 'higher' else 'lowest'} {answer.score.title}"


def _won(axis: Axis) -> tuple[str, str]:
    """Return in what the method with the least cost is best: for the headline, and for its row."""
    if axis.key == "memory":
        added = axis.tested != axis.id
        return (
            ("needs least memory to train", "least memory to train")
            if added
            else ("needs least memory", "least memory")
        )
    known = {
        "time": ("trains fastest", "fastest"),
        "size": ("saves the smallest file", "smallest file"),
    }
    return known.get(
        axis.key, (f"has the lowest {axis.title.lower()}", f"lowest {axis.title.lower()}")
    )


# The set-up line


def setup_line(answer: PageSummary) -> tuple[str, ...]:
    setup = answer.setup
    host = setup.host if setup.host.endswith(" hosts") else f"host {setup.host}"
    where = f"{setup.device}, {host}" if setup.host and setup.device else setup.device
    repeated = answer.over == "seed" or (answer.noun == "method" and not answer.ranks)
    equal = any(pair.verdict == "equivalent" for pair in answer.pairs.get("score", ()))
    share = f"{100 * statistics.spent_at(answer.look, answer.declared_looks):.2g} % of the 5 %"
    looks = declares_looks(answer) or (answer.noun == "system" and answer.look > 1)
    seeds = count_of(answer.seeds, "seed") if answer.seeds and repeated else ""
    if seeds and answer.rounds:
        least = min(method.seeds for method in answer.methods)
        few = f"{least} to {seeds}" if least < answer.seeds else seeds
        most = f" of at most {answer.most_runs}" if answer.runs <= answer.most_runs else ""
        seeds = f"{few}, {answer.runs}{most} runs"
    elif seeds and answer.shared is not None:
        seeds += (
            f", means over "
            f"{f'the {answer.shared} that all share' if answer.shared else 'those of each method'}"
        )
    parts = (
        answer.rows_text if answer.methods else "",
        seeds,
        f"variance over seeds estimated with that of {setup.lent}" if setup.lent else "",
        setup.budget,
        where,
        setup.rates,
        setup.memory,
        f"equal: within {answer.margin_text}" if equal else "",
        f"{look_text(answer)}, which has {share}" if looks else "",
    )
    return tuple(part for part in parts if part)


def declares_looks(answer: PageSummary) -> bool:
    """Return whether the user declared how many looks there will be; those of a race are its
    rounds.
    """
    return answer.declared_looks > 0 and not answer.most_runs


def look_text(answer: PageSummary) -> str:
    """Return the number of the look: `look 2 of 4 declared`."""
    if not declares_looks(answer):
        return f"look {answer.look}"
    beyond = answer.look > answer.declared_looks
    return (
        f"look {answer.look}{', after the' if beyond else ' of'} {answer.declared_looks} declared"
    )


# The banner and the rows


def banner(answer: PageSummary) -> str:
    return f"{_incomplete(answer)} {answer.changed}".strip()


def _incomplete(answer: PageSummary) -> str:
    if not answer.failures:
        return answer.lacking
    why = dict.fromkeys(BECAUSE.get(failure.status, failure.status) for failure in answer.failures)
    shared = (
        f" Means use the {answer.shared} seeds that all methods share." if answer.shared else ""
    )
    failed = (
        f"{len(answer.failures)} of {count_of(answer.planned, 'run')} failed "
        f"({', '.join(why)}).{shared}"
    )
    return f"{failed} {answer.lacking}".strip()


def verdict(answer: PageSummary, name: str) -> Verdict:
    failed = sum(failure.method == name for failure in answer.failures)
    more = [_won(axis)[1] for axis in answer.axes if answer.winner(axis.key) == name]
    one = answer.by_name[name].base and answer.by_name[name].seeds == 1  # and stands for all seeds
    if (
        answer.over == "seed"
        and not one
        and (seeds := answer.by_name[name].seeds) + failed < answer.seeds
    ):
        left = any(name in of.left for of in answer.rounds)
        more.append(f"left after {seeds} seeds" if left else f"{seeds} of {answer.seeds} seeds")
    chip = ""
    if name in answer.top:
        sure = len(answer.tested_by_score) == len(answer.methods) and not answer.unproven(name)
        chip = "best" if sure and answer.winner("score") == name else "may be best"
    return Verdict(
        chip,
        _standing(answer, name),
        tuple(more),
        f"{count_of(failed, 'run')} failed" if failed else "",
    )


def _standing(answer: PageSummary, name: str) -> str:
    if "score" not in answer.by_name[name].values:
        return "not measured"
    behind, open_, equal, untested = (
        answer.related(name, how) for how in ("worse", "open", "equal", "untested")
    )
    place = answer.by_name[name].rank_range
    if not (open_ or equal or untested) and place and name not in answer.top:
        parts = [f"{ordinal(place[0])} of {len(answer.methods)}"]
    else:
        parts = [f"behind {several(answer, behind)}"] if behind else []
        parts += [f"equal to {several(answer, equal)}"] if equal else []
        parts += [f"can't tell from {several(answer, open_, 'or')}"] if open_ else []
        all_ = len(untested) == len(answer.methods) - 1
        parts += (
            ["not tested" if all_ else f"not tested against {several(answer, untested)}"]
            if untested
            else []
        )
    if answer.guess and name in answer.guess.below:
        parts.append("not shown to beat guessing")
    base = next((method.name for method in answer.methods if method.base), None)
    if (
        base and name in answer.top and base in (*untested, *behind)
    ):  # of others the sentence has told it
        parts.append("not shown to beat the base model")
    return "; ".join(parts)


# Names of methods


def score_of(answer: PageSummary, name: str) -> str:
    value = answer.value(name, "score")
    return "no score" if value is None else answer.score.text(value)


def label(answer: PageSummary, name: str) -> str:
    """Return a method's name in sentences: `no. 3` where methods are numbered, `the base model`
    where that is one.
    """
    if answer.by_name[name].base:
        return "the base model"
    return f"no. {answer.number[name]}" if answer.numbered else name


def row_name(answer: PageSummary, name: str) -> str:
    """Return a method's name for its row: `none (base model)`."""
    return f"{name} (base model)" if answer.by_name[name].base else name


def several(answer: PageSummary, names: Sequence[str], last: str = "and") -> str:
    """Return methods in words: all of up to three, else two and how many others; numbers as
    ranges.
    """
    base = [label(answer, name) for name in names if answer.by_name[name].base]
    trained = [name for name in names if not answer.by_name[name].base]
    if answer.numbered:
        runs: list[list[int]] = []
        for one in sorted(answer.number[name] for name in trained):
            if not runs or one > runs[-1][-1] + 1:
                runs.append([])
            runs[-1].append(one)
        ranges = [
            f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
        ]
        return sentence_list([*([f"no. {', '.join(ranges)}"] if ranges else []), *base], last)
    if len(names) <= NAMED:
        return sentence_list([*trained, *base], last)
    return sentence_list([*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"], last)


# The rows in a terminal


def cells(answer: PageSummary) -> list[list[str]]:
    """Return the rows of a table in a terminal, its header first: method, score, costs, verdict."""
    costs = (
        SHORT.get(axis.key, axis.title.lower()) + ("" if axis.own_units else f" {axis.unit}")
        for axis in answer.axes
    )
    rows = [[answer.noun, with_unit(answer.score.title, answer.score.unit), *costs, "verdict"]]
    for position, name in enumerate((method.name for method in answer.methods), 1):
        score, shown = answer.value(name, "score"), row_name(answer, name)
        rows.append(
            [
                f"{position:2} {shown}" if answer.numbered else shown,
                "-" if score is None else answer.score.text(score, unit=False),
                *(_cost_cell(answer, name, axis) for axis in answer.axes),
                verdict(answer, name).in_full,
            ]
        )
    return rows


def _cost_cell(answer: PageSummary, name: str, axis: Axis) -> str:
    """Return a method's mean cost, with its least and most where its runs lie far apart: one
    number would hide that the machine did other work beside some of them.
    """
    values = answer.by_name[name].values.get(axis.id)
    if values is None:
        return "-"
    text = axis.text(values.mean, unit=False)
    if len(values.runs) < 2 or max(values.runs) <= FAR_APART * min(values.runs):
        return text
    least, most = (
        axis.text(end, unit=False, mean=values.mean) for end in (min(values.runs), max(values.runs))
    )
    return f"{text} ({least} to {most})"
