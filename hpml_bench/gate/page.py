"""Headline, facts, tables and page of a report: what every output shows, made once so that they can't disagree."""

from __future__ import annotations

from collections.abc import Sequence

from hpml_bench.gate import drawings
from hpml_bench.gate.records import CheckReport, Side, Verdict
from hpml_bench.gate.verdicts import STEP_TIME, amount, grown, interval, of_step_time, overall, percent, rate
from hpml_bench.plugins.blocks import Fold, Table, Text
from hpml_bench.report.comparability import flat
from hpml_bench.report.render import plain_page
from hpml_bench.report.tables import Cell, p_value, section_of, sentence_list, table
from hpml_bench.system.text import sanitize

_WIDTH = 40  # characters of a name or label; a longer one is cut
ABOUT_BLOCKS = (
    "A block is four timed pieces of training in the order ABBA or BAAB, A the reference and B the candidate; a pair's "
    "value is the interquartile mean of its blocks. Blocks of one process pair share what that pair's processes "
    "happened to be like, so that the pair is the unit of evidence."
)
ABOUT_RUNS = (
    "A point is a run in a process of its own, its time in units of work that is none of ours, timed before and after "
    "it."
)


def headline(report: CheckReport) -> str:
    """Return the check's outcome in one line that begins with its status."""
    status = overall(report.verdicts)
    concerned = [verdict for verdict in report.verdicts if verdict.status == status]
    if not report.verdicts:
        return "INCONCLUSIVE: nothing was measured"
    if status == "PASS":
        timed, counted = bool(of_step_time(report)), len(report.verdicts) > len(of_step_time(report))
        ruled_out = "slower or heavier" if timed and counted else "slower" if timed else "heavier"
        methods = sentence_list([sanitize(method, _WIDTH) for method in report.methods])
        return f"PASS: nothing got {ruled_out} in {methods}" + ("" if timed else "; step time was not measured")
    phrases = {"FAIL": "slower or heavier", "INCONCLUSIVE": "undecided", "INCOMPARABLE": "can't be compared"}
    named = [f"{sanitize(verdict.method, _WIDTH)} ({metric(report, verdict)})" for verdict in concerned]
    shown = named[:6] + ([f"{len(named) - 6} more"] if len(named) > 6 else [])
    return f"{status}: {phrases[status]}: {sentence_list(shown)}"


def metric(report: CheckReport, verdict: Verdict) -> str:
    """Return the name of a verdict's metric, in words."""
    if verdict.metric == STEP_TIME:
        return "step time"
    titles = {count.name: count.title for count in report.counts}
    title = sanitize(titles.get(verdict.metric, verdict.metric), _WIDTH)
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def side(given: Side) -> str:
    """Return a side as `main (0123456789)`."""
    label = sanitize(given.label, _WIDTH)
    inside = [sanitize(given.revision[:10])] if given.revision and given.revision != given.label else []
    inside += ["with changes that are in no commit"] if given.dirty else []
    return f"{label} ({', '.join(inside)})" if inside else label


def facts(report: CheckReport) -> dict[str, str]:
    """Return the facts of a check that stand beside the verdicts."""
    minutes, seconds = divmod(round(report.seconds), 60)
    before, after = report.reference.versions, report.candidate.versions
    names = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    changed = ", ".join(f"{sanitize(n, 40)} {sanitize(before[n], 40)} → {sanitize(after[n], 40)}" for n in names)
    evidence = {}
    if of_step_time(report) and report.mode == "baseline":
        evidence = {"Runs": f"{len(report.runs)} now, {len(report.reference_runs)} stored", "Rule": rule(report)}
    elif of_step_time(report):
        looks = sentence_list([str(look) for look in report.rules.looks])
        evidence = {"Process pairs": str(report.pairs), "Rule": f"{rule(report)}; looks at {looks} pairs"}
    return {
        "Candidate": side(report.candidate),
        "Reference": side(report.reference),
        "Suite": sanitize(report.suite, _WIDTH),
        **evidence,
        "Took": f"{minutes} min {seconds} s",
        "Began": sanitize(report.started, 40),
        **({"Versions": changed} if changed else {}),
    }


def rule(report: CheckReport) -> str:
    """Return the decision rule in one line; between sessions that lie apart its levels are no error rates."""
    rules = report.rules
    limits = f"{rate(rules.null)} slower is let through, {rate(rules.target)} must not pass"
    if report.mode == "baseline":
        levels = f"tested at {rate(rules.alpha)} and {rate(rules.beta)}"
        return f"{limits}; {levels}, while error rates between sessions that lie apart are not known"
    return f"{limits}; at most {rate(rules.alpha)} false alarms, at most {rate(rules.beta)} missed"


