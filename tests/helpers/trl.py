"""Conversations with tool calls and reasoning as TRL documents them, a small model, and what TRL
makes of both.

    PYTHONPATH=.:tests python -m helpers.trl

writes tests/files/trl.json anew: which text TRL's SFTTrainer learns of each row, and the losses of
ten steps. It needs `pip install trl` (the file is of 1.16.0).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.plugins.dataset import IGNORE_INDEX

FILE = Path(__file__).parents[1] / "files" / "trl.json"
TEMPLATES = Path(__file__).parents[1] / "data" / "templates"
MARKED = ("trl-qwen3_training", "trl-lfm2_2_5")
"""Templates with marks that write tool calls and reasoning; the first is that of the losses."""
PLAIN = ("trl-qwen3_instruct_2507", "trl-qwen2_5")
"""Templates without marks, which TRL replaces with its own for training."""
STEPS, BATCH, RATE = 10, 2, 1e-2
PAD, END = "<|endoftext|>", "<|im_end|>"
SPECIAL = (
    PAD,
    END,
    "<|im_start|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
    "[gMASK]",
    "<sop>",
)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def told(name: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": text}


def answered(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        },
    },
}
THOUGHT = {"reasoning_content": "Two and three are added.", "thinking": "Two and three are added."}
CALL = {"role": "assistant", "tool_calls": [call("add", a=2, b=3)]}
ROWS: list[dict[str, Any]] = [
    {"tools": tools, "messages": messages}
    for tools, messages in (
        ([TOOL], [asked("What is 2+3?"), CALL, told("add", "5"), answered("It is 5.")]),
        (
            [TOOL],
            [
                asked("2+3, and é?"),
                CALL | {"content": "I add."},
                told("add", "5"),
                answered("5, é."),
            ],
        ),
        (
            [TOOL],
            [
                {"role": "system", "content": "Be short."},
                asked("Both sums?"),
                {
                    "role": "assistant",
                    "tool_calls": [call("add", a=2, b=3), call("add", a=0.5, b=-1)],
                },
                told("add", "5"),
                told("add", "-0.5"),
                answered("5 and -0.5."),
            ],
        ),
        (
            [TOOL],
            [
                asked("Think of 2+3."),
                CALL | THOUGHT,
                told("add", "5"),
                answered("It is five.", **THOUGHT),
            ],
        ),
        ([], [asked("Which?"), answered("The first.", **THOUGHT)]),
        ([], [asked("Hi"), answered("Hello."), asked("Who are you?"), answered("A small model.")]),
        ([TOOL], [asked("Only call."), CALL]),
        ([], [asked("Yes\nor no?"), answered(" No.\n")]),
    )
]


def tokenizer() -> Any:
    """Return a tokenizer with a token for each byte and a few special ones, the same in all
    versions of its library.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=PAD)


def save_model(folder: Path) -> Path:
    """Save a Llama of two layers whose weights numpy draws, with the tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256 + len(SPECIAL),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=257,
        pad_token_id=256,
    )
    model = LlamaForCausalLM(config)
    draws = np.random.default_rng(0)
    for _, weight in sorted(model.named_parameters()):
        if weight.dim() > 1:
            weight.data = torch.tensor(
                draws.normal(0, 0.1, tuple(weight.shape)), dtype=torch.float32
            )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def runs(ids: list[int], learnt: list[bool]) -> list[tuple[str, bool]]:
    """Return tokens as stretches of text, each with whether it is learnt."""
    own, found, start = tokenizer(), [], 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or learnt[place] != learnt[start]:
            found.append(
                (own.decode(ids[start:place], clean_up_tokenization_spaces=False), learnt[start])
            )
            start = place
    return found


def save_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def by_trl(
    template: str, folder: Path, rows: list[dict[str, Any]]
) -> tuple[list[Any], list[float]]:
    """Return the runs of TRL's rows, and the losses of its steps on the rows in their order."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []

    class Kept(SFTTrainer):
        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            found = super().compute_loss(*arguments, **named)
            losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
            return found

    own = tokenizer()
    own.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    config = SFTConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        max_length=None,
        gradient_checkpointing=False,
        disable_tqdm=True,
        assistant_only_loss=True,
        train_sampling_strategy="sequential",
        bf16=False,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    data = load_dataset(
        "json",
        data_files=str(save_rows(folder, rows)),
        split="train",
        cache_dir=str(folder / "cache"),
    )
    trainer = Kept(model=model, args=config, train_dataset=data, processing_class=own)
    trainer.train()
    made = trainer.train_dataset
    learnt = [
        runs(row["input_ids"], [label != IGNORE_INDEX for label in row["labels"]]) for row in made
    ]
    return learnt, losses


def main() -> None:
    import tempfile
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        found = {template: by_trl(template, Path(folder), ROWS) for template in (*MARKED, *PLAIN)}
    rows = {template: rows for template, (rows, _) in found.items()}
    content = {"trl": version("trl"), "rows": rows, "losses": found[MARKED[0]][1]}
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
