"""Samples that lm-evaluation-harness logs with --log_samples (github.com/EleutherAI/lm-evaluation-harness).

Written by versions since 0.4.3 as MODEL/samples_TASK_DATE.jsonl beside MODEL/results_DATE.json, before as
MODELARGUMENTS_TASK.jsonl, which holds a list, beside results.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import CONTENT, DATASET, GROUP, ROW, SCORE, SEED, SYSTEM, WHERE, InputScores
from hpml_bench.comparison.lm_eval_logs import SHARES, Log, candidates, has_samples, is_number, is_results, logs_of
from hpml_bench.report.comparability import grouped
from hpml_bench.report.scores import ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

ORDER = 10
SOURCE = "samples of lm-evaluation-harness"
FIRST = ("acc", "exact_match")
"""Metrics by which a task is compared, if none is asked for and it has one of them; else by its first one."""
NO_METRICS = frozenset({
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
})  # fmt: skip
"""Keys of a sample that are no metrics, for versions that don't list them."""
NO_FILTER = frozenset({"", "none"})
"""Names of no filter: of samples that name none, and of tasks that declare none."""


def claims(path: Path) -> bool:
    """Return whether a path is a file of samples, or of results, which `read` refuses, or a folder with some."""
    if path.is_file():
        return (path.suffix == ".jsonl" and has_samples(path)) or is_results(path)
    try:
        of_results = islice(path.rglob("results*.json"), 20)
        return any(map(has_samples, islice(candidates(path), 20))) or any(map(is_results, of_results))
    except UserError:  # a results file that can't be read: `read` says so
        return True


def read(path: Path, metric: str | None = None, group: str | None = None) -> tuple[InputScores, ...]:
    """Return the samples of a folder's models by task, each through one filter.

    `path`: a file of samples, a model's folder, or one with folders of models. `metric`: its name, with or without its
    filter, such as `exact_match` or `exact_match,strict-match`; the first of `FIRST` that a task has if None, else the
    task's first one. Without a filter, the task's first one. `group`: field of the documents whose rows of one value
    depend on each other, such as `idx.paragraph`; that of `GROUPED` if None, where a task's documents have it.

    A UserError where a file can't be read, a row's value is no number, a document lacks the field of groups, no task
    has the metric, or its direction is unknown or differs between models.
    """
    logs = [] if is_results(path) else logs_of(path, group)
    if not logs:
        what = "has means without rows" if path.is_file() else "has no samples_*.jsonl"
        raise UserError(f"{path} {what}; give the samples that lm_eval writes with --log_samples and --output_path")
    by_task = grouped(logs, lambda log: log.task)
    found = [one for task, of in sorted(by_task.items()) for one in _of_task(path, task, of, metric)]
    if not found:
        there = sorted(f"{task}: {', '.join(_labels(_metrics(of)))}" for task, of in by_task.items())
        raise UserError(f"{path}: no task has the metric {metric}; there is {sanitize('; '.join(there), 600)}")
    return tuple(found)


def _of_task(path: Path, task: str, logs: Sequence[Log], metric: str | None) -> Iterator[InputScores]:
    """Yield what a task's rows give by one metric through one filter; nothing where it hasn't the one asked for.

    Filters read the same answers, so a task counts once: through the first filter that has the metric, of those that
    most models have.
    """
    used, remarks = _newest(task, logs)
    there = _metrics(used)
    filters = [(chosen, name) for chosen, names in there.items() if (name := _chosen(names, chosen, metric))]
    if not filters:
        return
    chosen, name = max(filters, key=lambda one: sum(bool(log.through(one[0])) for log in used))
    lacking = [log.system for log in used if not log.through(chosen)]
    if lacking:
        without = sanitize(", ".join(lacking), 300)
        remarks.append(f"Without samples of {sanitize(task)} through filter {sanitize(chosen)}: {without}.")
    also = sanitize(", ".join(label for label in _labels(there) if label != _label(name, chosen)), 300)
    remarks.append(
        f"{sanitize(task)} is compared by {sanitize(_label(name, chosen))}"
        f"{f'; its samples also have {also} (--metric)' if also else ''}."
    )
    made = _measured(sanitize(task), [log for log in used if log.through(chosen)], chosen, name, remarks)
    block = next((log.block for log in used if log.block), "")
    yield replace(made, source=inputs.source_of(SOURCE, path, len(used)), block=block)


def _metrics(logs: Iterable[Log]) -> dict[str, list[str]]:
    """Return filter -> metrics of rows through it whose values are numbers."""
    found: dict[str, dict[str, None]] = {}
    for log in logs:
        for chosen in dict.fromkeys(sample.filter for sample in log.samples):
            found.setdefault(chosen, {}).update(dict.fromkeys(_numbers(log.through(chosen)[0].fields)))
    return {chosen: list(names) for chosen, names in found.items()}


