"""The types on disk and their identities."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from helpers import tiny
from hpml_bench.records.run import Digests, protocol_id
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system.text import digest

DIGESTS = Digests(weights="w", tokenizer="t", data="d")


def test_the_digest_is_of_the_content() -> None:
    """Key order doesn't matter, values and their types do; the length is as asked for."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(value) for value in (1, "1", [1], {"1": 1}, None)}) == 5
    assert len(digest("x", 12)) == 12
    # SHA-256 of the canonical JSON `{"a":1}`
    assert digest({"a": 1}, 64) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@pytest.mark.parametrize(
    "changed", [tiny.spec(seed=1), tiny.spec("head"), tiny.spec(lr=0.5), tiny.spec(max_length=16), tiny.spec(eps=1e-7)]
)
def test_a_run_id_stands_for_the_whole_specification(changed: RunSpec) -> None:
    """Any difference in seed, method, learning rate or settings is another folder."""
    assert changed.run_id != tiny.spec().run_id
    assert tiny.spec().run_id == tiny.spec().run_id


@pytest.mark.parametrize("name", ["peft:IA3", "a.b+c", "x" * 64, "Über"])
def test_a_run_id_is_a_safe_folder_name(name: str) -> None:
    """Method names become names that every file system takes; names beyond the pattern are refused before."""
    try:
        method = MethodSpec(name=name, method="peft", lr=1.0)
    except ValidationError:
        assert name == "Über"
        return
    run = tiny.spec().model_copy(update={"method": method})
    assert set(run.run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "a b", "a\n"])
def test_a_method_cannot_be_named_after_a_place(name: str) -> None:
    """No separators, dots in front, blanks or line ends."""
    with pytest.raises(ValidationError):
        MethodSpec(name=name, method="lora", lr=1.0)


def test_the_protocol_covers_settings_and_digests() -> None:
    """Another setting, other weights, tokenizer, data or hub revision: another protocol."""
    same = protocol_id(tiny.settings(), DIGESTS)
    others = [DIGESTS.model_copy(update={field: "other"}) for field in Digests.model_fields]
    ids = [protocol_id(tiny.settings(), other) for other in others]
    ids += [protocol_id(tiny.settings(**{key: value}), DIGESTS) for key, value in (("steps", 7), ("precision", "bf16"))]
    assert len({same, *ids}) == len(ids) + 1


def test_the_protocol_does_not_depend_on_where_files_lie() -> None:
    """The same content under another path is the same protocol; another kind of source isn't."""

    def of(backbone: str, rows: str) -> str:
        dataset = {"name": "text_files", "options": {"train": rows, "more": [rows]}}
        return protocol_id(tiny.settings(backbone=backbone, dataset=dataset), DIGESTS)

    assert of("path:/a/model", "path:/a/rows.csv") == of("path:/b/model", "path:rows.csv")
    assert of("path:/a/model", "path:/a") != of("hub:a/model", "path:/a")
