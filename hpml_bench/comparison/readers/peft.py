"""Result files of PEFT's method comparison (github.com/huggingface/peft, method_comparison/), which hold no rows."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import COUNT, DATASET, HOST, SCORE, SEED, SYSTEM, WHERE, InputScores
from hpml_bench.records.files import MAX_RECORD_BYTES
from hpml_bench.report.comparability import grouped
from hpml_bench.report.peft import HOLDS, HOSTS, PROTOCOL, TEST_ROWS, UNRANKED
from hpml_bench.report.scores import CostDefinition, FailedRun, ScoreDefinition
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

ORDER = 20
SOURCE = "PEFT's method comparison"
FOLDERS = ("results", "temporary_results", "cancelled_results")
"""Folders into which its tasks' run.py sorts result files (method_comparison/*/utils.py)."""
SECTIONS = ("run_info", "train_info", "meta_info")
HEAD = 4_096
"""Bytes of a file that show whether it is one of these."""

SCORES = (
    ScoreDefinition("test accuracy", "higher", 0.0, 1.0),
    ScoreDefinition("test dino_similarity", "higher", -1.0, 1.0),
    ScoreDefinition("forgetting", "lower"),
    ScoreDefinition("drift", "lower", 0.0, 2.0),
    ScoreDefinition("train loss", "lower", 0.0),
)
"""Scores in the last of `train_info.metrics`: of MetaMathQA the first, of image-gen the second; the rest of either."""
BY_ITSELF = 2
"""Number of scores, the first ones, by which runs are compared where none is asked for: one of each task."""
GSM8K_ROWS = 1_319
"""Test rows of MetaMathQA: the whole test split of GSM8K (method_comparison/MetaMathQA/README.md, "Dataset")."""
UNSAVED = 99_999_999
"""`file_size` of a run whose checkpoint could not be saved (`get_file_size` in method_comparison/*/utils.py)."""
OWN_KEYS = frozenset({"seed", "optimizer_kwargs", "optimizer_type"})
"""Keys of `train_config` that may differ between systems without a remark."""
MOST_MEMORY = ("accelerator_memory_max", "cuda_memory_max")
MEAN_MEMORY = ("accelerator_memory_reserved_avg", "cuda_memory_reserved_avg")
"""Names of memory in bytes; the second ones are those of files before August 2025."""
INCLUDED = "test generation and loading of data included"
"""What `train_time` holds beside training, unless a file says otherwise: validation alone is subtracted from it."""


def claims(path: Path) -> bool:
    """Return whether a path is a result file, or a folder with some."""
    heads = (inputs.head_of(file, HEAD) for file in _files(path))
    return any(f'"{name}"'.encode() in head for head in heads for name in SECTIONS)


def read(path: Path, metric: str | None = None) -> tuple[InputScores, ...]:
    """Return the runs of a result file, or of a folder's, by data set and model.

    `path`: a file, a folder of files, or one that holds folders of `FOLDERS`, such as PEFT's `method_comparison`;
    `metric`: name of a score of `SCORES`; test accuracy, or of images the similarity, if None. A UserError where a file
    is none of these or can't be read, a value is no number, two files are the same run, or no run has the score.
    """
    wanted = SCORES[:BY_ITSELF] if metric is None else (_score(metric),)
    runs = [_Run(file, _load(file)) for file in _files(path)]
    if not runs:
        raise UserError(f"{path} has no result files of {SOURCE}; give the folder of its *.json")
    sets = grouped(runs, lambda run: (run.dataset, run.has(wanted)))
    scored = [(name, score) for name, score in sets if score is not None]
    if not scored and (metric is not None or all(run.status == "success" for run in runs)):
        raise UserError(f"{path}: no run has {' or '.join(repr(s.name) for s in wanted)} in the last of its metrics")
    found = [_measured(name, score, sets[name, score], sets.get((name, None), [])) for name, score in scored]
    alone = {name for name, _ in sets} - {name for name, _ in scored} if metric is None else set()
    found += [_measured(name, wanted[0], [], sets[name, None]) for name in sorted(alone)]
    return tuple(replace(one, source=inputs.source_of(SOURCE, path, len(one.lines) + len(one.failed))) for one in found)


