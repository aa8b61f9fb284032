"""Figures: whether points and predictions give what a record says, and are the run's own."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from statistics import fmean

import numpy as np

from hpml_bench.plugins.probe import Finished
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.select.checks import DECISIVE, STORED
from hpml_bench.select.comparability import grouped, method_of, untrained
from hpml_bench.select.predictions import task_of
from hpml_bench.suite import registry
from hpml_bench.suite.schedule import Windows, lr_factor, step_seconds
from hpml_bench.suite.settings import method_identity
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest
from hpml_bench.verify.folder import Evidence, Finding, RunFiles, failed

SECONDS = 1e-6  # absolute, between a step's time and that of its ranks
PHASES = (
    "first_step_seconds",
    "train_seconds",
    "evaluation_seconds",
    "validation_answer_seconds",
    "inference_seconds",
    "test_answer_seconds",
)
"""Phases that follow each other, within a run's total time."""
AFTER = (
    "merged_evaluation_seconds",
    "dequantized_evaluation_seconds",
    "converted_evaluation_seconds",
)
"""Phases behind them, within the wall time of a run."""
ALWAYS = ("better",)  # fields of a metric that no version defined otherwise, in whatever words
DEFINED = ("title", "over_ranks", *(field for field in DECISIVE if field != "grid"))
"""Fields that follow from a metric's definition; a probe may know the grid of one device alone."""
REDUCTIONS: dict[str, Callable[[list[float]], float]] = {
    "max": max,
    "sum": math.fsum,
    "mean": fmean,
}


def predictions(evidence: Evidence) -> Iterator[Finding]:
    """Predictions of the same test rows give the scores."""
    yield from evidence.excluded("predictions")
    for why in (
        {one.unchecked for one in evidence.selection.stored.values()} - {""}
        if evidence.selection
        else ()
    ):
        yield Finding("not checked", f"scores of rows: {why}")


def times(evidence: Evidence) -> Iterator[Finding]:
    """Points give training time and throughput."""
    yield from evidence.excluded("times")


def copies(evidence: Evidence) -> Iterator[Finding]:
    """No run has the points or the order of another one."""
    yield from evidence.excluded("copies")


def batches(evidence: Evidence) -> Iterator[Finding]:
    """Runs of a seed alone share the tokens of its steps."""
    of_tokens: dict[str, int] = {}
    for seed, records in grouped(evidence.trained, lambda record: record.spec.seed).items():
        traces = {record.run_id: evidence.traces[record.run_id] for record in records}
        usual, size = Counter(trace.tokens for trace in traces.values()).most_common(1)[0]
        for run, own in traces.items():
            if own.tokens != usual and size > 1:
                yield failed(
                    run, f"its steps have other numbers of tokens than most runs of seed {seed}"
                )
        other = of_tokens.setdefault(usual, seed)
        if other != seed and any(trace.varied for trace in traces.values()):
            yield failed(
                f"seed {seed}",
                f"has the steps of seed {other} in their order, by tokens: one is a copy",
            )


def answers(evidence: Evidence) -> Iterator[Finding]:
    """No run has the predictions of another seed or method."""
    traces = evidence.traces
    for records in grouped(evidence.trained, method_of).values():
        if (
            len({traces[record.run_id].predicted for record in records}) > 1
        ):  # else it changes nothing
            yield from _predicting_alike(evidence, records)
    for records in grouped(evidence.trained, lambda record: record.spec.seed).values():
        for same in grouped(records, lambda record: traces[record.run_id].predicted).values():
            # one method under two names trains alike, too
            if len({traces[record.run_id].losses for record in same}) > 1:
                yield from _predicting_alike(evidence, same, ", and trained with other losses")
            elif len({_nameless(record) for record in same}) > 1:
                yield from _training_alike(evidence, same)


