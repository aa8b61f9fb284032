"""Multiple choice: log-likelihoods of each row's answers under a language model, every row once over the ranks.

As in lm-evaluation-harness: the log-likelihood of a choice's tokens after the prompt, summed; and the same divided by
the choice's characters, since long choices would lose by their length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from hpml_bench.data.batches import MemoryNeed, largest, pieces
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import IGNORE_INDEX, Task
from hpml_bench.suite.settings import Settings
from hpml_bench.system import heartbeat


class Chosen(NamedTuple):
    """The likeliest choice of each row, as texts."""

    plain: tuple[str, ...]
    normalised: tuple[str, ...]
    """By the log-likelihood per character."""


class ChoicePair(NamedTuple):
    """One choice of one of this rank's rows."""

    place: int
    """Index of the row among this rank's rows."""
    number: int
    """Index of the choice among the row's choices."""
    prompt: list[int]
    answer: list[int]

    @property
    def length(self) -> int:
        """Number of tokens to read."""
        return len(self.prompt) + len(self.answer)


@torch.no_grad()
def choose(model: torch.nn.Module, task: Task, rows: Rows, settings: Settings, group: Group, most: int) -> Chosen:
    """Return the likeliest choices of all rows on all ranks; of equally likely ones the first.

    A batch has at most `most` targets, unless a choice alone has more.
    """
    choices = rows.column("choices")
    mine = range(group.rank, len(rows), group.world)
    local = torch.full((math.ceil(len(rows) / group.world), 1 + max(map(len, choices))), math.inf, dtype=torch.float64)
    local[:, 0] = -1
    local[: len(mine), 0] = torch.tensor(mine)
    done = 0
    for part in _batches(rows, settings, group, most):
        heartbeat.beat(f"comparing choices, {done} of this rank's are done")
        for pair, loss in zip(part, _losses(model, task, part, rows.pad_id, group.device), strict=True):
            local[pair.place, 1 + pair.number] = loss
        done += len(part)
    gathered = group.gather_rows(local, len(rows), "choices of the rows were not compared")
    return chosen(choices, gathered[:, 1:])


@torch.no_grad()
def rehearse_choices(
    model: torch.nn.Module, task: Task, rows: Rows, settings: Settings, group: Group, most: int
) -> None:
    """Compare the choices of the largest batches of `choose`."""
    passes = (
        (MemoryNeed(len(part) * max(pair.length for pair in part), sum(len(pair.answer) for pair in part)), part)
        for part in _batches(rows, settings, group, most)
    )
    for part in largest(passes):
        _losses(model, task, part, rows.pad_id, group.device)


def _batches(rows: Rows, settings: Settings, group: Group, most: int) -> Iterator[list[ChoicePair]]:
    """Yield the choices of this rank's rows in batches of similar length."""
    tokens, prompts = rows.column("choice_ids"), rows.column("prompt")
    pairs = [
        ChoicePair(place, number, rows.tokens(row)[: prompts[row]].tolist(), answer)
        for place, row in enumerate(range(group.rank, len(rows), group.world))
        for number, answer in enumerate(tokens[row])
    ]
    pairs.sort(key=lambda pair: pair.length)
    targets = np.array([len(pair.answer) for pair in pairs])
    for part in pieces(np.arange(len(pairs)), targets, settings.eval_batch, most):
        yield [pairs[number] for number in part]


def _losses(
    model: torch.nn.Module, task: Task, part: list[ChoicePair], pad_id: int, device: torch.device
) -> torch.Tensor:
    """Return the summed loss of each choice's tokens."""
    ids, mask, labels = padded([(pair.prompt, pair.answer) for pair in part], pad_id, device)
    return task.row_losses(model(ids, mask, labels).float(), labels).double().cpu()


def chosen(choices: list[list[str]], losses: np.ndarray) -> Chosen:
    """Return the likeliest choices, given the summed loss of each, [n, most choices]."""
    plain, normalised = [], []
    for texts, row in zip(choices, losses, strict=True):
        own, characters = row[: len(texts)], [max(1, len(text.strip())) for text in texts]
        plain.append(texts[int(np.argmin(own))])
        normalised.append(texts[int(np.argmin(own / characters))])
    return Chosen(tuple(plain), tuple(normalised))


def padded(
    pairs: list[tuple[list[int], list[int]]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, mask and labels [B, L] of prompts and answers, padded on the right; answers have labels."""
    texts = [torch.tensor([*prompt, *answer]) for prompt, answer in pairs]
    targets = [torch.tensor([IGNORE_INDEX] * len(prompt) + answer) for prompt, answer in pairs]
    ids = pad_sequence(texts, batch_first=True, padding_value=pad_id)
    labels = pad_sequence(targets, batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    return ids.to(device), mask.to(device), labels.to(device)
