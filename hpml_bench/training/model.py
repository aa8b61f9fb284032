"""A bare backbone and our own head, put together in the same way for every method.

One pooling rule for all: the library's classifiers pool position -1 when they are handed embeddings only, which under
right padding is a pad token. Here the attention mask says which token is the last real one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from hpml_bench import registry
from hpml_bench.config.settings import MethodSpec, Settings
from hpml_bench.errors import Unsupported, UserError
from hpml_bench.training import kernels

Pooling = Literal["last", "first", "mean"]


class Classifier(nn.Module):
    """An encoder and a linear head on one pooled hidden state.

    Args:
        encoder: maps (input_ids, attention_mask) to an output with `last_hidden_state` [B, V + L, H], where the V
            leading positions are virtual tokens of the method.
        hidden_size: H.
        n_labels: C.
        pooling: which hidden state the head reads.

    """

    virtual_tokens: int = 0
    """V, known after a forward pass."""

    def __init__(self, encoder: nn.Module, hidden_size: int, n_labels: int, pooling: Pooling = "last") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden_size, n_labels)
        self.pooling: Pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits [B, C], float32 also under autocast, of right-padded texts [B, L]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        self.virtual_tokens = hidden.shape[1] - input_ids.shape[1]
        pooled = pool(hidden[:, self.virtual_tokens :], attention_mask, self.pooling)
        with torch.autocast(hidden.device.type, enabled=False):
            return cast(Tensor, self.head(pooled.float()))


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one state [B, H] per right-padded text from its hidden states [B, L, H]."""
    if pooling == "first":
        return hidden[:, 0]
    lengths = attention_mask.sum(1).clamp(min=1)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden.float() * attention_mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(-1)


def build_classifier(folder: Path, settings: Settings, method: MethodSpec, n_labels: int, seed: int) -> Classifier:
    """Load the backbone, let the method change it, and put the head on.

    The head's first weights depend on the seed alone, and so do the method's: no random numbers drawn before or
    elsewhere move them, and the global generators are left as they were.

    Raises:
        Unsupported: the method can't run with this backbone.
        UserError: the backbone can't be loaded, is too short for `max_length`, or an option is wrong.

    """
    with _seeded(seed):
        backbone = load_backbone(folder, settings)
        hidden_size = backbone.config.hidden_size
        if not _fits(backbone, settings.max_length):
            raise UserError(f"max_length {settings.max_length} is more tokens than {settings.backbone} has positions")
        encoder = _encoder(backbone, method, seed)
        kernels.speed_up(encoder, settings.device)
        if not _fits(encoder, settings.max_length):
            raise Unsupported(
                f"its virtual tokens and max_length {settings.max_length} together are more than the model's positions"
            )
        classifier = Classifier(encoder, hidden_size, n_labels, settings.pooling)
        _initialise(classifier.head, seed)
    return classifier


def _encoder(backbone: PreTrainedModel, method: MethodSpec, seed: int) -> nn.Module:
    """Let the method change the backbone, from random numbers that loading hasn't moved."""
    module = registry.get("methods", method.method)
    with _seeded(seed):
        try:
            return cast(nn.Module, module.build(backbone, module.Options.model_validate(method.options)))
        except ValueError as error:  # a library's way to say that it can't
            if "Target modules" in str(error):
                raise UserError(f"method {method.name}: {_first_line(error)}") from error
            raise Unsupported(_first_line(error)) from error


def load_backbone(folder: Path, settings: Settings) -> PreTrainedModel:
    """Load a bare backbone in float32 from safetensors in a local folder; no code of the model's is run.

    Raises:
        UserError: there is no such model, it is not of a known kind, or its file lacks weights.

    """
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what its load report would warn of is checked here
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = MODEL_MAPPING[type(config)]
    except Exception as error:  # of a configuration that is garbage, whatever the library meets first
        raise UserError(f"{folder}: no model that transformers knows: {_first_line(error)}") from None
    kind = kind[0] if isinstance(kind, tuple) else kind
    if config.is_encoder_decoder:
        raise UserError(f"{folder}: {config.model_type} is an encoder-decoder; give an encoder or a decoder")
    _adjust(config, settings.dropout)
    # BERT's pooler would be trained by `full` and never get a gradient.
    extra: dict[str, Any] = (
        {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind).parameters else {}
    )
    if getattr(kind, "_supports_sdpa", False):
        extra["attn_implementation"] = kernels.ATTENTION if kernels.dispatches(kind) else "sdpa"
    try:
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    except MemoryError:
        raise
    except Exception as error:  # the libraries have kinds of their own
        raise UserError(f"{folder}: can't be loaded from safetensors: {_first_line(error)}") from None
    if report["missing_keys"]:
        raise UserError(f"{folder}: the file lacks weights, among them {min(report['missing_keys'])}")
    return cast(PreTrainedModel, model)


def untouched_parameters(module: nn.Module) -> list[str]:
    """Return the names of trainable parameters that a backward pass doesn't reach, on a few made-up tokens.

    DDP waits for ever (or raises) for the gradient of such a parameter. Takes a classifier or an encoder; generators
    and gradients are left as they were found, gradients empty.
    """
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not weights:
        return []
    with _seeded(0):
        output = module(**_tokens(module, rows=2, length=4))
        (output if isinstance(output, Tensor) else output.last_hidden_state).float().square().mean().backward()
    missing = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    for weight in weights:
        weight.grad = None
    return missing


def freeze_untouched(module: nn.Module) -> None:
    """Take the parameters that no backward pass reaches out of training, so that DDP doesn't wait for them."""
    for name in untouched_parameters(module):
        module.get_parameter(name).requires_grad_(False)


def _tokens(module: nn.Module, rows: int, length: int) -> dict[str, Tensor]:
    """Return made-up input on the module's device; ids are small, and from 3 on to avoid the usual special ones."""
    device = next(module.parameters()).device
    ids = 3 + torch.arange(rows * length, device=device).view(rows, length) % 8
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def _fits(module: nn.Module, length: int) -> bool:
    """Whether a text of `length` tokens passes: learned positions end somewhere, and trying works for all kinds."""
    try:
        with _evaluating(module):
            module(**_tokens(module, rows=1, length=length))
    except (IndexError, RuntimeError):  # a table of positions that ends, or one that doesn't broadcast
        return False
    return True


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators inside, and leave them outside as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _initialise(head: nn.Linear, seed: int) -> None:
    """Draw N(0, 0.02), the backbones' own initialisation, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.weight, std=0.02, generator=generator)
    nn.init.zeros_(head.bias)


def _adjust(config: PretrainedConfig, dropout: float | None) -> None:
    """Set what is the same for all backbones in a configuration, in place."""
    if hasattr(config, "use_cache"):
        config.use_cache = False
    for key, value in config.to_dict().items():
        if "drop" not in key or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if "layerdrop" in key:
            setattr(config, key, 0.0)  # a skipped layer has no gradient, which DDP can't have
        elif dropout is not None:
            setattr(config, key, dropout)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
