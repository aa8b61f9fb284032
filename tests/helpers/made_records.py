"""Writes results folders as `run-all` leaves them, with made-up numbers, for tests of all that
reads records.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.builtin.metrics.macro_f1 import MacroF1
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.jobs import Job, write_job
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.run import Check, Consumed, Metric, Point, RunError, RunRecord, protocol_id
from hpml_bench.suite.settings import DatasetSpec, Digests, MethodSpec, RunSpec, Settings
from hpml_bench.system.files import write_atomically

SETTINGS = Settings(
    backbone="embedded:newsgpt",
    dataset=DatasetSpec(name="newswire", options={"p": 0.6}),
    train_samples=1024,
    validation_samples=500,
    test_samples=1000,
    steps=100,
    global_batch=16,
    world_size=2,
    device="cpu",
    threads=1,
    precision="bf16",
)
DIGESTS = Digests(weights="a" * 64, tokenizer="b" * 64, data="c" * 64)
METHODS = ("lora", "prompt_tuning", "adapter", "full", "head")
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
    "prompt_tuning": {"tokens": 16},
    "adapter": {"reduction": 8, "placement": "pfeiffer"},
}
ENVIRONMENT = {
    "hardware": {
        "cpu": "Example CPU @ 2.0 GHz",
        "architecture": "x86_64",
        "cores": 2,
        "memory_gb": 25,
        "gpus": [],
    },
    "fingerprint": "0123456789ab",
    "python": "3.11.7",
    "system": "Linux",
    "packages": {
        "hpml-bench": "0.1.0",
        "torch": "2.13.0",
        "transformers": "5.24.0",
        "peft": "0.21.0",
    },
    "process": {"MALLOC_TOP_PAD_": "67108864"},
}
TYPICAL = {  # accuracy, train seconds, samples/s, memory MB, gradient norm, trained parameters
    "lora": (0.871, 1.9, 850.0, 512.0, 1.9, 65_536),
    "prompt_tuning": (0.842, 2.6, 620.0, 498.0, 3.4, 2_048),
    "adapter": (0.863, 1.8, 890.0, 505.0, 1.4, 33_920),
    "full": (0.874, 2.2, 760.0, 561.0, 4.1, 1_340_000),
    "head": (0.792, 0.9, 1_800.0, 480.0, 0.8, 0),
}
HEAD_PARAMETERS, BACKBONE_PARAMETERS = 516, 1_340_000

GROUPS = {
    "time": "setup_seconds train_seconds evaluation_seconds total_seconds",
    "throughput": (
        "samples_per_second tokens_per_second padded_tokens_per_second virtual_tokens step_ms_p50 "
        "step_ms_p90 step_ms_p99 timed_steps timed_seconds step_time_cv step_time_drift "
        "step_time_drift_low step_time_drift_high step_time_outliers"
    ),
    "memory": (
        "peak_memory_mb peak_memory_over_setup_mb host_setup_mb host_train_mb host_evaluation_mb"
    ),
    "gradient": "grad_norm grad_norm_per_sqrt_parameter",
    "quality": "train_loss test_loss test_accuracy test_macro_f1",
    "parameters": (
        "trainable_parameters head_parameters total_parameters trainable_percent saved_bytes "
        "frozen_bf16_percent"
    ),
    "communication": "allreduced_bytes_per_step",
    "inference": "inference_seconds inference_samples_per_second latency_ms_p50 latency_ms_p99 "
    "merged_latency_ms_p50 merged_latency_ms_p99",
}
EXACT = ("parameters", "communication")
"""Groups of counts, which don't differ between repetitions."""
MACHINE_UNITS = ("s", "ms", "MB", "samples/s", "tokens/s")


def _metric(
    name: str,
    title: str,
    unit: str,
    better: str,
    phase: str = "train",
    spec: str = ".3g",
    over_ranks: str = "same",
    over_steps: str = "once",
) -> Metric:
    group = next(group for group, names in GROUPS.items() if name in names.split())
    return Metric.model_validate(
        {
            "name": name,
            "title": title,
            "unit": unit,
            "better": better,
            "phase": phase,
            "format": spec,
            "group": group,
            "over_ranks": over_ranks,
            "over_steps": over_steps,
            "definition": f"The {title.lower()} of a run, as its probe defines it.",
            "depends_on_machine": unit in MACHINE_UNITS
            or (spec.endswith("%") and phase == "train"),
            "noisy": group not in EXACT and name not in ("virtual_tokens", "timed_steps"),
            "bounds": (0.0, 1.0) if name == "test_accuracy" else (None, None),
        }
    )


