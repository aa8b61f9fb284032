"""Headline, facts, tables, pictures and page of a report: what every output shows, made once so
that none disagrees.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hpml_bench.gate import verdicts
from hpml_bench.gate.records import CheckReport, Side, Status, Verdict
from hpml_bench.page.pictures.charts import MARGINS, ROW, axis, rows
from hpml_bench.page.render import plain_page
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Fold, Table, Text
from hpml_bench.plugins.picture import Axis, Picture, Segment, Series, Tone
from hpml_bench.records.numbers import Cell, p_value, sentence_list
from hpml_bench.select.comparability import flat, grouped
from hpml_bench.system.text import sanitize

BLUE: Tone = "m1"
AMBER: Tone = "m2"
GREEN: Tone = "m3"
RED: Tone = "m4"
GREY: Tone = "m7"
TONES: dict[Status, Tone] = {
    "PASS": GREEN,
    "FAIL": RED,
    "INCONCLUSIVE": AMBER,
    "INCOMPARABLE": AMBER,
}
CHANGE = "change of step time (%)"
_MOST_METHODS = 40  # methods drawn; a page of more would be too heavy to open
_WIDTH = 40  # characters of a name or label; a longer one is cut
ABOUT_BLOCKS = (
    "A block is four timed pieces of training in the order ABBA or BAAB, A the reference and B the "
    "candidate; a pair's value is the interquartile mean of its blocks. Blocks of one process pair "
    "share what that pair's processes happened to be like, so that the pair is the unit of "
    "evidence."
)


def headline(report: CheckReport) -> str:
    """Return the check's outcome in one line that begins with its status."""
    status = verdicts.overall(report.verdicts)
    concerned = [verdict for verdict in report.verdicts if verdict.status == status]
    if not report.verdicts:
        return "INCONCLUSIVE: nothing was measured"
    if status == "PASS":
        timed, counted = (
            bool(verdicts.of_step_time(report)),
            len(report.verdicts) > len(verdicts.of_step_time(report)),
        )
        ruled_out = "slower or heavier" if timed and counted else "slower" if timed else "heavier"
        methods = sentence_list([sanitize(method, _WIDTH) for method in report.methods])
        return f"PASS: nothing got {ruled_out} in {methods}" + (
            "" if timed else "; step time was not measured"
        )
    phrases = {
        "FAIL": "slower or heavier",
        "INCONCLUSIVE": "undecided",
        "INCOMPARABLE": "can't be compared",
    }
    named = [
        f"{sanitize(verdict.method, _WIDTH)} ({metric(report, verdict)})" for verdict in concerned
    ]
    shown = named[:6] + ([f"{len(named) - 6} more"] if len(named) > 6 else [])
    return f"{status}: {phrases[status]}: {sentence_list(shown)}"


def metric(report: CheckReport, verdict: Verdict) -> str:
    """Return the name of a verdict's metric, in words."""
    if verdict.metric == verdicts.STEP_TIME:
        return "step time"
    titles = {count.name: count.title for count in report.counts}
    title = sanitize(titles.get(verdict.metric, verdict.metric), _WIDTH)
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def side(given: Side) -> str:
    """Return a side as `main (0123456789)`."""
    label = sanitize(given.label, _WIDTH)
    inside = (
        [sanitize(given.revision[:10])] if given.revision and given.revision != given.label else []
    )
    inside += ["with changes that are in no commit"] if given.dirty else []
    return f"{label} ({', '.join(inside)})" if inside else label