def _numbers(fields: Mapping[str, Any]) -> list[str]:
    """Return the metrics of a sample whose values are numbers."""
    listed = fields.get("metrics")
    names = listed if isinstance(listed, list) else [key for key in fields if key not in NO_METRICS]
    return [name for name in names if isinstance(name, str) and is_number(fields.get(name))]


def _label(metric: str, chosen: str) -> str:
    """Return a metric as results files and `--metric` name it; without the filter that does nothing."""
    return metric if chosen in NO_FILTER else f"{metric},{chosen}"


def _labels(metrics: Mapping[str, Sequence[str]]) -> list[str]:
    return [_label(name, chosen) for chosen, names in metrics.items() for name in names]


def _chosen(there: Sequence[str], chosen: str, metric: str | None) -> str | None:
    """Return the metric by which a task is compared through a filter; None if it hasn't the one asked for."""
    if metric is None:
        return next((name for name in FIRST if name in there), there[0] if there else None)
    name, _, through = metric.partition(",")
    return name if name in there and through in {"", chosen} else None


def _newest(task: str, logs: Sequence[Log]) -> tuple[list[Log], list[str]]:
    """Return each model's newest samples, by seed of the examples, and remarks on the others and on settings.

    Runs of a model in the same way but for that seed are its seeds.
    """
    by_model = grouped(sorted(logs, key=lambda log: log.date), lambda log: log.system)
    used, remarks = list[Log](), list[str]()
    for system, of in by_model.items():
        new = of[-1]
        kept = {log.seed: log for log in of if log.settings == new.settings}
        used += kept.values()
        for old in of:
            if not any(old is log for log in kept.values()):
                was = old.settings
                unlike = [f"{key} {was.get(key)}" for key, value in new.settings.items() if was.get(key) != value]
                other = f", since it had other settings ({', '.join(unlike)})" if unlike else ""
                before = f"{system} was evaluated on {sanitize(task)} before {new.file.name}"
                remarks.append(f"{before}: {old.file.name} is left out{other}.")
    for name in dict.fromkeys(key for log in used for key in log.settings):
        values = {log.settings.get(name) for log in used}
        if len(values) > 1:
            each = ", ".join(f"{log.system}: {log.settings.get(name, 'none')}" for log in used)
            remarks.append(f"Models were evaluated on {sanitize(task)} with another {name}: {sanitize(each, 600)}.")
    if len(used) > len(by_model):
        remarks.append("Seeds are those of the examples before each row; the models themselves are the same in all.")
    return used, remarks


def _measured(dataset: str, logs: Sequence[Log], chosen: str, metric: str, remarks: Iterable[str]) -> InputScores:
    import pandas as pd

    better = {log.better(metric): log for log in logs}
    if len(better) > 1:
        what = f"disagree on whether more {metric} is better; compare models by one version of the task"
        raise UserError(f"{' and '.join(str(log.file) for log in better.values())} {what}")
    rows = [(log, sample) for log in logs for sample in log.through(chosen)]
    lines = [[log.system, s.row, s.value(metric), log.seed, dataset, s.content, s.where] for log, s in rows]
    frame = pd.DataFrame(lines, columns=[SYSTEM, ROW, SCORE, SEED, DATASET, CONTENT, WHERE]).astype({SCORE: float})
    if any(sample.group is not None for _, sample in rows):
        frame[GROUP] = [sample.group for _, sample in rows]
        remarks = (*remarks, f"Rows of {dataset} are grouped by {sanitize(logs[0].field, 60)} of their documents.")
    low, high = (0.0, 1.0) if metric in SHARES and frame[SCORE].between(0, 1).all() else (None, None)
    noted = (*remarks, *(one for log in logs for one in _checked(log, chosen, metric)))
    score = ScoreDefinition(sanitize(_label(metric, chosen)), next(iter(better)), low, high)
    return InputScores(frame, score, remarks=noted)


def _checked(log: Log, chosen: str, metric: str) -> Iterator[str]:
    """Yield what rows and results file disagree on."""
    samples = log.through(chosen)
    if not log.results:
        yield f"{log.file.name} has no results file beside it, so that its figures can't be checked."
        return
    mean = sum(sample.value(metric) for sample in samples) / max(1, len(samples))
    reported = log.reported(metric, chosen)
    if reported is not None and not math.isclose(mean, reported, rel_tol=1e-9, abs_tol=1e-12):
        yield (
            f"{log.system}: the mean of the rows' {metric} is {mean:.6g}, and the results file has {reported:.6g}, "
            "which is no mean of these rows; what is compared is the mean."
        )
    counted = log.of_results("n-samples", log.task, "effective")
    if is_number(counted) and counted != len({sample.row for sample in samples}):
        yield f"{log.system}: {len(samples)} rows are logged on {log.task}, and the results file counts {counted}."
    whole = log.of_results("n-samples", log.task, "original")
    if is_number(whole) and is_number(counted) and counted < whole:
        yield f"{log.system} was evaluated on {counted} of {log.task}'s {whole} rows."