def _score(metric: str) -> ScoreDefinition:
    name = metric.replace("_", " ").strip().lower()
    for score in SCORES:
        if name in (plain := score.name.replace("_", " "), plain.removeprefix("test ")):
            return score
    known = ", ".join(f"'{score.name}'" for score in SCORES)
    raise UserError(f"--metric {metric}: result files of {SOURCE} are compared by {known}")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" else []
    patterns = ("*.json", *(f"{above}{name}/*.json" for above in ("", "*/") for name in FOLDERS))
    return sorted({file for pattern in patterns for file in path.glob(pattern)})


def _load(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MAX_RECORD_BYTES:
        raise UserError(f"{file} is larger than {MAX_RECORD_BYTES // 10**6} MB, and no result file of {SOURCE}")
    data = inputs.json_mapping(file)
    for name in SECTIONS[:2]:
        if not isinstance(data.get(name), dict):
            raise UserError(f"{file} has no {name}, so it is no result file of {SOURCE}; take it out of the folder")
    return data


@dataclass(frozen=True)
class _Run:
    """A result file."""

    file: Path
    data: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """Return a value by its keys; None where it is missing or null."""
        value: Any = self.data
        for at, key in enumerate(keys):
            if value is None:
                return None
            if not isinstance(value, dict):
                raise self.wrong(keys[:at], value, "an object")
            value = value.get(key)
        return value

    def wrong(self, keys: Sequence[str], value: object, needed: str) -> UserError:
        return UserError(f"{self.file}: {'.'.join(keys)} is {sanitize(repr(value), 60)}, and must be {needed}")

    def text(self, *keys: str) -> str | None:
        """Return a text as one line; None where it is missing."""
        value = self.get(*keys)
        line = sanitize(value) if isinstance(value, str) else None
        if value is not None and not line:
            raise self.wrong(keys, value, "a text")
        return line

    def number(self, *keys: str) -> float:
        """Return a number; NaN where it is missing."""
        value = self.get(*keys)
        return math.nan if value is None else self.checked(value, keys)

    def checked(self, value: object, keys: Sequence[str], least: float = 0.0) -> float:
        """Return a value as a number; a UserError where it is none, not finite or less than the least."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise self.wrong(keys, value, "a number")
        if value < least:
            raise self.wrong(keys, value, f"at least {least:g}")
        return float(value)

    @cached_property
    def status(self) -> str:
        """`success`, or another end such as `failed` or `canceled`."""
        status = self.text("train_info", "status")
        if status is None:
            raise UserError(f"{self.file}: train_info.status is missing, so it isn't known how the run ended")
        return status

    @cached_property
    def system(self) -> str:
        """The experiment's name, else that of the file."""
        return self.text("run_info", "experiment_name") or sanitize(self.file.stem)

    @cached_property
    def seed(self) -> str:
        """The seed; empty where it is missing."""
        seed = self.get("run_info", "train_config", "seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise self.wrong(("run_info", "train_config", "seed"), seed, "a whole number")
        return "" if seed is None else str(seed)

    @cached_property
    def dataset(self) -> str:
        """Names of data and model, and of a run of ours its protocol: other runs are not compared with it."""
        names = ", ".join(sorted(map(sanitize, self.revisions)))
        data = self.text("run_info", "train_config", "dataset_id") or names or "unnamed data"
        model = self.text("run_info", "train_config", "model_id") or "unnamed model"
        protocol = self.text("meta_info", PROTOCOL)
        named = f"{'MetaMathQA' if self.on_gsm8k else data}, {model}"
        return f"{named}, protocol {protocol}" if protocol else named

    @cached_property
    def revisions(self) -> dict[str, str | None]:
        """Commits of the data sets by name; empty where the file names none."""
        known = self.get("meta_info", "dataset_info")
        names = [key for key, of in known.items() if isinstance(of, dict)] if isinstance(known, dict) else []
        return {name: self.text("meta_info", "dataset_info", name, "sha") for name in names}

    @property
    def on_gsm8k(self) -> bool:
        """Whether the run is one of MetaMathQA, tested on GSM8K."""
        return {"metamath", "gsm8k"} <= self.revisions.keys()

    @cached_property
    def metrics(self) -> list[Mapping[str, Any]]:
        """The windows of training, and last the test."""
        found = self.get("train_info", "metrics")
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.wrong(("train_info", "metrics"), found, "a list of objects")
        return found

    @property
    def last(self) -> Mapping[str, Any]:
        return self.metrics[-1] if self.metrics else {}

    def has(self, scores: Iterable[ScoreDefinition]) -> ScoreDefinition | None:
        """Return the first of some scores that a successful run has."""
        if self.status != "success":
            return None
        return next((score for score in scores if self.last.get(score.name) is not None), None)

    def score(self, score: ScoreDefinition) -> float:
        """Return a score that the run has."""
        keys = (f"train_info.metrics[{len(self.metrics) - 1}]", score.name)
        value = self.checked(self.last[score.name], keys, -math.inf if score.low is None else score.low)
        if score.high is not None and value > score.high:
            raise self.wrong(keys, value, f"at most {score.high:g}")
        return value

    def rows(self, score: ScoreDefinition) -> float:
        """Return the number of test rows of which an accuracy is the share; NaN where it isn't known."""
        own = self.last.get(TEST_ROWS)
        if score != SCORES[0] or (own is None and not self.on_gsm8k):
            return math.nan
        rows = GSM8K_ROWS if own is None else self.checked(own, ("train_info.metrics", TEST_ROWS), 1)
        right = self.score(score) * rows
        return float(rows) if math.isclose(right, round(right), abs_tol=1e-6) else math.nan

    @cached_property
    def seconds_per_1000(self) -> float:
        """Seconds of training per 1,000 samples: 1,000 / median over windows of samples / second; NaN without one."""
        rates: list[float] = []
        before: float | None = 0.0
        for at, window in enumerate(self.metrics):
            seconds, samples = (
                None if window.get(key) is None else self.checked(window[key], (f"train_info.metrics[{at}]", key))
                for key in ("train time", "train samples")
            )
            if seconds and samples is not None and before is not None and samples > before:
                rates.append((samples - before) / seconds)
            before = samples  # counted from the start: after a window without them, the next one's are unknown
        return 1_000 / median(rates) if rates else math.nan

    @cached_property
    def costs(self) -> dict[str, float]:
        """The costs by column of `COSTS`; NaN where one is missing."""
        most, mean = (
            next((size for name in names if not math.isnan(size := self.number("train_info", name))), math.nan)
            for names in (MOST_MEMORY, MEAN_MEMORY)
        )
        size = self.number("train_info", "file_size")
        return {
            "seconds_per_1000_samples": self.seconds_per_1000,
            "train_time": self.number("train_info", "train_time"),
            "total_time": self.number("run_info", "total_time"),
            "reserved_max_mb": most / 1e6,
            "reserved_avg_mb": mean / 1e6,
            "file_size_mb": math.nan if size == UNSAVED else 1e-6 * size,
            "trainable_parameters": self.number("train_info", "num_trainable_params"),
        }

    def failure(self, wanted: str) -> FailedRun:
        """Return the run as one without a score."""
        status = self.status if self.status != "success" else f"success, but without {wanted}"
        if self.get("run_info", "error_msg"):
            status += f": {sanitize(self.text('run_info', 'error_msg'), 200)}"
        return FailedRun(self.system, self.seed, status, str(self.file), self.dataset)


COSTS = (
    CostDefinition("train_time", "train time", "s"),
    CostDefinition("reserved_max_mb", "reserved memory", "MB",
                   about="Reserved memory: the largest that the allocator reserved, generation included."),
    CostDefinition("file_size_mb", "saved size", "MB"),
    CostDefinition("trainable_parameters", "trained parameters"),
    CostDefinition("seconds_per_1000_samples", "time per 1,000 samples", "s",
         about="Time per 1,000 samples: from the median throughput of the training windows."),
    CostDefinition("total_time", "total time", "s", about="Total time: loading and saving of the model included."),
    CostDefinition("reserved_avg_mb", "mean reserved memory", "MB", about="Mean reserved memory: over training steps."),
)  # fmt: skip


def _measured(dataset: str, score: ScoreDefinition, runs: Sequence[_Run], others: Sequence[_Run]) -> InputScores:
    """Return what runs of one data set give; `others` have no such score."""
    import pandas as pd

    seen: dict[tuple[str, str], _Run] = {}
    for run in runs:
        other = seen.setdefault((run.system, run.seed), run)
        if other is not run:
            seed = f" with seed {run.seed}" if run.seed else ""
            raise UserError(f"{other.file} and {run.file} are both runs of {run.system}{seed}; keep one of them")
    columns = [SYSTEM, SCORE, SEED, DATASET, COUNT, HOST, WHERE, *(cost.column for cost in COSTS)]
    lines = [
        {SYSTEM: r.system, SCORE: r.score(score), SEED: r.seed, DATASET: dataset, COUNT: r.rows(score),
         HOST: r.text("meta_info", HOSTS), WHERE: str(r.file)} | r.costs
        for r in runs
    ]  # fmt: skip
    frame = pd.DataFrame(lines, columns=columns).astype({SCORE: float, COUNT: float})
    holds = {sanitize(run.get("train_info", HOLDS), 200) for run in runs if run.get("train_info", HOLDS)}
    costs = [cost for cost in COSTS if frame[cost.column].notna().any()]
    about = f"Train time: {'; '.join(sorted(holds)) or INCLUDED}."
    costs = [replace(cost, about=about) if cost.column == "train_time" else cost for cost in costs]
    lacking = [run.system for run in others if run.status == "success"]
    unscored = [run for run in others if run.status != "success" or score in SCORES[:BY_ITSELF]]
    failed = [run.failure(f"'{score.name}'") for run in unscored]
    remarks = tuple(_remarks(runs, score, lacking))
    optional = (HOST, *(cost.column for cost in COSTS))
    frame = frame.drop(columns=[name for name in optional if frame[name].isna().all()])
    unranked = next((why for run in runs if (why := run.text("meta_info", UNRANKED))), "")
    return InputScores(frame, score, tuple(costs), tuple(failed), remarks, unranked=unranked)


def _remarks(runs: Sequence[_Run], score: ScoreDefinition, lacking: Sequence[str]) -> Iterator[str]:
    """Yield what the files hold beside scores, or lack; `lacking` are systems without the score."""
    if lacking and score not in SCORES[:BY_ITSELF]:
        yield f"Runs without '{score.name}', which are left out: {sanitize(', '.join(lacking), 600)}."
    if score == SCORES[0] and any(run.on_gsm8k for run in runs):
        yield f"Accuracies are shares of the {GSM8K_ROWS:,} rows of GSM8K's test split, all of which that task tests."
    unsaved = [run.system for run in runs if run.get("train_info", "file_size") == UNSAVED]
    if unsaved:
        yield f"The size {UNSAVED:,} means that saving failed, and is left out, of {sanitize(', '.join(unsaved), 600)}."
    yield from _differences(runs)
    forgotten = sum(run.last.get("forgetting") is not None for run in runs)
    if forgotten and score.name != "forgetting":
        yield f"Forgetting is measured in {forgotten} of {len(runs)} runs; --metric forgetting compares by it."


def _differences(runs: Sequence[_Run]) -> Iterator[str]:
    """Yield what runs differ in that scores or costs depend on, beside the method."""
    configs = [config for run in runs if isinstance(config := run.get("run_info", "train_config"), dict)]
    keys = sorted({key for config in configs for key in config} - OWN_KEYS)
    differing = []
    for key in keys:
        values = Counter(json.dumps(config[key], sort_keys=True) for config in configs if key in config)
        if len(values) > 1:
            differing.append(f"{sanitize(key, 60)} ({', '.join(sanitize(v, 60) for v, _ in values.most_common(4))})")
    if differing:
        yield f"Runs differ beside their methods, which nothing here corrects for, in {', '.join(differing)}."
    for title, keys_of in (
        ("accelerators", (("meta_info", "system_info", "accelerator"), ("meta_info", "system_info", "gpu"))),
        ("versions of torch", (("meta_info", "package_info", "torch-version"),)),
    ):
        found = {text for run in runs if (text := next(filter(None, (run.text(*k) for k in keys_of)), None))}
        if len(found) > 1:
            yield f"Times and memory are of several {title}: {sanitize(', '.join(sorted(found)), 300)}."
    for name in sorted({name for run in runs for name in run.revisions}):
        commits = {commit for run in runs if (commit := run.revisions.get(name))}
        if len(commits) > 1:
            yield f"Runs used {len(commits)} revisions of {sanitize(name, 60)}."
