"""Contender in a process of its own, which does jobs on request and returns how long they took (`speed.Process`).

A line of JSON for a job (`{"contender": "ours", "model": "gpt2", "method": "lora", ...}`), and one for its answer.
Contenders beside those of `language` and `probes`: `ours`, the harness's own steps with all probes on; and scripts with
the HF Trainer and PEFT as a user writes them: `defaults` (padded to 128, float32), `dynamic` (padded to the batch's
longest, bf16), `grouped` (that, rows grouped by length, and our allocator settings).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speed import RANK, language, memory_mb, probes, shapes
from speed.shapes import epoch, representative

if TYPE_CHECKING:
    from hpml_bench.training.trainer import Trainer as OurTrainer


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Time the harness's training steps."""
    from hpml_bench.plugins.rows import Rows

    rows = Rows(Path(job["folder"]) / "rows" / "train", 0)
    timed = representative(epoch("ours", rows.lengths), rows.lengths, job["batches"])
    with _our_trainer(job) as trainer:
        for indices in timed:
            trainer.step(1, indices)
            trainer.log.reduce()
        _synchronise(job)
        began = time.perf_counter()
        for index, indices in enumerate(timed, start=1):
            trainer.step(index, indices)
        steps = trainer.log.reduce()
        _synchronise(job)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "samples": sum(step.samples for step in steps)}


@contextmanager
def _our_trainer(job: dict[str, Any]) -> Iterator[OurTrainer]:
    """Yield what takes the harness's own steps, all probes on."""
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
    spec = RunSpec(suite="speed", settings=settings, method=method, seed=0)
    with process_group(settings) as group, tempfile.TemporaryDirectory() as folder:
        assembly = assemble(spec, shapes.prepared(Path(job["folder"]), job["model"]), group)
        run = replace(assembly.for_probes(Path(folder), time.monotonic()), test=assembly.train_rows)
        probes: list[Probe] = [registry.plugin("probes", probe)() for probe in registry.names("probes")]
        for probe in probes:
            probe.start(run)
        trainer = OurTrainer(assembly, probes)
        trainer.model.train()
        yield trainer


def _synchronise(job: dict[str, Any]) -> None:
    import torch

    if job["device"] == "cuda":
        torch.cuda.synchronize()


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """Time the HF Trainer on batches of its own epoch."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    ids, labels, lengths = shapes.token_ids(), shapes.labels(), shapes.lengths()
    timed = representative(epoch(job["contender"], lengths), lengths, job["batches"])
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
    return {"seconds": seconds[1], "samples": len(timed) * shapes.BATCH}


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


JOBS = {"ours": ours, **dict.fromkeys(("defaults", "dynamic", "grouped"), trainer), **language.JOBS, **probes.JOBS}


def main() -> None:
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    with answers:
        for line in sys.stdin:
            job = json.loads(line)
            torch.set_num_threads(job["threads"])
            result = JOBS[job["contender"]](job) | {"peak_mb": memory_mb("VmHWM")}
            gc.collect()
            answers.write(json.dumps(result) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
