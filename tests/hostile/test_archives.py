"""Archives and model folders from elsewhere: nothing lands outside, nothing grows without end,
nothing is unpickled.
"""

import hashlib
import io
import json
import pickle
import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.data import wheel
from hpml_bench.data.prepare import prepare
from hpml_bench.data.sources import MODEL_PATTERNS, fetch, resolve_model
from hpml_bench.plugins.tokenizer import load_tokenizer
from hpml_bench.system.cache import cache_folder
from hpml_bench.system.errors import UserError
from hpml_bench.training.model import load_backbone

pytestmark = pytest.mark.usefixtures("empty_cache")


def archive(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as made:
        warnings.simplefilter("ignore")
        for name, content in members:
            made.writestr(name, content)
    return buffer.getvalue()


def fetched(content: bytes, inner: str = "pack") -> Path:
    """Resolve a path in a wheel that lies in the cache as pip would have left it."""
    sha256 = hashlib.sha256(content).hexdigest()
    folder = cache_folder() / "wheels" / sha256[:16]
    folder.mkdir(parents=True)
    (folder / "pack-1.0-py3-none-any.whl").write_bytes(content)
    return fetch(f"wheel:pack==1.0/{inner}#sha256={sha256}").folder_or_file


def special(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def patched(place: int, value: int, size: str = "<H", members: str = "a") -> bytes:
    """Return a wheel whose directory has another number at this place of its last entry."""
    content = bytearray(archive(*((f"pack/{name}", name.encode() * 100) for name in members)))
    struct.pack_into(size, content, content.rindex(b"PK\x01\x02") + place, value)
    return bytes(content)


REFUSED: dict[str, Callable[[], bytes]] = {
    "climbing": lambda: archive(("pack/../../../owned", b"x"), ("pack/a", b"x")),
    "climbing with backslashes": lambda: archive(("pack/..\\..\\owned", b"x")),
    "climbing after two slashes": lambda: archive(("pack/a", b"x"), ("pack//../../owned", b"x")),
    "a symbolic link": lambda: archive((special("pack/link", stat.S_IFLNK | 0o777), b"/etc")),
    "through a link": lambda: archive(
        (special("pack/l", stat.S_IFLNK | 0o777), b"/tmp"), ("pack/l/owned", b"x")
    ),
    "a name twice": lambda: archive(("pack/a", b"harmless"), ("pack/a", b"owned")),
    "a name twice in other words": lambda: archive(("pack/a", b"harmless"), ("pack/./a", b"owned")),
    "a file that is a folder": lambda: archive(("pack/a", b"x"), ("pack/a/b", b"x")),
    "a wrong size": lambda: patched(24, 7, "<I"),
    "a wrong sum": lambda: archive(("pack/a", b"x" * 9), method=zipfile.ZIP_STORED).replace(
        b"x" * 9, b"y" * 9
    ),
    "encrypted": lambda: patched(8, 1),
    "compressed in an unknown way": lambda: patched(10, 77),
    "overlapping": lambda: patched(
        42, 0, "<I", "ab"
    ),  # members that share bytes, as in the most compact bombs
    "cut off": lambda: archive(("pack/a", bytes(range(256)) * 10))[:-30],
    "no zip": lambda: b"PK no zip at all",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_in_a_wheel_is_refused(name: str, tmp_path: Path) -> None:
    """One sentence that names the wheel; nothing outside its folder in the cache, and nothing
    half in it.
    """
    with pytest.raises(UserError, match=r"wheel:pack==1\.0"):
        fetched(REFUSED[name]())
    places = [path for path in tmp_path.rglob("*") if path.name == "owned" or ".new." in path.name]
    assert places == []
    assert not [path for path in cache_folder().rglob("files/pack/*") if path.is_file()]


def test_an_absolute_member_is_refused(tmp_path: Path) -> None:
    """It would land where it says: neither an address may lead to it, nor a wheel hold it under
    an inner path.
    """
    outside = tmp_path / "outside"
    with pytest.raises(UserError, match="must be relative"):
        fetched(archive((f"{outside}/owned", b"x")), str(outside))
    assert not outside.exists()
    assert not wheel._stays_inside("/etc/owned")
    assert wheel._stays_inside("etc/mine")


def test_a_bomb_is_refused_before_it_is_unzipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its declared size, over the limit or what the disk has room for, or by many members,
    which cost inodes.
    """
    bomb = archive(("pack/a", b"\0" * 20_000_000))
    assert len(bomb) < 30_000
    monkeypatch.setattr(wheel, "MAX_UNZIPPED_BYTES", 10_000_000)
    with pytest.raises(UserError, match="over the limit"):
        fetched(bomb)
    monkeypatch.undo()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10_000_000)
    )
    with pytest.raises(UserError, match="HPML_BENCH_CACHE"):
        fetched(archive(("pack/b", b"\0" * 20_000_000)))
    monkeypatch.setattr(wheel, "MAX_MEMBERS", 50)
    with pytest.raises(UserError, match="51 files"):
        fetched(archive(*((f"pack/{i}", b"") for i in range(51))))


# Models


@pytest.fixture
def word_model(tmp_path: Path) -> Path:
    tiny.local_suite(tmp_path)
    return tmp_path / "model"


def test_pickled_weights_are_not_read(word_model: Path, tmp_path: Path) -> None:
    """A folder with nothing but a .bin is refused; where safetensors lie beside one, only they
    are read.
    """

    class Owned:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:  # what unpickling calls
            return (Path.touch, (tmp_path / "owned",))

    (word_model / "pytorch_model.bin").write_bytes(pickle.dumps(Owned()))
    load_backbone(word_model, tiny.settings(backbone=f"path:{word_model}"))
    (word_model / "model.safetensors").unlink()
    for read in (
        lambda: resolve_model(f"path:{word_model}"),
        lambda: load_backbone(word_model, tiny.settings()),
    ):
        with pytest.raises(UserError, match=r"safetensors"):
            read()
    assert not (tmp_path / "owned").exists()
    endings = {pattern.rpartition(".")[2] for pattern in MODEL_PATTERNS}
    assert endings == {"jinja", "json", "model", "safetensors", "txt"}


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/x.safetensors", "model.bin", "a/b.safetensors", 5]
)
def test_an_index_names_safetensors_of_its_folder_only(word_model: Path, name: str | int) -> None:
    """The index of sharded weights can't lead out of the folder, or to a pickle."""
    (word_model / "model.safetensors").unlink()
    (word_model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": name}})
    )
    with pytest.raises(UserError, match="no safetensors file of this folder"):
        resolve_model(f"path:{word_model}")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
        ("config.json", b""),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"model_type": "nothing-known"}'),
        ("config.json", b'{"model_type": "gpt2", "n_embd": "x"}'),
        ("config.json", b'\xff\xfe{"model_type": "gpt2"}'),
        *(
            ("tokenizer.json", content)
            for content in (
                b"",
                b"{}",
                b"[" * 100_000,
                b"\xff" * 9,
                b'{"version": "1.0", "model": 5}',
            )
        ),
    ],
)
def test_garbage_in_a_model_is_a_sentence(word_model: Path, file: str, content: bytes) -> None:
    """Weights, configuration and tokenizers that can't be read end as a user's mistake, with the
    folder's name.
    """
    (word_model / file).write_bytes(content)
    settings = tiny.settings(backbone=f"path:{word_model}")
    with pytest.raises(UserError):
        load_tokenizer(word_model) if file == "tokenizer.json" else load_backbone(
            word_model, settings
        )


