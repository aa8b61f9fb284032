"""Samples that lm-evaluation-harness logs with --log_samples (github.com/EleutherAI/lm-evaluation-harness).

Written by versions since 0.4.6 as MODEL/samples_TASK_DATE.jsonl beside MODEL/results_DATE.json.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeGuard

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import CONTENT, DATASET, GROUP, ROW, SCORE, SEED, SYSTEM, WHERE, InputScores
from hpml_bench.report.comparability import grouped
from hpml_bench.report.scores import ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

ORDER = 10
SOURCE = "samples of lm-evaluation-harness"
FIRST = ("acc", "exact_match")
"""Metrics by which a task is compared, if none is asked for and it has one of them; else by its first one."""
NO_FILTER = frozenset({"", "none"})
"""Names of no filter: of samples that name none, and of tasks that declare none."""
TEXTS = frozenset({"doc", "target", "arguments", "resps", "filtered_resps"})
"""Keys of a sample that hold its texts, which nothing here needs and which are most of a file."""
SAMPLES = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl")
NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")
"""Model arguments that name the model, the first ones first (`_get_model_name` in its evaluation_tracker.py)."""
FAMILIES = ("bbh", "belebele", "blimp", "cmmlu", "leaderboard_bbh", "leaderboard_gpqa", "leaderboard_musr", "mmlu")
"""Beginnings of the names of tasks that are parts of one benchmark, where a results file names no group."""
GROUPED = {"belebele": "flores_passage", "coqa": "story", "drop": "passage", "multirc": "idx.paragraph",
           "record": "passage", "squadv2": "title"}  # fmt: skip
"""Task, or the beginning of its name -> field of its documents by which rows depend on each other."""
LONGEST = 60
"""Characters of a group's name; of a longer one, such as a passage, the digest is taken."""
HEAD = 2_000_000
"""Bytes of a file that show whether it has samples: its first line, which holds a whole document."""
SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1"})
"""Metrics of rows between 0 and 1."""
HIGHER = SHARES | {"bleu", "chrf", "mcc", "rouge1", "rouge2", "rougeL", "likelihood_diff"}
"""Metrics of which more is better also where there is no results file beside the samples."""


def claims(path: Path) -> bool:
    """Return whether a path is a file of samples, or of results, which `read` refuses, or a folder with some."""
    if path.is_file():
        return (path.suffix == ".jsonl" and has_samples(path)) or is_results(path)
    samples = (file for file in path.rglob("*.jsonl") if SAMPLES.fullmatch(file.name))
    return any(map(has_samples, islice(samples, 20))) or any(map(is_results, islice(path.rglob("results*.json"), 20)))


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
        what = "has means without rows" if path.is_file() else "has no samples_TASK_DATE.jsonl"
        raise UserError(f"{path} {what}; give the samples that lm_eval writes with --log_samples and --output_path")
    by_task = grouped(logs, lambda log: log.task)
    found = [one for task, of in sorted(by_task.items()) for one in _of_task(path, task, of, metric)]
    if not found and metric is None:
        raise UserError(f"{path}: its samples name no metrics; evaluate with lm_eval 0.4.6 or newer")
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
            fields = log.through(chosen)[0].fields
            listed = fields["metrics"] if isinstance(fields.get("metrics"), list) else []
            names = (name for name in listed if isinstance(name, str) and is_number(fields.get(name)))
            found.setdefault(chosen, {}).update(dict.fromkeys(names))
    return {chosen: list(names) for chosen, names in found.items()}


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


# Files


@dataclass(frozen=True)
class Sample:
    """A row of a task, as a model answered it."""

    fields: Mapping[str, Any]
    """All but its texts."""
    where: str
    row: str
    """The row's number in its split."""
    filter: str
    """The filter through which the answer went."""
    content: str
    """Hash of the document."""
    group: str | None
    """Group of rows that it is of; None where its document names none."""

    def value(self, metric: str) -> float:
        """Return the row's value of a metric; a UserError where it is none."""
        value = self.fields.get(metric)
        if not is_number(value) or not abs(value) <= sys.float_info.max:
            what = f"{metric} of row {self.row} is {sanitize(repr(value), 60)}"
            raise UserError(f"{self.where}: {what}, and must be a number")
        return float(value)


