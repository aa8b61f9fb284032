"""Result files of PEFT's method comparison (github.com/huggingface/peft, method_comparison/),
which hold no rows.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from hpml_bench.comparison import inputs
from hpml_bench.comparison.inputs import (
    COUNT,
    DATASET,
    HOST,
    SCORE,
    SEED,
    SYSTEM,
    WHERE,
    InputScores,
)
from hpml_bench.judge.scores import CostDefinition, FailedRun, ScoreDefinition
from hpml_bench.page.peft import HOLDS, HOSTS, PROTOCOL, TEST_ROWS, UNRANKED
from hpml_bench.select.comparability import grouped
from hpml_bench.suite.base import Line
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import MAX_RECORD_BYTES
from hpml_bench.system.text import sanitize

ORDER = 20
SOURCE = "PEFT's method comparison"
FOLDERS = ("results", "temporary_results", "cancelled_results")
"""Folders into which its tasks' run.py sorts result files (method_comparison/*/utils.py)."""
HEAD = 4_096  # bytes of a file that show whether it is one of these

SCORES = (
    ScoreDefinition("test accuracy", "higher", 0.0, 1.0),
    ScoreDefinition("test dino_similarity", "higher", -1.0, 1.0),
    ScoreDefinition("forgetting", "lower"),
    ScoreDefinition("drift", "lower", 0.0, 2.0),
    ScoreDefinition("train loss", "lower", 0.0),
)
"""Scores in the last of `train_info.metrics`: of MetaMathQA the first, of image-gen the second;
the rest of either.
"""
# number of scores, the first ones, by which runs are compared where none is asked for: one of each
# task
BY_ITSELF = 2
GSM8K_ROWS = 1_319
"""Test rows of MetaMathQA: the whole test split of GSM8K
(method_comparison/MetaMathQA/README.md, "Dataset").
"""
UNSAVED_MB = 99.999999
"""`file_size` / 10^6 of a run whose checkpoint could not be saved (`get_file_size` in
method_comparison/*/utils.py).
"""
OWN_KEYS = frozenset({"seed", "optimizer_kwargs", "optimizer_type"})
"""Keys of `train_config` that may differ between systems without a remark."""
INCLUDED = "test generation and loading of data included"
"""Part of `train_time` that is not training, unless a file says otherwise: validation alone is
subtracted from it.
"""
COSTS = (
    CostDefinition("train_time", "train time", "s"),
    CostDefinition(
        "reserved_max_mb",
        "reserved memory",
        "MB",
        about="Reserved memory: the largest that the allocator reserved, generation included.",
    ),
    CostDefinition("file_size_mb", "saved size", "MB"),
    CostDefinition("trainable_parameters", "trained parameters"),
    CostDefinition(
        "seconds_per_1000_samples",
        "time per 1,000 samples",
        "s",
        about="Time per 1,000 samples: from the median throughput of the training windows.",
    ),
    CostDefinition(
        "total_time",
        "total time",
        "s",
        about="Total time: loading and saving of the model included.",
    ),
    CostDefinition(
        "reserved_avg_mb",
        "mean reserved memory",
        "MB",
        about="Mean reserved memory: over training steps.",
    ),
)


def claims(path: Path) -> bool:
    heads = (inputs.head_of(file, HEAD) for file in _files(path))
    return any(
        f'"{name}"'.encode() in head
        for head in heads
        for name in ("run_info", "train_info", "meta_info")
    )


