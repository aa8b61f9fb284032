"""Compared runs as files of PEFT's method comparison (github.com/huggingface/peft,
method_comparison/), one each.

What a record doesn't hold is null. `hpml_bench.compare` reads the files back.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PurePath
from typing import Any, cast

from hpml_bench.judge.judged import LARGEST
from hpml_bench.judge.results import Results, validation_of
from hpml_bench.plugins.method import Method
from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import hosts_of
from hpml_bench.suite import registry
from hpml_bench.system.environment import Environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

# key beside `train_time`: what it holds, since PEFT's own holds more than training
HOLDS = "train_time_holds"
TEST_ROWS = (
    "test rows"  # key beside `test accuracy`: number of test rows, for the interval of the share
)
PROTOCOL, HOSTS, UNRANKED = "protocol_id", "hosts", "costs_unranked"
"""Keys of `meta_info`: what must be alike to be compared, by costs of a seed too; why costs rank
nothing.
"""
ACCURACY = "test accuracy"
TIME_HELD = (
    "training steps alone, from batch to optimizer: no evaluation, generation, loading or saving"
)
STORED = {"nf4": "int4", "int8": "int8"}
"""Our names of quantisations -> PEFT's names of types in which a model is loaded."""
AUTOCAST = {"fp32": False, "tf32": False, "bf16": True, "fp16": True}
"""Our names of precisions -> whether they are autocast, which PEFT's settings call amp."""
RESERVED = tuple(f"cuda_reserved_{phase}_mb" for phase in ("setup", "train", "evaluation"))
"""Peaks of reserved memory, of which PEFT's is the largest."""
UNMEASURED = ("eval time", "tokens / sec", "mem allocated avg", "mem reserved avg", "elapsed time")
"""PEFT's figures of a window that our records don't have."""
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def files_of(results: Results) -> Iterator[tuple[str, str]]:
    for method in results.methods:
        for record in results.runs(method):
            text = json.dumps(as_peft(results, method, record), indent=2, allow_nan=False)
            yield f"peft/{record.run_id}.json", f"{text}\n"


def as_peft(results: Results, method: str, record: RunRecord) -> dict[str, Any]:
    """Return a compared run as PEFT's `log_results` writes one
    (method_comparison/MetaMathQA/utils.py).
    """
    (kind, dtype), spec = _known(record), record.spec.method
    method_config = {"peft_type": kind, "method": spec.method, **spec.options}
    memory = max(
        (peak for name in RESERVED if (peak := _value(record, name)) is not None), default=None
    )
    trainable, head = (_value(record, f"{what}_parameters") for what in ("trainable", "head"))
    windows, consumed = _windows(results, method, record), record.consumed
    # PEFT's test accuracy is a share of right rows, so another score isn't one
    score, binary = _value(record, results.quality), results.task.binary
    test: dict[str, Any] = {
        "step": consumed.steps if consumed else None,
        ACCURACY: score if binary else None,
        TEST_ROWS: results.test_rows,
        **({} if binary else {results.quality: score}),
        "train loss": windows[-1]["train loss"] if windows else None,
        "train samples": consumed.samples if consumed else None,
        "train total tokens": consumed.real_tokens if consumed else None,
        "forgetting": _value(record, "forgetting"),
    }
    return {
        "run_info": {
            "created_at": record.started,
            "total_time": record.seconds,
            "experiment_name": method,
            "peft_branch": None,
            "train_config": _train_config(record, dtype),
            # None where the whole model was trained, as PEFT has it
            "peft_config": None if _value(record, "trainable_percent") == 100 else method_config,
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": None if memory is None else round(memory * 1e6),
            "accelerator_memory_reserved_99th": None,
            "train_time": _value(record, "train_seconds"),
            HOLDS: TIME_HELD,
            "file_size": _whole(_value(record, "saved_bytes")),
            "num_trainable_params": None
            if trainable is None or head is None
            else round(trainable + head),
            "num_total_params": _whole(_value(record, "total_parameters")),
            "status": "success",
            "metrics": [*windows, test],
        },
        "meta_info": _meta_info(record) | {UNRANKED: results.aligned.unranked or None},
    }