def facts(report: CheckReport) -> dict[str, str]:
    """Return the facts of a check that stand beside the verdicts."""
    minutes, seconds = divmod(round(report.seconds), 60)
    before, after = report.reference.versions, report.candidate.versions
    names = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    changed = ", ".join(
        f"{sanitize(n, 40)} {sanitize(before[n], 40)} → {sanitize(after[n], 40)}" for n in names
    )
    evidence = {}
    if verdicts.of_step_time(report) and report.mode == "baseline":
        evidence = {
            "Runs": f"{len(report.runs)} now, {len(report.reference_runs)} stored",
            "Rule": rule(report),
        }
    elif verdicts.of_step_time(report):
        looks = sentence_list([str(look) for look in report.rules.looks])
        evidence = {
            "Process pairs": str(report.pairs),
            "Rule": f"{rule(report)}; looks at {looks} pairs",
        }
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
    """Return the decision rule in one line; between sessions that lie apart its levels are no
    error rates.
    """
    rules = report.rules
    limits = (
        f"{verdicts.rate(rules.null)} slower is let through, {verdicts.rate(rules.target)} must "
        f"not pass"
    )
    if report.mode == "baseline":
        levels = f"tested at {verdicts.rate(rules.alpha)} and {verdicts.rate(rules.beta)}"
        return (
            f"{limits}; {levels}, while error rates between sessions that lie apart are not known"
        )
    return (
        f"{limits}; at most {verdicts.rate(rules.alpha)} false alarms, at most "
        f"{verdicts.rate(rules.beta)} missed"
    )


def step_times(report: CheckReport) -> Table:
    """Return the step times' verdicts, one row per method."""
    rows: list[list[Cell]] = [
        [
            sanitize(verdict.method, _WIDTH),
            (verdicts.percent(verdict.estimate), verdict.estimate),
            (verdicts.percent(verdict.mde), verdict.mde),
            verdicts.interval(verdict),
            (p_value(verdict.p), verdict.p),
            (str(verdict.pairs), verdict.pairs),
            verdict.status,
        ]
        for verdict in verdicts.of_step_time(report)
    ]
    rules, unit = report.rules, "runs" if report.mode == "baseline" else "pairs"
    apart = "; how sessions that lie apart differ is not in it" if unit == "runs" else ""
    notes = (
        "Step time: Hodges-Lehmann estimate of the candidate's relative change. Bounds: the lower "
        f"one at the level of the test that it exceeds {verdicts.rate(rules.null)}, the upper one "
        f"at the level of the test that it is below {verdicts.rate(rules.target)}.",
        f"Detectable: the least slowdown that so many {unit} with this spread find with a power of "
        f"about {verdicts.rate(1 - rules.beta)}{apart}.",
    )
    # a narrow terminal leaves out those before the last
    columns = ("method", "step time", "detectable", "bounds", "adjusted p", unit, "verdict")
    return table("step_times", "Step time", columns, rows, notes)


def counted(report: CheckReport, *, changed_only: bool = False) -> Table:
    """Return the counts' verdicts, one row per method and count."""
    status = {(verdict.method, verdict.metric): verdict.status for verdict in report.verdicts}
    rows: list[list[Cell]] = [
        [
            sanitize(count.method, _WIDTH),
            sanitize(count.title, _WIDTH),
            (verdicts.percent(count.change), count.change if count.reference else None),
            (verdicts.amount(count.reference), count.reference),
            (verdicts.amount(count.candidate), count.candidate),
            (verdicts.rate(count.tolerance), count.tolerance),
            sanitize(verdicts.grown(count), 200),
            status.get((count.method, count.name), "INCONCLUSIVE"),
        ]
        for count in report.counts
        if count.reference != count.candidate or not changed_only
    ]
    columns = (
        "method",
        "count",
        "change",
        "reference",
        "candidate",
        "allowed",
        "what grew",
        "verdict",
    )
    name, caption = (
        ("changed", "Counts that changed") if changed_only else ("counts", "Counts without noise")
    )
    return table(name, caption, columns, rows)


def unchanged(report: CheckReport) -> str:
    same = sum(count.reference == count.candidate for count in report.counts)
    return (
        f"{same} of {len(report.counts)} counts without noise are unchanged."
        if report.counts
        else ""
    )


def remarks(report: CheckReport) -> list[str]:
    """Return a sentence per verdict that isn't PASS, the gravest first, and the report's notes."""
    wrong = (verdict for verdict in report.verdicts if verdict.status != "PASS")
    ordered = sorted(wrong, key=lambda verdict: verdicts.GRAVEST.index(verdict.status))
    details = [
        f"{v.status} {sanitize(v.method, _WIDTH)}: {sanitize(v.detail, 600)}" for v in ordered
    ]
    return details + [sanitize(note, 600) for note in report.notes]