DEFINITIONS = tuple(
    _metric(*row)
    for row in (
        ("setup_seconds", "set-up time", "s", "lower", "setup", ".2f", "max", "once"),
        ("train_seconds", "training time", "s", "lower", "train", ".2f", "same", "sum"),
        ("evaluation_seconds", "validation time", "s", "lower", "validation", ".2f", "same", "sum"),
        ("total_seconds", "total time", "s", "lower", "run", ".2f", "max", "once"),
        (
            "samples_per_second",
            "throughput",
            "samples/s",
            "higher",
            "train",
            ",.1f",
            "same",
            "mean",
        ),
        ("tokens_per_second", "tokens", "tokens/s", "higher", "train", ",.0f", "same", "mean"),
        (
            "padded_tokens_per_second",
            "padded tokens",
            "tokens/s",
            "higher",
            "train",
            ",.0f",
            "same",
            "mean",
        ),
        (
            "virtual_tokens",
            "virtual tokens",
            "tokens/sample",
            "neither",
            "train",
            ".0f",
            "same",
            "mean",
        ),
        ("step_ms_p50", "step time p50", "ms", "lower", "train", ".1f", "same", "percentile"),
        ("step_ms_p90", "step time p90", "ms", "lower", "train", ".1f", "same", "percentile"),
        ("step_ms_p99", "step time p99", "ms", "lower", "train", ".1f", "same", "percentile"),
        ("peak_memory_mb", "peak memory", "MB", "lower", "train", ",.0f", "max", "max"),
        ("host_setup_mb", "host memory, setup", "MB", "lower", "train", ",.0f", "max", "max"),
        ("host_train_mb", "host memory, train", "MB", "lower", "train", ",.0f", "max", "max"),
        (
            "host_evaluation_mb",
            "host memory, evaluation",
            "MB",
            "lower",
            "train",
            ",.0f",
            "max",
            "max",
        ),
        ("grad_norm", "gradient norm", "", "neither", "train", ".3g", "same", "mean"),
        (
            "grad_norm_per_sqrt_parameter",
            "gradient norm / √parameters",
            "",
            "neither",
            "train",
            ".2e",
            "same",
            "mean",
        ),
        ("train_loss", "training loss", "nats", "lower", "train", ".3f", "same", "mean"),
        ("test_loss", "test loss", "nats", "lower", "test", ".3f", "same", "once"),
        ("test_accuracy", "accuracy", "", "higher", "test", ".1%", "same", "once"),
        ("test_macro_f1", "macro-F1", "", "higher", "test", ".3f", "same", "once"),
        (
            "trainable_parameters",
            "trainable parameters",
            "",
            "lower",
            "setup",
            ",.0f",
            "same",
            "once",
        ),
        ("head_parameters", "head parameters", "", "lower", "setup", ",.0f", "same", "once"),
        ("total_parameters", "total parameters", "", "lower", "setup", ",.0f", "same", "once"),
        ("trainable_percent", "trainable share", "%", "lower", "setup", ".3g", "same", "once"),
        ("saved_bytes", "saved size", "bytes", "lower", "run", ",.0f", "rank0", "once"),
        (
            "allreduced_bytes_per_step",
            "all-reduced per step",
            "bytes",
            "lower",
            "train",
            ",.0f",
            "same",
            "once",
        ),
        ("inference_seconds", "inference time", "s", "lower", "test", ".2f", "same", "once"),
        (
            "inference_samples_per_second",
            "inference throughput",
            "samples/s",
            "higher",
            "test",
            ",.0f",
            "same",
            "once",
        ),
        ("latency_ms_p50", "latency p50", "ms", "lower", "inference", ".2f", "rank0", "percentile"),
        ("latency_ms_p99", "latency p99", "ms", "lower", "inference", ".2f", "rank0", "percentile"),
        (
            "merged_latency_ms_p50",
            "latency p50, merged",
            "ms",
            "lower",
            "inference",
            ".2f",
            "rank0",
            "percentile",
        ),
        (
            "merged_latency_ms_p99",
            "latency p99, merged",
            "ms",
            "lower",
            "inference",
            ".2f",
            "rank0",
            "percentile",
        ),
    )
)


