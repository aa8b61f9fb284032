"""Contender in a process of its own, which does jobs on request and returns how long they took
(`speed.Process`).

A line of JSON for a job (`{"contender": "ours", "model": "gpt2", "method": "lora", ...}`), and one
for its answer. Contenders beside those of `language` and `probes`: `ours`, the harness's own steps
with all probes on; and scripts with the HF Trainer and PEFT as a user writes them: `defaults`
(padded to 128, float32), `dynamic` (padded to the batch's longest, bf16), `grouped` (that, rows
grouped by length, and our allocator settings).
"""

import gc
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.plugins.group import settle
from speed import language, memory_mb, probes, shapes
from speed.language import clock, our_trainer
from speed.shapes import epoch, representative


def ours(job: dict[str, Any]) -> dict[str, Any]:
    from hpml_bench.plugins.rows import Rows

    rows = Rows(Path(job["folder"]) / "rows" / "train", 0)
    timed = representative(epoch("ours", rows.lengths), rows.lengths, job["batches"])
    asked = {name: job[name] for name in ("device", "threads", "precision")} | {
        "dataset": "text_files"
    }
    asked |= {"steps": 10_000, "global_batch": shapes.BATCH, "max_length": shapes.LONGEST}
    prepared = shapes.prepared(Path(job["folder"]), job["model"])
    with our_trainer(
        prepared, job["method"], shapes.METHODS[job["method"]], asked, probes=True
    ) as trainer:
        for indices in timed:
            trainer.step(1, indices)
            trainer.log.reduce()
        settle(trainer.group.device)
        began = time.perf_counter()
        for index, indices in enumerate(timed, start=1):
            trainer.step(index, indices)
        steps = trainer.log.reduce()
        settle(trainer.group.device)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "samples": sum(step.samples for step in steps)}


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """Time the HF Trainer on batches of its own epoch."""
    import torch
    from transformers import Trainer, TrainingArguments

    (ids, labels), lengths = shapes.rows().values(), shapes.lengths()
    timed = representative(epoch(job["contender"], lengths), lengths, job["batches"])
    padded = job["contender"] == "defaults"

    def collate(rows: list[int]) -> dict[str, Any]:
        to = shapes.LONGEST if padded else int(lengths[rows].max())
        padded_ids = torch.tensor([ids[row] + [0] * (to - len(ids[row])) for row in rows])
        mask = torch.tensor([[1] * len(ids[row]) + [0] * (to - len(ids[row])) for row in rows])
        return {
            "input_ids": padded_ids,
            "attention_mask": mask,
            "labels": torch.tensor([labels[row] for row in rows]),
        }

    watch = clock(len(timed))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=shapes.BATCH,
            max_steps=2 * len(timed),
            learning_rate=1e-4,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=job["device"] == "cpu",
            bf16=not padded and job["precision"] == "bf16",
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
        rows = np.concatenate([*timed, *timed]).tolist()
        Trainer(
            _classifier(job),
            arguments,
            data_collator=collate,
            train_dataset=rows,
            callbacks=[watch],
        ).train()
    return {"seconds": watch.ended - watch.began, "samples": len(timed) * shapes.BATCH}


def _classifier(job: dict[str, Any]) -> Any:
    """Return transformers' classifier with the method put on, as a script would do it."""
    from peft import LoraConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from hpml_bench.builtin.methods.adapter import Adapter

    path = Path(job["folder"]) / job["model"]
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=shapes.CLASSES)
    model.config.pad_token_id = 0
    options = shapes.METHODS[job["method"]]
    if job["method"] == "lora":
        kind = {
            "r": options["r"],
            "lora_alpha": options["alpha"],
            "target_modules": options["target"],
        }
        return get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", fan_in_fan_out=job["model"] == "gpt2", **kind)
        )
    if job["method"] == "prompt_tuning":
        return get_peft_model(
            model, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=options["tokens"])
        )
    if job["method"] == "adapter":
        Adapter(Adapter.Options(**options)).build(model.base_model)
    return model


JOBS = {
    "ours": ours,
    **dict.fromkeys(("defaults", "dynamic", "grouped"), trainer),
    **language.JOBS,
    **probes.JOBS,
}


def main() -> None:
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    with answers:
        for line in sys.stdin:
            job = json.loads(line)
            torch.set_num_threads(job["threads"])
            result = JOBS[job["contender"]](job) | {"peak_mb": memory_mb()}
            gc.collect()
            answers.write(json.dumps(result) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
