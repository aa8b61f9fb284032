"""Train LoRA by transformers' Trainer with PEFT, loss on the answers alone."""

import random
from typing import Any

from common import arguments, conversations, leave, lora, training
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed


def encoded(row: dict[str, Any]) -> dict[str, list[int]]:
    """Return a row's token ids, and labels: -100 for the prompt's."""
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True
    )
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: given.max_length]
    learnt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [-100] * learnt + ids[learnt:],
    }


class Ordered(Trainer):  # type: ignore[misc]
    """A trainer with batches of rows of similar length, in random order: sorted by 32 batches,
    as hpml-bench does.
    """

    def _get_train_sampler(self, *_: Any) -> list[int]:
        lengths, size = [len(row["input_ids"]) for row in rows], given.batch
        order: list[int] = []
        generator = random.Random(given.seed)  # noqa: S311 - no secret
        while len(order) < given.steps * size:
            drawn = generator.sample(range(len(rows)), len(rows) // size * size)
            parts = [drawn[start : start + 32 * size] for start in range(0, len(drawn), 32 * size)]
            alike = [place for part in parts for place in sorted(part, key=lengths.__getitem__)]
            batches = [alike[start : start + size] for start in range(0, len(alike), size)]
            order += [place for batch in generator.sample(batches, len(batches)) for place in batch]
        return order[: given.steps * size]


given = arguments()
set_seed(given.seed)
tokenizer = AutoTokenizer.from_pretrained(
    given.model, local_files_only=True, trust_remote_code=False
)
model = get_peft_model(
    AutoModelForCausalLM.from_pretrained(
        given.model, dtype="float32", local_files_only=True, trust_remote_code=False
    ),
    lora(given),
)
rows = [encoded(row) for row in conversations(given.train, tokenizer)]
trainer = (Ordered if given.by_length else Trainer)(
    model=model,
    args=TrainingArguments(**training(given)),
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
leave(trainer, given)