def metrics(method: str, seed: int) -> dict[str, float | None]:
    """Return one run's made-up metrics; the seed's own part is shared by the methods, as data
    order is in life.
    """
    shared = np.random.default_rng(seed)
    own = np.random.default_rng([seed, METHODS.index(method) if method in METHODS else 9])
    accuracy, seconds, speed, memory, norm, trained = TYPICAL.get(method, TYPICAL["lora"])
    accuracy += 0.004 * shared.standard_normal() + 0.004 * own.standard_normal()
    pace = 1 + 0.01 * own.standard_normal()
    trainable = trained + HEAD_PARAMETERS
    latency = (
        1.6 + 0.3 * (method in {"adapter", "lora", "prompt_tuning"}) + 0.02 * own.standard_normal()
    )
    merged = 1.6 + 0.02 * own.standard_normal() if method == "lora" else None
    norm *= 1 + 0.05 * own.standard_normal()
    return {
        "setup_seconds": 0.6 * pace,
        "train_seconds": seconds * pace,
        "evaluation_seconds": 0.4 * pace,
        "total_seconds": 1.2 + seconds * pace,
        "samples_per_second": speed / pace,
        "tokens_per_second": 24 * speed / pace,
        "padded_tokens_per_second": 27 * speed / pace,
        "virtual_tokens": 16.0 if method == "prompt_tuning" else 0.0,
        "step_ms_p50": 16e3 / speed * pace,
        "step_ms_p90": 18e3 / speed * pace,
        "step_ms_p99": 24e3 / speed * pace,
        "peak_memory_mb": memory + own.standard_normal(),
        "host_setup_mb": memory - 60 + own.standard_normal(),
        "host_train_mb": memory + own.standard_normal(),
        "host_evaluation_mb": memory - 25 + own.standard_normal(),
        "grad_norm": norm,
        "grad_norm_per_sqrt_parameter": norm / math.sqrt(trainable),
        "train_loss": 1.25 * (1 - accuracy) + 0.12,
        "test_loss": 1.6 * (1 - accuracy) + 0.18,
        "test_accuracy": round(accuracy, 3),
        "test_macro_f1": accuracy - 0.003,
        "trainable_parameters": float(trained),
        "head_parameters": float(HEAD_PARAMETERS),
        "total_parameters": float(
            BACKBONE_PARAMETERS + trainable - (BACKBONE_PARAMETERS if method == "full" else 0)
        ),
        "trainable_percent": 100
        * trained
        / (BACKBONE_PARAMETERS + (0 if method == "full" else trained)),
        "saved_bytes": 4.0 * trainable,
        "allreduced_bytes_per_step": 4.0 * trainable,
        "inference_seconds": 0.4 * pace,
        "inference_samples_per_second": 2500 / pace,
        "latency_ms_p50": latency,
        "latency_ms_p99": 1.5 * latency,
        "merged_latency_ms_p50": merged,
        "merged_latency_ms_p99": merged and 1.5 * merged,
    }


def points(method: str, seed: int, steps: int = 100) -> list[Point]:
    end = metrics(method, seed)
    noise = np.random.default_rng([seed, 1])
    loss, accuracy = end["train_loss"] or 0.0, end["test_accuracy"] or 0.0
    course = []
    for step in range(10, steps + 1, 10):
        left = math.exp(-step / 25)
        course.append(
            Point(
                metric="train_loss",
                step=step,
                value=loss + 1.2 * left + 0.03 * noise.standard_normal(),
            )
        )
        course.append(
            Point(metric="grad_norm", step=step, value=(end["grad_norm"] or 1) * (0.7 + left))
        )
        course.append(Point(metric="validation_loss", step=step, value=loss + 0.05 + 1.2 * left))
        course.append(Point(metric="validation_accuracy", step=step, value=accuracy - 0.6 * left))
    pace = 16 / (end["samples_per_second"] or 1)
    course += [Point(metric="step_seconds", step=step, value=pace) for step in range(1, steps + 1)]
    return course


def record(method: str = "lora", seed: int = 0, order: int = 0, **changes: Any) -> RunRecord:
    """Return one record; `changes` replace its fields, `settings` and `method_spec` those of its
    specification.
    """
    settings = changes.pop("settings", SETTINGS)
    options = OPTIONS.get(method, {})
    spec = changes.pop("method_spec", None) or MethodSpec(
        name=method, method=method, options=options, lr=3e-3
    )
    run = RunSpec(suite=changes.pop("suite", "example"), settings=settings, method=spec, seed=seed)
    fields: dict[str, Any] = {
        "run_id": run.run_id,
        "spec": run,
        "status": "ok",
        "protocol_id": protocol_id(settings, DIGESTS),
        "digests": DIGESTS,
        "label_names": ("World", "Sports", "Business", "Sci/Tech"),
        "notes": {"best possible accuracy": "94.3 %"},
        "environment": ENVIRONMENT,
        "headline": "test_accuracy",
        "definitions": DEFINITIONS,
        "metrics": metrics(method, seed),
        "consumed": Consumed(
            steps=100,
            samples=1600,
            real_tokens=38_000 + seed,
            padded_tokens=43_000,
            order=f"{seed:064x}",
        ),
        "checks": (
            Check(
                name="samples",
                passed=True,
                detail="samples/s x seconds = 1,520 = samples of the window",
            ),
        ),
        "order": order,
        "started": f"2026-01-02T03:{order // 60:02d}:{order % 60:02d}+00:00",
        "seconds": 4.0 + 0.1 * order,
    }
    return RunRecord.model_validate(fields | changes)