def _training_alike(evidence: Evidence, same: Iterable[RunRecord]) -> Iterator[Finding]:
    """Yield the runs of several methods in a seed that trained and predict as others do, to the
    last digit.
    """
    # the gradient of further parameters makes the norm larger, whatever the learning rate
    for norms, records in grouped(
        same, lambda record: evidence.traces[record.run_id].norms
    ).items():
        if norms and len({_parameters(record) for record in records}) > 1:
            more = (
                ", with the same training losses and gradients, and trains another number of "
                "parameters"
            )
            yield from _predicting_alike(evidence, records, more)
            return
    names = ", ".join(
        finding.finding.partition(":")[0] for finding in _predicting_alike(evidence, same)
    )
    if names:
        what = (
            "trained and predict alike to the last digit: one method in other words, one without "
            "effect, or a copy"
        )
        yield Finding("not checked", f"{names}: {what}: no file shows which")


def _nameless(record: RunRecord) -> str:
    """Return a method's specification without its name, equal for one method under two names."""
    spec = record.spec.method
    return digest(method_identity(spec.model_copy(update={"name": spec.method})))


def _parameters(record: RunRecord) -> tuple[float | None, ...]:
    """Return the numbers of parameters that a run trained in its method and in its head."""
    return tuple(record.metrics.get(name) for name in ("trainable_parameters", "head_parameters"))


def _predicting_alike(
    evidence: Evidence, records: Iterable[RunRecord], more: str = ""
) -> Iterator[Finding]:
    """Yield the runs that predict as others do, unless as the base model does."""
    traces = evidence.traces
    unchanged = {
        traces[record.run_id].predicted for record in evidence.compared if untrained(record)
    }
    for predicted, same in grouped(records, lambda record: traces[record.run_id].predicted).items():
        for record in same if len(same) > 1 and predicted not in unchanged else ():
            others = ", ".join(other.run_id for other in same if other is not record)
            yield failed(
                record.run_id, f"predicts as {others}, to the last digit of the losses{more}"
            )


def definitions(evidence: Evidence) -> Iterator[Finding]:
    """Runs define metrics and score alike, and as here."""
    yield from evidence.excluded("definitions")
    probes = [registry.plugin("probes", name) for name in registry.names("probes")]
    of_probes: dict[str, Metric] = {
        metric.name: metric for probe in probes for metric in probe.metrics
    }
    unlike = dict[str, None]()
    for record in evidence.ok:
        here, wrong = dict(of_probes), list[str]()
        with suppress(UserError):  # its task isn't installed: `predictions` says so
            here |= {metric.name: metric for metric in task_of(record).metrics}
        for metric in sorted(record.definitions, key=lambda metric: metric.name != record.headline):
            known = here.get(metric.name)
            same = known is not None and metric.definition == known.definition
            unlike |= {} if same else {metric.name: None}
            for field in () if known is None else DEFINED if same else ALWAYS:
                own, other = getattr(metric, field), getattr(known, field)
                wrong += (
                    [f"{metric.name} has {field} {own} instead of {other}"] if own != other else []
                )
        if wrong:
            what = f"defines metrics otherwise than task and probes do: {'; '.join(wrong[:3])}"
            yield failed(
                record.run_id,
                what,
                "verify with the version that made the runs, which records name",
            )
    if unlike:
        names, more = (
            ", ".join([*unlike][:3]),
            f" and {len(unlike) - 3} more" if len(unlike) > 3 else "",
        )
        what = f"{names}{more}: defined in other words than here, or by no task or probe here"
        yield Finding("not checked", f"{what}, so that their units and bounds are not compared")


def passed(evidence: Evidence) -> Iterator[Finding]:
    """Runs passed their self-checks."""
    yield from evidence.excluded("self-checks")
    for record in evidence.records:
        if record.status == "invalid":
            named = [check.name for check in record.checks if not check.passed]
            again = RunFiles.read(evidence.folder, record).self_checks() if named else ()
            equal = all(
                len(_counts(check.detail)) == 1
                for check in record.checks
                if check.name == "parameters"
            )
            passes = {
                check.name
                for check in again
                if check.passed and (equal or check.name != "parameters")
            }
            if passes.issuperset(named):
                yield failed(
                    record.run_id,
                    f"is called invalid for {', '.join(named) or 'no check'}, which it passes",
                )


