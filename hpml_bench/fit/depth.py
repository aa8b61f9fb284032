"""Depth of a model: the memory of all its blocks from that of a few, where the others repeat them.

Each moment of a run, such as the k-th operator of the backward pass, has so many bytes more per
block. A peak is the largest of many moments, so that bytes are kept by place, and each place grows
by itself.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig

# share of a model's blocks that both traces of a few may have together: the rest is what they save
WORTH = 0.75
WHOLE = 6


class Few(NamedTuple):
    """Numbers of blocks whose traces tell of all: `more` has one repetition more than `least`."""

    least: int
    more: int
    repetitions: int  # further ones that the whole model has beyond `more`


def cut(config: PretrainedConfig, blocks: int) -> None:
    """Let a configuration be of a model's first blocks alone, in place."""
    text = config.get_text_config()
    count = text.num_hidden_layers
    for key, values in text.to_dict().items():
        if (
            isinstance(values, list) and len(values) == count
        ):  # such as each block's kind of attention
            setattr(text, key, values[:blocks])
    text.num_hidden_layers = blocks


def kinds(config: PretrainedConfig, model: nn.Module) -> list[Hashable]:
    """Return what each block of a model is: its modules' classes, their weights' shapes, and
    which are trained.
    """
    text = config.get_text_config()
    count = getattr(text, "num_hidden_layers", None) or 0
    found: list[list[Hashable]] = [[] for _ in range(count)]
    for values in text.to_dict().values():
        if isinstance(values, list) and len(values) == count:
            for block, value in zip(found, values, strict=True):
                block.append(str(value))
    for name, module in model.named_modules():
        parts = name.split(".")
        place = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if place is None:
            continue
        if int(parts[place]) >= count:
            return []  # blocks can't be told: modules are numbered beyond them
        parts[place], number = "", int(parts[place])
        own = [
            (key, of.shape, of.dtype, of.requires_grad)
            for key, of in module._parameters.items()
            if of is not None
        ]
        found[number].append((".".join(parts), type(module), tuple(own)))
    return [tuple(block) for block in found]


def few(blocks: Sequence[Hashable], at_least: int = 2) -> Few | None:
    """Return how many blocks tell of all: each kind of them, whose order repeats to the end;
    None if too few repeat.
    """
    # two at least: the first one's inputs need no gradient, and answers keep no more than one
    # block's mask; FSDP has up to `WHOLE` blocks whole at a time
    count = len(blocks)
    for period in range(1, count // 2):
        repeats = [one == other for one, other in zip(blocks, blocks[period:], strict=False)]
        begin = max((index + 1 for index, same in enumerate(repeats) if not same), default=0)
        least = max(at_least, begin + period)
        least += (count - least) % period
        if 2 * least + period <= WORTH * count:
            return Few(least, least + period, (count - least) // period - 1)
    return None
