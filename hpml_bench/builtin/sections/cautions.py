"""Problems: cautions, a sentence each with a mark of how it went; failed runs and those set
apart, with reasons.
"""

from collections import Counter
from collections.abc import Iterator

from hpml_bench.judge.caveats import (
    STILL_FALLING,
    beside_guess,
    residual_types,
    slowed_by_heat,
    unsteady,
)
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import PageSummary
from hpml_bench.page.answer import words
from hpml_bench.page.answer.words import BECAUSE
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.numbers import MISSING, Cell, sentence_list, set_apart
from hpml_bench.records.run import FAILED, RunRecord
from hpml_bench.select.comparability import grouped
from hpml_bench.suite.settings import identity
from hpml_bench.system.text import count_of, sanitize, shortened

order = 24
WELL, MIND, BAD = "✓", "!", "✕"
CUT, MOSTLY = "test_cut_answers", 0.5  # metric, and share of a method's answers that is most
FEW = 5  # seeds under which only large differences can be found
TRACEBACKS, LINES, WIDTH = (
    5,
    20,
    300,
)  # different tracebacks that are shown, their lines, and characters of a line


def sections(results: Results) -> Iterator[Section | None]:
    answer = answer_of(results)
    lines = (*_runs(results, answer), *_verdicts(results, answer), *_costs(results, answer))
    text = Text(sentences=tuple(f"{mark} {sentence}" for mark, sentence in lines))
    yield section_of(
        "cautions", "Cautions", text, question="wrong", about="what to keep in mind", folded=False
    )
    about, unread = "runs that did not end well, or are not compared", results.left_out.problems
    yield section_of(
        "failures",
        "Failures and runs set apart",
        _not_ok(results),
        *_tracebacks(results),
        _again(results),
        _excluded(results),
        Text(sentences=unread) if unread else None,
        question="wrong",
        about=about,
        folded=False,
    )


# Cautions


def _runs(results: Results, answer: PageSummary) -> Iterator[tuple[str, str]]:
    left = results.left_out
    if not results.compared:
        ended = "Every run that ended well was set apart" if left.excluded else "No run ended well"
        yield BAD, f"{ended}, so there is nothing to compare."
    if answer.failures:
        failed = (
            f"Failed or stopped runs: {len(answer.failures)} of "
            f"{answer.planned:,}{_by_method(results)}."
        )
        biased = (
            "They are not in the means, so a method that often fails looks better here than it is."
        )
        slow = " A time limit ends the slow runs, so the costs of the others are too low."
        timed = any(failure.status == "timeout" for failure in answer.failures)
        yield BAD, f"{failed} {biased}{slow if timed else ''}"
    elif answer.runs:
        ended = "The run that was tried ended well and is compared"
        yield (
            WELL,
            ended + "."
            if answer.runs == 1
            else f"All {answer.runs:,} runs ended well and are compared.",
        )
    if apart := left.excluded_runs:
        yield MIND, f"{set_apart(apart)}."
    if left.problems:
        yield BAD, f"{count_of(len(left.problems), 'record')} can't be read."
    if answer.untried:
        yield MIND, f"Without a compared run: {sentence_list(answer.untried)}."
    if answer.shared is not None:
        over = (
            f"the {answer.shared} seeds that all methods share"
            if answer.shared
            else "each method's own seeds"
        )
        lack = "that left have fewer" if answer.rounds else "lack"
        yield (
            MIND,
            (
                f"Methods {lack} seeds: means are over {over}, differences over those that a pair "
                f"shares."
            ),
        )
    if results.margin_edited:
        yield (
            MIND,
            (
                "The suite's margins were edited after its first run; verdicts are by those "
                "declared before it."
            ),
        )
    if results.unchecked:
        yield (
            MIND,
            (
                f"Scores of rows are as the runs recorded them, not computed anew: "
                f"{results.unchecked}."
            ),
        )
    if any(record.checks for record in results.compared):
        yield WELL, "Every compared run passed its arithmetic self-checks."


def _by_method(results: Results) -> str:
    """Return the methods with failed runs of the compared settings, and how these ended; empty
    without any.
    """
    reference = identity(results.reference.spec.settings)
    failed = (
        record
        for record in results.left_out.unfinished
        if record.status in FAILED and identity(record.spec.settings) == reference
    )
    well, named = Counter(record.spec.method.name for record in results.compared), []
    for method, of in grouped(failed, lambda record: record.spec.method.name).items():
        ended = ", ".join(
            f"{status}: {n}" for status, n in sorted(Counter(run.status for run in of).items())
        )
        named.append(f"{sanitize(method)} {len(of)} of {len(of) + well[method]} ({ended})")
    return f", {sentence_list(named)}" if named else ""