def self_checks(run: RunFiles) -> Iterator[str]:
    """The self-checks are complete and give the same again."""
    record = run.record
    named, due = {check.name: check for check in record.checks}, run.self_checks()
    if lacking := [check.name for check in due if check.name not in named]:
        yield f"lacks the self-check{'s' if lacking[1:] else ''} {', '.join(lacking)}"
    for was, again in ((named[check.name], check) for check in due if check.name in named):
        if again.name == "parameters":
            if _counts(was.detail) != {f"{run.parameters:,.0f}"}:
                yield (
                    f"has {run.parameters:,.0f} trained parameters, and its self-check counted "
                    f"{was.detail}"
                )
        elif again.name == run.task.headline.removeprefix("test_") and not run.defined_alike:
            continue  # this version scores otherwise; `predictions` compares the stored scores
        elif not again.passed:
            yield f"fails the self-check {again.name}: {again.detail}"
        elif was.detail != again.detail:
            yield (
                f"its self-check {again.name} was on other numbers: {was.detail}; its files give: "
                f"{again.detail}"
            )


def _counts(detail: str) -> set[str]:
    """Return the first words of a self-check's parts, which are its counts."""
    return {part.partition(" ")[0] for part in detail.split(", ")}


def scores(run: RunFiles) -> Iterator[str]:
    """Stored scores of the rows are those of the answers."""
    if run.predictions is None or run.predictions.scores is None or not run.defined_alike:
        return
    given = np.asarray(run.task.scores(run.predictions), dtype=np.float64)
    wrong = int((~np.isclose(run.predictions.scores, given, rtol=STORED, atol=STORED)).sum())
    if wrong:
        yield (
            f"{wrong:,} of {len(given):,} rows of its predictions have a score that their answers "
            f"don't give"
        )


def metrics(run: RunFiles) -> Iterator[str]:
    """Metrics are defined, finite, within bounds."""
    record, known = run.record, {metric.name: metric for metric in run.record.definitions}
    if record.headline not in record.metrics:
        yield f"its score {record.headline} is not among its metrics"
    if record.headline != run.task.headline:
        yield f"its score is {record.headline}, and that of its task {run.task.headline}"
    for name, value in record.metrics.items():
        if name not in known:
            yield f"has a metric {name} without a definition"
        elif value is not None and not math.isfinite(value):
            yield f"its {name} is {value}"
        elif value is not None:
            low, high = known[name].bounds
            if (low is not None and value < low) or (high is not None and value > high):
                yield f"its {name} of {value:g} is beyond its bounds"
            middle = record.metrics.get(f"{name.rpartition('_')[0]}_p50")
            if name.endswith(("_p90", "_p99")) and middle is not None and value < middle:
                yield f"its {name} of {value:g} is below the median, {middle:g}"


def figures(run: RunFiles) -> Iterator[str]:
    """Points give rates, norms and losses."""
    if run.trained and not run.steps:
        yield "its points are not one of each kind for every step"
        return
    record, rows = run.record, 0 if run.predictions is None else len(run.predictions)
    finished = Finished(record.spec.settings, record.metrics, record.per_rank, run.steps, rows)
    for name in registry.names("probes"):
        for metric, given in registry.plugin("probes", name).implied(finished).items():
            recorded = record.metrics.get(metric)
            if recorded is not None and not math.isnan(given):
                yield from _unlike(metric, recorded, given, "files")


def _unlike(metric: str, recorded: float, given: float, source: str) -> Iterator[str]:
    if not math.isclose(recorded, given, rel_tol=STORED, abs_tol=1e-9):
        yield f"its {metric} is recorded as {recorded:.6g}, and its {source} give {given:.6g}"


