"""Suite files and `--set` from anywhere: a valid suite, or one sentence, within seconds."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands import called
from hpml_bench.data.sources import fetch
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.system.errors import UserError

GOOD: dict[str, Any] = {
    "seeds": 2,
    "settings": {
        "backbone": "embedded:newswire-gpt2",
        "dataset": {"name": "newswire", "options": {}},
        "steps": 4,
    },
    "methods": {"lora": {"lr": 1e-3, "options": {"r": 4}}, "head": {}},
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
BOMBS = {  # name -> content, and the reason in the sentence
    "aliases": (LAUGHS, "aliases"),
    "merge keys": ("a: &a {x: 1}\nb: {<<: *a}", "aliases"),
    "an endless alias": ("a: &a [*a]", "aliases"),
    "nested lists": ("[" * 60_000, "nested deeper"),
    "nested mappings": ("{a: " * 15_000, "nested deeper"),
    "nested blocks": ("- " * 30_000, "nested deeper"),
    "nested by indentation": ("\n".join(" " * i + "a:" for i in range(340)), "nested deeper"),
    "nested keys": ("? " * 30_000, "nested deeper"),
    "many anchors": ("&a " * 20_000, ""),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(6_000)) + "k7: 1\n", "stands twice"),
    "a huge number": ("a: " + "9" * 60_000, "digits"),
    "a huge sexagesimal": ("a: " + "1:" * 30_000 + "1.5", ""),
    "a huge scalar": ("a: |\n" + " x\n" * 20_000, ""),
    "many documents": ("---\na\n" * 9_000, ""),
    "python": ("a: !!python/object/apply:os.system [touch owned]", "tags"),
    "python name": ("a: !!python/name:os.system", "tags"),
    "python module": ("!!python/module:antigravity", "tags"),
    "a local tag": ("a: !owned b", "tags"),
    "binary": ("description: !!binary aGk=", "tags"),
    "a set": ("methods: !!set {lora}", "tags"),
    "a date": ("name: 2001-01-01\nseeds: 2001-99-99", ""),
    "an impossible tag": ('seeds: !!int ""', "tags"),
    "a key twice": ("seeds: 1\nseeds: 2", "stands twice"),
    "more than a file": ("x" * 70_000, "at most"),
    "no text": ("\x00\x01\x02", ""),
    "a half of a pair": ('description: "\\ud800"', "decode"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str, tmp_path: Path) -> None:
    """Whatever makes YAML grow, nest or run is refused in one sentence within two seconds, in
    `--set` too.
    """
    path = tmp_path / "bomb.yaml"
    content, why = BOMBS[name]
    path.write_text(content)
    began = time.process_time()  # not the time others take from a shared machine
    with pytest.raises(UserError, match=rf"bomb\.yaml.*{why}") as caught:
        load_suite(str(path))
    assert time.process_time() - began < 2.0
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 4000
    if name != "no text":
        with pytest.raises(UserError) as caught:
            load_suite("quickstart", [f"methods={content}"])
        assert len(str(caught.value)) < 4000
    assert not list(Path.cwd().glob("owned"))


def test_keys_of_set_and_runs_are_bounded() -> None:
    """A key of a thousand parts would build a structure that nothing can write; methods times
    seeds is in memory.
    """
    methods = {f"m{i}": {"method": "lora"} for i in range(2000)}
    for asked, why in (
        ("settings.task.options" + ".a" * 5000 + "=1", "at most 16 parts"),
        (f"methods={methods}", "at most 200"),
    ):
        with pytest.raises(UserError, match=why):
            load_suite("quickstart", [asked])


@pytest.mark.parametrize("place", ["\x00", "x" * 5000, "~no-such-user-anywhere/x", "loop"])
def test_impossible_paths_are_a_sentence(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that the system refuses to look at is told, in a suite, on the command line and as
    a source.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = tmp_path / "suite.yaml"
    path.write_text(
        yaml.safe_dump(GOOD | {"settings": GOOD["settings"] | {"backbone": f"path:{place}"}})
    )
    for ask in (
        lambda: fetch(load_suite(str(path)).settings.backbone),
        lambda: fetch(load_suite("quickstart", [f"backbone=path:{place}"]).settings.backbone),
        lambda: fetch(f"path:{place}"),
        lambda: load_suite(place),
    ):
        with pytest.raises(UserError):
            ask()


NAMES = [
    "../x",
    "/etc/x",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a\x00b",
    "",
    "-rf",
    "a\n",
    "ä",
    "x" * 65,
    "\u202ea",
]


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in NAMES),
        *(
            {"methods": {name: {"method": "lora"}}}
            for name in NAMES
            if name not in {".", "-rf", "ä"}
        ),
    ],
    ids=repr,
)
def test_a_name_cannot_leave_the_results_folder(change: dict[str, Any], tmp_path: Path) -> None:
    """A suite's is a folder's: letters, digits, - and _; a method's is part of one; also by
    `--set`.
    """
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(UserError, match="name"):
        load_suite(str(tmp_path / "s.yaml")).runs()
    if "name" in change:
        with pytest.raises(UserError, match="name"):
            load_suite("quickstart", [f"name={yaml.safe_dump(change['name'])}"])


@given(name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}\Z"))
def test_run_folders_stay_in_their_folder(name: str) -> None:
    """Whatever a method may be called, its run's folder is one plain name."""
    suite = Suite.model_validate(GOOD | {"name": "x", "methods": {name: {"method": "lora"}}})
    for run in suite.runs():
        assert run.run_id.replace("-", "").isalnum()
        assert run.run_id == Path(run.run_id).name


@pytest.mark.parametrize(
    "change",
    [
        {"trust_remote_code": True},
        {"settings": GOOD["settings"] | {"trust_remote_code": True}},
        {"methods": {"lora": {"trust_remote_code": True}}},
        {"methods": {"lora": {"options": {"trust_remote_code": True}}}},
    ],
)
def test_remote_code_cannot_be_asked_for(change: dict[str, Any], tmp_path: Path) -> None:
    """No place of a suite takes `trust_remote_code`."""
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(UserError, match="trust_remote_code is not known"):
        load_suite(str(tmp_path / "s.yaml")).runs()


@pytest.mark.parametrize("suite", ["../x", "/etc", "..", "a/b"])
def test_plan_reads_within_the_results_folder(suite: str, tmp_path: Path) -> None:
    """A name given to `plan` is a suite's too."""
    out = tmp_path / "reports"
    assert (
        "suite" in called("plan", suite, "--detect", "accuracy=1pp", "--out", out, status=2).output
    )
