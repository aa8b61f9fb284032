"""Choices: how likely a language model finds each of a row's answers, every row once over the ranks.

As lm-evaluation-harness counts multiple choice: the log-likelihood of a choice's tokens after the prompt, summed; and
the same divided by the choice's characters, where long choices would lose by their length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from hpml_bench.config.settings import Settings
from hpml_bench.data.rows import Rows
from hpml_bench.plugins.task import IGNORE_INDEX, Task
from hpml_bench.system import heartbeat
from hpml_bench.training.distributed import Group


class Chosen(NamedTuple):
    """The likeliest choice of each row, as texts."""

    plain: tuple[str, ...]
    normalised: tuple[str, ...]
    """By the log-likelihood a character."""


@torch.no_grad()
def choose(model: torch.nn.Module, task: Task, rows: Rows, settings: Settings, group: Group) -> Chosen:
    """Return the likeliest choices of all rows on all ranks; of equally likely ones the first."""
    choices, tokens, prompts = rows.column("choices"), rows.column("choice_ids"), rows.column("prompt")
    most = max(map(len, choices))
    mine = range(group.rank, len(rows), group.world)
    local = torch.full((math.ceil(len(rows) / group.world), 1 + most), math.inf, dtype=torch.float64)
    pairs = []
    for place, row in enumerate(mine):
        local[place, 0] = row
        prompt = rows.tokens(row)[: prompts[row]].tolist()
        pairs += [(place, number, prompt, answer) for number, answer in enumerate(tokens[row])]
    pairs.sort(key=lambda pair: len(pair[2]) + len(pair[3]))
    for start in range(0, len(pairs), settings.eval_batch):
        heartbeat.beat(f"comparing choices, {start} of {len(pairs)}")
        part = pairs[start : start + settings.eval_batch]
        ids, mask, labels = padded([(prompt, answer) for _, _, prompt, answer in part], rows.pad_id, group.device)
        losses = task.row_losses(model(ids, mask, labels).float(), labels).double().cpu()
        for (place, number, _, _), loss in zip(part, losses, strict=True):
            local[place, 1 + number] = loss
    everyone = group.gather(local).flatten(0, 1).numpy()
    everyone = everyone[np.isfinite(everyone[:, 0])]
    losses_of = everyone[np.argsort(everyone[:, 0], kind="stable")]
    if not np.array_equal(losses_of[:, 0], np.arange(len(rows))):
        raise RuntimeError("the choices of the rows were not compared exactly once each")
    return chosen(choices, losses_of[:, 1:])


def chosen(choices: list[list[str]], losses: np.ndarray) -> Chosen:
    """Return the likeliest choices, given the summed loss of each, [n, most choices]."""
    plain = tuple(texts[int(np.argmin(row[: len(texts)]))] for texts, row in zip(choices, losses, strict=True))
    per_character = [row[: len(texts)] / [max(1, len(text.strip())) for text in texts]
                     for texts, row in zip(choices, losses, strict=True)]  # fmt: skip
    normalised = tuple(texts[int(np.argmin(row))] for texts, row in zip(choices, per_character, strict=True))
    return Chosen(plain, normalised)


def padded(
    pairs: list[tuple[list[int], list[int]]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, mask and labels [B, L] of prompts and answers, padded on the right; answers have labels."""
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), length), pad_id)
    labels = torch.full((len(pairs), length), IGNORE_INDEX)
    mask = torch.zeros((len(pairs), length), dtype=torch.long)
    for row, (prompt, answer) in enumerate(pairs):
        whole = len(prompt) + len(answer)
        ids[row, :whole] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : whole] = torch.tensor(answer)
        mask[row, :whole] = 1
    return ids.to(device), mask.to(device), labels.to(device)
