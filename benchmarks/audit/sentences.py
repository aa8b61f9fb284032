"""Every sentence: its pattern, and what it must say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from audit import jobs
from audit.figures import figure
from audit.head import head
from audit.page import Audit
from audit.runs import Run, most
from audit.study import TIME, Study
from audit.takeaways import UnreadError, between, front, guessing, leader, under_trained
from audit.times import PHASES, marks, pause, timed_runs, too_short
from audit.values import BOLD, BOLDS, NUMBER, Atom, Fact
from audit.words import metric_in


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


def protocol(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the id of the compared runs' protocol."""
    yield "protocol", found[1], study.shown_protocol((study.compared or study.runs)[-1], found[1])


Says = Callable[[Study, "re.Match[str]"], Iterator[Fact]]


def groups(expected: Callable[[Study], Sequence[Atom]]) -> Says:
    """Return a check of a sentence's groups."""

    def says(study: Study, found: re.Match[str]) -> Iterator[Fact]:
        for place, (shown, value) in enumerate(zip(found.groups(), expected(study), strict=True), 1):
            yield f"figure {place}", shown, value

    return says


SENTENCES: tuple[tuple[str, Says], ...] = (
    (
        rf"(?:No method is shown to be better by [^*]+ than (?P<first>{BOLDS})"
        rf"(?:, which has (?P<mean>{NUMBER})[ %\w]*?"
        r"(?: over (?P<over>the \d+ seeds that all methods share))?)?"
        rf"(?:, as has (?P<same>{BOLDS}))?(?=[;.])"
        r"|(?P<second>\*\*[^*]+\*\*) (?:has the (?P<extreme>\w+) mean [^:]+|trained fastest|needed the least memory)"
        rf"(?: on average)?: (?P<value>{NUMBER})(?: [^\s;,.]+)?)",
        leader,
    ),
    (r"The Pareto front over (?P<metrics>[^:]+): (?P<places>.*)", front),
    (r"(?P<metrics>[^:*]+ against [^:]+): (?P<places>(?:the places|on |off |undecided ).*)", front),
    (
        rf"(?:Guessing the most frequent class gets (?P<share>{NUMBER}) % of the test rows right \(macro-F1 "
        rf"(?P<f1>{NUMBER})\); chance is (?P<chance>{NUMBER}) %\."
        rf"|Guessing the mean of the test rows, (?P<mean>{NUMBER}), for each of them has an RMSE of "
        rf"(?P<rmse>{NUMBER})\."
        rf"|Tagging nothing gets (?P<words>{NUMBER}) % of the words of the test rows right and finds no entity: its F1 "
        r"is 0\.|An empty answer scores 0\.|An answer that is none of the choices scores 0\."
        rf"|Guessing every token by how often it occurs in these rows has a loss of (?P<tokens>{NUMBER}) nats/token\.)"
        r"(?: Not shown to be better than that[^:]*: (?P<low>.+)\.)?$",
        guessing,
    ),
    (
        r"Under-trained: the validation loss was lowest at the last step, and over 2 % below .* for (.*); with more "
        r"steps ranks may turn\.$",
        groups(lambda study: [under_trained(study)]),
    ),
    (rf"(\w[^*]*) lies between ({NUMBER})[^*()]* \({BOLD}\) and ({NUMBER})[^*()]* \({BOLD}\); no pair has", between),
    (
        r"Methods lack seeds in ([^:]+): .* and each mean is over (the \d+ that all share|its method's own seeds)",
        lack_seeds,
    ),
    (
        r"Costs are of the runs in the environment that most share; (\d+) of (\d+) compared runs ran on other hardware",
        groups(lambda study: [len(elsewhere(study)), len(study.compared)]),
    ),
    (
        r"(?:Methods are not ranked by costs: )?(\d+) of (\d+) compared runs had neighbours",
        groups(lambda study: [len(study.beside), len(study.compared)]),
    ),
    (
        r"Better and equivalent are verdicts of one family of (\d+) tested pairs: .* held to 5 %\. Scores .* later "
        r"steps ask less\.(?: (\d+) seeds are few.*)?$",
        groups(lambda study: [study.tested, few_seeds(study)]),
    ),
    (
        r"No method is called better than another: the runs have (one seed|\d+ seeds), and a verdict needs",
        groups(lambda study: [{1: "one seed"}.get(n := len({run.seed for run in study.compared}), f"{n} seeds")]),
    ),
    (r"Of uncertain level: ", uncertain),
    (r"([†§¶]) (.*%.*)", unsteady),
    (rf"Only {BOLD} has comparable runs", groups(lambda study: [", ".join(study.methods)])),
    (r"(Every run) that ended well was set apart", groups(lambda study: ["" if study.compared else "Every run"])),
    (r"(\d+) compared runs were done by (\d+) jobs? of .* on (\d+) hosts?\.$", groups(jobs.counts)),
    (r"(?:!\[Gantt chart of the jobs\. )?(\d+) jobs?(?:, summed)?: ", jobs.sums),
    (r"\*\*Model:\*\*", head),
    (r"!\[(?P<kind>[^:;]*?)[:.] (?:Best: )?(?P<body>.*)\]\([^()]+\)$", figure),
    (r"(.+) lacks seeds? ([\d, ]+)\.$", lacking),
    (r"Means of (.+) are over (seeds [\d, ]+|each method's own seeds)\.$", over_which),
    (rf"Training and evaluation are ({NUMBER}) % of it\.", groups(lambda study: [training_share(study)])),
    (r"p99 of (\d+) examples", groups(lambda study: [study.compared[0].settings["latency_samples"]])),
    (rf"For other seeds on these ({NUMBER}) test rows alone", groups(lambda study: [len(study.compared[0].scores)])),
    (
        rf"Better: p \(Holm\) below 5 %.* difference of ({NUMBER})(?: \S+)? of a score, ({NUMBER}) % of a cost or more"
        r".* all (\d+) pairs",
        groups(lambda study: [score_margin(study), 100 * study.margin(TIME), study.tested]),
    ),
    (
        r"The compared runs come from (\d+) env",
        groups(lambda study: [len({run.environment for run in study.compared})]),
    ),
    (r"Protocol (\w+): runs are compared only", protocol),
    (
        r"Rates were tried on the (\d+) validation rows, never on the test rows: (\d+) trials a method",
        groups(
            lambda study: [
                study.tuning.rows or study.runs[-1].settings["validation_samples"],
                most(map(len, study.tuning.trials.values()), int),
            ]
        ),
    ),
)


def check_line(audit: Audit, section: str, text: str, study: Study) -> None:
    """Check what a line says; a takeaway that is not understood is named."""
    matches = ((says, re.match(pattern, text, re.IGNORECASE)) for pattern, says in SENTENCES)
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
