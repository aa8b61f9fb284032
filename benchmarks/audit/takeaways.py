"""Takeaways: who leads, the front, guessing, under-trained runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from audit.rows import flat, most_frequent
from audit.runs import nowhere
from audit.scores import could_have_found, deciding, difference_cells
from audit.statistics import Pair
from audit.study import Study
from audit.values import BOLD, BOLDS, INTERVAL, NUMBER, Fact
from audit.words import listed, metric_in


class UnreadError(Exception):
    """A sentence, or a part of it, that is not understood."""


def leader(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Who leads by a metric, with what mean, and how each other method stands to it."""
    metric, rest = metric_in(study, re.sub(BOLD, "", found[0])), found.string[found.end() :]
    name, better = study.named(found[0])[0], study.sign(metric)
    measured = study.measured(metric)
    yield from leads(study, metric, name, found)
    ties = [n for n in measured if n != name and study.mean(metric, n) == study.mean(metric, name)]
    even = metric not in lacking_metrics(study)
    yield "as has", str(study.named(found["same"]) if found["same"] else []), str(ties if even else [])
    if "which has" in found[0] or found["value"]:
        yield "mean", found["mean"] or found["value"], study.mean(metric, name) * study.scale(metric)
    if word := found["extreme"]:
        yield "direction", word, "highest" if better > 0 else "lowest"
    if found["over"]:
        n = len(study.shared(metric))
        yield "seeds", found["over"], f"the {n} seeds that all methods share" if n > 2 else "its own seeds"
    pairs = {other: study.pair(metric, name, other) for other in measured if other != name}
    shown: dict[str, list[str]] = {}
    if part := re.search(
        rf"Equivalent to (?:it|them): ([^()]+(?:\(\w+=[^()]*\)[^()]*)*) \(within ({NUMBER})[^()]*\)", rest
    ):
        shown["equivalent"], rest = study.named(part[1]), rest.replace(part[0], "")
        yield "margin", part[2], (study.scale(metric) if metric == study.score else 100) * study.margin(metric)
    if part := re.search(rf"{BOLD} is not tested against (.+?)[:,] that takes 3 shared seeds", rest):
        shown["not tested"], rest = study.named(part[2]), rest.replace(part[0], "")
    if part := re.search(
        rf" Ranked is what training adds; .* is ({NUMBER}) \({BOLD}\) to ({NUMBER}) MB \({BOLD}\)\.", rest
    ):
        rest = rest.replace(part[0], "")
        peaks = {n: study.mean("peak_memory_mb", n) for n in study.measured("peak_memory_mb")}
        for value, whose, end in ((part[1], part[2], min), (part[3], part[4], max)):
            yield "whole peak", value, end(peaks.values())
            yield f"whole peak of {whose}", value, peaks[whose]
    if part := re.search(rf"Not measured there: ({BOLDS})", rest):
        shown["not measured"], rest = study.named(part[1]), rest.replace(part[0], "")
    elsewhere = [other for other in study.methods if other not in measured]
    yield "not measured", str(shown.get("not measured", [])), str(elsewhere)
    for part in re.finditer(rf"{BOLD} \((\d+) seeds could have found ([^;]+); ([^()]+?) would decide([^()]*)\)", rest):
        shown.setdefault("undecided", []).append(part[1])
        yield from undecided(study, study.pair(metric, name, part[1]), part)
        rest = rest.replace(part[0], "")
    note = rf"(?: as (?:long|much) as {re.escape(f'**{name}**')})?( \((?:a difference )?within [^()]*\))?"
    for part in re.finditer(rf"{BOLD}(?: by| took)? ({NUMBER})(?: [^\s\[]+)? {INTERVAL}{note}", rest):
        shown.setdefault("better", []).append(part[1])
        yield from claimed(study.pair(metric, name, part[1]), name, part)
        rest = rest.replace(part[0], "")
    for kind in ("better", "equivalent", "undecided", "not tested"):
        stand = {other: "better" if pair.better == name else pair.verdict for other, pair in pairs.items()}
        expected = sorted(other for other, how in stand.items() if how == kind)
        yield kind, str(sorted(shown.get(kind, []))), str(expected)
    none = f"**{name}** is not shown to be better than any other"
    yield "says that it beats none", str(none in rest), str(not shown.get("better"))
    won = f"**{name}** is better than"
    if rest := re.sub(r"Undecided against|\band\b|[;:,.\s]", "", rest.replace(none, "").replace(won, "")):
        raise UnreadError(rest)


