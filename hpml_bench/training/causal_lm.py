"""Causal language model of a run: the method's model, whose output layer computes logits only
where they are needed.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from unittest import mock

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.model import TaskModel, every_token
from hpml_bench.plugins.task import target_positions
from hpml_bench.system.errors import UserError

KEYS_AND_VALUES = ("CARTRIDGE", "PREFIX_TUNING")
"""PEFT's types whose prefix is in the cache, so that padding on the left comes between it and
the text.
"""
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size")
"""Options of models whose tokens attend to a limited number of positions back; padding takes up
some of them.
"""
Places = tuple[Tensor, Tensor, int]
"""Rows [N] and columns [N] of texts [B, width], and their width: positions for which logits are
computed.
"""
CHUNK = (
    1 << 26
)  # logits that are computed at a time while training; their loss takes some 14 bytes for each


@dataclass
class State:
    """State of a generation: logits of the next token [B, vocabulary], cache or texts, and the
    mask [B, L].
    """

    logits: Tensor
    cache: Any  # keys and values; where none are cached, the token ids of each text
    mask: Tensor
    positions: Tensor  # position of the next token, [B]


class LanguageModel(TaskModel):
    """A causal language model as the method left it: the encoder, which may be PEFT's model around
    it.

    Logits are the largest tensor of a step, and most places have no target: a hook on the output
    layer selects the hidden states that it reads. `virtual_tokens` are leading positions that the
    method adds to these. `auxiliary` is `router_loss` times the load-balancing loss of the experts'
    routers; a UserError where the model has none.
    """

    def __init__(
        self, encoder: nn.Module, virtual_tokens: int = 0, router_loss: float = 0.0
    ) -> None:
        if router_loss and not hasattr(
            _unwrapped(encoder).config.get_text_config(), "output_router_logits"
        ):
            raise UserError(
                "task.options.router_loss is set, and the model gives no loss of routers of "
                "experts; set it to 0"
            )
        super().__init__(
            encoder, nn.Identity(), every_token, virtual_tokens
        )  # the output layer is the model's own
        self.router_loss = router_loss
        self.caches = _caches(encoder)
        """Whether a token is read with cached keys and values of those before; else the whole
        text, as in training.
        """
        self.cache_checked = (
            not self.caches
        )  # whether `caches` was verified on this model's texts, or needs no check
        self._attends = _attends(encoder)
        self.masked = needs_mask(encoder)
        self._chosen: Places | None = None
        self._bare: bool | None = None
        """Whether the model's logits are what its output layer returns, neither capped nor
        scaled; None: not seen.
        """
        self._hook = self._layer.register_forward_pre_hook(
            lambda _, args: (self._choose(args[0]), *args[1:])
        )

    @property
    def _layer(self) -> Any:
        return cast(Any, self.encoder).get_output_embeddings()

    @property
    def width(self) -> int:
        """Outputs per target: the size of the vocabulary."""
        return int(self._layer.weight.shape[0])

    @property
    def prefix(self) -> int:
        """Positions that the method puts before each text, in its hidden states or in the cache."""
        config = getattr(self.encoder, "active_peft_config", None)
        return int(getattr(config, "num_virtual_tokens", None) or 0)

    def release(self) -> None:
        self._hook.remove()

    def _choose(self, hidden: Tensor) -> Tensor:
        """Return the hidden states [N, H], out of [B, V + L, H], whose logits are computed."""
        if self._chosen is None:
            return hidden
        rows, columns, width = self._chosen
        before = hidden.shape[1] - width
        return hidden[rows, columns + before if before else columns]

    def forward(  # type: ignore[override]  # no other inputs
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        learnt: int | None = None,
    ) -> Tensor:
        """Return logits of right-padded texts [B, L].

        Labels [B, L] are a token's own id where it is a target, else IGNORE_INDEX. The logits are
        of the targets, each from the position before it: [N, vocabulary], row by row; without
        labels, of the token after each text: [B, vocabulary]. `learnt` is N; without it, the host
        waits for the device to count the targets. Of more than `CHUNK` logits the losses [N] are
        returned instead while training: logits are computed in parts, and again for the gradient
        (as in Liger, arXiv:2410.10989).
        """
        if labels is None:
            rows, columns = _every_row(input_ids), attention_mask.sum(1).clamp(min=1) - 1
        else:
            count = int((labels[:, 1:] != IGNORE_INDEX).sum()) if learnt is None else learnt
            rows, columns = target_positions(labels, count)
        chosen = rows, columns, input_ids.shape[1]
        more = {"output_router_logits": True} if self.router_loss and labels is not None else {}
        seen = (
            attention_mask if self.masked or more else None
        )  # the routers' loss leaves padding out
        read = partial(
            self._output, self.encoder, chosen, input_ids=input_ids, attention_mask=seen, **more
        )
        learns = labels is not None and self.training and torch.is_grad_enabled()
        if labels is not None and learns and self._bare and len(rows) * self.width > CHUNK:
            with self._losses_in_place_of_logits(labels[:, 1:][rows, columns]):
                return cast(Tensor, read().logits)[:, 0]
        if not learns or self._bare is not None:
            return cast(Tensor, read().logits)
        made: list[Tensor] = []
        hook = self._layer.register_forward_hook(
            lambda _layer, _inputs, logits: made.append(logits)
        )
        try:
            logits = cast(Tensor, read().logits)
        finally:
            hook.remove()
        self._bare = bool(made) and logits is made[-1]
        return logits

    @contextmanager
    def _losses_in_place_of_logits(self, targets: Tensor) -> Iterator[None]:
        """Have the output layer return the losses [N, 1] of the hidden states [N, H] that it
        reads.
        """
        layer = self._layer
        own, at_once = layer.forward, max(1, CHUNK // self.width)
        random = any(isinstance(part, nn.Dropout) and part.p for part in layer.modules())

        def part_of(hidden: Tensor, of: Tensor) -> Tensor:
            return nn.functional.cross_entropy(own(hidden).float(), of, reduction="none")

        def forward(hidden: Tensor) -> Tensor:
            parts = zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
            losses = (
                checkpoint(part_of, *of, use_reentrant=False, preserve_rng_state=random)
                for of in parts
            )
            return torch.cat([*losses])[:, None]

        with mock.patch.object(layer, "forward", forward):
            yield

    def _output(self, model: Any, chosen: Places, **inputs: Any) -> Any:
        self._chosen = chosen
        try:
            output = model(**inputs)
        finally:
            self._chosen = None
        self.auxiliary = (
            self.router_loss * output.aux_loss if "output_router_logits" in inputs else None
        )
        return output

    def with_encoder(self, encoder: nn.Module) -> "LanguageModel":
        return LanguageModel(encoder)

    # Token by token

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> State:
        """Read left-padded prompts [B, L] and return the state from which to generate."""
        if not self.caches:
            return self._whole(
                [ids[real.bool()] for ids, real in zip(input_ids, attention_mask, strict=True)]
            )
        base, prompt = _reader(self.encoder), None  # embeddings [B, V, H], or a cache
        if base is not self.encoder:
            prompt = cast(Any, self.encoder).get_prompt(batch_size=len(input_ids))
        inputs: dict[str, Any] = {"input_ids": input_ids}
        attention_mask = torch.cat(
            [attention_mask.new_ones(len(input_ids), self.prefix), attention_mask], dim=1
        )
        if isinstance(prompt, Tensor):
            words = base.get_input_embeddings()(input_ids)
            states = torch.cat([prompt.to(words.dtype), words], dim=1)
            order = attention_mask.argsort(
                dim=1, stable=True
            )  # padding first, not between prefix and prompt
            inputs = {"inputs_embeds": states.gather(1, order[..., None].expand_as(states))}
            attention_mask = attention_mask.gather(1, order)
        # counted without padding, so that a prompt's answer doesn't depend on the prompts beside it
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        if prompt is not None and not isinstance(prompt, Tensor):
            inputs[_cache_name(base)] = prompt
            positions = positions[:, self.prefix :]
        return self._go_on(base, attention_mask, positions, inputs)

    def next(self, state: State, tokens: Tensor) -> State:
        """Read one more token [B] of each answer."""
        if not self.caches:
            return self._whole(
                [torch.cat(pair) for pair in zip(state.cache, tokens[:, None], strict=True)]
            )
        base = _reader(self.encoder)
        mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        inputs = {"input_ids": tokens[:, None], _cache_name(base): state.cache}
        return self._go_on(base, mask, state.positions[:, None], inputs)

    def _whole(self, texts: list[Tensor]) -> State:
        ids, mask = pad(texts)
        return State(self(ids, mask), texts, mask, mask.sum(1) + self.prefix)

    def _go_on(self, base: Any, mask: Tensor, positions: Tensor, inputs: dict[str, Any]) -> State:
        rows, width = _every_row(positions), positions.shape[1]
        chosen = rows, torch.full_like(rows, width - 1), width
        seen = mask if self._attends else mask[:, -width:]
        output = self._output(
            base, chosen, **inputs, attention_mask=seen, position_ids=positions, use_cache=True
        )
        cache = getattr(output, _cache_name(base), None)
        return State(
            output.logits,
            output.past_key_values if cache is None else cache,
            mask,
            positions[:, -1] + 1,
        )

    def keep(self, state: State, rows: Tensor) -> State:
        if self.caches:
            state.cache.batch_select_indices(rows)
        cache = state.cache if self.caches else [state.cache[row] for row in rows.tolist()]
        return State(state.logits[rows], cache, state.mask[rows], state.positions[rows])


def pad(rows: Sequence[Tensor], value: int = 0, side: str = "right") -> tuple[Tensor, Tensor]:
    """Return token ids [B, L] of rows, padded on a side with a value, and their mask."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side=side), mask