def read(path: Path, metric: str | None = None) -> tuple[InputScores, ...]:
    """Return the runs of a result file, or of a folder's, by data set and model.

    `path`: a file, a folder of files, or one that holds folders of `FOLDERS`, such as PEFT's
    `method_comparison`; `metric`: name of a score of `SCORES`; test accuracy, or of images the
    similarity, if None. A UserError where a file is none of these or can't be read, a value is no
    number, two files are the same run, runs of a data set have different scores, or none has the
    score.
    """
    wanted = SCORES[:BY_ITSELF]
    if metric is not None:
        asked = metric.replace("_", " ").strip().lower()
        plain = {score: score.name.replace("_", " ") for score in SCORES}
        wanted = tuple(
            of for of, name in plain.items() if asked in {name, name.removeprefix("test ")}
        )
        if not wanted:
            known = ", ".join(f"'{score.name}'" for score in SCORES)
            raise UserError(f"--metric {metric}: result files of {SOURCE} are compared by {known}")
    runs = list[_Run]()
    for file in _files(path):
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise UserError(
                f"{file} is larger than {MAX_RECORD_BYTES // 10**6} MB, and no result file of "
                f"{SOURCE}"
            )
        try:
            runs.append(_Run.model_validate(inputs.json_mapping(file) | {"file": file}))
        except ValidationError as error:
            raise _wrong(file, error) from None
    if not runs:
        raise UserError(f"{path} has no result files of {SOURCE}; give the folder of its *.json")
    if not any(run.has(wanted) for run in runs) and (
        metric or all(run.status == "success" for run in runs)
    ):
        raise UserError(
            f"{path}: no run has {' or '.join(repr(s.name) for s in wanted)} in the last of its "
            f"metrics"
        )
    found = []
    for name, of in grouped(runs, lambda run: run.dataset).items():
        having = {score: run.file for run in of if (score := run.has(wanted))}
        if len(having) > 1:
            both = " and ".join(
                f"{file} has the score {score.name}" for score, file in having.items()
            )
            raise UserError(f"{both}, of one data set; choose one by --metric")
        if having or metric is None:  # else the data set lacks the requested metric
            found.append(_measured(name, next(iter(having), wanted[0]), of, path))
    return tuple(found)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" else []
    patterns = ("*.json", *(f"{above}{name}/*.json" for above in ("", "*/") for name in FOLDERS))
    return sorted({file for pattern in patterns for file in path.glob(pattern)})


Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[Number, AfterValidator(lambda size: size / 1e6)]  # a number of bytes, in MB


def _at(*keys: str, other: str = "") -> Any:
    """Return a field that lies under these keys, or under another last one; None where it is
    missing or null.
    """
    paths = [AliasPath(*keys[:-1], last) for last in (keys[-1], other) if last]
    return Field(None, validation_alias=AliasChoices(*paths))


class _Window(BaseModel):
    """Part of the training, or last the test; its score is checked when it is requested."""

    model_config = ConfigDict(strict=True, extra="allow")

    seconds: Number | None = _at("train time")
    samples: Number | None = _at("train samples")
    test_rows: Annotated[int, Field(ge=1)] | None = _at(TEST_ROWS)


