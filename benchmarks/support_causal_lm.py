"""Causal language models of the support table: tries a method on a small GPT-2, Llama, Qwen2 and Gemma 2.

A method runs with a model when it trains as the table asks (support_table.py), when padding and the texts beside it
change no logit, when reading token by token gives the logits of a forward pass over the whole text, and when prompts
answered side by side get the answers that they get alone. It merges when the merged model's logits are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from support_trial import COMMON, MERGE_TOLERANCE, SHAPE, VOCABULARY, WIDTH, Finding, set_up, shake, train
from support_trial import trained_parameters as count_trained
from torch import Tensor
from torch.nn.functional import pad

from hpml_bench.data.rows import Batch
from hpml_bench.errors import Unsupported
from hpml_bench.plugins.method import Method
from hpml_bench.plugins.task import IGNORE_INDEX, Decoding, make_task
from hpml_bench.training.causal_lm import LanguageModel
from hpml_bench.training.generation import Generator, _left_padded, generate
from hpml_bench.training.model import build_model

MODELS = ("GPT-2", "Llama", "Qwen2", "Gemma 2")
SPREAD = 0.1
"""Of the weights: with 0.02 attention is so even that a wrong position changes hardly a logit."""
LENGTHS = (8, 5, 7, 2)
"""Tokens of the texts."""
NEW_TOKENS = 5
TOLERANCE = 1e-4
"""Of logits; the distance below which generation calls two tokens a tie."""


def save_language_models(folder: Path) -> dict[str, Path]:
    """Save the models, of 2 layers and width 64 with random weights, and return their folders."""
    from transformers import AutoModelForCausalLM as Auto
    from transformers import Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

    grouped = {"num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": SPREAD, **SHAPE, **COMMON}
    of_gpt2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": SPREAD}
    configs = (
        GPT2Config(**of_gpt2, **COMMON),
        LlamaConfig(**grouped),
        Qwen2Config(**grouped, tie_word_embeddings=True),
        Gemma2Config(**grouped, head_dim=32, query_pre_attn_scalar=32),  # its heads are wider than the model
    )
    torch.manual_seed(0)
    for name, config in zip(MODELS, configs, strict=True):
        model = Auto.from_config(config)
        shake(model)
        model.save_pretrained(folder / name)
    return {name: folder / name for name in MODELS}


def attempt(backbone: Path, method: str, options: dict[str, object]) -> Finding:
    """Build, train, pad, generate and merge; what doesn't hold is the reason."""
    run, made = set_up("causal_lm", method, options, max(LENGTHS) + NEW_TOKENS)
    task = make_task(run.settings.task)
    ids, mask, labels = texts()
    targets = int((labels != IGNORE_INDEX).sum()) - len(ids)
    try:
        model = cast(LanguageModel, build_model(backbone, run, made, task))
        made.before_train(model.encoder, iter([Batch(ids, mask, labels, targets)]), run.settings.steps)
    except Unsupported as error:
        return Finding(str(error))
    count = count_trained(model)
    reason = train(model, model.encoder, made, lambda: task.loss(model(ids, mask, labels), labels) / targets)
    model.eval()
    reason = reason or changed_by_padding(model) or changed_by_caching(model) or changed_by_neighbours(model)
    return Finding(reason, count, not reason and merges(model, made))


@torch.no_grad()
def changed_by_padding(model: LanguageModel) -> str:
    """Compare logits with those under more padding and alone, and return how far they differ, if they do."""
    ids, mask, labels = texts()
    logits = model(ids, mask, labels)
    more = model(pad(ids, (0, 4), value=1), pad(mask, (0, 4)), pad(labels, (0, 4), value=IGNORE_INDEX))
    rows = zip(ids, mask, labels, strict=True)
    alone = torch.cat([model(*(part[None, : m.sum()] for part in (i, m, label))) for i, m, label in rows])
    change = max((logits - other).abs().max().item() for other in (more, alone))
    return "" if change <= TOLERANCE else f"padding changes its logits by {change:.0e}"


@torch.no_grad()
def changed_by_caching(model: LanguageModel) -> str:
    """Read texts token by token, two of them to the end, and compare with a forward pass over the whole texts."""
    ids, mask, labels = texts()
    learnt = torch.arange(labels.shape[1]) >= torch.tensor(LENGTHS)[:, None]
    whole = model(ids, mask, labels.where(learnt, IGNORE_INDEX)).unflatten(0, (len(ids), NEW_TOKENS))
    rows = torch.arange(len(ids))
    state = model.read(*_left_padded(prompts(), 1, torch.device("cpu")))
    change = 0.0
    for step in range(NEW_TOKENS):
        change = max(change, (state.logits - whole[rows, step]).abs().max().item())
        if step == NEW_TOKENS // 2:
            state, rows = model.keep(state, torch.tensor([1, 3])), rows[[1, 3]]
        state = model.next(state, ids[rows, torch.tensor(LENGTHS)[rows] + step])
    return "" if change <= TOLERANCE else f"reading token by token changes its logits by {change:.0e}"


def changed_by_neighbours(model: LanguageModel) -> str:
    """Answer prompts alone and side by side, where they end one after another, and return what differs, if it does."""
    free = [generate(model, [prompt], generator(), torch.device("cpu"), [0])[0] for prompt in prompts()]
    stop = free[0].tokens[1]
    answers = generate(model, prompts(), generator(stop), torch.device("cpu"), [0] * len(free))
    for alone, together in zip(free, answers, strict=True):
        tokens = alone.tokens[: alone.tokens.index(stop) + 1] if stop in alone.tokens else alone.tokens
        if tokens != together.tokens and not alone.near_tie:
            return f"answers {together.tokens} side by side and {tokens} alone"
    return ""


@torch.no_grad()
def merges(model: LanguageModel, method: Method) -> bool:
    """Whether the method folds into the language model without changing the logits."""
    ids, mask, labels = texts()
    before = model(ids, mask, labels)
    merged = method.merge(model.encoder)
    if merged is None:
        return False
    return bool((model.with_encoder(merged)(ids, mask, labels) - before).abs().max() <= MERGE_TOLERANCE)


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Return four texts of different lengths [4, 13], prompts and what follows; their mask and labels."""
    length = max(LENGTHS) + NEW_TOKENS
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), length), generator=torch.Generator().manual_seed(0))
    real = torch.arange(length) < torch.tensor(LENGTHS)[:, None] + NEW_TOKENS
    return ids.where(real, 1), real.long(), ids.where(real, IGNORE_INDEX)


def prompts() -> list[list[int]]:
    """Return the token ids of the four prompts."""
    return [row[:length].tolist() for row, length in zip(texts()[0], LENGTHS, strict=True)]


def generator(*stop_ids: int) -> Generator:
    """Return greedy generation up to one of some tokens."""
    return Generator(Decoding(NEW_TOKENS), stop_ids, str, pad_id=1, batch=len(LENGTHS), seed=0)
