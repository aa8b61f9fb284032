"""Compared runs as files of PEFT's method comparison (github.com/huggingface/peft, method_comparison/), one each.

What a record doesn't hold is null. `hpml_bench.compare` reads the files back.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from hpml_bench.records.run import RunRecord
from hpml_bench.report.curves import LARGEST, validation_of
from hpml_bench.report.results import TIME, Results
from hpml_bench.system.text import sanitize

FOLDER = "peft"
HOLDS = "train_time_holds"
"""Key beside `train_time`: what the time holds, since PEFT's own holds more than training."""
TEST_ROWS = "test rows"
"""Key beside `test accuracy`: the number of rows of which it is the share, without which it has no interval."""
ACCURACY = "test accuracy"
TIME_HELD = "forward, backward and optimizer steps alone: no evaluation, generation, loading or saving"
DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Our names of precisions -> PEFT's names of types."""
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
"""Packages that `meta_info.package_info` names."""


def files_of(results: Results) -> dict[str, str]:
    """Return name -> text of a file for each compared run."""
    return {
        f"{record.run_id}.json": json.dumps(as_peft(results, method, record), indent=2, allow_nan=False) + "\n"
        for method in results.methods
        for record in results.runs(method)
    }


def as_peft(results: Results, method: str, record: RunRecord) -> dict[str, Any]:
    """Return a compared run as PEFT's `log_results` writes one (method_comparison/MetaMathQA/utils.py).

    Args:
        results: the run's suite, compared.
        method: the label of its method.
        record: the run.

    """
    return {
        "run_info": {
            "created_at": record.started,
            "total_time": record.seconds,
            "experiment_name": method,
            "peft_branch": None,
            "train_config": _train_config(record),
            "peft_config": _peft_config(record),
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": _bytes(_value(record, "cuda_reserved_train_mb")),
            "accelerator_memory_reserved_99th": None,
            "train_time": _value(record, TIME),
            HOLDS: TIME_HELD,
            "file_size": _whole(_value(record, "saved_bytes")),
            "num_trainable_params": _sum(record, "trainable_parameters", "head_parameters"),
            "num_total_params": _whole(_value(record, "total_parameters")),
            "status": "success",
            "metrics": [*_windows(results, method, record), _test(results, record)],
        },
        "meta_info": _meta_info(record),
    }


def _train_config(record: RunRecord) -> dict[str, Any]:
    settings, spec = record.spec.settings, record.spec.method
    optimizer = spec.optimizer or settings.optimizer
    return {
        "model_id": _model(settings.backbone),
        "dtype": DTYPES.get(settings.precision),
        "max_seq_length": settings.max_length,
        "batch_size": settings.global_batch,
        "batch_size_eval": settings.eval_batch,
        "max_steps": record.consumed.steps if record.consumed else None,
        "eval_steps": settings.eval_every,
        "compile": None,
        "use_gc": settings.gradient_checkpointing,
        "query_template": None,
        "seed": record.spec.seed,
        "grad_norm_clip": settings.clip_norm,
        "optimizer_type": optimizer.name,
        "optimizer_kwargs": {"lr": spec.lr, "weight_decay": settings.weight_decay, **optimizer.options},
        "lr_scheduler": settings.schedule,
        "use_amp": None,
        "autocast_adapter_dtype": None,
        "generation_kwargs": None,
        "attn_implementation": None,
    }


def _model(backbone: str) -> str:
    """Return the model's source; of a folder its name alone, since its place is private."""
    kind, _, rest = backbone.partition("#")[0].partition(":")
    return f"{kind}:{PurePath(rest).name if kind == 'path' else rest}"


def _peft_config(record: RunRecord) -> dict[str, Any]:
    """Return the method and its options; the type is known where the method has it as an option."""
    spec = record.spec.method
    kind = spec.options.get("type")
    return {"peft_type": kind.upper() if isinstance(kind, str) else None, "method": spec.method, **spec.options}


def _meta_info(record: RunRecord) -> dict[str, Any]:
    environment, digests = record.environment, record.digests
    hardware, versions = (_object(environment.get(key)) for key in ("hardware", "packages"))
    gpus = hardware.get("gpus")
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": _text(versions.get(name)), f"{name}-commit-hash": None}
    data = {"sha": None, "created_at": None, "sha256": digests.data if digests else None}
    return {
        "model_info": {
            "sha": digests.revision if digests else None,
            "created_at": None,
            "sha256": digests.weights if digests else None,
        },
        "dataset_info": {record.spec.settings.dataset.name: data},
        "package_info": packages | {"hpml-bench-version": _text(versions.get("hpml-bench"))},
        "system_info": {
            "system": _text(environment.get("system")),
            "release": _text(environment.get("kernel")),
            "version": None,
            "machine": _text(hardware.get("architecture")),
            "processor": _text(hardware.get("cpu")),
            "accelerator": _text(_object(gpus[0]).get("name")) if isinstance(gpus, list) and gpus else None,
        },
        "pytorch_info": None,
        "protocol_id": record.protocol_id,
    }


def _test(results: Results, record: RunRecord) -> dict[str, Any]:
    """Return the last of the metrics: PEFT's test accuracy is a share of right rows, so another score isn't one."""
    score = _value(record, results.quality)
    consumed = record.consumed
    return {
        "step": consumed.steps if consumed else None,
        ACCURACY: score if results.task.binary else None,
        TEST_ROWS: results.test_rows,
        **({} if results.task.binary else {results.quality: score}),
        "train loss": _value(record, "train_loss"),
        "train samples": consumed.samples if consumed else None,
        "train total tokens": consumed.real_tokens if consumed else None,
        "forgetting": _value(record, "forgetting"),
    }


def _windows(results: Results, method: str, record: RunRecord) -> list[dict[str, Any]]:
    """Return the windows between validations, where the run's points have all their steps' seconds."""
    seed, consumed = record.spec.seed, record.consumed
    name = validation_of(results.quality)
    scores, seconds, losses = (results.curve(m, method, seed) for m in (name, "step_seconds", "train_loss"))
    if scores is None or consumed is None:
        return []
    time = dict(zip(seconds.steps, seconds.values, strict=True)) if seconds else {}
    loss = dict(zip(losses.steps, losses.values, strict=True)) if losses else {}
    equal = consumed.samples == consumed.steps * record.spec.settings.global_batch
    found = []
    for (before, _), (step, score) in pairwise([(0, 0.0), *zip(scores.steps, scores.values, strict=True)]):
        steps = range(before + 1, step + 1)
        found.append({
            "step": step,
            "valid accuracy": score if results.task.binary else None,
            "train loss": loss.get(step),
            "train samples": step * record.spec.settings.global_batch if equal else None,
            "train time": sum(time[s] for s in steps) if all(s in time for s in steps) else None,
            "eval time": None,
            "tokens / sec": None,
            "mem allocated avg": None,
            "mem reserved avg": None,
            "elapsed time": None,
        })  # fmt: skip
    return found


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return sanitize(value, 300) if isinstance(value, str) else None


def _value(record: RunRecord, metric: str) -> float | None:
    value = record.metrics.get(metric)
    return value if value is not None and abs(value) < LARGEST else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(megabytes * 1e6)


def _sum(record: RunRecord, *metrics: str) -> int | None:
    values = [value for name in metrics if (value := _value(record, name)) is not None]
    return round(sum(values)) if values else None