def leads(study: Study, metric: str, name: str, found: re.Match[str]) -> Iterator[Fact]:
    """Yield whether a method is the first: the best of those that are tested and not shown to be worse than another."""
    better, measured = study.sign(metric), study.measured(metric)
    met = {
        n for key, pair in study.pairs.items() if key[0] == metric and pair.n >= 3 for n in (pair.first, pair.second)
    }
    unbeaten = [n for n in measured if n in met and not any(study.better(metric, o, n) for o in measured if o != n)]
    best = max(better * study.mean(metric, n) for n in unbeaten)
    own_seeds = metric in lacking_metrics(study) and len(study.shared(metric)) < 3
    if own_seeds:
        wins = {n: sum(study.better(metric, n, o) for o in measured if o != n) for n in unbeaten}
        open_ = [n for n in measured if not any(study.better(metric, o, n) for o in measured if o != n)]
        yield "unbeaten", str(sorted(study.named(found["first"] or found["second"]))), str(sorted(open_))
        yield "wins", str(wins.get(name)), str(max(wins.values()))
    alike = [n for n in unbeaten if own_seeds or math.isclose(better * study.mean(metric, n), best, rel_tol=1e-12)]
    yield "leader", str(name in alike), "True"


def claimed(pair: Pair, name: str, part: re.Match[str]) -> Iterator[Fact]:
    """Yield what is said in "A by 3.0 points [1.1, 5.0]" or "A took 1.86 times [1.72, 2.02] that".

    A lead is said as a positive number, also where lower is better.
    """
    other = pair.second if pair.first == name else pair.first
    ahead = name if pair.scale is not None and pair.sign > 0 else other
    difference, bounds = difference_cells(pair, ahead, pair.comparison)
    low, high = sorted(bounds or (math.nan, math.nan))
    for label, shown, value in zip(
        ("difference", "low", "high"), part.groups()[1:4], (difference, low, high), strict=True
    ):
        yield f"{label} to {part[1]}", shown, value
    yield f"margin to {part[1]}", str(bool(part[5])), str(pair.equivalent)


def undecided(study: Study, pair: Pair, part: re.Match[str]) -> Iterator[Fact]:
    """Yield what is said in "A (5 seeds could have found 3.6 points; 9 would decide)"."""
    yield f"seeds with {part[1]}", part[2], pair.n
    least = re.match(NUMBER, part[3])
    yield f"could have found of {part[1]}", least[0] if least else "none", could_have_found(study, pair)
    yield (
        f"to decide {part[1]}",
        part[4].replace("about ", "").replace("no number of seeds up to 10,000", "none"),
        deciding(study, pair),
    )
    if rows := re.search(r"on ([\d,]+ test rows.*)", part[5]):
        yield "test rows", rows[1], study.rows