def test_code_in_a_model_folder_is_not_run(word_model: Path, tmp_path: Path) -> None:
    """A configuration that names Python files beside it (`auto_map`) doesn't get them run."""
    code = f"from pathlib import Path\nPath({str(tmp_path / 'owned')!r}).touch()\n"
    classes = "class C:\n    pass\nConfig = Model = Tokenizer = C\n"
    (word_model / "owned.py").write_text(code + classes)
    named = {
        "AutoConfig": "owned.Config",
        "AutoModel": "owned.Model",
        "AutoTokenizer": ["owned.Tokenizer"] * 2,
    }
    for file, kind in (
        ("config.json", "gpt2"),
        ("config.json", "own"),
        ("tokenizer_config.json", None),
    ):
        content = json.loads((word_model / file).read_text()) | {"auto_map": named}
        (word_model / file).write_text(json.dumps(content | ({"model_type": kind} if kind else {})))
        for read in (
            lambda: load_backbone(word_model, tiny.settings()),
            lambda: load_tokenizer(word_model),
        ):
            with suppress(UserError):
                read()
    assert not (tmp_path / "owned").exists()


# Chat templates are rendered in a sandbox, and what it refuses is one sentence


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch escaped') }}",
        "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
        "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception('no system prompt') }}",
        "{% for message in messages %}",
        "{{ messages[9].content }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_reaches_nothing(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's internals, files and changes of the rows are out of its reach; the preparation
    ends in one sentence.
    """
    monkeypatch.chdir(tmp_path)
    settings = tiny.task_settings(tmp_path, "causal_lm")
    task = settings.task.model_copy(update={"options": {"template": template}})
    with pytest.raises(UserError) as raised:
        prepare(settings.model_copy(update={"task": task}))
    assert "\n" not in str(raised.value)
    assert "chat template" in str(raised.value)
    assert not (tmp_path / "escaped").exists()