def _every_row(batch: Tensor) -> Tensor:
    return torch.arange(len(batch), device=batch.device)


def needs_mask(encoder: Any) -> bool:
    """Return whether a model, or PEFT's around one, needs the mask of right-padded texts: all
    but causal ones do.
    """
    # In these padding comes after all that a token attends to. A mask costs a wait for the device
    # in each pass, and torch's flash attention, which takes none; a prefix in the cache and
    # windows, for which transformers makes its own masks, keep it.
    base = _unwrapped(encoder)
    kind = encoder.active_peft_config.peft_type if isinstance(encoder, PeftModel) else None
    causal = [part.is_causal for part in base.modules() if hasattr(part, "is_causal")]
    return (
        not causal
        or not all(causal)
        or kind in KEYS_AND_VALUES
        or _windowed(base.config.get_text_config())
    )


def _windowed(config: Any) -> bool:
    return any(getattr(config, name, None) for name in WINDOWS)


def _caches(encoder: Any) -> bool:
    """Return whether a model computes the same from cached keys and values of left-padded texts
    as from the texts.
    """
    if not isinstance(encoder, PeftModel):
        return True
    kind, config = (
        encoder.active_peft_config.peft_type,
        encoder.get_base_model().config.get_text_config(),
    )
    return kind != "SHADOW" and not (kind in KEYS_AND_VALUES and _windowed(config))


def _attends(encoder: Any) -> bool:
    """Return whether a model takes the mask of all tokens together with the last one."""
    # a state-space model without attention (Mamba) multiplies the new tokens' states by the mask
    base = _unwrapped(encoder)
    if hasattr(base.config.get_text_config(), "num_attention_heads"):
        return True
    return any(hasattr(part, "is_causal") for part in base.modules())


def _cache_name(base: Any) -> str:
    """Return the name of a model's cache argument: `past_key_values` until transformers 5.2x,
    `cache` since.
    """
    return (
        "cache"
        if "cache" in inspect.signature(_unwrapped(base).forward).parameters
        else "past_key_values"
    )


def _unwrapped(encoder: Any) -> Any:
    return encoder.get_base_model() if isinstance(encoder, PeftModel) else encoder


def _reader(encoder: Any) -> Any:
    """Return the model that reads tokens: for a prompt method the one behind its prefix."""
    # PEFT's own `generate` drops position ids, so that under left padding answers depend on the
    # prompts beside them
    prompted = isinstance(encoder, PeftModel) and encoder.active_peft_config.is_prompt_learning
    return encoder.get_base_model() if prompted else encoder