def ranks(run: RunFiles) -> Iterator[str]:
    """Ranks' own values give those of the run."""
    record, size = run.record, run.record.spec.settings.world_size
    over = {metric.name: metric.over_ranks for metric in record.definitions}
    for name in record.metrics if size != 1 else ():  # one rank's are the run's
        if over.get(name) in REDUCTIONS and name not in record.per_rank:
            yield f"its {name} lacks the ranks' own values"
    for name, values in record.per_rank.items():
        if size is not None and len(values) != size:
            yield f"its {name} has values of {len(values)} ranks, and there were {size}"
        reduce, recorded = REDUCTIONS.get(over.get(name, "")), record.metrics.get(name)
        known = [value for value in values if value is not None]
        if reduce is not None and recorded is not None and known:
            yield from _unlike(name, recorded, reduce(known), "ranks")


def steps(run: RunFiles) -> Iterator[str]:
    """Points of the steps give samples, tokens and times."""
    consumed, settings = run.record.consumed, run.record.spec.settings
    if not run.trained or consumed is None or not run.steps:
        return
    planned = consumed.planned or consumed.steps
    if settings.steps not in (None, planned):
        yield f"took {planned} steps, and its settings say {settings.steps}"
    if (consumed.planned is None) == (settings.select == "early"):
        yield (
            f"its plan without an early end is of {consumed.planned} steps, and it has select "
            f"{settings.select}"
        )
    for name in ("real_tokens", "padded_tokens"):
        given, recorded = sum(getattr(step, name) for step in run.steps), getattr(consumed, name)
        if given != recorded:
            yield f"consumed {recorded:,} {name.replace('_', ' ')}, and its points give {given:,}"
    if any(step.real_tokens > step.padded_tokens for step in run.steps):
        yield "has more tokens than with padding in a step"
    if len({len(step.rank_seconds) for step in run.steps}) > 1 or not run.steps[0].rank_seconds:
        yield "its points lack the ranks' own seconds"
        return
    windows, wrong, first = Windows(settings, len(run.steps)), 0, 0
    for step in run.steps:
        if windows.ends_window(step.index) or step is run.steps[-1]:  # where ranks meet
            window, first = run.steps[first : step.index], step.index
            given = step_seconds(np.array([one.rank_seconds for one in window], dtype=np.float64).T)
            wrong += int((np.abs([one.seconds for one in window] - given) > SECONDS).sum())
    if wrong:
        yield f"{wrong} of its {len(run.steps)} steps have times that their ranks' don't give"


def evaluations(run: RunFiles) -> Iterator[str]:
    """Validation losses stand where settings say."""
    consumed, there = run.record.consumed, [point.step for point in run.series("validation_loss")]
    if consumed is None:
        return
    windows = Windows(run.record.spec.settings, consumed.planned or consumed.steps)
    due = [step for step in range(1, consumed.steps + 1) if windows.evaluates(step)]
    if run.trained and there != due:
        yield f"has {len(there)} validation losses, and its settings ask for {len(due)}"


def rates(run: RunFiles) -> Iterator[str]:
    """Learning rates follow method and schedule."""
    if not run.steps:
        return
    spec, settings, used = run.record.spec, run.record.spec.settings, run.record.consumed
    planned = (used and used.planned) or len(run.steps)
    # the first group's rate is recorded: the method's, or the head's where it trains nothing else
    peak = spec.method.lr if run.record.metrics.get("trainable_parameters") else settings.head_lr
    for step in run.steps:
        due = peak * lr_factor(step.index - 1, planned, settings)
        if not math.isclose(step.lr, due, rel_tol=STORED, abs_tol=1e-12):
            yield (
                f"trained step {step.index} at the rate {step.lr:.4g}, and its method and "
                f"schedule give {due:.4g}"
            )
            return


def wall_time(run: RunFiles) -> Iterator[str]:
    """Phases fit into the run's wall time."""
    record = run.record
    spent = sum(record.metrics.get(name) or 0.0 for name in (*PHASES, *AFTER))
    if spent > record.wall_seconds:
        yield f"took {record.wall_seconds:.4g} s, and its phases {spent:.4g} s"
    total, setup = (record.metrics.get(name) for name in ("total_seconds", "setup_seconds"))
    inner = sum(record.metrics.get(name) or 0.0 for name in PHASES[1:]) + (setup or 0.0)
    if total is not None and inner > total + SECONDS:
        yield f"its total_seconds are {total:.4g}, and its phases {inner:.4g} s"