def failed(method: str, seed: int, status: str, message: str, **changes: Any) -> RunRecord:
    error = RunError(kind=status, message=message, rank=0)
    empty: dict[str, Any] = {
        "metrics": {},
        "consumed": None,
        "checks": (),
        "status": status,
        "error": error,
    }
    return record(method, seed, **(empty | changes))


def write(
    folder: Path,
    records: Iterable[RunRecord],
    course: Callable[[str, int], list[Point]] = points,
    rows: int = 1000,
) -> Path:
    """Write records under `folder`, and return it; predictions, macro-F1, digests and points'
    times fit the records.
    """
    for item in records:
        place = folder / item.run_id
        place.mkdir(parents=True, exist_ok=True)
        if item.status == "ok":
            made, own = course(item.spec.method.name, item.spec.seed), item
            if course is not points and any(point.metric == "step_seconds" for point in made):
                own = item.model_copy(update={"metrics": item.metrics | timed(item, made)})
            else:
                made = [point for point in made if point.metric != "step_seconds"] + steps_of(item)
            write_points(place, made)
        RunFolder(place).commit(believable(place, own, rows) if item.status == "ok" else item)
    return folder


def write_points(place: Path, course: Sequence[Point]) -> None:
    """Write points of a run, which no other run has, as in life."""
    own = [
        point.model_copy(update={"tokens": zlib.crc32(place.name.encode())}) for point in course[:1]
    ]
    (place / POINTS).write_text(
        "".join(f"{point.model_dump_json()}\n" for point in (*own, *course[1:]))
    )


def timed(item: RunRecord, course: Sequence[Point]) -> dict[str, float]:
    """Return a run's times as a course gives them."""
    seconds = [point.value or 0.0 for point in course if point.metric == "step_seconds"]
    late = seconds[item.spec.settings.warmup_steps :] or seconds
    rate = len(late) * item.spec.settings.global_batch / math.fsum(late)
    return {"train_seconds": math.fsum(seconds), "samples_per_second": rate}


def steps_of(item: RunRecord, steps: int = 100) -> list[Point]:
    """Return steps whose seconds give a record's throughput after the warm-up and, with it, its
    training time.
    """
    whole, rate = (item.metrics.get(name) for name in ("train_seconds", "samples_per_second"))
    if whole is None:
        return []
    warm = item.spec.settings.warmup_steps
    each = whole / steps if not rate else item.spec.settings.global_batch / rate
    first = (whole - each * (steps - warm)) / warm
    return [
        Point(metric="step_seconds", step=n, value=first if n <= warm else each)
        for n in range(1, steps + 1)
    ]


def rewrite(place: Path, item: RunRecord) -> None:
    """Write a run's record as it is, whatever its files are by now."""
    write_atomically(place / RECORD, item.model_dump_json(indent=1) + "\n")


def grouped(folder: Path, groups: NDArray[Any]) -> Path:
    """Write the groups of the test rows beside the predictions of all runs in a folder, and
    return it.
    """
    import pandas as pd

    for place in sorted(path.parent for path in folder.glob(f"*/{PREDICTIONS}")):
        frame = pd.read_parquet(place / PREDICTIONS)
        frame["group"] = groups[: len(frame)].astype(np.int32)
        frame.to_parquet(place / PREDICTIONS, index=False)
        rewrite(place, load_record(place / RECORD).model_copy(update={"files": digests_of(place)}))
    return folder