def _train_config(record: RunRecord, dtype: str | None) -> dict[str, Any]:
    settings, spec = record.spec.settings, record.spec.method
    optimizer = spec.optimizer or settings.optimizer
    kind, _, rest = settings.backbone.partition("#")[0].partition(
        ":"
    )  # a folder's place is private
    return {
        "model_id": f"{kind}:{PurePath(rest).name if kind == 'path' else rest}",
        "dtype": dtype,
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
        "optimizer_kwargs": {
            "lr": spec.lr,
            "weight_decay": settings.weight_decay,
            **optimizer.options,
        },
        "lr_scheduler": settings.schedule,
        "use_amp": AUTOCAST.get(settings.precision),
        "autocast_adapter_dtype": None,
        "generation_kwargs": None,
        "attn_implementation": None,
    }


def _known(record: RunRecord) -> tuple[str | None, str | None]:
    """Return a run's PEFT type and the type in which its model was loaded; None for what its
    method doesn't say.
    """
    spec, settings = record.spec.method, record.spec.settings
    try:
        kind = cast(type[Method], registry.plugin("methods", spec.method))
        method = kind(
            kind.Options.model_construct(**spec.options)
        )  # to validate PEFT's would import it
        stored = method.quantization or settings.quantization
        return method.peft_type, STORED[stored.name] if stored else settings.weights
    except (
        UserError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # not installed here, or of other options by now
        return None, None


def _meta_info(record: RunRecord) -> dict[str, Any]:
    environment, digests = Environment.read(record.environment), record.digests
    hardware, versions = environment.hardware, environment.packages
    gpus = hardware.get("gpus")
    cards = [card for card in gpus if isinstance(card, dict)] if isinstance(gpus, list) else []
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": _text(versions.get(name)), f"{name}-commit-hash": None}
    sums = (digests.revision, digests.weights, digests.data) if digests else (None,) * 3
    return {
        "model_info": {"sha": sums[0], "created_at": None, "sha256": sums[1]},
        "dataset_info": {
            record.spec.settings.dataset.name: {"sha": None, "created_at": None, "sha256": sums[2]}
        },
        "package_info": packages | {"hpml-bench-version": _text(versions.get("hpml-bench"))},
        "system_info": {
            "system": environment.system or None,
            "release": environment.kernel or None,
            "version": None,
            "machine": _text(hardware.get("architecture")),
            "processor": _text(hardware.get("cpu")),
            "accelerator": _text(cards[0].get("name")) if cards else None,
        },
        "pytorch_info": None,
        PROTOCOL: record.protocol_id,
        HOSTS: " ".join(hosts_of(record) or ()) or None,
    }


def _windows(results: Results, method: str, record: RunRecord) -> list[dict[str, Any]]:
    """Return the windows between validations; null where steps lack points, or batches differ in
    size.
    """
    seed, consumed, batch = record.spec.seed, record.consumed, record.spec.settings.global_batch
    scores = results.curve(validation_of(results.quality), method, seed)
    if scores is None or consumed is None:
        return []
    curves = [results.curve(name, method, seed) for name in ("step_seconds", "train_loss")]
    seconds, losses = (dict(zip(of.steps, of.values, strict=True)) if of else {} for of in curves)
    found = []
    for (before, _), (step, score) in pairwise(
        [(0, 0.0), *zip(scores.steps, scores.values, strict=True)]
    ):
        steps = range(before + 1, step + 1)
        loss = _sum(losses, steps)
        found.append(
            {
                "step": step,
                "valid accuracy": score if results.task.binary else None,
                "train loss": None if loss is None else loss / len(steps),
                "train samples": step * batch
                if consumed.samples == consumed.steps * batch
                else None,
                "train time": _sum(seconds, steps),
            }
            | dict.fromkeys(UNMEASURED)
        )
    return found


def _sum(values: Mapping[int, float], steps: range) -> float | None:
    return sum(values[step] for step in steps) if steps and values.keys() >= {*steps} else None


def _text(value: object) -> str | None:
    return sanitize(value, 300) if isinstance(value, str) else None


def _value(record: RunRecord, metric: str) -> float | None:
    value = record.metrics.get(metric)
    return value if value is not None and abs(value) < LARGEST else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
