"""Contender in a process of its own, which trains on request and returns how long it took.

    python -m speed.contender

A line of JSON for a job (`{"contender": "ours", "model": "gpt2", "method": "lora", ...}`), and one for its answer.
Contenders: `ours`, the harness's own steps with all probes on; and scripts with the HF Trainer and PEFT as a user
writes them: `defaults` (padded to 128, float32), `dynamic` (padded to the batch's longest, bf16), `grouped` (that, rows
grouped by length, and our allocator settings).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speed import shapes
from speed.batches import Batches, epoch, padded_to, representative

if TYPE_CHECKING:
    from hpml_bench.training.trainer import Trainer as OurTrainer

RANK = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
"""Operators that multiply matrices, as torch's profiler calls them."""


def best_gflops(dtype: Any, device: str) -> float:
    """Return the highest rate of square matrix products of a few sizes, in GFLOP/s."""
    sizes = (768, 1024, 2048) if device == "cpu" else (4096, 8192)
    return max(gemm_gflops(dtype, device, size) for size in sizes)


def gemm_gflops(dtype: Any, device: str, size: int, seconds: float = 0.5) -> float:
    """Return the rate of one matrix product repeated for half a second, in GFLOP/s."""
    import torch

    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    left @ right
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        done += 1
    return 2 * size**3 * done / (time.perf_counter() - began) / 1e9


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Time the harness's training steps."""
    import torch

    from hpml_bench.plugins.rows import Rows

    rows = Rows(Path(job["folder"]) / "rows" / "train", 0)
    batches = epoch("ours", rows.lengths)
    timed = representative(batches, rows.lengths, job["batches"])
    dtype = torch.bfloat16 if job["precision"] == "bf16" else torch.float32
    with ExitStack() as stack:
        trainer = _our_trainer(job, stack)
        warm = [_step_seconds(trainer, indices, job) for indices in timed]
        before = best_gflops(dtype, job["device"]) if job["utilisation"] else 0.0
        began = time.perf_counter()
        for index, indices in enumerate(timed, start=1):
            trainer.step(index, indices)
        steps = trainer.log.reduce()
        _synchronise(job)
        seconds = time.perf_counter() - began
        found = {
            "seconds": seconds,
            "first_step_seconds": warm[0],
            "warm_up_seconds": sum(warm),
            "samples": sum(step.samples for step in steps),
            "tokens_a_row": padded_to(timed, rows.lengths),
            "tokens_a_row_of_the_epoch": padded_to(batches, rows.lengths),
        }
        if job["products"]:
            found["products"] = _share_of_products(trainer, timed, job["device"])
            found["float32_gflops"] = best_gflops(torch.float32, job["device"])
            found["gemm_gflops"] = best_gflops(dtype, job["device"])
        if job["utilisation"]:
            after = best_gflops(dtype, job["device"])
            flops = _flops_a_token(trainer, timed[0]) * sum(step.padded_tokens for step in steps)
            found |= {"gflops": flops / seconds / 1e9, "gemm_gflops": max(before, after)}
    return found


def _our_trainer(job: dict[str, Any], stack: ExitStack) -> OurTrainer:
    """Return what takes the harness's own steps, all probes on."""
    from hpml_bench.plugins.probe import Probe
    from hpml_bench.suite import registry
    from hpml_bench.suite.settings import DatasetSpec, MethodSpec, RunSpec, Settings
    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.distributed import process_group
    from hpml_bench.training.trainer import Trainer as OurTrainer

    os.environ.update(RANK)
    options = registry.plugin("methods", job["method"]).Options(**shapes.METHODS[job["method"]]).model_dump()
    method = MethodSpec(name=job["method"], method=job["method"], options=options, lr=1e-4)
    settings = Settings(
        backbone="path:", dataset=DatasetSpec(name="text_files"), steps=10_000, global_batch=shapes.BATCH,
        world_size=1, device=job["device"], threads=job["threads"], precision=job["precision"],
        max_length=shapes.LONGEST,
    )  # fmt: skip
    group = stack.enter_context(process_group(settings))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    probes: list[Probe] = [registry.plugin("probes", probe)() for probe in registry.names("probes")]
    spec = RunSpec(suite="speed", settings=settings, method=method, seed=0)
    assembly = assemble(spec, shapes.prepared(Path(job["folder"]), job["model"]), group)
    if job["lever"] == "compile":
        from speed.compiled import compile_blocks

        compile_blocks(assembly.model.encoder)
    run = replace(assembly.for_probes(folder, time.monotonic()), test=assembly.train_rows)
    for probe in probes:
        probe.start(run)
    trainer = OurTrainer(assembly, probes)
    trainer.model.train()
    return trainer


def _step_seconds(ours: OurTrainer, indices: np.ndarray, job: dict[str, Any]) -> float:
    began = time.perf_counter()
    ours.step(1, indices)
    ours.log.reduce()
    _synchronise(job)
    return time.perf_counter() - began