class _Run(BaseModel):
    """A result file."""

    model_config = ConfigDict(strict=True)

    file: Path
    status: Line = Field(validation_alias=AliasPath("train_info", "status"))
    """`success`, or another end such as `failed` or `canceled`."""
    name: Line | None = _at("run_info", "experiment_name")
    error: Line | None = _at("run_info", "error_msg")
    config: dict[str, Any] | None = _at("run_info", "train_config")
    seed: int | None = _at("run_info", "train_config", "seed")
    data: Line | None = _at("run_info", "train_config", "dataset_id")
    model: Line | None = _at("run_info", "train_config", "model_id")
    metrics: list[_Window] | None = _at("train_info", "metrics")
    holds: Line | None = _at("train_info", HOLDS)
    train_time: Number | None = _at("train_info", "train_time")
    total_time: Number | None = _at("run_info", "total_time")
    file_size_mb: Bytes | None = _at("train_info", "file_size")
    trainable_parameters: Number | None = _at("train_info", "num_trainable_params")
    # the second names of memory are those of files before August 2025
    reserved_max_mb: Bytes | None = _at(
        "train_info", "accelerator_memory_max", other="cuda_memory_max"
    )
    reserved_avg_mb: Bytes | None = _at(
        "train_info", "accelerator_memory_reserved_avg", other="cuda_memory_reserved_avg"
    )
    protocol: Line | None = _at("meta_info", PROTOCOL)
    hosts: Line | None = _at("meta_info", HOSTS)
    unranked: Line | None = _at("meta_info", UNRANKED)
    datasets: dict[str, Any] | None = _at("meta_info", "dataset_info")
    accelerator: Line | None = _at("meta_info", "system_info", "accelerator", other="gpu")
    torch: Line | None = _at("meta_info", "package_info", "torch-version")

    @property
    def system(self) -> str:
        """The experiment's name, else that of the file."""
        return self.name or sanitize(self.file.stem)

    @property
    def run(self) -> str:
        return "" if self.seed is None else str(self.seed)

    @property
    def dataset(self) -> str:
        """Names of data and model, and of a run of ours its protocol: other runs are not
        compared with it.
        """
        data = self.data or ", ".join(sorted(map(sanitize, self.revisions))) or "unnamed data"
        named = f"{'MetaMathQA' if self.on_gsm8k else data}, {self.model or 'unnamed model'}"
        return f"{named}, protocol {self.protocol}" if self.protocol else named

    @property
    def revisions(self) -> dict[str, Any]:
        """Commits of the data sets by name; empty where the file names none."""
        return {
            name: of.get("sha")
            for name, of in (self.datasets or {}).items()
            if isinstance(of, dict)
        }

    @property
    def on_gsm8k(self) -> bool:
        """Whether the run is one of MetaMathQA, tested on GSM8K."""
        return {"metamath", "gsm8k"} <= self.revisions.keys()

    @property
    def last(self) -> _Window:
        return self.metrics[-1] if self.metrics else _Window()

    def has(self, scores: Iterable[ScoreDefinition]) -> ScoreDefinition | None:
        """Return the first of some scores that a successful run has."""
        there = {name for name, value in (self.last.model_extra or {}).items() if value is not None}
        return next(
            (score for score in scores if self.status == "success" and score.name in there), None
        )

    def score(self, score: ScoreDefinition) -> float:
        """Return a score that the run has; a UserError where it is no number or out of its
        range.
        """
        kind = Annotated[
            float, Field(strict=True, allow_inf_nan=False, ge=score.low, le=score.high)
        ]
        try:
            return TypeAdapter[float](kind).validate_python(
                (self.last.model_extra or {})[score.name]
            )
        except ValidationError as error:
            raise _wrong(self.file, error, "the last of train_info.metrics", score.name) from None

    def rows(self, score: ScoreDefinition) -> float:
        """Return the number of test rows of which an accuracy is the share; NaN where it isn't
        known.
        """
        rows = self.last.test_rows or (GSM8K_ROWS if self.on_gsm8k else None)
        if score != SCORES[0] or rows is None:
            return math.nan
        right = self.score(score) * rows
        return float(rows) if math.isclose(right, round(right), abs_tol=1e-6) else math.nan

    @property
    def seconds_per_1000_samples(self) -> float | None:
        """Seconds per 1,000 samples, by the median over windows of samples / second; None
        without one.
        """
        # samples are counted from the start: after a window without them, the next one's are
        # unknown
        seen = pairwise([0.0, *(window.samples for window in self.metrics or ())])
        rates = [
            (samples - before) / window.seconds
            for window, (before, samples) in zip(self.metrics or (), seen, strict=True)
            if window.seconds and samples is not None and before is not None and samples > before
        ]
        return 1_000 / median(rates) if rates else None

    def failure(self, wanted: str) -> FailedRun:
        status = f"{self.status}{f', but without {wanted}' if self.status == 'success' else ''}"
        status += f": {sanitize(self.error, 200)}" if self.error else ""
        return FailedRun(self.system, self.run, status, str(self.file), self.dataset)


def _wrong(file: Path, error: ValidationError, *place: str) -> UserError:
    """Return what is wrong with a file, by the first of an error's places."""
    first = error.errors(include_url=False)[0]
    named = ".".join(map(str, (*place, *first["loc"])))
    if first["type"] == "missing":
        return UserError(
            f"{file} has no {named}, as result files of {SOURCE} have; take it out of the folder"
        )
    return UserError(
        f"{file}: {named} is {sanitize(repr(first['input']), 60)}, and "
        f"{first['msg'].replace('Input should', 'must')}"
    )