def believable(place: Path, item: RunRecord, rows: int) -> RunRecord:
    """Write predictions that give a record's accuracy and loss, and return the record with their
    F1 and digests.
    """
    import pandas as pd

    accuracy, loss = (item.metrics.get(name) for name in ("test_accuracy", "test_loss"))
    if accuracy is None or loss is None or not 0 <= accuracy <= 1 or not abs(loss) < 1e30:
        return item.model_copy(update={"files": digests_of(place)})
    labels, predicted = answers(item, accuracy, rows)
    wrong = labels != predicted  # which costs at least ln 2
    of_wrong = max(loss, 1.0) if wrong.any() else 0.0
    of_right = max(0.0, loss - wrong.mean() * of_wrong) / max(1 - wrong.mean(), 1e-9)
    losses = np.where(wrong, of_wrong, min(of_right, 1.38)).astype(np.float32)
    frame = pd.DataFrame(
        {"index": np.arange(rows), "reference": labels, "prediction": predicted, "loss": losses}
    )
    frame.to_parquet(place / PREDICTIONS, index=False)
    scores = {
        "test_accuracy": float((labels == predicted).mean()),
        "test_macro_f1": float(MacroF1(len(item.label_names)).of_classes(labels, predicted).mean()),
        "test_loss": float(losses.mean(dtype=np.float64)),
    }
    own = {name: value for name, value in scores.items() if name in item.metrics}
    return item.model_copy(update={"metrics": item.metrics | own, "files": digests_of(place)})


def answers(item: RunRecord, accuracy: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predictions of a run; rows are as easy or hard for every run, a little
    else for each method.
    """
    ease = np.random.default_rng(7).standard_normal(rows)
    labels = np.random.default_rng(8).integers(0, 4, rows)
    name = item.spec.method.name
    taste = np.random.default_rng([sum(map(ord, name)), 3]).standard_normal(rows)
    own = np.random.default_rng([item.spec.seed, len(name)]).standard_normal(rows)
    easiest = np.argsort(-(ease + 0.1 * taste + 0.1 * own))
    predicted = (labels + 1) % 4
    right = easiest[: round(accuracy * rows)]
    predicted[right] = labels[right]
    return labels, predicted


def sweep(methods: Sequence[str] = METHODS, seeds: int = 5, **changes: Any) -> list[RunRecord]:
    pairs = [(method, seed) for seed in range(seeds) for method in methods]
    return [record(method, seed, order, **changes) for order, (method, seed) in enumerate(pairs)]


def in_suite(run: RunRecord, name: str, dataset: DatasetSpec, **method: str) -> RunRecord:
    """Return a record as of another suite, on data of its own; `method` replaces fields of its
    method.
    """
    settings = run.spec.settings.model_copy(update={"dataset": dataset})
    own = run.spec.method.model_copy(update=method)
    spec = run.spec.model_copy(update={"suite": name, "settings": settings, "method": own})
    ids = {"run_id": spec.run_id, "protocol_id": protocol_id(settings, DIGESTS)}
    return run.model_copy(update={"spec": spec} | ids)


def by_jobs(
    records: Iterable[RunRecord], hosts: int = 2, began: str = "2026-01-02T03:00:30+00:00"
) -> list[RunRecord]:
    """Return the records as jobs of Slurm made them: a job a seed, on hosts in turn, its runs
    one after another.
    """
    found, free = [], {}
    for item in records:
        seed, host = item.spec.seed, f"n{item.spec.seed % hosts + 1}"
        start = free.get(seed, datetime.fromisoformat(began) + timedelta(seconds=7 * seed))
        free[seed] = start + timedelta(seconds=item.seconds + 2)
        where = {
            "engine": "slurm",
            "job": f"12_{seed}",
            "restart": 0,
            "unit": seed,
            "host": host,
            "hosts": [host],
            "exclusive": False,
        }
        fields = {
            "environment": item.environment | {"where": where},
            "neighbours": item.neighbours or (),
            "started": start.isoformat(timespec="seconds"),
        }
        found.append(item.model_copy(update=fields))
    return found


def write_jobs(
    folder: Path, records: Iterable[RunRecord], queued: str = "2026-01-02T03:00:00+00:00"
) -> None:
    by_seed: dict[int, list[RunRecord]] = {}
    for item in records:
        by_seed.setdefault(item.spec.seed, []).append(item)
    for seed, runs in by_seed.items():
        where = runs[0].environment["where"]
        began = datetime.fromisoformat(min(run.started for run in runs)) - timedelta(seconds=5)
        ended = max(
            datetime.fromisoformat(run.started) + timedelta(seconds=run.seconds) for run in runs
        )
        write_job(
            folder,
            Job(
                engine=where["engine"],
                job=where["job"],
                restart=where["restart"],
                unit=seed,
                host=where["host"],
                pid=9,
                queued=queued,
                began=began.isoformat(),
                ended=(ended + timedelta(seconds=1)).isoformat(),
                how="done",
            ),
        )
