"""Train LoRA by transformers' Trainer with PEFT, loss on the answers alone."""

from __future__ import annotations

from typing import Any

from common import arguments, conversations, leave, lora, training
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)


def encoded(row: dict[str, Any]) -> dict[str, list[int]]:
    """Return a row's token ids, and labels: -100 for the prompt's."""
    prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: given.max_length]
    learnt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * learnt + ids[learnt:]}


given = arguments()
set_seed(given.seed)
tokenizer = AutoTokenizer.from_pretrained(given.model)
model = get_peft_model(AutoModelForCausalLM.from_pretrained(given.model, dtype="float32"), lora(given))
trainer = Trainer(
    model=model,
    args=TrainingArguments(**training(given)),
    train_dataset=[encoded(row) for row in conversations(given.train, tokenizer)],
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
leave(trainer, given)
