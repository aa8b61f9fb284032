"""Files that lm-evaluation-harness logs: the samples of a model on a task, and the results file beside them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from hpml_bench.comparison.inputs import head_of, json_mapping, json_records
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

TEXTS = frozenset({"doc", "target", "arguments", "resps", "filtered_resps"})
"""Keys of a sample that hold its texts, which nothing here needs and which are most of a file."""
NEWEST = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl")
OLD_RESULTS = "results.json"
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
"""Metrics of which more is better also where a results file doesn't say so, as of versions before 0.4.3."""


@dataclass(frozen=True)
class Sample:
    """A row of a task, as a model answered it."""

    fields: Mapping[str, Any]
    """All but its texts."""
    where: str
    row: str
    """The row's number in its split."""
    filter: str
    """The filter through which the answer went; empty where the version names none."""
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
        """The model's arguments by name; of newer versions an object, of older ones a text."""
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
        for where, fields in json_records(self.file):
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
        return self._with_filters(found)

    def _with_filters(self, samples: list[Sample]) -> list[Sample]:
        """Name the filters where samples don't, as before 0.4.6: a row's n-th sample is that of the n-th filter."""
        results = self.of_results("results", self.task)
        keys = [key.partition(",") for key in results if "," in key] if isinstance(results, dict) else []
        names = list(dict.fromkeys(name for metric, _, name in keys if not metric.endswith("_stderr")))
        count: Counter[str] = Counter()
        named = []
        for sample in samples:
            nth = count[sample.row]
            count[sample.row] += 1
            named.append(replace(sample, filter=names[nth % len(names)] if names else ""))
        unnamed = all("filter" not in sample.fields for sample in samples)
        return named if unnamed and names and set(count.values()) == {len(names)} else samples

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


def candidates(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.jsonl") if path.is_file() and _named(path) is not None)


def _named(path: Path) -> tuple[str, str, Path | None] | None:
    """Return task, date and results file of a file of samples; None if its name is of none."""
    if found := NEWEST.fullmatch(path.name):
        beside = (file for file in path.parent.iterdir() if file.name.endswith(f"_{found['date']}.json"))
        return found["task"], found["date"], next(iter(sorted(beside)), None)
    results = path.with_name(OLD_RESULTS)
    if not results.is_file():
        return None
    configs = json_mapping(results).get("configs")
    tasks = [task for task in configs if path.stem.endswith(f"_{task}")] if isinstance(configs, dict) else []
    return (max(tasks, key=len), "", results) if tasks else None


def is_results(path: Path) -> bool:
    """Return whether a path is a results file, by its name and its first keys."""
    return path.suffix == ".json" and path.name.startswith("results") and b'"results"' in head_of(path, 100)


def has_samples(path: Path) -> bool:
    """Return whether a file's first line is a sample."""
    head = head_of(path, HEAD)
    first = head.lstrip(b"[ \r\n").split(b"\n" if head.lstrip()[:1] != b"[" else b"\0", 1)[0]
    return b'"doc_id"' in first and b'"resps"' in first


def logs_of(path: Path, group: str | None) -> list[Log]:
    results: dict[Path, dict[str, Any]] = {}
    found = []
    for file in [path] if path.is_file() else sorted(path.rglob("*.jsonl")):
        named = _named(file)
        if named is None and path.is_dir():
            continue
        task, date, beside = named or (file.stem, "", None)
        if beside is not None and beside not in results:
            results[beside] = json_mapping(beside)
        found.append(Log(file, task, date, results[beside] if beside is not None else {}, group))
    return found
