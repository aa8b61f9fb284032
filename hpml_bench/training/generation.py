"""Answers of a language model, every row once over the ranks: generated with a cache, or chosen by
likelihood.

Generation is greedy, or sampled by the row's own seed. Choices are compared as in
lm-evaluation-harness: by the summed log-likelihood of a choice's tokens after the prompt, and by
that over the choice's characters.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.decoding import Decode, Generator, decoder
from hpml_bench.plugins.group import Group, settle
from hpml_bench.plugins.probe import Run
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import Task
from hpml_bench.plugins.tokenizer import load_tokenizer
from hpml_bench.suite.settings import Settings
from hpml_bench.system import heartbeat
from hpml_bench.training.causal_lm import LanguageModel, State, pad
from hpml_bench.training.quantization import is_quantized

NEAR = 1e-4
"""Distance of the two largest logits below which rounding may decide between their tokens, in
float32. In half precision it is one rounding step at the largest logit: at most 2^-7 of it in
bfloat16, 2^-10 in float16.
"""
SHRINK = 0.5  # share of unfinished rows in a batch at or below which the finished ones leave it
CHECKED_ROWS, CHECKED_TOKENS = 4, 8
"""Prompts of the first batch, and tokens of each answer, with which a model's cache is checked."""
EXACT, ROUNDED = 0.01, 0.35
"""Largest difference of logits with and without the cache, in standard deviations over the
vocabulary: for exact float32 products and weights, and for rounded ones.
"""


def make_generator(
    task: Task, prepared: Prepared, settings: Settings, seed: int, decode: Decode | None = None
) -> Generator | None:
    """Return the generation settings of a task's runs, by the tokenizer or `decode`; None where
    they answer nothing.
    """
    if task.decoding is None:
        return None
    decode = decode or decoder(load_tokenizer(Path(prepared.backbone)), prepared.scaffold)
    return Generator(
        task.decoding, prepared.stop_ids, decode, prepared.pad_id, settings.eval_batch, seed
    )


@dataclass
class GeneratedText:
    """Answer generated for one row."""

    tokens: list[int]  # token ids, with the end token where there is one
    cut: bool = False  # whether it reached the limit of tokens without an end
    near_tie: bool = False  # whether two tokens were nearly equally likely somewhere in it


def answer_all(run: Run, rows: Rows, where: str) -> tuple[dict[str, Any], float]:
    """Answer every row exactly once; return fields of `TextAnswers`, on all ranks, and the
    slowest rank's seconds.
    """
    model, generator, group = _answering(run)
    shape = (math.ceil(len(rows) / group.world), 4 + generator.decoding.max_new_tokens)
    local = torch.full(shape, -1, dtype=torch.int64)
    if (
        not model.cache_checked
    ):  # where the cache is wrong on a rank, all read whole texts for each token
        holds = _cache_holds(run, next(_batches(run, rows), None))
        model.caches = bool(group.gather(torch.tensor(holds)).all())
        model.cache_checked = True
    group.barrier()
    began, done, own = time.monotonic(), 0, len(range(group.rank, len(rows), group.world))
    for numbers, prompts in _batches(run, rows):
        progress = f"answering {where} rows, {done} of {own}"
        if done:
            progress += f", {(time.monotonic() - began) / done * (own - done):.0f} s left"
        heartbeat.beat(progress)
        answers = generate(model, prompts, generator, group.device, numbers, progress)
        for place, (row, answer) in enumerate(zip(numbers, answers, strict=True), start=done):
            head = [row, len(answer.tokens), int(answer.cut), int(answer.near_tie)]
            local[place, : 4 + len(answer.tokens)] = torch.tensor([*head, *answer.tokens])
        done += len(numbers)
    slowest = seconds_since(began, group)
    gathered = group.gather_rows(local, len(rows), f"{where} rows were not answered")
    texts = tuple(text_of(row[4 : 4 + row[1]].tolist(), generator) for row in gathered)
    counted = {
        "tokens": gathered[:, 1],
        "cut": gathered[:, 2] == 1,
        "near_tie": gathered[:, 3] == 1,
    }
    return {"answer": texts, **counted}, slowest


def _answering(run: Run) -> tuple[LanguageModel, Generator, Group]:
    """Return model, generator and group of a run that generates answers."""
    return cast(LanguageModel, run.model), cast(Generator, run.generator), run.group


def seconds_since(began: float, group: Group) -> float:
    """Return the slowest rank's seconds since it read `began`, with what its device had yet to
    do.
    """
    settle(group.device)
    return float(group.gather(torch.tensor(time.monotonic() - began, dtype=torch.float64)).max())


