"""Every sentence: its pattern, and what it must say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from audit import answers, jobs, tuning
from audit.figures import figure
from audit.head import head
from audit.page import Audit
from audit.runs import Run
from audit.statistics import Pair
from audit.study import TIME, Study
from audit.takeaways import UnreadError, between, failures, front, guessing, lacking_metrics, leader, under_trained
from audit.times import PHASES, marks, pause, targets, timed_runs, too_short
from audit.values import BOLD, BOLDS, NUMBER, Atom, Fact
from audit.words import listed, metric_in


def unsteady(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield which runs bear a mark, and why; of windows too short to tell the methods."""
    if found[1] == "§":
        for name, runs in study.methods.items():
            interval = too_short([run for run in runs if run in study.home])
            clause = re.search(rf"(?<!\S){re.escape(name)} \(([^()]*)\)", found[2])
            yield f"windows of {name}", str(clause is not None), str(interval is not None)
            if clause and interval and not math.isnan(interval[0]):
                drift_of = (
                    rf"drift \[\+?({NUMBER}) %, \+?({NUMBER}) %\] over its runs",
                    [100 * end for end in interval],
                )
                yield f"drift of {name}", clause[1], drift_of
        return
    for name, runs in study.methods.items():
        marked = {str(run.seed): run for run in runs if run in study.home and found[1] in marks(run)}
        part = re.search(rf"(?<!\S){re.escape(name)} \(((?:seed|\d)[^()]*)\)", found[2])
        said = dict(re.findall(r"seed (\d+): ([^;]+)", part[1] if part else ""))
        yield f"seeds of {name}", ", ".join(said), ", ".join(marked)
        for seed, run in marked.items():
            ends = [100 * (run.metric(f"step_time_drift_{end}") or math.nan) for end in ("low", "high")]
            drifting = (rf"drift \[\+?({NUMBER}) %, \+?({NUMBER}) %\]", ends)
            paused = (rf"one step took about ({NUMBER}) % of the time", [100 * pause(run)])
            if found[1] == "¶" or not math.isnan(ends[0]):
                yield f"{name}, seed {seed}", said.get(seed), paused if found[1] == "¶" else drifting


