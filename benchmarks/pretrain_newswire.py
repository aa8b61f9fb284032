"""Pretraining of the embedded model: trains the quickstart's backbone and tokenizer, and writes
them as an asset.

    python benchmarks/pretrain_newswire.py [--out FOLDER]

Some minutes on 2 cores. Ends with a check that the backbone has learned who belongs to which topic:
a linear classifier on its frozen last state must reach a set accuracy on validation rows (a low
loss alone wouldn't show it).
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from hpml_bench.builtin.newswire import documents as newswire
from hpml_bench.builtin.newswire.world import make_world

SEED = 7
EOS, PAD = "<|endoftext|>", "<|pad|>"
VOCABULARY, WIDTH, LAYERS, HEADS, POSITIONS = 3584, 128, 4, 4, 192
TEXTS, STAY, BACKGROUND = 170_000, 0.25, 0.5
BATCH, LENGTH, RATE, WARMUP_STEPS = 16, 64, 3e-3, 100
LEAST_PROBE_ACCURACY = 0.70
MOST_BYTES = 8_000_000
ENVIRONMENT = {
    # keep freed memory: page faults of large temporaries took half of the time
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    # threads that spin while they wait slow each other down on a busy machine
    "OMP_WAIT_POLICY": "passive",
}
ASSET = Path(__file__).parents[1] / "hpml_bench/assets/newswire-gpt2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not ENVIRONMENT.keys() <= os.environ.keys():  # they are read when the process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)  # noqa: S606
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    started = time.perf_counter()
    rng = newswire.split_rng(SEED, "stream")
    texts = newswire.stream(make_world(), TEXTS, rng, stay=STAY, background=BACKGROUND)
    tokenizer = train_tokenizer(texts[:40_000])
    tokens = torch.tensor([i for encoding in tokenizer.encode_batch(texts) for i in encoding.ids])
    end = tokenizer.token_to_id(EOS)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tokenizer.get_vocab_size(),
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_positions=POSITIONS,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=tokenizer.token_to_id(PAD),
        )
    )
    loss = pretrain(model, tokens)
    figures = {
        "tokens of the stream": len(tokens),
        "tokens a word": round(len(tokens) / sum(len(text.split()) for text in texts), 3),
        "parameters": model.transformer.num_parameters(),
        "training loss over the last tenth, nats a token": round(loss, 3),
    }
    print(f"trained in {time.perf_counter() - started:.0f} s")
    write(arguments.out, model, tokenizer)
    figures |= check(arguments.out)
    print(json.dumps(figures, indent=2))
    write_card(arguments.out, figures)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Return a byte-level BPE tokenizer that ends every text with EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B {EOS}",
        special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
    )
    return tokenizer


def pretrain(model: Any, tokens: torch.Tensor) -> float:
    """Train for one pass over the stream, in bf16 autocast; return the mean loss of the last
    tenth, in nats a token.
    """
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    rows = rows[torch.randperm(len(rows))]
    batches = rows[: len(rows) // BATCH * BATCH].view(-1, BATCH, LENGTH)
    groups = [
        {
            "params": [p for p in model.parameters() if (p.ndim == 2) is matrices],
            "weight_decay": 0.01 * matrices,
        }
        for matrices in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=True)
    total = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min((k + 1) / WARMUP_STEPS, (total - k) / total)
    )
    losses = []
    for step, batch in enumerate(batches):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % 200 == 0:
            print(f"step {step}/{len(batches)} loss {np.mean(losses[-200:]):.3f}", flush=True)
    return float(np.mean(losses[-len(losses) // 10 :]))


def write(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """Write the bare backbone in fp16, its configuration and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone = model.transformer
    backbone.config.architectures = ["GPT2Model"]
    backbone.config.dtype = "float32"  # what it is loaded as; fp16 is how it is stored
    backbone.config.save_pretrained(folder)
    state = {
        name: value.detach().half().contiguous() for name, value in backbone.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = {"bos_token": EOS, "eos_token": EOS, "pad_token": PAD}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **tokens)
    fast.padding_side = "right"
    fast.save_pretrained(folder)


def check(folder: Path) -> dict[str, float]:
    """Load what was written and return its figures; SystemExit where topics are not learned, or
    files too large.
    """
    world = make_world()
    fit, test = (
        newswire.generate(world, 1024, SEED, "train"),
        newswire.generate(world, 2000, SEED, "check"),
    )

    @torch.no_grad()
    def accuracy_of(model: Any) -> float:
        """Return a classifier's accuracy on the backbone's hidden state at each text's end
        token.
        """
        states, tokenizer = [], AutoTokenizer.from_pretrained(folder)
        for rows in (fit, test):
            batch = tokenizer(newswire.render(world, rows), padding=True, return_tensors="pt")
            mask = batch["attention_mask"]
            hidden = model.eval()(
                input_ids=batch["input_ids"], attention_mask=mask
            ).last_hidden_state
            states.append(np.asarray(hidden[torch.arange(len(hidden)), mask.sum(1) - 1]))
        ridge = make_pipeline(StandardScaler(), RidgeClassifier())
        return float(ridge.fit(states[0], fit.topic).score(states[1], test.topic))

    accuracy = accuracy_of(AutoModel.from_pretrained(folder))
    torch.manual_seed(SEED)
    untrained = accuracy_of(AutoModel.from_config(AutoConfig.from_pretrained(folder)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    if accuracy < LEAST_PROBE_ACCURACY:
        raise SystemExit(
            f"the probe's accuracy is {accuracy:.3f}, below {LEAST_PROBE_ACCURACY}: topics not "
            f"learned"
        )
    if size > MOST_BYTES:
        raise SystemExit(f"{folder} has {size} bytes, more than {MOST_BYTES}")
    return {
        "accuracy of a ridge classifier on the frozen state at the end token "
        "(fit on 1,024 rows)": round(accuracy, 3),
        "the same classifier on the untrained model": round(untrained, 3),
        "best possible accuracy": round(newswire.best_accuracy(world, test)[0], 3),
        "MB with the tokenizer": round(size / 1e6, 1),
    }


def write_card(folder: Path, figures: dict[str, float]) -> None:
    """Write the model card: the asset's, with the figures of its table renewed, each of which
    must have a row.
    """
    card = (ASSET / "README.md").read_text(encoding="utf-8")
    for label, value in figures.items():
        card, found = re.subn(
            rf"(?m)^\| {re.escape(label)} \|.*$", f"| {label} | {value:,} |", card
        )
        if found != 1:
            raise SystemExit(f"the model card has {found} rows for {label}")
    (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
