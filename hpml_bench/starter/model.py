"""Facts about a model from its folder: kind, size, positions, type of the file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpml_bench.data.sources import (
    LAYERS,
    POSITIONS,
    WIDTH,
    first_value,
    read_config,
    resolve_model,
    weight_types,
)
from hpml_bench.system.errors import UserError

KINDS = ("embedded:", "path:", "hub:", "wheel:")  # beginnings of sources
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
GENERATES = re.compile(r"(CausalLM|LMHeadModel)$")
BOTH_WAYS = re.compile(
    r"(?:bert|electra|mpnet|xlm|camembert|longformer|big_?bird|ernie|deberta|nomic|rembert|layoutlm|luke|fnet)"
)
"""In the model types of encoders that read both ways, ModernBERT's and DistilBERT's among them."""
POOLS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
"""Key by which sentence-transformers says that a model pools in some way -> our word for it."""


@dataclass(frozen=True)
class Model:
    """A model on this machine."""

    source: str  # as a suite names it
    folder: Path
    config: Mapping[str, Any]  # config.json, of a multimodal model that of its text model
    parameters: int
    positions: int | None  # most tokens that it reads; None where nothing limits them
    width: int
    layers: int
    vocabulary: int  # 0 where config.json doesn't say
    dtypes: tuple[str, ...]  # types of the weights in the file, the most frequent first
    reads_both_ways: bool  # whether it is an encoder such as BERT, which can't generate
    pools_by: str | None  # how sentence-transformers pools its states; None where it doesn't say

    def __str__(self) -> str:
        sizes = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
        size, unit = next(
            ((size, unit) for size, unit in sizes if self.parameters >= size), (1, "")
        )
        return (
            f"a {self.config.get('model_type', '')} model of {self.parameters / size:.3g}{unit} "
            f"parameters"
        )


def look_at_model(source: str) -> Model:
    """Return the facts about the model that a source names; a folder, a file or OWNER/NAME is
    enough.
    """
    uri = source_of(source)
    folder = resolve_model(uri).folder_or_file
    config = read_config(folder / "config.json")
    kinds = [str(name) for name in config.get("architectures") or ()]
    family = str(config.get("model_type", ""))
    generates = any(map(GENERATES.search, kinds)) or config.get("is_decoder")
    sizes, pooling = (
        weight_types(folder),
        map(read_config, sorted(folder.glob("*_Pooling/config.json"))),
    )
    positions, width, layers, vocabulary = (
        found if isinstance(found := first_value(config, keys), int) else None
        for keys in (POSITIONS, WIDTH, LAYERS, ("vocab_size",))
    )
    return Model(
        source=uri,
        folder=folder,
        config=config,
        parameters=sum(sizes.values()),
        positions=positions,
        width=width or 1,
        layers=layers or 1,
        vocabulary=vocabulary or 0,
        dtypes=tuple(name for name, _ in sizes.most_common()),
        reads_both_ways=bool(BOTH_WAYS.search(family)) and not generates,
        pools_by=next(
            (way for flags in pooling for key, way in POOLS.items() if flags.get(key)), None
        ),
    )


def source_of(given: str) -> str:
    """Return a source as suites write it: with its kind, and an absolute path."""
    if given.startswith("path:") or Path(given).expanduser().exists():
        return f"path:{Path(given.removeprefix('path:')).expanduser().absolute()}"
    if given.startswith(KINDS):
        return given
    if REPOSITORY.fullmatch(given) and not given.startswith("."):
        return f"hub:{given}"
    raise UserError(
        f"{given}: there is no such file or folder, and it begins with none of {', '.join(KINDS)}; "
        "give a path that exists, or OWNER/NAME of the Hugging Face hub"
    )