def uncertain(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the methods whose difference is claimed though the noise is skewed and of unequal spread."""
    claims = [pair for pair in study.pairs.values() if pair.erratic and (pair.better or pair.equivalent)]
    expected = sorted({name for pair in claims for name in (pair.first, pair.second)})
    yield "methods", str(sorted(set(study.named(found.string)))), str(expected)


def over_which(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield over which seeds the means of some metrics are."""
    titles = {kept["title"].casefold(): name for name, kept in study.definitions.items()}
    for title in re.split(r", | and ", found[1]):
        shared = study.shared(titles[title.casefold()])
        which = f"seeds {', '.join(map(str, shared))}" if len(shared) > 2 else "each method's own seeds"
        yield title, found[2], which


def lacking(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield which seeds a method lacks."""
    seeds = {run.seed for run in study.compared} - {run.seed for run in study.methods[found[1]]}
    yield "seeds", found[2], ", ".join(map(str, sorted(seeds)))


def lack_seeds(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield over how many seeds the means of the metrics are in which methods lack some."""
    for name in re.split(r", | and ", found[1]):
        n = len(study.shared(metric_in(study, name)))
        yield name, found[2], f"the {n} that all share" if n > 2 else "its method's own seeds"


def elsewhere(study: Study) -> list[Run]:
    """Return the compared runs in other environments than the one that costs are of."""
    here = {run.environment for run in study.home}
    return [run for run in study.compared if run.environment not in here]


def cut_and_empty(study: Study) -> str:
    """Return which methods have answers that were cut before they said anything, and the mean share in %."""
    shares = {
        name: float(np.mean([answers.cut_and_empty(run.predictions) for run in runs]))
        for name, runs in study.methods.items()
    }
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items() if share)


def few_seeds(study: Study) -> str:
    """Return the fewest seeds of a tested pair, where they are under five."""
    least = min((pair.n for pair in study.pairs.values() if pair.n >= 3), default=9)
    return str(least) if least < 5 else ""


def training_share(study: Study) -> float:
    """Return the share of wall time that training and evaluation took, in %."""
    spent = sum(run.metric(name) or 0.0 for run in timed_runs(study) for name in PHASES[1:])
    return 100 * spent / sum(float(run.record["seconds"]) for run in timed_runs(study))


def score_margin(study: Study) -> float:
    """Return the margin of a score as it is shown."""
    return study.scale(study.score) * study.margin(study.score)


LATE = " A time limit ends the slow runs, so that costs of the others are too low."


def named_hosts(study: Study) -> str:
    """Return the hosts that costs are of, the first eight of many."""
    return listed([*study.hosts[:8], *([f"{len(study.hosts) - 8} more"] if len(study.hosts) > 8 else [])])


def whose_costs(study: Study) -> str:
    """Return for which hosts claims on costs hold; none where costs rank nothing."""
    if not study.ranked:
        return ""
    if not study.hosts:
        return "this machine (taken as one: not every record names its host)"
    return named_hosts(study) + (", where the runs of a seed share theirs" if len(study.hosts) > 1 else "")


def pairs(study: Study) -> Iterable[Pair]:
    """Return all pairs."""
    return study.pairs.values()


def has_pairs(study: Study) -> bool:
    """Whether there is a table of pairs: of two methods and two seeds, of which two methods share one."""
    shared = any(pair.n for pair in pairs(study) if pair.metric == study.score)
    return len(study.methods) > 1 and shared and len({run.seed for run in study.compared}) > 1


def has_front(study: Study) -> bool:
    """Whether the takeaways say who is on the front."""
    return (
        study.ranked
        and len(study.methods) > 1
        and any(study.place(name, study.metrics)[0] in {"on", "off"} for name in study.methods)
    )


def seeds_of(runs: list[Run]) -> frozenset[int]:
    """Return the seeds of runs."""
    return frozenset(run.seed for run in runs)


def protocol(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the id of the compared runs' protocol."""
    yield "protocol", found[1], (study.compared or study.runs)[-1].protocol_id


Says = Callable[[Study, "re.Match[str]"], Iterator[Fact]]


def groups(expected: Callable[[Study], Sequence[Atom]]) -> Says:
    """Return a check of a sentence's groups."""

    def says(study: Study, found: re.Match[str]) -> Iterator[Fact]:
        for place, (shown, value) in enumerate(zip(found.groups(), expected(study), strict=True), 1):
            yield f"figure {place}", shown, value

    return says


When = Callable[[Study], bool] | None
"""Whether a page must have a sentence; None where that isn't recomputed."""
SENTENCES: tuple[tuple[str, Says, When], ...] = (
    (
        rf"(?:No method is shown to be better by [^*]+ than (?P<first>{BOLDS})"
        rf"(?:, which has (?P<mean>{NUMBER})[ %\w]*?"
        r"(?: over (?P<over>the \d+ seeds that all methods share))?)?"
        rf"(?:, as has (?P<same>{BOLDS}))?(?=[;.])"
        r"|(?P<second>\*\*[^*]+\*\*) (?:has the (?P<extreme>\w+) mean [^:]+|trained fastest|needed the least memory"
        r"|added the least memory over set-up)"
        rf"(?: on average)?: (?P<value>{NUMBER})(?: [^\s;,.]+)?)",
        leader,
        lambda study: study.tested > 0,
    ),
    (r"The Pareto front over (?P<metrics>[^:]+): (?P<places>.*)", front, has_front),
    (
        r"(?P<metrics>[^:*]+ against [^:]+): (?P<places>(?:the places|on |off |undecided ).*)",
        front,
        lambda study: study.ranked and len(study.methods) > 1,
    ),
    (
        rf"(?:Guessing the most frequent class gets (?P<share>{NUMBER}) % of the test rows right \(macro-F1 "
        rf"(?P<f1>{NUMBER})\); chance is (?P<chance>{NUMBER}) %\."
        rf"|Guessing the mean of the test rows, (?P<mean>{NUMBER}), for each of them has an RMSE of "
        rf"(?P<rmse>{NUMBER})\."
        rf"|Tagging nothing gets (?P<words>{NUMBER}) % of the words of the test rows right and finds no entity: its F1 "
        r"is 0\.|An empty answer scores 0\.|An answer that is none of the choices scores 0\."
        rf"|Guessing every token by how often it occurs in these rows has a loss of (?P<tokens>{NUMBER}) nats/token\.)"
        r"(?: Better than that in each of their runs, by the test rows alone: (?P<above>[^.]+)\.)?"
        r"(?: Not shown to be better than that: (?P<low>.+)\.)?$",
        guessing,
        lambda study: bool(study.compared),
    ),
    (
        r"Under-trained: the validation loss was lowest at the last step, and over 2 % below .* for (.*); with more "
        r"steps ranks may turn\.$",
        groups(lambda study: [under_trained(study)]),
        lambda study: len(study.methods) > 1 and bool(under_trained(study)),
    ),
    (
        r"Runs that ended otherwise than well: (.*)\. Claims hold for runs that end well: [^.]*\."
        r"( A time limit ends the slow runs, so that costs of the others are too low\.)?$",
        groups(lambda study: [said := failures(study), LATE if "timeout" in said else ""]),
        lambda study: bool(study.compared) and bool(failures(study)),
    ),
    (
        rf"(\w[^*]*) lies between ({NUMBER})[^*()]* \({BOLD}\) and ({NUMBER})[^*()]* \({BOLD}\); no pair has",
        between,
        None,
    ),
    (
        r"Methods lack seeds in ([^:]+): .* and each mean is over (the \d+ that all share|its method's own seeds)",
        lack_seeds,
        lambda study: len(study.methods) > 1 and bool(lacking_metrics(study)),
    ),
    (
        r"Costs are of the runs in the environment that most share; (\d+) of (\d+) compared runs ran on other hardware",
        groups(lambda study: [len(elsewhere(study)), len(study.compared)]),
        lambda study: len(study.methods) > 1 and bool(elsewhere(study)),
    ),
    (
        r"(\d+) of (\d+) compared runs ran on another host than the runs of their seed",
        groups(lambda study: [len(study.astray), len(study.compared)]),
        lambda study: len(study.methods) > 1 and study.ranked and bool(study.astray),
    ),
    (
        r"Methods are not ranked by costs: the runs of a seed were spread over hosts(?: \(([^()]*)\))?, and",
        groups(lambda study: [named_hosts(study)]),
        lambda study: len(study.methods) > 1 and study.over_hosts,
    ),
    (
        r"(?:Methods are not ranked by costs: )?(\d+) of (\d+) compared runs had neighbours",
        groups(lambda study: [len(study.beside), len(study.compared)]),
        lambda study: len(study.methods) > 1 and bool(study.beside),
    ),
    (
        r"Better and equivalent are verdicts of one family of (\d+) tested pairs: .* on this page(?: and .* \(look "
        r"(\d+),.*\))? is held to 5 %\. Scores [^;]*?(?:, costs for other seeds on ([^;]*))?; .* later steps ask less\."
        r"(?: (\d+) seeds are few.*)?$",
        groups(
            lambda study: [study.tested, study.looks if study.looks > 1 else "", whose_costs(study), few_seeds(study)]
        ),
        lambda study: study.tested > 0,
    ),
    (
        r"No method is called better than another: the runs have (one seed|\d+ seeds), and a verdict needs",
        groups(lambda study: [{1: "one seed"}.get(n := len({run.seed for run in study.compared}), f"{n} seeds")]),
        lambda study: len(study.methods) > 1 and study.tested == 0,
    ),
    (
        r"Of uncertain level: ",
        uncertain,
        lambda study: any(p.erratic and (p.better or p.equivalent) for p in pairs(study)),
    ),
    (r"([†§¶]) (.*%.*)", unsteady, None),
    (
        rf"Only {BOLD} has comparable runs",
        groups(lambda study: [", ".join(study.methods)]),
        lambda study: len(study.methods) == 1,
    ),
    (
        r"(Every run) that ended well was set apart",
        groups(lambda study: ["" if study.compared else "Every run"]),
        lambda study: not study.compared and bool(study.apart),
    ),
    (
        r"(\d+) compared runs were done by (\d+) jobs? of .* on (\d+) hosts?\.$",
        groups(jobs.counts),
        lambda study: any(map(jobs.place, study.compared)),
    ),
    (r"(?:!\[Gantt chart of the jobs\. )?(\d+) jobs?(?:, summed)?: ", jobs.sums, None),
    (r"\*\*Model:\*\*", head, lambda _: True),
    (r"!\[(?P<kind>[^:;]*?)[:.] (?:Best: )?(?P<body>.*)\]\([^()]+\)$", figure, None),
    (r"(.+) lacks seeds? ([\d, ]+)\.$", lacking, lambda study: len({*map(seeds_of, study.methods.values())}) > 1),
    (r"Means of (.+) are over (seeds [\d, ]+|each method's own seeds)\.$", over_which, None),
    (
        rf"Training and evaluation are ({NUMBER}) % of it\.",
        groups(lambda study: [training_share(study)]),
        lambda study: bool(timed_runs(study)),
    ),
    (r"p99 of (\d+) examples", groups(lambda study: [study.compared[0].settings["latency_samples"]]), None),
    (
        r"For other seeds on these ([\d,]+ test rows[^:]*) alone",
        groups(lambda study: [study.rows]),
        has_pairs,
    ),
    (
        r"There are ([\d,]+ test rows in [\d,]+ groups), whose rows are tested",
        groups(lambda study: [study.rows]),
        lambda study: bool(study.compared) and "group" in study.compared[0].predictions,
    ),
    (
        rf"Better: p \(Holm\) below 5 %.* difference of ({NUMBER})(?: \S+)? of a score, ({NUMBER}) % of a cost or more"
        r".* all (\d+) tested pairs .* look (\d+) at",
        groups(lambda study: [score_margin(study), 100 * study.margin(TIME), study.tested, study.looks]),
        has_pairs,
    ),
    (
        r"The compared runs come from (\d+) env",
        groups(lambda study: [len({run.environment for run in study.compared})]),
        lambda study: len({run.environment for run in study.compared}) > 1,
    ),
    (r"Protocol (\w+): runs are compared only", protocol, lambda _: True),
    (
        r"Rates were tried on (?P<rows>[\d,]+) validation rows"
        r"(?:, never on the test rows|(?P<other> of other data, which may hold test rows of these runs)): "
        r"(?P<trials>\d+) trials a method",
        tuning.tried,
        lambda study: any(study.tuning.trials.values()),
    ),
    (
        r"The tuning did not start from what these runs did: by their digests, other (.*)\.$",
        groups(lambda study: [listed(tuning.other_starts(study))]),
        lambda study: any(study.tuning.trials.values()) and bool(tuning.other_starts(study)),
    ),
    (
        r"The tuning's settings were not those of these runs: (.*) differ\.$",
        groups(lambda study: [listed(tuning.other_settings(study))]),
        lambda study: any(study.tuning.trials.values()) and bool(tuning.other_settings(study)),
    ),
    (
        r"These runs had other options than the tuning's trials: (.*)\.$",
        groups(lambda study: [tuning.other_options(study)]),
        None,
    ),
    (
        r"Share of the test rows whose answer was cut before anything that is scored, .* counts as empty: (.*)\. A ",
        groups(lambda study: [cut_and_empty(study)]),
        lambda study: bool(cut_and_empty(study)),
    ),
    (
        r"No target is given: on ([\d,]+) validation rows the best mean",
        groups(lambda study: [study.validation_rows]),
        None,
    ),
    (
        r"Scores are of ([\d,]+) validation rows\. Targets lie .* to the best mean",
        groups(lambda study: [study.validation_rows]),
        lambda study: bool(study.compared) and bool(targets(study)),
    ),
)


def check_rules(audit: Audit, lines: list[tuple[str, str]], study: Study) -> None:
    """Check of every rule that some line is told by it where the page must have such a line, and none elsewhere.

    A sentence that was reworded would else pass unread.
    """
    for pattern, _, when in SENTENCES:
        if when is not None:
            told = any(rule(text) == pattern for _, text in lines)
            audit.check("Sentences", "rules", pattern[:60], ("told", str(told), str(bool(when(study)))))


def rule(text: str) -> str | None:
    """Return the pattern of the rule that a line is told by; None of a line that no rule knows."""
    return next((pattern for pattern, *_ in SENTENCES if re.match(pattern, text, re.IGNORECASE)), None)


def check_line(audit: Audit, section: str, text: str, study: Study) -> None:
    """Check what a line says; a takeaway that is not understood is named."""
    matches = ((says, re.match(pattern, text, re.IGNORECASE)) for pattern, says, _ in SENTENCES)
    says, found = next(((says, found) for says, found in matches if found), (None, None))
    if says and found:
        try:
            for fact in says(study, found):
                audit.check(section, "text", text[:60], fact)
        except (UnreadError, LookupError, ValueError, RuntimeError) as error:
            audit.unchecked[f"{section} | text | {text[:60]}: not understood: {error!r}"] += 1
    elif section == "Key takeaways":
        audit.unchecked[f"{section} | text | {text}: not a known sentence"] += 1
    elif re.search(r"\d", text):
        audit.passed_over.append(f"{section}: {text}")
