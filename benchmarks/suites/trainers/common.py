"""Shared parts of the trainers: arguments, rows as prompts and completions, LoRA as in `lora`,
files to leave.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from peft import LoraConfig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name, kind in {
        "model": str,
        "train": Path,
        "out": Path,
        "seed": int,
        "lr": float,
        "steps": int,
        "batch": int,
        "max-length": int,
        "schedule": str,
        "warmup": float,
        "weight-decay": float,
        "clip": float,
        "r": int,
        "alpha": float,
    }.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument(
        "--by-length", action="store_true", help="batches as hpml-bench makes them: hf_trainer.py"
    )
    return parser.parse_args()


def conversations(path: Path, tokenizer: Any) -> list[dict[str, list[dict[str, str]]]]:
    """Return rows with `prompt` and `completion`, the last answer, with the end token where the
    template has none.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        *prompt, answer = json.loads(line)["messages"]
        text = tokenizer.apply_chat_template([*prompt, answer], tokenize=False)
        if not text.rstrip().endswith(tuple(tokenizer.all_special_tokens)):
            answer = answer | {"content": answer["content"] + tokenizer.eos_token}
        rows.append({"prompt": prompt, "completion": [answer]})
    return rows


def lora(given: argparse.Namespace) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM", r=given.r, lora_alpha=given.alpha, target_modules="all-linear"
    )


def training(given: argparse.Namespace) -> dict[str, Any]:
    """Return arguments of transformers' Trainer, the same budget and optimizer as the suite's."""
    return {
        "output_dir": str(given.out / "log"),
        "seed": given.seed,
        "learning_rate": given.lr,
        "max_steps": given.steps,
        "per_device_train_batch_size": given.batch,
        "lr_scheduler_type": given.schedule,
        "warmup_steps": given.warmup,
        "weight_decay": given.weight_decay,
        "max_grad_norm": given.clip,
        "bf16": False,
        "gradient_checkpointing": False,
        "optim": "adamw_torch",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "include_num_input_tokens_seen": "non_padding",
    }


def leave(trainer: Any, given: argparse.Namespace) -> None:
    """Save the adapter, and what was consumed."""
    trainer.model.save_pretrained(given.out)
    (given.out / "consumed.json").write_text(
        json.dumps({"tokens": trainer.state.num_input_tokens_seen})
    )
