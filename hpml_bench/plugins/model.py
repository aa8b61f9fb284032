"""Model of a run: an encoder and a head of our own, put together in the same way for every method.

All methods pool alike: the classifiers of transformers pool position -1 when they get embeddings
only, which under right padding is a pad token. Here the attention mask says which token is the last
real one.
"""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

Pooling = Literal["last", "first", "mean"]
Select = Callable[[Tensor, Tensor], Tensor]


class TaskModel(nn.Module):
    """An encoder and a linear head: what a task's `build` returns.

    Args:
        encoder: maps (input_ids, attention_mask) to an output with `last_hidden_state` [B, V + L,
            H].
        head: maps what `select` returns, in float32, to the outputs.
        select: takes hidden states [B, L, H] and attention mask [B, L] of right-padded texts, and
            returns those that the head reads: one per text [B, H] (`pool`), or all of them.
        virtual_tokens: V, leading positions that the method adds.

    """

    masked = True
    """Whether the encoder gets the mask; a causal one needs none for right-padded texts."""
    auxiliary: Tensor | None = None
    """Term that the model adds to the loss of the last batch, a mean over its rows; None for no
    term.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, select: Select, virtual_tokens: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.select = select
        self.virtual_tokens = virtual_tokens

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, *_: object, **more: Tensor
    ) -> Tensor:
        """Return the head's outputs, float32 also under autocast, of right-padded texts [B, L];
        ignores labels.

        `more` goes to the encoder, such as the `token_type_ids` of pairs.
        """
        seen = attention_mask if self.masked else None
        hidden = self.encoder(input_ids=input_ids, attention_mask=seen, **more).last_hidden_state
        read = self.select(hidden[:, self.virtual_tokens :], attention_mask)
        with torch.autocast(hidden.device.type, enabled=False):
            return cast(Tensor, self.head(read.float()))

    def with_encoder(self, encoder: nn.Module) -> "TaskModel":
        other = TaskModel(encoder, self.head, self.select)
        other.masked = self.masked
        return other


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one state [B, H] per right-padded text from its hidden states [B, L, H]."""
    if pooling == "first":
        return hidden[:, 0]
    lengths = attention_mask.sum(1).clamp(min=1)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden.float() * attention_mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(-1)


def every_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG001 - as `pool`
    return hidden


def new_head(hidden_size: int, outputs: int, seed: int) -> nn.Linear:
    """Return a linear head drawn from N(0, 0.02), the backbones' own initialisation, from a
    generator of its own.
    """
    head = nn.Linear(hidden_size, outputs)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.weight, std=0.02, generator=generator)
    nn.init.zeros_(head.bias)
    return head
