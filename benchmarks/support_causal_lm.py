"""Causal language models of the support table: tries a method on a small GPT-2, Llama, Qwen2 and Gemma 2.

A method runs with a model when it trains as on a bare backbone (support_table.py), when padding and the texts beside
it change no logit, when reading token by token gives the logits of a forward pass over the whole text, and when
prompts answered side by side get the answers that they get alone. It merges when the merged model's logits are the
same.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from support_trial import (
    COMMON,
    MERGE_TOLERANCE,
    SHAPE,
    STEPS,
    VOCABULARY,
    WIDTH,
    Finding,
    count_trained,
    largest,
    set_up,
    shake,
    train,
)
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from hpml_bench.plugins.method import Method
from hpml_bench.plugins.rows import Batch
from hpml_bench.plugins.task import IGNORE_INDEX, Decoding, Generator, make_task
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.generation import NEAR, generate
from hpml_bench.training.model import build_model

MODELS = ("GPT-2", "Llama", "Qwen2", "Gemma 2")
SPREAD = 0.1
"""Of the weights: with the usual 0.02 attention is so even that a wrong position changes hardly a logit."""
LENGTHS = (8, 5, 7, 2)
"""Tokens of the prompts."""
NEW_TOKENS = 5
WINDOW = 8
"""Tokens that every other layer of Gemma 2 looks back: less than the texts have."""
CPU = torch.device("cpu")


def save_language_models(folder: Path) -> dict[str, Path]:
    """Save the models, of 2 layers and width 64 with random weights, and return their folders."""
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

    grouped = {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": SPREAD, **SHAPE, **COMMON}
    of_gpt2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": SPREAD}
    configs = (
        GPT2Config(**of_gpt2, **COMMON),
        LlamaConfig(**grouped),
        Qwen2Config(**grouped, tie_word_embeddings=True),
        Gemma2Config(**grouped, head_dim=32, query_pre_attn_scalar=32, sliding_window=WINDOW),
    )
    torch.manual_seed(0)
    for name, config in zip(MODELS, configs, strict=True):
        model = AutoModelForCausalLM.from_config(config)
        shake(model)
        model.save_pretrained(folder / name)
    return {name: folder / name for name in MODELS}


def attempt(folder: Path, method: str, options: dict[str, object]) -> Finding:
    """Build, train, pad, generate and merge; what doesn't hold is the reason."""
    run, made = set_up("causal_lm", method, options, max(LENGTHS) + NEW_TOKENS)
    task = make_task(run.settings.task)
    ids, mask, labels = texts()
    try:
        model = cast(LanguageModel, build_model(folder, run, made, task))
        made.before_train(model.encoder, iter([Batch(ids, mask, labels, int(mask.sum()))]), STEPS)
    except Unsupported as error:
        return Finding(str(error))
    count = count_trained(model.encoder)
    learnt = int(mask[:, 1:].sum())
    reason = train(model, made, lambda: task.loss(model(ids, mask, labels), labels) / learnt)
    model.eval()
    reason = reason or changed_by_padding(model) or changed_by_caching(model) or changed_by_neighbours(model)
    return Finding(reason, count, not reason and merges(model, made))


@torch.no_grad()
def changed_by_padding(model: LanguageModel) -> str:
    """Compare logits with those under more padding and alone, and return how far they differ, if they do."""
    ids, mask, labels = texts()
    logits = model(ids, mask, labels)
    more = model(pad(ids, (0, 4), value=1), pad(mask, (0, 4)), pad(labels, (0, 4), value=IGNORE_INDEX))
    rows = zip(ids, mask, labels, mask.sum(1), strict=True)
    alone = torch.cat([model(*(part[None, :length] for part in row)) for *row, length in rows])
    change = largest(logits - more, logits - alone)
    return "" if change <= NEAR else f"padding changes its logits by {change:.0e}"


@torch.no_grad()
def changed_by_caching(model: LanguageModel) -> str:
    """Read texts token by token, two of the four to the end, and compare with a forward pass over the whole texts."""
    ids, mask, labels = texts()
    before = torch.tensor(LENGTHS)
    answers = labels.where(torch.arange(labels.shape[1]) >= before[:, None], IGNORE_INDEX)
    whole = model(ids, mask, answers).unflatten(0, (len(ids), NEW_TOKENS))
    rows = torch.arange(len(ids))
    starts = [torch.tensor(prompt) for prompt in prompts()]
    state = model.read(*(
        pad_sequence(part, batch_first=True, padding_value=value, padding_side="left")
        for part, value in ((starts, 1), ([torch.ones_like(start) for start in starts], 0))
    ))  # fmt: skip
    differences = []
    for step in range(NEW_TOKENS):
        differences.append(state.logits - whole[rows, step])
        if step == NEW_TOKENS // 2:
            state, rows = model.keep(state, torch.tensor([1, 3])), rows[[1, 3]]
        if step < NEW_TOKENS - 1:
            state = model.next(state, ids[rows, before[rows] + step])
    change = largest(*differences)
    return "" if change <= NEAR else f"reading token by token changes its logits by {change:.0e}"


def changed_by_neighbours(model: LanguageModel) -> str:
    """Answer prompts alone and side by side, where some end before others, and return what differs, if it does."""
    alone = [generate(model, [prompt], generator(), CPU, [0])[0] for prompt in prompts()]
    stop = alone[0].tokens[1]
    together = generate(model, prompts(), generator(stop), CPU, list(range(len(alone))))
    for own, answer in zip(alone, together, strict=True):
        tokens = own.tokens[: own.tokens.index(stop) + 1] if stop in own.tokens else own.tokens
        if answer.tokens != tokens and not own.near_tie:
            return f"answers {answer.tokens} side by side and {tokens} alone"
    return ""


@torch.no_grad()
def merges(model: LanguageModel, method: Method) -> bool:
    """Whether the method folds into the language model without changing the logits."""
    ids, mask, labels = texts()
    before = model(ids, mask, labels)
    merged = method.merge(model.encoder)
    return merged is not None and largest(model.with_encoder(merged)(ids, mask, labels) - before) <= MERGE_TOLERANCE


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Return four prompts of different lengths with what follows [4, 13], their mask and labels, always the same."""
    length = max(LENGTHS) + NEW_TOKENS
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), length), generator=torch.Generator().manual_seed(0))
    real = torch.arange(length) < torch.tensor(LENGTHS)[:, None] + NEW_TOKENS
    return ids.where(real, 1), real.long(), ids.where(real, IGNORE_INDEX)


def prompts() -> list[list[int]]:
    """Return the token ids of the prompts."""
    return [row[:length].tolist() for row, length in zip(texts()[0], LENGTHS, strict=True)]


def generator(*stop_ids: int) -> Generator:
    """Return greedy generation up to one of these tokens."""
    return Generator(Decoding(NEW_TOKENS), stop_ids, str, pad_id=1, batch=len(LENGTHS), seed=0)