def measured(report: CheckReport) -> tuple[str, ...]:
    """Return sentences on the measurement: blocks, times, disturbances."""
    blocks = report.blocks
    if not blocks:
        of_runs = (
            "Each run is a newly started interpreter, corrected by work that is none of ours "
            "before and after it."
        )
        return (of_runs if report.runs else "No step was timed.",)
    disturbed = sum(block.disturbed is not None for block in blocks)
    pieces = sorted(second for block in blocks for second in block.seconds)
    return (
        f"{len(blocks)} blocks in {report.pairs} process pairs, each pair two newly started "
        f"interpreters; {disturbed} blocks were disturbed from outside and don't count.",
        (
            f"A timed piece took {pieces[len(pieces) // 2]:.3g} s in the middle, {pieces[0]:.3g} "
            f"to {pieces[-1]:.3g} s."
        ),
        f"At most {verdicts.rate(round(max(block.steal for block in blocks), 4))} of the CPU time "
        f"was taken away by the host during a block, and {max(block.load for block in blocks):.2g} "
        "processes of others were running.",
    )


def html(report: CheckReport) -> str:
    """Return the page, its blocks drawn, in one file; it loads nothing and runs nothing."""
    described: list[list[Cell]] = [
        [sanitize(key, 80), sanitize(value, 300)] for key, value in flat(report.environment)
    ]
    environment = table("environment", "Environment", ("name", "value"), described)
    bounds, blocks, counts = draw_bounds(report), draw_blocks(report), counted(report)
    sections = [
        section_of("verdicts", "Verdicts", _text(remarks(report)), step_times(report), bounds),
        section_of("blocks", "Blocks", Text(sentences=(ABOUT_BLOCKS,)), *blocks)
        if blocks
        else None,
        section_of(
            "counts",
            "Counts",
            _text([unchanged(report)]),
            counted(report, changed_only=True),
            Fold(title="All counts", blocks=(counts,)),
        )
        if counts.rows
        else None,
        section_of(
            "setup",
            "How it was measured",
            _text(measured(report)),
            Fold(title="Environment", blocks=(environment,)) if environment.rows else None,
        ),
    ]
    against = f"{side(report.candidate)} against {side(report.reference)}"
    shown = [section for section in sections if section]
    foot = "Made by hpml-bench from one check.json."
    return plain_page("hpml-bench check", against, headline(report), shown, facts(report), foot)


def _text(sentences: Sequence[str]) -> Text | None:
    return Text(sentences=tuple(sentences)) if sentences else None


def draw_bounds(report: CheckReport) -> Picture | None:
    """Return one row per method: estimate and bounds against the slowdown let through and that
    which must not pass.
    """
    # A bound that too few pairs don't give reaches to the edge.
    judged = [v for v in verdicts.of_step_time(report) if v.estimate is not None][:_MOST_METHODS]
    if not judged:
        return None
    ends = [100 * end for v in judged for end in (v.lower, v.upper, v.estimate) if end is not None]
    change, segments, series = _change_axis(report, ends), [], []
    for row, verdict in enumerate(judged):
        tone, middle = TONES[verdict.status], 100 * (verdict.estimate or 0.0)
        low, high = (
            edge if end is None else 100 * end
            for end, edge in ((verdict.lower, -math.inf), (verdict.upper, math.inf))
        )
        segments.append(Segment((low, row), (high, row), tone, 7, opacity=0.3))
        series.append(Series(((middle, row),), tone, marker="o", size=6))
        if verdict.mde is not None and 100 * verdict.mde <= change.high:
            series.append(Series(((100 * verdict.mde, row),), GREY, marker="|", size=11))
    described = [
        f"{sanitize(v.method, 40)} {verdicts.percent(v.estimate)} {verdicts.interval(v)} {v.status}"
        for v in judged
    ]
    return Picture(
        name="bounds",
        caption=(
            "Estimate and bounds of each method's step time: FAIL lies right of the first limit, "
            "PASS left of the second. The tick is the least slowdown that was detectable."
        ),
        alt=f"Interval plot of the change of step time: {'; '.join(described)}.",
        x=change,
        y=rows([sanitize(verdict.method, 24) for verdict in judged]),
        height=MARGINS + ROW * len(judged),
        segments=(*_limits(report, upright=True), *segments),
        series=tuple(series),
    )


