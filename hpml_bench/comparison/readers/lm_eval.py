"""Samples that lm-evaluation-harness logs with --log_samples
(github.com/EleutherAI/lm-evaluation-harness).

Written by versions since 0.4.6 as MODEL/samples_TASK_DATE.jsonl beside MODEL/results_DATE.json.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import (
    CONTENT,
    DATASET,
    GROUP,
    ROW,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    InputScores,
)
from hpml_bench.judge.scores import ScoreDefinition
from hpml_bench.select.comparability import grouped
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, sanitize

ORDER = 10
SOURCE = "samples of lm-evaluation-harness"
FIRST = ("acc", "exact_match")
"""Metrics by which a task is compared, if none is asked for and it has one of them; else by its
first one.
"""
NO_FILTER = frozenset(
    {"", "none"}
)  # names of no filter: of samples that name none, and of tasks that declare none
TEXTS = frozenset({"doc", "target", "arguments", "resps", "filtered_resps"})
"""Keys of a sample that hold its texts, which nothing here needs and which are most of a file."""
SAMPLES = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl")
NAMES = frozenset({"peft", "delta", "pretrained", "model", "path", "engine"})
"""Model arguments that name the model (`_get_model_name` in its evaluation_tracker.py)."""
FAMILIES = (
    "bbh",
    "belebele",
    "blimp",
    "cmmlu",
    "leaderboard_bbh",
    "leaderboard_gpqa",
    "leaderboard_musr",
    "mmlu",
)
"""Beginnings of the names of tasks that are parts of one benchmark, where a results file names
no group.
"""
GROUPED = {
    "belebele": "flores_passage",
    "coqa": "story",
    "drop": "passage",
    "multirc": "idx.paragraph",
    "record": "passage",
    "squadv2": "title",
}
"""Task, or the beginning of its name -> field of its documents by which rows depend on each
other.
"""
LONGEST = (
    60  # characters of a group's name; of a longer one, such as a passage, the digest is taken
)
# bytes of a file that show whether it has samples: its first line, which holds a whole document
HEAD = 2_000_000
SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1"})
"""Metrics of rows between 0 and 1, of which more is better also where the results file doesn't
say it.
"""


def claims(path: Path) -> bool:
    """Return whether a path is a file of samples, or of results, which `read` refuses, or a
    folder with some.
    """
    return any(
        SAMPLES.fullmatch(file.name) or _is_results(file) for file in _files(path)
    ) or _has_samples(path)


def read(
    path: Path, metric: str | None = None, group: str | None = None
) -> tuple[InputScores, ...]:
    """Return the samples of a folder's models by task, each through one filter.

    `path`: a file of samples, a model's folder, or one with folders of models. `metric`: its name,
    with or without its filter, such as `exact_match` or `exact_match,strict-match`; the first of
    `FIRST` that a task has if None, else the task's first one. Without a filter, the task's first
    one. `group`: field of the documents whose rows of one value depend on each other, such as
    `idx.paragraph`; that of `GROUPED` if None, where a task's documents have it.

    A UserError where a file can't be read or was renamed, a row's value is no number, a document
    lacks the field of groups, no task has the metric, or its direction is unknown or differs
    between models.
    """
    logs, content = list[Log](), cache(inputs.json_mapping)
    for file in sorted(_files(path)):
        if named := SAMPLES.fullmatch(file.name):
            if not (results := file.with_name(f"results_{named[2]}.json")).exists():
                raise UserError(
                    f"{file}: there is no {results.name} beside it, which lm_eval writes; give both"
                )
            logs.append(Log(file, named[1], named[2], content(results), group))
    if not logs and _has_samples(path):
        raise UserError(
            f"{path} has samples; keep the name that lm_eval gave it, beside its results file"
        )
    if not logs:
        what = "has means without rows" if path.is_file() else "has no samples_TASK_DATE.jsonl"
        raise UserError(
            f"{path} {what}; give the samples that lm_eval writes with --log_samples and "
            f"--output_path"
        )
    by_task = sorted(grouped(logs, lambda log: log.task).items())
    found = [one for task, of in by_task for one in _of_task(path, sanitize(task), of, metric)]
    if not found and metric is None:
        raise UserError(
            f"{path}: its samples name no metrics; evaluate with lm_eval 0.4.6 or newer"
        )
    if not found:
        there = "; ".join(
            f"{task}: {', '.join(_label(*one) for one in _metrics(of))}" for task, of in by_task
        )
        raise UserError(f"{path}: no task has the metric {metric}; there is {sanitize(there, 600)}")
    return tuple(found)


def _of_task(
    path: Path, task: str, logs: Sequence[Log], metric: str | None
) -> Iterator[InputScores]:
    """Yield the scores of a task's rows by one metric and filter; nothing where it lacks the
    requested metric.
    """
    # Filters read the same answers, so a task counts once: through the first that has the metric,
    # of those that most models have.
    import pandas as pd

    used, remarks = _newest(task, logs)
    there = _metrics(used)
    wanted, _, through = (metric or "").partition(",")
    fitting = [
        (name, of)
        for name, of in there
        if metric is None or (name == wanted and through in {"", of})
    ]
    if not fitting:
        return
    chosen = max((of for _, of in fitting), key=lambda of: sum(of in log.rows for log in used))
    names = [name for name, of in fitting if of == chosen]
    name = next((first for first in FIRST if first in names), names[0])
    if lacking := sanitize(", ".join(log.system for log in used if chosen not in log.rows), 300):
        remarks.append(f"Without samples of {task} through filter {sanitize(chosen)}: {lacking}.")
    label = sanitize(_label(name, chosen))
    also = sanitize(", ".join(_label(*one) for one in there if one != (name, chosen)), 300)
    remarks.append(
        f"{task} is compared by "
        f"{label}{f'; its samples also have {also} (--metric)' if also else ''}."
    )
    logs = [log for log in used if chosen in log.rows]
    better = {log.better(name): log for log in logs}
    if len(better) > 1:
        what = (
            f"disagree on whether more {name} is better; compare models by one version of the task"
        )
        raise UserError(f"{' and '.join(str(log.file) for log in better.values())} {what}")
    lines = [
        {
            SYSTEM: log.system,
            ROW: row.row,
            SCORE: _value(row, name),
            SEED: log.seed,
            DATASET: task,
            CONTENT: row.content,
            WHERE: row.where,
            GROUP: row.group,
        }
        for log in logs
        for row in log.rows[chosen]
    ]
    frame = pd.DataFrame(lines).astype({SCORE: float})
    if frame[GROUP].isna().all():
        frame = frame.drop(columns=GROUP)
    else:
        remarks.append(
            f"Rows of {task} are grouped by {sanitize(logs[0].field, 60)} of their documents."
        )
    remarks += [remark for log in logs for remark in _checked(log, chosen, name)]
    low, high = (0.0, 1.0) if name in SHARES and frame[SCORE].between(0, 1).all() else (None, None)
    score = ScoreDefinition(label, next(iter(better)), low, high)
    block = next((log.block for log in used if log.block), "")
    yield InputScores(
        frame,
        score,
        remarks=tuple(remarks),
        source=inputs.source_of(SOURCE, path, len(used)),
        block=block,
    )


def _metrics(logs: Sequence[Log]) -> list[tuple[str, str]]:
    """Return the metrics of rows whose values are numbers, each with the filter through which it
    is.
    """
    found: dict[tuple[str, str], None] = {}
    for log in logs:
        for through, (first, *_) in log.rows.items():
            listed = first.fields.get("metrics")
            names = [
                name
                for name in (listed if isinstance(listed, list) else [])
                if isinstance(name, str)
            ]
            found |= dict.fromkeys(
                (name, through) for name in names if _is_number(first.fields.get(name))
            )
    return list(found)


def _label(metric: str, chosen: str) -> str:
    """Return a metric as results files and `--metric` name it; without the filter that does
    nothing.
    """
    return metric if chosen in NO_FILTER else f"{metric},{chosen}"


def _newest(task: str, logs: Sequence[Log]) -> tuple[list[Log], list[str]]:
    """Return each model's newest samples, by seed of the examples, and remarks on the others and on
    settings.

    Runs of a model in the same way but for that seed are its seeds.
    """
    used, remarks = list[Log](), list[str]()
    by_model = grouped(sorted(logs, key=lambda log: log.date), lambda log: log.system)
    for system, of in by_model.items():
        kept = {log.seed: log for log in of if log.settings == of[-1].settings}
        used += kept.values()
        remarks += [
            (
                f"{system} was evaluated on {task} before {of[-1].file.name}: {old.file.name} is "
                f"left out."
            )
            for old in of
            if kept.get(old.seed) is not old
        ]
    for name in dict.fromkeys(key for log in used for key in log.settings):
        if len({log.settings.get(name) for log in used}) > 1:
            each = ", ".join(f"{log.system}: {log.settings.get(name, 'none')}" for log in used)
            remarks.append(
                f"Models were evaluated on {task} with another {name}: {sanitize(each, 600)}."
            )
    if len(used) > len(by_model):
        remarks.append(
            "Seeds are those of the examples before each row; the models themselves are the same "
            "in all."
        )
    return used, remarks


def _checked(log: Log, chosen: str, metric: str) -> Iterator[str]:
    """Yield what rows and results file disagree on."""
    rows = log.rows[chosen]
    mean = sum(_value(row, metric) for row in rows) / len(rows)
    figures = [log.get("results", log.task, key) for key in (f"{metric},{chosen}", metric)]
    reported = next(filter(_is_number, figures), None)
    if reported is not None and not math.isclose(mean, reported, rel_tol=1e-9, abs_tol=1e-12):
        yield (
            f"{log.system}: the mean of the rows' {metric} is {mean:.6g}, and the results file has "
            f"{reported:.6g}, which is no mean of these rows; what is compared is the mean."
        )
    counted, whole = (log.get("n-samples", log.task, key) for key in ("effective", "original"))
    if _is_number(counted) and counted != len({row.row for row in rows}):
        yield (
            f"{log.system}: {len(rows)} rows are logged on {log.task}, and the results file "
            f"counts {counted}."
        )
    if _is_number(whole) and _is_number(counted) and counted < whole:
        yield f"{log.system} was evaluated on {counted} of {log.task}'s {whole} rows."


class Row(NamedTuple):
    """A row of a task, as a model answered it."""

    fields: Mapping[str, Any]  # all but its texts
    where: str
    row: str  # the row's number in its split
    content: str  # hash of the document
    group: str | None  # group of rows that it is of; None where its document names none


def _value(row: Row, metric: str) -> float:
    value = row.fields.get(metric)
    if not _is_number(value) or not abs(value) <= sys.float_info.max:
        what = f"{metric} of row {row.row} is {sanitize(repr(value), 60)}"
        raise UserError(f"{row.where}: {what}, and must be a number")
    return float(value)


@dataclass(frozen=True)
class Log:
    """The samples of a model on a task, from one call of lm_eval."""

    file: Path
    task: str
    date: str
    results: Mapping[str, Any]  # the results file beside it
    group: str | None = (
        None  # field of its documents that names a row's group; None where the task has its own
    )

    def get(self, *keys: str) -> Any:
        return _value_at(self.results, keys)

    @cached_property
    def system(self) -> str:
        """The model's name, else that of its folder."""
        name = self.get("model_name")
        return (sanitize(name) if isinstance(name, str) else "") or sanitize(self.file.parent.name)

    @property
    def seed(self) -> str:
        """The seed of the examples before each row; empty where there are none or it is unknown."""
        seed = self.get("config", "fewshot_seed")
        return str(seed) if self.get("n-shot", self.task) and isinstance(seed, int) else ""

    @cached_property
    def settings(self) -> dict[str, str]:
        """Circumstances by name that decide what a score means."""
        given = self.get("config", "model_args")  # some versions write an object, others a text
        if isinstance(given, str):
            given = dict(part.partition("=")[::2] for part in given.split(","))
        arguments = sorted(given.items()) if isinstance(given, dict) else []
        known = {
            "number of examples": self.get("n-shot", self.task),
            "version of the task": self.get("versions", self.task),
            "chat template": str(self.get("chat_template_sha") or "")[:12] or None,
            "limit": self.get("config", "limit"),
            "generation": self.get("config", "gen_kwargs") or None,
            "model argument": ", ".join(
                f"{key}={value}" for key, value in arguments if key not in NAMES
            )
            or None,
        }
        return {name: sanitize(value, 80) for name, value in known.items() if value is not None}

    @property
    def field(self) -> str:
        """Field of its documents by which rows are grouped; empty where none is known."""
        return self.group or next(
            (field for name, field in GROUPED.items() if _is_of(self.task, name)), ""
        )

    @property
    def block(self) -> str:
        """The widest group of tasks with a score of its own that the task is part of, else its
        family; else empty.
        """
        given, at, found = self.get("group_subtasks"), self.task, ""
        parts = (
            [(name, of) for name, of in given.items() if isinstance(of, list)]
            if isinstance(given, dict)
            else []
        )
        above = {str(part): name for name, of in parts for part in of}
        while at := above.pop(at, ""):
            found = at if self.get("groups", at) else found
        return sanitize(found or next((name for name in FAMILIES if _is_of(self.task, name)), ""))

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """Filter through which answers went -> the rows in their order."""
        found: dict[str, list[Row]] = {}
        for where, fields in inputs.json_records(self.file):
            if fields.get("doc_id") is None:
                raise UserError(
                    f"{where}: there is no doc_id, so the row can't be matched between models"
                )
            document = fields.get("doc")
            content = str(fields.get("doc_hash") or digest(document))  # some versions log no hash
            group = _value_at(document, self.field.split("."))
            if group is not None and not isinstance(group, str):
                group = json.dumps(group, sort_keys=True)
            group = digest(group) if group and len(group) > LONGEST else group
            kept = {key: value for key, value in fields.items() if key not in TEXTS}
            row = Row(kept, where, sanitize(fields["doc_id"]), content, group)
            found.setdefault(str(fields.get("filter", "")), []).append(row)
        every = [row for rows in found.values() for row in rows]
        lacking = next((row for row in every if row.group is None), None)
        if lacking and (self.group or every[0].group is not None):
            what = f"the document has no {sanitize(self.field, 60)}, by which rows are grouped"
            raise UserError(
                f"{lacking.where}: {what}; give files whose documents all have it, or another "
                f"--group"
            )
        return found

    def better(self, metric: str) -> Literal["higher", "lower"]:
        """Return a metric's direction; a UserError where it isn't known."""
        stated = self.get("higher_is_better", self.task, metric)
        if not isinstance(stated, bool) and metric not in SHARES:
            raise UserError(
                f"{self.file}: the results file beside it doesn't say whether more {metric} is "
                f"better; choose another metric of {self.task} with --metric"
            )
        return "lower" if stated is False else "higher"


def _value_at(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_of(task: str, name: str) -> bool:
    return task == name or task.startswith(f"{name}_")


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number, or true or false as some metrics are."""
    return isinstance(value, bool | int | float)


def _files(path: Path) -> Iterable[Path]:
    return [path] if path.is_file() else path.rglob("*.json*")


def _is_results(path: Path) -> bool:
    return (
        path.suffix == ".json"
        and path.name.startswith("results")
        and b'"results"' in inputs.head_of(path, 100)
    )


def _has_samples(path: Path) -> bool:
    first = inputs.head_of(path, HEAD).split(b"\n", 1)[0]
    return path.suffix == ".jsonl" and b'"doc_id"' in first and b'"resps"' in first