def _verdicts(results: Results, answer: PageSummary) -> Iterator[tuple[str, str]]:
    tested = [c for pairs in results.family.values() for c in pairs if c.verdict != "untested"]
    if (
        tested
        and not results.verdicts.by_rows
        and (least := min(c.difference.n for c in tested)) < FEW
    ):
        yield MIND, f"{least} seeds are few: only large differences can be found."
    if answer.guess and answer.guess.below:
        yield BAD, f"Not shown to beat guessing: {words.several(answer, answer.guess.below)}."
    elif answer.guess and answer.guess.value is not None and answer.rows > 1:
        yield WELL, "Every method beats guessing."
    if rows := [sanitize(method) for method, how in beside_guess(results).items() if how == "rows"]:
        who = words.several(answer, rows)
        yield MIND, f"Shown to beat guessing by each run's test rows alone, not over seeds: {who}."
    if answer.under:
        runs = ((m, answer.under[m.name]) for m in answer.methods if m.name in answer.under)
        late = [
            f"{words.label(answer, m.name)} ({n} of {count_of(m.seeds, 'run')})" for m, n in runs
        ]
        named = sentence_list(
            late if len(late) < 3 else [*late[:2], count_of(len(late) - 2, "other")]
        )
        fell = (
            f"was lowest at the last step, over {100 * STILL_FALLING:.0f} % below the evaluation "
            f"before"
        )
        more = f"Their validation loss {fell}. More steps may change the order."
        yield MIND, f"Still improving at the end: {named}. {more}"
    if cut := _mostly_cut(results):
        yield (
            MIND,
            (
                f"Most answers were cut at max_new_tokens: {cut}. What others gain over them may "
                f"be brevity; raise task.options.max_new_tokens."
            ),
        )
    skewed = [
        f"{sanitize(c.a)} and {sanitize(c.b)} in {quantity_of(results, metric).title}"
        for metric, pairs in results.family.items()
        for c in pairs
        if c.uncertain
    ]
    if skewed:
        more = f" and {count_of(len(skewed) - 1, 'more pair')}" if len(skewed) > 1 else ""
        why = "The seeds' differences are skewed, or come from a few test rows"
        yield (
            MIND,
            (
                f"Less certain: {skewed[0]}{more} (‡). {why}. The test then finds differences too "
                f"often."
            ),
        )


def _mostly_cut(results: Results) -> str:
    """Return the methods more than half of whose answers were cut, with their share; empty where
    there are none.
    """
    shares = results.means(CUT) if CUT in results.definitions else {}
    cut = [f"{sanitize(name)} {share:.0%}" for name, share in shares.items() if share > MOSTLY]
    return sentence_list(cut) if cut else ""


def _costs(results: Results, answer: PageSummary) -> Iterator[tuple[str, str]]:
    if own := [m for m in results.methods if "program_seconds" in results.runs(m)[0].metrics]:
        who = words.several(answer, list(map(sanitize, own)))
        yield (
            MIND,
            (
                f"Trained by its own program: {who}. Programs' time and memory are from outside, "
                f"and rank nothing."
            ),
        )
    if drifting := unsteady(results, "drifts"):
        who = words.several(answer, list(map(sanitize, drifting)))
        yield MIND, f"Speed drifted by over 5 % within some runs: {who}."
    if answer.unranked:
        yield MIND, f"Costs are shown, not ranked: {answer.unranked}."
    if "hosts" in results.unranked:
        unit = "The line unit: seed in the profile puts all runs of a seed on one host."
        yield (
            MIND,
            (
                f"Hosts of one kind differ in speed too. {unit} The line exclusive: true keeps "
                f"others away from it."
            ),
        )
    types = residual_types(results)
    if len(types) > 1:
        each = (
            f"{kind} in {words.several(answer, list(map(sanitize, methods)))}"
            for kind, methods in types.items()
        )
        yield (
            MIND,
            f"The residual stream is {sentence_list(list(each))}, since embeddings that a method "
            f"trains are float32. Rounding and costs differ by that too. The setting weights: "
            f"float32, or trained_weights: bfloat16, gives all methods one type.",
        )
    if slowed := slowed_by_heat(results):
        worst = max(slowed, key=lambda name: slowed[name])
        how_long = f"for {100 * slowed[worst]:.0f} % of the training"
        yield (
            MIND,
            f"Heat lowered a GPU's clock in {count_of(len(slowed), 'run')}, most in "
            f"{sanitize(worst)}, {how_long}. Their times are the cooling's too: improve it or "
            f"lower the power limit, and run them again.",
        )
    if resumed := [run for run in results.compared if run.segments]:
        again = [part for run in resumed for part in run.segments]
        steps, seconds = (
            sum(getattr(part, f"repeated_{what}") for part in again)
            for what in ("steps", "seconds")
        )
        lost = (
            f"{count_of(steps, 'step')} of {seconds:.0f} s in all were lost, and their total time "
            f"isn't ranked"
        )
        went_on = f"{count_of(len(resumed), 'run')} went on from a checkpoint"
        yield MIND, f"{went_on}. Their costs are of steps that count; {lost}."
    if unused := [run for run in results.compared if run.unused_checkpoints]:
        first = unused[0]
        yield (
            MIND,
            (
                f"Checkpoints weren't used in {count_of(len(unused), 'run')}, and steps were done "
                f"again: in {_label(results, first)}, seed {first.spec.seed}, "
                f"{_short(first.unused_checkpoints[0])}."
            ),
        )
    neighbours = 0 if "neighbours" in results.unranked else len(results.beside)
    uncounted = {
        "other hardware, versions or settings (see Environment)": len(results.compared)
        - len(results.costs_shown),
        "neighbours on their host, which slow each other (see Jobs and hosts)": neighbours,
        "another host than most of their seed (see Runs)": len(results.astray)
        if results.costs_ranked
        else 0,
    }
    for why, n in uncounted.items():
        if n:
            yield MIND, f"Costs of {n} of {len(results.compared)} compared runs don't count: {why}."


