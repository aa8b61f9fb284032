"""Trial of a model before it is trained: positions of its output, parameters that no gradient
reaches, causality.

Each is found by a pass over a few made-up tokens, which works for all kinds of models.
"""

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpml_bench.system.errors import of_machine
from hpml_bench.training.kernels import autocast_of

SHORT = 4  # number of made-up tokens in a text
BUFFERS = ("embed_positions", "pos_encoding")
"""Names of buffers [positions, width] beyond which a model reads no text (GPT-J, CodeGen, CTRL)."""
POSITIONS = re.compile(r"(?:^|\.)(?:wpe|(?:char_)?position_embeddings|embed_positions)$")


def unused_parameters(module: nn.Module) -> list[str]:
    """Return the names of trainable parameters that get no gradient, for which DDP would wait for
    ever.

    It tries a pass over a few made-up tokens; the random generators keep their state, and gradients
    are cleared.
    """
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    if not trained:
        return []
    reached = set[Tensor]()

    def note(weight: Tensor) -> None:
        reached.add(weight)
        weight.grad = None  # all at once would take as much memory as the weights

    hooks = [
        cast(Any, weight).register_post_accumulate_grad_hook(note) for weight in trained.values()
    ]
    with seeded(0):
        output = _pass(module, rows=2)
        (output if isinstance(output, Tensor) else output[0]).float().square().mean().backward()
    for hook in hooks:
        hook.remove()
    missing = [
        name for name, weight in trained.items() if weight not in reached and weight.grad is None
    ]
    for weight in trained.values():  # of a simulated card, whose backward pass calls no hook
        weight.grad = None
    return missing


def freeze_unused(module: nn.Module) -> None:
    for name in unused_parameters(module):
        module.get_parameter(name).requires_grad_(False)


@torch.no_grad()
def unread_parts(model: PreTrainedModel) -> list[str]:
    """Return the names of a model's parts that no text goes through, such as a vision tower
    beside the text model.
    """
    text, modules = model.config.get_text_config(), dict(model.named_modules())
    inside = next(
        (name for name, part in modules.items() if getattr(part, "config", None) is text), ""
    )
    if not inside:  # the model itself
        return []
    _, called = _short_pass(model)
    beside = {
        name: part for name, part in modules.items() if not f"{name}.".startswith(f"{inside}.")
    }
    unread = [name for name, part in beside.items() if called.isdisjoint(part.modules())]
    return [name for name in unread if name.rpartition(".")[0] not in unread]


@torch.no_grad()
def passed_over(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that take no update beside their weight, nor a
    quantised one.
    """
    found: list[str] = []
    read: dict[
        type, set[str]
    ] = {}  # parts of a module whose weights, not only their type or shape, its code names
    for kind in {type(part) for part in model.modules()}:
        source = inspect.getsource(kind) if kind.__module__.startswith("transformers.") else ""
        read[kind] = {*re.findall(r"\bself\.(\w+)\.weight\b(?!\.(?:dtype|device|shape))", source)}
    for above, parent in model.named_modules():
        for name, layer in parent.named_children():
            if not isinstance(layer, nn.Linear):
                continue
            # state-space models (Mamba) hand the weight itself to one kernel for several layers;
            # some routers of a mixture of experts return more than a product
            passed = name in read[type(parent)]
            if not passed and type(layer).__module__.startswith("transformers."):
                passed = not isinstance(layer(layer.weight.new_zeros(1, layer.in_features)), Tensor)
            if passed:
                found.append(f"{above}.{name}" if above else name)
    return found


@torch.no_grad()
def positions(module: nn.Module, length: int) -> int | None:
    """Return the positions of an encoder's output for a text of `length` tokens; None where it
    doesn't fit.
    """
    # a pass over a few tokens shows the virtual ones; whether a text fits is a matter of the sizes
    # of tables: on a GPU a position beyond a learned one would end the process
    virtual = getattr(getattr(module, "active_peft_config", None), "num_virtual_tokens", None) or 0
    learned = (
        len(part.weight)
        - (getattr(part, "offset", 0) or (0 if part.padding_idx is None else part.padding_idx + 1))
        for name, part in module.named_modules()
        if POSITIONS.search(name) and hasattr(part, "padding_idx")
    )
    if length + virtual > min(learned, default=math.inf):
        return None
    try:
        made, called = _short_pass(module)
    except (IndexError, RuntimeError) as error:  # too few positions, or shapes that don't broadcast
        if of_machine(error):
            raise
        return None
    tables = [getattr(part, name) for part in called for name in BUFFERS if name in part._buffers]
    fits = length + virtual <= min((len(table) for table in tables), default=math.inf)
    return made - SHORT + length if fits else None


def _short_pass(module: nn.Module) -> tuple[int, set[nn.Module]]:
    """Return the positions of the output for a text of `SHORT` tokens, and the parts that it
    went through.
    """
    called: set[nn.Module] = set()
    hooks = [
        part.register_forward_pre_hook(lambda part, _: called.add(part))
        for part in module.modules()
    ]
    try:
        with in_evaluation_mode(module):
            return int(_pass(module, rows=1)[0].shape[1]), called
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def is_causal(model: PreTrainedModel) -> bool:
    """Return whether a token's logits don't depend on what follows it."""
    with in_evaluation_mode(model), autocast_of(model):
        ids = _tokens(model, rows=1)["input_ids"].repeat(2, 1)
        ids[1, 1:] = ids[0, :-1]
        first = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0][:, 0]
    rounding = torch.finfo(first.dtype).eps
    return bool(torch.allclose(first[0], first[1], rtol=10 * rounding, atol=max(1e-5, rounding)))


def _pass(module: nn.Module, rows: int) -> Any:
    with autocast_of(module):
        return module(**_tokens(module, rows))


def _tokens(module: nn.Module, rows: int) -> dict[str, Tensor]:
    """Return made-up texts on the module's device; ids are small, and from 3 on to avoid the
    usual special ones.
    """
    device = next(module.parameters()).device
    known = (
        getattr(getattr(getattr(module, "encoder", module), "config", None), "vocab_size", None)
        or 11
    )
    ids = (3 + torch.arange(rows * SHORT, device=device).view(rows, SHORT) % 8) % known
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


@contextmanager
def kept_generators() -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with kept_generators():
        torch.manual_seed(seed)
        yield