def step_times(report: CheckReport) -> Table:
    """Return the step times' verdicts, one row per method."""
    rows: list[list[Cell]] = [
        [
            sanitize(verdict.method, _WIDTH), (percent(verdict.estimate), verdict.estimate),
            (percent(verdict.mde), verdict.mde), interval(verdict), (p_value(verdict.p), verdict.p),
            (str(verdict.pairs), verdict.pairs), verdict.status,
        ]
        for verdict in of_step_time(report)
    ]  # fmt: skip
    rules, unit = report.rules, "runs" if report.mode == "baseline" else "pairs"
    apart = "; how sessions that lie apart differ is not in it" if unit == "runs" else ""
    notes = (
        "Step time: Hodges-Lehmann estimate of the candidate's relative change. Bounds: the lower one at the level of "
        f"the test that it exceeds {rate(rules.null)}, the upper one at the level of the test that it is below "
        f"{rate(rules.target)}.",
        f"Detectable: the least slowdown that so many {unit} with this spread find with a power of about "
        f"{rate(1 - rules.beta)}{apart}.",
    )
    # a narrow terminal leaves out those before the last
    columns = ("method", "step time", "detectable", "bounds", "adjusted p", unit, "verdict")
    return table("step_times", "Step time", columns, rows, notes)


def counted(report: CheckReport, *, changed_only: bool = False) -> Table:
    """Return the counts' verdicts, one row per method and count."""
    status = {(verdict.method, verdict.metric): verdict.status for verdict in report.verdicts}
    rows: list[list[Cell]] = [
        [
            sanitize(count.method, _WIDTH), sanitize(count.title, _WIDTH),
            (percent(count.change), count.change if count.reference else None),
            (amount(count.reference), count.reference), (amount(count.candidate), count.candidate),
            (rate(count.tolerance), count.tolerance), sanitize(grown(count), 200),
            status.get((count.method, count.name), "INCONCLUSIVE"),
        ]
        for count in report.counts
        if count.reference != count.candidate or not changed_only
    ]  # fmt: skip
    columns = ("method", "count", "change", "reference", "candidate", "allowed", "what grew", "verdict")
    name, caption = ("changed", "Counts that changed") if changed_only else ("counts", "Counts without noise")
    return table(name, caption, columns, rows)


def unchanged(report: CheckReport) -> str:
    same = sum(count.reference == count.candidate for count in report.counts)
    return f"{same} of {len(report.counts)} counts without noise are unchanged." if report.counts else ""


def remarks(report: CheckReport) -> list[str]:
    """Return a sentence per verdict that isn't PASS, the gravest first, and the report's notes."""
    order = {"FAIL": 0, "INCOMPARABLE": 1, "INCONCLUSIVE": 2}
    ordered = sorted((v for v in report.verdicts if v.status in order), key=lambda verdict: order[verdict.status])
    details = [f"{v.status} {sanitize(v.method, _WIDTH)}: {sanitize(v.detail, 600)}" for v in ordered]
    return details + [sanitize(note, 600) for note in report.notes]


def measured(report: CheckReport) -> tuple[str, ...]:
    """Return sentences on the measurement: blocks, times, disturbances."""
    blocks = report.blocks
    if report.runs:
        return (
            f"{len(report.runs)} runs now and {len(report.reference_runs)} stored ones, each a newly started "
            "interpreter, and each corrected by work that is none of ours before and after it.",
        )
    if not blocks:
        return ("No step was timed.",)
    disturbed = sum(block.disturbed is not None for block in blocks)
    pieces = sorted(second for block in blocks for second in block.seconds)
    return (
        f"{len(blocks)} blocks in {report.pairs} process pairs, each pair two newly started interpreters; "
        f"{disturbed} blocks were disturbed from outside and don't count.",
        f"A timed piece took {pieces[len(pieces) // 2]:.3g} s in the middle, {pieces[0]:.3g} to {pieces[-1]:.3g} s.",
        f"At most {rate(round(max(block.steal for block in blocks), 4))} of the CPU time was taken away by the host "
        f"during a block, and {max(block.load for block in blocks):.2g} processes of others were running.",
    )


def html(report: CheckReport) -> str:
    """Return the page, its blocks drawn, in one file; it loads nothing and runs nothing."""
    described: list[list[Cell]] = [[sanitize(key, 80), sanitize(value, 300)] for key, value in flat(report.environment)]
    environment = table("environment", "Environment", ("name", "value"), described)
    bounds, counts = drawings.bounds(report), counted(report)
    blocks, runs = drawings.blocks(report), drawings.runs(report)
    sections = [
        section_of("verdicts", "Verdicts", _text(remarks(report)), step_times(report), bounds),
        section_of("blocks", "Blocks", Text(sentences=(ABOUT_BLOCKS,)), *blocks) if blocks else None,
        section_of("runs", "Runs", Text(sentences=(ABOUT_RUNS,)), *runs) if runs else None,
        section_of("counts", "Counts", _text([unchanged(report)]), counted(report, changed_only=True),
                   Fold(title="All counts", blocks=(counts,))) if counts.rows else None,
        section_of("setup", "How it was measured", _text(measured(report)),
                   Fold(title="Environment", blocks=(environment,)) if environment.rows else None),
    ]  # fmt: skip
    against = f"{side(report.candidate)} against {side(report.reference)}"
    shown = [section for section in sections if section]
    foot = "Made by hpml-bench from one check.json."
    return plain_page("hpml-bench check", against, headline(report), shown, facts(report), foot)


def _text(sentences: Sequence[str]) -> Text | None:
    return Text(sentences=tuple(sentences)) if sentences else None