@dataclass(frozen=True)
class Log:
    """The samples of a model on a task, from one call of lm_eval."""

    file: Path
    task: str
    date: str
    results: Mapping[str, Any]
    """The results file beside it; empty if there is none."""
    group: str | None = None
    """Field of its documents by which rows are grouped; None if it is the task's own."""

    def of_results(self, *keys: str) -> Any:
        """Return a value of the results file; None where it is missing."""
        value: Any = self.results
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The model's arguments by name; some versions write an object, others a text."""
        given = self.of_results("config", "model_args")
        if isinstance(given, str):
            return dict(part.partition("=")[::2] for part in given.split(","))
        return given if isinstance(given, dict) else {}

    @cached_property
    def system(self) -> str:
        """The model's name, else that of its folder."""
        first, last = self.of_results("model_name"), self.of_results("model_name_sanitized")
        named = (first, *map(self.arguments.get, NAMES), last, self.file.parent.name)
        return next((line for name in named if isinstance(name, str) and (line := sanitize(name))), "")

    @property
    def seed(self) -> str:
        """The seed of the examples before each row; empty where there are none or it is unknown."""
        seed = self.of_results("config", "fewshot_seed")
        return str(seed) if self.of_results("n-shot", self.task) and isinstance(seed, int) else ""

    @property
    def settings(self) -> dict[str, str]:
        """Circumstances by name that decide what a score means."""
        template = self.of_results("chat_template_sha")
        arguments = ", ".join(f"{key}={value}" for key, value in sorted(self.arguments.items()) if key not in NAMES)
        known = {
            "number of examples": self.of_results("n-shot", self.task),
            "version of the task": self.of_results("versions", self.task),
            "chat template": template and str(template)[:12],
            "limit": self.of_results("config", "limit"),
            "generation": self.of_results("config", "gen_kwargs") or None,
            "model argument": arguments or None,
        }
        return {name: sanitize(value, 80) for name, value in known.items() if value is not None}

    @property
    def field(self) -> str:
        """Field of its documents by which rows are grouped; empty where none is known."""
        return self.group or next((field for name, field in GROUPED.items() if _is_of(self.task, name)), "")

    @property
    def block(self) -> str:
        """The widest group of tasks with a score of its own that the task is part of, else its family; else empty."""
        given, at, found = self.of_results("group_subtasks"), self.task, ""
        parts = [(name, of) for name, of in given.items() if isinstance(of, list)] if isinstance(given, dict) else []
        above = {str(part): name for name, of in parts for part in of}
        while at := above.pop(at, ""):
            found = at if self.of_results("groups", at) else found
        return sanitize(found or next((name for name in FAMILIES if _is_of(self.task, name)), ""))

    @cached_property
    def samples(self) -> list[Sample]:
        """The rows in their order."""
        found = []
        for where, fields in inputs.json_records(self.file):
            if fields.get("doc_id") is None:
                raise UserError(f"{where}: there is no doc_id, so the row can't be matched between models")
            document, content = fields.get("doc"), fields.get("doc_hash")
            if not isinstance(content, str):  # some versions log none
                content = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
            kept = {key: value for key, value in fields.items() if key not in TEXTS}
            row, through = sanitize(fields["doc_id"]), str(fields.get("filter", ""))
            found.append(Sample(kept, where, row, through, content, _group(document, self.field)))
        lacking = [sample for sample in found if sample.group is None]
        if lacking and (self.group or found[0].group is not None):
            what = f"the document has no {sanitize(self.field, 60)}, by which rows are grouped"
            raise UserError(f"{lacking[0].where}: {what}; give files whose documents all have it, or another --group")
        return found

    def through(self, chosen: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.filter == chosen]

    def reported(self, metric: str, chosen: str) -> float | None:
        """Return the figure of the results file for a metric through a filter; None where it has none."""
        for key in (f"{metric},{chosen}", metric):
            value = self.of_results("results", self.task, key)
            if is_number(value):
                return float(value)
        return None

    def better(self, metric: str) -> Literal["higher", "lower"]:
        """Return a metric's direction; a UserError where it isn't known."""
        listed = self.of_results("configs", self.task, "metric_list")
        listed = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        stated = [one.get("higher_is_better") for one in listed if one.get("metric") == metric]
        known = (self.of_results("higher_is_better", self.task, metric), *stated, True if metric in HIGHER else None)
        for value in known:
            if isinstance(value, bool):
                return "higher" if value else "lower"
        raise UserError(
            f"{self.file}: the results file beside it doesn't say whether more {metric} is better; choose another "
            f"metric of {self.task} with --metric"
        )


def _is_of(task: str, name: str) -> bool:
    return task == name or task.startswith(f"{name}_")


def _group(document: Any, field: str) -> str | None:
    """Return a document's value of a field, as text; None where it has none."""
    for key in field.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    if document is None:
        return None
    text = str(document) if isinstance(document, str | int) else json.dumps(document, sort_keys=True)
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number, or true or false as some metrics are."""
    return isinstance(value, bool | int | float)


def is_results(path: Path) -> bool:
    """Return whether a path is a results file, by its name and its first keys."""
    return path.suffix == ".json" and path.name.startswith("results") and b'"results"' in inputs.head_of(path, 100)


def has_samples(path: Path) -> bool:
    """Return whether a file's first line is a sample."""
    first = inputs.head_of(path, HEAD).split(b"\n", 1)[0]
    return b'"doc_id"' in first and b'"resps"' in first


def logs_of(path: Path, group: str | None) -> list[Log]:
    """Return the samples of a folder, or of one file, which may have any name."""
    content, found = cache(inputs.json_mapping), []
    for file in [path] if path.is_file() else sorted(path.rglob("*.jsonl")):
        if (named := SAMPLES.fullmatch(file.name)) or path.is_file():
            task, date = named.groups() if named else (file.stem, "")
            beside = sorted(file.parent.glob(f"*_{date}.json")) if named else []
            found.append(Log(file, task, date, content(beside[0]) if beside else {}, group))
    return found