def _flops_a_token(ours: OurTrainer, batch: np.ndarray) -> float:
    """Return the FLOPs of a step on a batch, as torch counts them, for each of its padded tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        ours.step(1, batch)
    (counted,) = ours.log.reduce()
    return float(counter.get_total_flops() / counted.padded_tokens)


def _share_of_products(ours: OurTrainer, batches: Batches, device: str) -> float:
    """Return the share of matrix products in the wall time of steps on these batches, under torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]) as profiled:
        began = time.perf_counter()
        for indices in batches:
            ours.step(1, indices)
        ours.log.reduce()  # reads the losses, and so waits for the device
        seconds = time.perf_counter() - began
    rows = [row for row in profiled.key_averages() if row.key in PRODUCTS]
    spent = sum(row.self_device_time_total if device == "cuda" else row.self_cpu_time_total for row in rows)
    return float(spent / 1e6 / seconds)


def _synchronise(job: dict[str, Any]) -> None:
    import torch

    if job["device"] == "cuda":
        torch.cuda.synchronize()


def switch_off(lever: str | None) -> None:
    """Put back what one of levers.LEVERS replaces; the allocator's settings are those the process is born with."""
    from torch import nn

    from hpml_bench.data import batches
    from hpml_bench.training import kernels, trainer

    off: dict[str, tuple[Any, str, Any]] = {
        "activation": (kernels, "NewGELUActivation", type("Nothing", (nn.Module,), {})),
        "dropout": (kernels, "SMALL", 2**62),
        "attention": (kernels, "ATTENTION", "sdpa"),
        "frozen": (trainer, "store_frozen_as_bf16", lambda _: None),
        "buckets": (batches, "BUCKET", 1),
    }
    if lever in off:
        setattr(*off[lever])


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """Time the HF Trainer on batches of its own epoch."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    ids, labels, lengths = shapes.token_ids(), shapes.labels(), shapes.lengths()
    batches = epoch(job["contender"], lengths)
    timed = representative(batches, lengths, job["batches"])
    padded = job["contender"] == "defaults"

    def collate(rows: list[int]) -> dict[str, Any]:
        to = shapes.LONGEST if padded else int(lengths[rows].max())
        values = {
            "input_ids": [ids[row] + [0] * (to - len(ids[row])) for row in rows],
            "attention_mask": [[1] * len(ids[row]) + [0] * (to - len(ids[row])) for row in rows],
            "labels": [labels[row] for row in rows],
        }
        return {name: torch.tensor(value) for name, value in values.items()}

    class Watch(TrainerCallback):  # type: ignore[misc]
        began = ended = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            _synchronise(job)
            Watch.began = time.perf_counter()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step == state.max_steps:
                _synchronise(job)
            Watch.ended = time.perf_counter()

    model, optimizer, seconds = _classifier(job), None, []
    with tempfile.TemporaryDirectory() as folder:
        for _ in ("warm-up", "timed"):
            arguments = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=shapes.BATCH, max_steps=len(timed), learning_rate=1e-4,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                use_cpu=job["device"] == "cpu", bf16=not padded and job["precision"] == "bf16",
                train_sampling_strategy="sequential", remove_unused_columns=False,
            )  # fmt: skip
            current = Trainer(
                model, arguments, data_collator=collate, train_dataset=np.concatenate(timed).tolist(),
                callbacks=[Watch()], optimizers=(optimizer, None),
            )  # fmt: skip
            current.train()
            optimizer = current.optimizer.optimizer  # whose state the warm-up has made
            seconds.append(Watch.ended - Watch.began)
    return {
        "seconds": seconds[1],
        "warm_up_seconds": seconds[0],
        "samples": len(timed) * shapes.BATCH,
        "tokens_a_row": shapes.LONGEST if padded else padded_to(timed, lengths),
        "tokens_a_row_of_the_epoch": shapes.LONGEST if padded else padded_to(batches, lengths),
    }


def _classifier(job: dict[str, Any]) -> Any:
    """Return transformers' classifier with the method put on, as a script would do it."""
    from peft import LoraConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from hpml_bench.builtin.methods.adapter import Adapter

    model = AutoModelForSequenceClassification.from_pretrained(
        Path(job["folder"]) / job["model"], num_labels=shapes.CLASSES
    )
    model.config.pad_token_id = 0
    options = shapes.METHODS[job["method"]]
    if job["method"] == "lora":
        kind = {"r": options["r"], "lora_alpha": options["alpha"], "target_modules": options["target"]}
        config = LoraConfig(task_type="SEQ_CLS", fan_in_fan_out=job["model"] == "gpt2", **kind)
        return get_peft_model(model, config)
    if job["method"] == "prompt_tuning":
        config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=options["tokens"])
        return get_peft_model(model, config)
    if job["method"] == "adapter":
        Adapter(Adapter.Options(**options)).build(model.base_model)
    return model


def main() -> None:
    """Do the jobs that come, a line each, until the input ends; what libraries print goes to standard error."""
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    with answers:
        for line in sys.stdin:
            job = json.loads(line)
            switch_off(job["lever"])
            torch.set_num_threads(job["threads"])
            result = ours(job) if job["contender"] == "ours" else trainer(job)
            gc.collect()
            answers.write(json.dumps(result) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