# Runs that enter no mean


def _label(results: Results, run: RunRecord) -> str:
    return results.labels.get(run.run_id, run.spec.method.name)


def _not_ok(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for run in results.left_out.unfinished:
        rank = run.error.rank if run.error and run.error.rank is not None else 0
        log = MISSING if run.status == "unsupported" else f"{run.run_id}/rank{rank}.log"
        why = (
            "; ".join(f"{check.name}: {check.detail}" for check in run.checks if not check.passed)
            or MISSING
        )
        if (error := run.error) is not None:
            why = (
                f"{error.kind}: "
                f"{_short(error.message)}{'' if error.rank is None else f' (rank {error.rank})'}"
            )
        rows.append(
            [_label(results, run), run.spec.seed, run.status, BECAUSE.get(run.status, ""), why, log]
        )
    columns = ("method", "Seed", "Status", "Meaning", "Reason", "Log")
    return table("failures", "Runs that did not end well; they enter no mean", columns, rows)


def _short(text: str) -> str:
    return shortened(text, 400)


def _tracebacks(results: Results) -> list[Text]:
    shown = []
    for lines, runs in grouped(results.left_out.unfinished, _raising_lines).items():
        who = "; ".join(f"{_label(results, run)}, seed {run.spec.seed}" for run in runs)
        shown += [Text(sentences=(_short(f"Raised in {who}:"), *lines))] if lines else []
    more = len(shown) - TRACEBACKS
    rest = (
        [Text(sentences=(f"Other tracebacks that are in run.json alone: {more}.",))]
        if more > 0
        else []
    )
    return shown[:TRACEBACKS] + rest


def _raising_lines(record: RunRecord) -> tuple[str, ...]:
    """Return the end of a rank's traceback: the last calls, the line that raised, and the
    exception's first line.
    """
    traceback = record.error.traceback if record.error else None
    if (
        not traceback or record.status == "timeout"
    ):  # which has the stacks of all ranks: too long for a page
        return ()
    lines = [line for line in traceback.splitlines() if line.strip(" ^~")]
    calls = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    raised = (
        calls[-1] + 2 if calls else 0
    )  # a message of many lines must not push out the line that raised
    chosen = [sanitize(line, WIDTH) for line in lines[: raised + 1][-LINES:]]
    return tuple(line for line in chosen if line)


def _again(results: Results) -> Table:
    excluded = (record for group in results.left_out.excluded for record in group.records)
    every = sorted(
        (*results.compared, *results.left_out.unfinished, *excluded),
        key=lambda r: (r.started, r.run_id),
    )
    rows: list[list[Cell]] = [
        [
            _label(results, run),
            run.spec.seed,
            len(before) + 1,
            run.status,
            "; ".join(map(_short, before)),
        ]
        for run in every
        if (before := run.earlier_attempts)
    ]
    columns = ("method", "Seed", "Attempts", "Status", "Earlier attempts")
    return table(
        "retries",
        "Runs that were tried again, as `--retries` asked; the last attempt counts",
        columns,
        rows,
    )


def _excluded(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [
            ", ".join(dict.fromkeys(record.spec.method.name for record in group.records)),
            ", ".join(map(str, sorted({record.spec.seed for record in group.records}))),
            len(group.records),
            group.records[0].protocol_id or MISSING,
            group.reason,
        ]
        for group in results.left_out.excluded
    ]
    columns = ("method", "Seeds", "Runs", "Protocol", "Why it is not compared")
    return table("apart", "Runs set apart: they enter no mean", columns, rows)