def draw_blocks(report: CheckReport) -> tuple[Picture, ...]:
    """Return one chart per method: all blocks' ratios by process pair, pairs' values, the
    estimate and the limits.
    """
    effects, pictures = verdicts.pair_effects(report.blocks), []
    for index, verdict in enumerate(verdicts.of_step_time(report)[:_MOST_METHODS]):
        if verdict.method not in effects:
            continue
        own = [block for block in report.blocks if block.method == verdict.method]
        by_label = grouped(
            own, lambda b: f"block {b.order}" if b.disturbed is None else "disturbed"
        )
        points = {
            label: tuple((block.pair + 1.0, _percent(verdicts.log_ratio(block))) for block in of)
            for label, of in by_label.items()
        }
        whole = sorted({block.pair + 1.0 for block in own if block.disturbed is None})
        tone, disturbed = TONES[verdict.status], len(points.get("disturbed", ()))
        series = [
            Series(points.get("block ABBA", ()), BLUE, "block ABBA", marker="o", opacity=0.6),
            Series(points.get("block BAAB", ()), BLUE, "block BAAB", marker="D", opacity=0.6),
            Series(points.get("disturbed", ()), GREY, "disturbed", marker="x", size=6),
            Series(
                tuple(zip(whole, map(_percent, effects[verdict.method]), strict=True)),
                tone,
                "pair's value",
                marker="_",
                size=11,
            ),
        ]
        level = (
            ()
            if verdict.estimate is None
            else (_limit(verdict.estimate, tone, width=1.4, label="estimate"),)
        )
        pairs = [block.pair + 1.0 for block in own]
        change = _change_axis(report, [y for of in series for _, y in of.points])
        numbers = axis("process pair", [min(pairs) - 0.5, max(pairs) + 0.5], share=0)
        method = sanitize(verdict.method, 40)
        shown = (
            f"{len(own) - disturbed} blocks of {method} in {len(whole)} pairs, {disturbed} "
            f"disturbed ones set apart"
        )
        pictures.append(
            Picture(
                name=f"blocks_{index}",
                caption=f"{method}: {verdict.status}; {sanitize(verdict.detail, 300)}.",
                alt=(
                    f"Scatter of {shown}: {verdicts.percent(verdict.estimate)}, bounds "
                    f"{verdicts.interval(verdict)}."
                ),
                x=replace(
                    numbers, ticks=tuple(tick for tick in numbers.ticks if tick[0] == int(tick[0]))
                ),
                y=change,
                height=280,
                segments=(*_limits(report), *level),
                series=tuple(of for of in series if of.points),
            )
        )
    return tuple(pictures)


def _percent(ratio: float) -> float:
    return 100 * math.expm1(ratio)


def _change_axis(report: CheckReport, values: Iterable[float]) -> Axis:
    return axis(CHANGE, [*values, 0.0, 100 * report.rules.target], share=0.08, grid=True)


def _limits(report: CheckReport, *, upright: bool = False) -> tuple[Segment, ...]:
    rules = report.rules
    return (
        _limit(0.0, GREY, upright, width=0.7),
        _limit(
            rules.null,
            AMBER,
            upright,
            label=f"{verdicts.rate(rules.null)}: let through",
            dash="dotted",
        ),
        _limit(
            rules.target,
            RED,
            upright,
            label=f"{verdicts.rate(rules.target)}: must not pass",
            dash="dashed",
        ),
    )


def _limit(at: float, tone: Tone, upright: bool = False, **how: Any) -> Segment:
    """Return a line at a change of step time, whose axis is x where lines are upright, else y."""
    low, high = ((100 * at, end) if upright else (end, 100 * at) for end in (-math.inf, math.inf))
    return Segment(low, high, tone, **how)