def text_of(tokens: list[int], generator: Generator) -> str:
    """Return an answer's text up to its end token or stop text, without that."""
    content = tokens[:-1] if tokens and tokens[-1] in generator.stop_ids else tokens
    text = generator.decode(content)
    ends = [text.find(stop) for stop in generator.decoding.stop if stop in text]
    return text[: min(ends)] if ends else text


def own_rows(keys: np.ndarray, group: Group) -> np.ndarray:
    """Return this rank's rows, r, r + N, ... of N ranks, sorted by a key: similar lengths
    together pad little.
    """
    mine = np.arange(group.rank, len(keys), group.world)
    return mine[np.argsort(keys[mine], kind="stable")]


def _batches(run: Run, rows: Rows) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield numbers and prompts of this rank's rows, the longest prompts first: lack of memory
    shows at once.
    """
    _, generator, group = _answering(run)
    lengths = np.asarray(rows.column("prompt"))
    mine = own_rows(-lengths, group)
    for start in range(0, len(mine), generator.batch):
        part = mine[start : start + generator.batch].tolist()
        yield part, [rows.tokens(row)[: lengths[row]].astype(np.int64).tolist() for row in part]


def _cache_holds(run: Run, batch: tuple[list[int], list[list[int]]] | None) -> bool:
    """Return whether a model gives the same logits from its cache as from reading the whole
    texts.
    """
    if batch is None:
        return True
    model, generator, device = *_answering(run)[:2], run.group.device
    # over the first tokens of greedy answers to prompts from the longest to the shortest of a batch
    places = np.linspace(0, len(batch[1]) - 1, min(CHECKED_ROWS, len(batch[1]))).round().astype(int)
    prompts = [batch[1][place] for place in places]
    heartbeat.beat("checking the cache against reading anew")
    state = _read(model, prompts, generator.pad_id, device)
    room = _positions(model) - int(state.positions.max())  # both ways read the tokens
    logits, tokens = [state.logits.float()], [state.logits.argmax(dim=-1)]
    while len(tokens) < min(CHECKED_TOKENS, room):
        state = model.next(state, tokens[-1])
        logits.append(state.logits.float())
        tokens.append(state.logits.argmax(dim=-1))
    answers = torch.stack(tokens, dim=1).tolist()
    whole = model(*padded([*zip(prompts, answers, strict=True)], generator.pad_id, device)).float()
    anew, cached = whole.view(len(prompts), len(tokens), -1), torch.stack(logits, dim=1)
    exact = torch.get_float32_matmul_precision() == "highest" and not torch.is_autocast_enabled(
        device.type
    )
    tolerance = EXACT if exact and not is_quantized(model) else ROUNDED
    return bool(((cached - anew).abs().amax(dim=-1) <= tolerance * anew.std(dim=-1)).all())


def rehearse_answers(run: Run, rows: Rows) -> None:
    """Read this rank's largest batch of prompts with answers of full length: the last token by
    itself.
    """
    # the cache is then as large as it gets; the answers' other tokens are made up and read at once
    model, generator, group = _answering(run)
    batch = next(_batches(run, rows), None)
    if batch is None:
        return
    heartbeat.beat("rehearsing the largest batch of answers")
    ids = batch[1]
    room = _positions(model) - model.prefix - len(ids[0])
    made = int(min(generator.decoding.max_new_tokens - 1, room))
    state = _read(
        model, [row + row[-1:] * (made - 1) for row in ids], generator.pad_id, group.device
    )
    chosen = state.logits.argmax(dim=-1)
    if generator.decoding.temperature > 0:  # sorts as many probabilities as there are logits
        chosen = _drawn(
            state.logits.float(), generator, [torch.Generator()] * len(ids), [*range(len(ids))]
        )
    if made > 0:
        model.next(state, chosen)


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: list[list[int]],
    generator: Generator,
    device: torch.device,
    numbers: list[int],
    progress: str = "answering",
) -> list[GeneratedText]:
    """Answer prompts, token ids, side by side with a model in evaluation mode; the rows' numbers
    seed the sampling.
    """
    answers = [GeneratedText([]) for _ in prompts]
    draws = [
        torch.Generator().manual_seed(generator.seed * 1_000_003 + number) for number in numbers
    ]
    state = _read(model, prompts, generator.pad_id, device)
    active = list(range(len(prompts)))
    unfinished = set(active)
    room = _positions(model) + 1  # the last token of an answer isn't read any more
    most = [
        int(min(generator.decoding.max_new_tokens, room - place))
        for place in state.positions.tolist()
    ]
    greedy, stops = generator.decoding.temperature == 0, generator.decoding.stop
    for made in range(1, max(most) + 1):
        logits = state.logits.float()
        top = logits.topk(2, dim=-1)
        chosen = top.indices[:, 0] if greedy else _drawn(logits, generator, draws, active)
        step = (top.values[:, 0].abs() * torch.finfo(state.logits.dtype).eps).clamp(min=NEAR)
        near = (
            (top.values[:, 0] - top.values[:, 1] <= step) & greedy
        ).tolist()  # sampling has no ties
        for row, token, close in zip(active, chosen.tolist(), near, strict=True):
            if row not in unfinished:
                continue
            answer = answers[row]
            answer.tokens.append(token)
            answer.near_tie |= close
            if token in generator.stop_ids or any(
                stop in generator.decode(answer.tokens) for stop in stops
            ):
                unfinished.remove(row)
            elif len(answer.tokens) >= most[row]:
                answer.cut = True
                unfinished.remove(row)
        if not unfinished:
            break
        heartbeat.beat(progress)
        if len(unfinished) <= SHRINK * len(active) or any(made >= most[row] for row in active):
            stay = torch.tensor(
                [place for place, row in enumerate(active) if row in unfinished], device=device
            )
            state, chosen = model.keep(state, stay), chosen[stay]
            active = [active[place] for place in stay.tolist()]
        state = model.next(state, chosen)
    return answers


def _positions(model: LanguageModel) -> float:
    config: Any = cast(Any, model.encoder).config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or math.inf


def _read(
    model: LanguageModel, prompts: list[list[int]], pad_id: int, device: torch.device
) -> State:
    ids, mask = pad([torch.tensor(row, dtype=torch.int64) for row in prompts], pad_id, "left")
    return model.read(ids.to(device), mask.to(device))


def _drawn(
    logits: Tensor, generator: Generator, draws: list[torch.Generator], active: list[int]
) -> Tensor:
    """Return a token for each row, drawn by the row's own random numbers, which are the host's."""
    chances = (logits / generator.decoding.temperature).softmax(dim=-1).double()
    if generator.decoding.top_p < 1:
        ordered, places = chances.sort(dim=-1, descending=True, stable=True)
        kept = ordered.cumsum(dim=-1) - ordered < generator.decoding.top_p
        chances = chances * torch.zeros_like(kept).scatter(1, places, kept)
    below = chances.cumsum(
        dim=-1
    )  # in the vocabulary's order: by size, rounding could swap neighbours and the draw
    uniform = torch.stack(
        [torch.rand((), generator=draws[row], dtype=torch.float64) for row in active]
    )
    reached = uniform.to(logits.device, non_blocking=True) * below[:, -1]
    return (below <= reached[:, None]).sum(dim=-1).clamp(max=chances.shape[-1] - 1)


def choice_rows(rows: Rows) -> Rows:
    """Return each row's prompt with each of its choices as rows of their own, whose targets are
    the choice's tokens.
    """
    kind, ids, labels = pa.list_(pa.int32()), list[pa.Array](), list[pa.Array]()
    for row, (size, choices) in enumerate(
        zip(rows.column("prompt"), rows.column("choice_ids"), strict=True)
    ):
        prompt = rows.tokens(row)[:size].tolist()
        ids.append(pa.array([prompt + own for own in choices], kind))
        labels.append(pa.array([[IGNORE_INDEX] * size + own for own in choices], kind))
    return Rows(
        pa.table({"input_ids": pa.chunked_array(ids), "label": pa.chunked_array(labels)}),
        rows.pad_id,
    )


def chosen(choices: list[list[str]], losses: np.ndarray) -> dict[str, Any]:
    """Return fields of `TextAnswers`: the likeliest choices, also by character, the first of equal
    ones.

    The losses are those of `choice_rows`.
    """
    plain, normalised = [], []
    for texts, own in zip(
        choices, np.split(losses, np.cumsum([*map(len, choices)])[:-1]), strict=True
    ):
        characters = [max(1, len(text.strip())) for text in texts]
        plain.append(texts[int(np.argmin(own))])
        normalised.append(texts[int(np.argmin(own / characters))])
    counts = np.array([*map(len, choices)])
    return {"answer": tuple(plain), "normalised": tuple(normalised), "choices": counts}


def padded(
    pairs: list[tuple[list[int], list[int]]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, mask and labels [B, L] of prompts and answers, padded on the right;
    answers have labels.
    """
    ids, mask = pad([torch.tensor([*prompt, *answer]) for prompt, answer in pairs], pad_id)
    labels, _ = pad(
        [torch.tensor([IGNORE_INDEX] * len(prompt) + answer) for prompt, answer in pairs],
        IGNORE_INDEX,
    )
    return ids.to(device), mask.to(device), labels.to(device)