def _measured(
    dataset: str, score: ScoreDefinition, every: Sequence[_Run], path: Path
) -> InputScores:
    """Return what the runs of one data set give; those without such a score are failed ones, or
    left out.
    """
    import pandas as pd

    runs = [run for run in every if run.has([score])]
    others = [run for run in every if not run.has([score])]
    for (system, seed), same in grouped(runs, lambda run: (run.system, run.run)).items():
        if len(same) > 1:
            which = f"{system} with seed {seed}" if seed else system
            raise UserError(
                f"{same[0].file} and {same[1].file} are both runs of {which}; keep one of them"
            )
    costs = [cost.column for cost in COSTS]
    lines = [
        {
            SYSTEM: r.system,
            SCORE: r.score(score),
            SEED: r.run,
            DATASET: dataset,
            COUNT: r.rows(score),
            HOST: r.hosts,
            WHERE: str(r.file),
        }
        | {name: getattr(r, name) for name in costs}
        for r in runs
    ]
    frame = pd.DataFrame(lines, columns=[SYSTEM, SCORE, SEED, DATASET, COUNT, HOST, WHERE, *costs])
    frame = frame.astype(dict.fromkeys((SCORE, COUNT, *costs), float)).replace(
        {"file_size_mb": {UNSAVED_MB: math.nan}}
    )
    frame = frame.drop(columns=[name for name in (HOST, *costs) if frame[name].isna().all()])
    holds = "; ".join(sorted({sanitize(run.holds, 200) for run in runs if run.holds}))
    by_itself = score in SCORES[:BY_ITSELF]
    failed = tuple(
        run.failure(f"'{score.name}'") for run in others if run.status != "success" or by_itself
    )
    return InputScores(
        frame,
        score,
        tuple(
            replace(cost, about=f"Train time: {holds or INCLUDED}.")
            if cost.column == "train_time"
            else cost
            for cost in COSTS
            if cost.column in frame
        ),
        failed,
        tuple(
            _remarks(
                runs,
                score,
                () if by_itself else [run.system for run in others if run.status == "success"],
            )
        ),
        inputs.source_of(SOURCE, path, len(runs) + len(failed)),
        unranked=next((run.unranked for run in runs if run.unranked), ""),
    )


def _remarks(runs: Sequence[_Run], score: ScoreDefinition, lacking: Sequence[str]) -> Iterator[str]:
    """Yield what the files hold beside scores, or lack; `lacking` are systems without the score."""
    if lacking:
        yield (
            f"Runs without '{score.name}', which are left out: {sanitize(', '.join(lacking), 600)}."
        )
    if score == SCORES[0] and any(run.on_gsm8k for run in runs):
        yield (
            f"Accuracies are shares of the {GSM8K_ROWS:,} rows of GSM8K's test split, all of "
            f"which that task tests."
        )
    unsaved = [run.system for run in runs if run.file_size_mb == UNSAVED_MB]
    if unsaved:
        systems = sanitize(", ".join(unsaved), 600)
        yield (
            f"The size {1e6 * UNSAVED_MB:,.0f} means that saving failed, and is left out, of "
            f"{systems}."
        )
    # what scores or costs depend on, beside the method
    facts = [
        {
            key: json.dumps(value, sort_keys=True)
            for key, value in (run.config or {}).items()
            if key not in OWN_KEYS
        }
        | {f"revision of {name}": commit for name, commit in run.revisions.items() if commit}
        | {
            name: said
            for name, said in (("accelerator", run.accelerator), ("version of torch", run.torch))
            if said
        }
        for run in runs
    ]
    differing = []
    for key in sorted({key for of in facts for key in of}):
        values = Counter(of[key] for of in facts if key in of)
        if len(values) > 1:
            shown = ", ".join(sanitize(value, 60) for value, _ in values.most_common(4))
            differing.append(f"{sanitize(key, 60)} ({shown})")
    if differing:
        yield (
            f"Runs differ beside their methods, which nothing here corrects for, in "
            f"{', '.join(differing)}."
        )
    forgotten = sum(run.has(SCORES[2:3]) is not None for run in runs)
    if forgotten and score.name != "forgetting":
        yield (
            f"Forgetting is measured in {forgotten} of {len(runs)} runs; --metric forgetting "
            f"compares by it."
        )
