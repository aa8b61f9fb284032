"""Facts about a model from its folder, and the entries of a suite file with their comments."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpml_bench.data.sources import LAYERS, POSITIONS, WIDTH, first_value, read_config, resolve_model, weight_types
from hpml_bench.suite.yaml import parse
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal, sanitize

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
    dtypes: tuple[str, ...]  # types of the weights in the file, the most frequent first
    reads_both_ways: bool  # whether it is an encoder such as BERT, which can't generate
    pools_by: str | None  # how sentence-transformers pools its states; None where it doesn't say

    @property
    def positions(self) -> int | None:
        """Most tokens that it reads; None where nothing limits them."""
        longest = first_value(self.config, POSITIONS)
        return longest if isinstance(longest, int) else None

    @property
    def width(self) -> int:
        return int(first_value(self.config, WIDTH) or 1)

    @property
    def layers(self) -> int:
        return int(first_value(self.config, LAYERS) or 1)

    @property
    def vocabulary(self) -> int:
        return int(self.config.get("vocab_size") or 0)

    def __str__(self) -> str:
        sizes = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
        size, unit = next(((size, unit) for size, unit in sizes if self.parameters >= size), (1, ""))
        return f"a {self.config.get('model_type', '')} model of {self.parameters / size:.3g}{unit} parameters"


def look_at_model(source: str) -> Model:
    """Return the facts about the model that a source names; a folder, a file or OWNER/NAME is enough.

    Raises UserError: there is none, or it can't be read.
    """
    uri = source_of(source)
    folder = resolve_model(uri).folder_or_file
    config = read_config(folder / "config.json")
    kinds = [str(name) for name in config.get("architectures") or ()]
    family = str(config.get("model_type", ""))
    generates = any(map(GENERATES.search, kinds)) or config.get("is_decoder")
    sizes, pooling = weight_types(folder), map(read_config, sorted(folder.glob("*_Pooling/config.json")))
    return Model(
        source=uri, folder=folder, config=config, parameters=sum(sizes.values()),
        dtypes=tuple(name for name, _ in sizes.most_common()),
        reads_both_ways=bool(BOTH_WAYS.search(family)) and not generates,
        pools_by=next((way for flags in pooling for key, way in POOLS.items() if flags.get(key)), None),
    )  # fmt: skip


def source_of(given: str) -> str:
    """Return a source as suites write it: with its kind, and an absolute path."""
    if given.startswith("path:") or Path(given).expanduser().exists():
        return f"path:{Path(given.removeprefix('path:')).expanduser().absolute()}"
    if given.startswith(KINDS):
        return given
    if REPOSITORY.fullmatch(given) and not given.startswith("."):
        return f"hub:{given}"
    raise UserError(
        f"{given}: there is no such file or folder, and it begins with none of {', '.join(KINDS)}; give a path that "
        "exists, or OWNER/NAME of the Hugging Face hub"
    )


LINE = 116  # most characters of a line of comment
BESIDE = 60  # most characters of an entry that a short comment may stand beside
PLAIN = re.compile(r"[\w./~+-][\w./ :~+=@#-]*")


class Rate(float):
    """A learning rate, written as 5e-4."""


@dataclass(frozen=True)
class Entry:
    """A key of a suite with its value and the reason for it."""

    key: str
    value: Any  # plain values, a `Rate`, or a tuple of entries, which become a mapping of their own lines
    why: tuple[str, ...] = ()  # paragraphs of the comment
    chosen: bool = True  # False: an alternative, written as a comment


def overridden(entries: Iterable[Entry], given: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return entries with the values that are given in their places, and at the end those that have none."""
    left, found = dict(given), list[Entry]()
    for entry in entries:
        value = left.pop(entry.key, entry)
        if value is entry:
            found.append(entry)
        elif isinstance(value, Mapping) and isinstance(entry.value, tuple):
            found.append(replace(entry, value=overridden(entry.value, value)))
        else:
            found.append(Entry(entry.key, value, ("as given",)))
    return (*found, *(Entry(key, value, ("as given",)) for key, value in left.items()))


def written(entries: Iterable[Entry], indent: int = 0) -> str:
    margin, lines = " " * indent, list[str]()
    for entry in entries:
        if isinstance(entry.value, tuple) and entry.value and isinstance(entry.value[0], Entry):
            lines += [*comment(entry.why, margin), f"{margin}{entry.key}:"]
            lines += written(entry.value, indent + 2).splitlines()
            continue
        line = f"{margin}{'' if entry.chosen else '# '}{entry.key}: {flow(entry.value)}"
        beside = f"{line}  # {sanitize(entry.why[0])}" if len(entry.why) == 1 else ""
        short = beside and len(line) <= BESIDE and len(beside) <= LINE
        lines += [beside] if short else [*comment(entry.why, margin), line]
    return "".join(f"{line}\n" for line in lines)


def comment(paragraphs: Iterable[str], margin: str = "") -> Iterator[str]:
    """Yield paragraphs as lines of comment; an indented one, such as a command, stays on its line."""
    for paragraph in paragraphs:
        if paragraph.startswith(" "):
            yield f"{margin}# {for_terminal(paragraph)}"
            continue
        lines = textwrap.wrap(sanitize(paragraph), LINE - len(margin), break_long_words=False, break_on_hyphens=False)
        yield from (f"{margin}# {line}" for line in lines)


def flow(value: Any) -> str:
    """Return a value as YAML on one line; reading it gives the value again."""
    if isinstance(value, Rate):
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """Return a text as it stands where YAML reads it so, else in quotes."""
    with suppress(UserError):
        if PLAIN.fullmatch(text) and not re.search(r": | #|[ :]\Z", text) and parse(f"[{text}]", "") == [text]:
            return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