def front(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield each method's place towards the Pareto front over the metrics that are named."""
    metrics = [metric_in(study, name) for name in re.split(r", | and | against ", found["metrics"])]
    places = {name: study.place(name, metrics) for name in study.methods}
    if "places of all methods are undecided" in found["places"]:
        yield "places", "undecided", ", ".join({place for place, _ in places.values()})
        return
    shown = dict.fromkeys(study.methods, "–")
    for part in found["places"].rstrip(".").split("; "):
        word = next(word for word in ("off", "on", "undecided", "not placed") if part.startswith(word))
        text = part
        for dominated in re.finditer(r" \(dominated by ((?:[^()]|\([^()]*\))+)\)", part):
            name = study.named(part[: dominated.start()])[-1]
            yield f"dominates {name}", str(study.named(dominated[1])), str(places[name][1])
            text = text.replace(dominated[0], "")
        shown |= dict.fromkeys(study.named(text), "–" if word == "not placed" else word)
    for name, (place, _) in places.items():
        yield name, shown[name], place


def guessing(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield what guessing gives, and in the takeaways who is not shown to be better than it."""
    run = study.compared[0]
    reference, names = run.predictions["reference"], run.record["label_names"]
    if found["share"]:
        share = most_frequent(reference)[1]
        yield "share", found["share"], 100 * share
        yield "macro-F1", found["f1"], 2 * share / (1 + share) / len(names)
        yield "chance", found["chance"], 100 / len(names)
    elif found["mean"]:
        yield "mean", found["mean"], float(reference.mean())
        yield "RMSE", found["rmse"], study.guess.chance
    elif found["tokens"]:
        yield "loss of guessing", found["tokens"], study.guess.chance
    elif found["words"]:
        outside = [index for index, name in enumerate(names) if name == "O"]
        yield "share", found["words"], 100 * float(np.isin(flat(reference), outside).mean())
    if found["above"]:
        yield "better by the rows alone", str(study.named(found["above"])), str(above_by_rows_alone(study))
    if found["low"]:
        yield "not shown to be better", str(study.named(found["low"])), str(no_better_than_guessing(study))


def no_better_than_guessing(study: Study) -> list[str]:
    """Return the methods that are not shown to be better than guessing."""
    return [name for name in study.methods if above_guessing(study, name) == (False, False)]


def above_by_rows_alone(study: Study) -> list[str]:
    """Return the methods that the test rows alone show to be better than guessing, and other seeds don't."""
    return [name for name in study.methods if above_guessing(study, name) == (False, True)]


def above_guessing(study: Study, name: str) -> tuple[bool, bool]:
    """Return whether a method is shown to be better than guessing over seeds and rows, and in each run over rows."""
    level, p = study.level("guess", study.looks), study.adjusted("guess")
    return p.get(f"{name} over seeds", 1.0) < level, p[f"{name} in each run"] < level


def failures(study: Study) -> str:
    """Return which methods have runs that ended otherwise than well under the compared settings, and how."""
    run = (study.compared or study.runs)[-1]
    ended: dict[str, list[str]] = {}
    for other in study.runs:
        status = other.record["status"]
        if status not in {"ok", "interrupted", "unsupported"} and nowhere(other.settings) == nowhere(run.settings):
            ended.setdefault(str(other.spec["name"]), []).append(status)
    well = [str(other.spec["name"]) for other in study.compared]
    parts = [
        f"{bold(study, name)} in {len(of)} of {len(of) + well.count(name)} runs "
        f"({', '.join(f'{status}: {of.count(status)}' for status in sorted(set(of)))})"
        for name, of in ended.items()
    ]
    return listed(parts)


def bold(study: Study, name: str) -> str:
    """Return a method's name as the page prints it: bold where it is compared."""
    return f"**{name}**" if name in study.methods else name


def under_trained(study: Study) -> str:
    """Return the methods with a run whose validation loss is lowest at last and fell by over 2 %."""
    parts = []
    for name, runs in study.methods.items():
        losses = [[value for _, value in sorted(run.series("validation_loss").items())] for run in runs]
        count = sum(len(loss) > 1 and loss[-1] == min(loss) and loss[-1] < 0.98 * loss[-2] for loss in losses)
        parts += [f"**{name}** ({count} of {len(runs)} runs)"] if count else []
    return listed(parts)


def between(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield between which means a metric lies where no pair is tested."""
    metric = metric_in(study, found[1])
    means_ = {name: study.mean(metric, name) * study.scale(metric) for name in study.measured(metric)}
    for shown, name, end in zip(found.groups()[1::2], found.groups()[2::2], (min, max), strict=True):
        yield "end", shown, end(means_.values())
        yield f"mean of {name}", shown, means_[name]
    yield "tested pairs", "0", sum(pair.n >= 3 for pair in study.pairs.values() if pair.metric == metric)


def lacking_metrics(study: Study) -> list[str]:
    """Return the metrics in which methods lack seeds that others have."""
    return [m for m in study.metrics if len({tuple(values) for values in study.by_seed(m).values() if values}) > 1]
