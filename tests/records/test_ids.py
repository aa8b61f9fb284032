"""Ids of runs and protocols: what they cover, and over time."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from helpers import tiny
from helpers.commands import called
from hpml_bench.records.load import load_record
from hpml_bench.records.run import SCHEMA_VERSION, protocol_id
from hpml_bench.suite import registry
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.settings import (
    FORMER_DEFAULTS,
    Digests,
    MethodSpec,
    OptimizerSpec,
    Settings,
    identity,
)
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.text import digest

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
DEFAULTS = {2: "5c7a284ac0d378cc"}
"""Digest of all defaults at each schema version."""
COMES_OUT = {
    "saved_bytes": 0.0,
    "test_loss": 1e-3,
    "train_loss": 1e-3,
    "grad_norm": 1e-2,
    "test_accuracy": 5e-3,
}
"""Relative tolerances: rounding that differs grows over the steps; another seed differs by ten
times as much.
"""


def test_a_new_setting_with_a_default_renames_no_run() -> None:
    """Ids leave defaults out; another value than the default is another run, and another
    protocol.
    """

    class Later(Settings):
        later_one: int = 3
        """A setting that there was not when runs were recorded."""

    spec = tiny.spec()
    later = spec.model_copy(update={"settings": Later(**spec.settings.model_dump())})
    assert later.run_id == spec.run_id
    assert identity(later.settings) == identity(spec.settings)
    changed = spec.model_copy(update={"settings": Later(**spec.settings.model_dump(), later_one=4)})
    assert changed.run_id != spec.run_id
    assert identity(changed.settings) != identity(spec.settings)


def test_options_at_their_defaults_rename_no_run() -> None:
    """Of a method, a task and a data set: written out or left out, it is the same run."""
    suite = resolve_suite(load_suite("quickstart"))
    (spec,) = suite.runs(["head"], [0])
    (written,) = load_suite(
        "quickstart",
        settings={"task": {"name": "sequence_classification", "options": {"pooling": "last"}}},
    ).runs(["head"], [0])
    (own_share,) = load_suite("quickstart", ["dataset.options.own_share=0.6"]).runs(["head"], [0])
    assert identity(written.settings) == identity(spec.settings) == identity(own_share.settings)
    (lora,) = suite.runs(["lora"], [0])
    bare = lora.method.model_copy(update={"options": {"r": 8, "alpha": 16}})
    assert lora.model_copy(update={"method": bare}).run_id == lora.run_id
    other = lora.method.model_copy(update={"options": {**lora.method.options, "r": 4}})
    assert lora.model_copy(update={"method": other}).run_id != lora.run_id


def test_the_choice_of_an_optimizer_renames_no_run() -> None:
    """AdamW written out in any form, or a method's own left empty, is the run of before; any
    other is another run.
    """
    spec = tiny.spec()
    assert tiny.spec(validation_samples=500).run_id == "lora-s0-6dac8b20b9"
    assert "optimizer" not in spec.method.model_dump()
    for written in ("adamw", {"name": "adamw"}, {"name": "adamw", "options": {}}):
        assert tiny.spec(optimizer=written).run_id == spec.run_id
        assert identity(tiny.settings(optimizer=written)) == identity(spec.settings)
    bare, full, other = (
        {"name": "lora_plus", "options": given} for given in ({}, {"ratio": 16}, {"ratio": 4})
    )
    suites = [tiny.spec(optimizer=chosen) for chosen in (bare, full, other)]
    methods = [
        spec.model_copy(
            update={"method": spec.method.model_copy(update={"optimizer": OptimizerSpec(**chosen)})}
        )
        for chosen in (bare, full, other)
    ]
    for runs in (suites, methods):
        assert runs[0].run_id == runs[1].run_id
    assert len({run.run_id for run in (spec, *suites, *methods)}) == 5
    assert identity(methods[0].settings) == identity(spec.settings)


def test_a_setting_whose_default_changed_keeps_its_runs() -> None:
    """Ids leave out the former default, which records of before name; the present one is another
    run.

    A task says how long texts are where a suite doesn't: a length that is given is the run of
    before.
    """
    asked = tiny.spec(validation_samples=500)
    assert "validation_samples" not in identity(asked.settings)
    left_open = tiny.spec(validation_samples=None)
    assert identity(left_open.settings)["validation_samples"] is None
    assert left_open.run_id != asked.run_id
    blank = {"backbone": "path:x", "dataset": "newswire", "steps": 1}
    assert Settings.model_validate(blank).max_length == 128
    for task in ("causal_lm", {"name": "causal_lm"}):
        assert Settings.model_validate(blank | {"task": task}).max_length == 1024
        assert identity(Settings.model_validate(blank | {"task": task}))["max_length"] == 1024
        given = Settings.model_validate(blank | {"task": task, "max_length": 128})
        assert given.max_length == 128
        assert "max_length" not in identity(given)


def defaults() -> dict[str, Any]:
    kinds: tuple[registry.Kind, ...] = ("methods", "optimizers", "tasks", "datasets")
    found = {
        f"{kind}.{name}": registry.plugin(kind, name)
        .Options.model_construct()
        .model_dump(mode="json")
        for kind in kinds
        for name in sorted(registry._own(kind))
    }
    fields = Settings.model_fields.items()
    settings = {
        name: field.get_default(call_default_factory=True)
        for name, field in fields
        if not field.is_required()
    }
    dumped = json.loads(json.dumps(settings, default=lambda value: value.model_dump(mode="json")))
    return found | {"settings": dumped | FORMER_DEFAULTS}


def test_a_changed_default_counts_the_schema_up() -> None:
    """The same id would mean another run: raise SCHEMA_VERSION, and note the digest here."""
    # A new setting or option changes the digest too; it needs no new version: note the new digest
    # for the present one.
    assert digest(defaults()) == DEFAULTS[SCHEMA_VERSION]


@pytest.mark.parametrize(
    "method", ["lora", pytest.param("prompt_tuning", marks=pytest.mark.suites)]
)
def test_a_run_comes_out_as_it_was_recorded(method: str, tmp_path: Path) -> None:
    """Rows, their order and the protocol exactly; losses and norms to what processors and
    versions may differ by.
    """
    recorded = load_record(
        next(REFERENCE.glob(f"quickstart/{method.replace('_', '-')}-s0-*/run.json"))
    )
    called("run", method, "quickstart", "--out", tmp_path, "--wandb", "off")
    (spec,) = resolve_suite(load_suite("quickstart")).runs([method], [0])
    found = load_record(tmp_path / "quickstart" / spec.run_id / "run.json")
    assert (found.consumed, found.digests) == (recorded.consumed, recorded.digests)
    assert found.protocol_id == recorded.protocol_id
    for name, tolerance in COMES_OUT.items():
        assert found.metrics[name] == pytest.approx(recorded.metrics[name], rel=tolerance), name


# What ids cover


def test_a_run_id_stands_for_the_whole_specification() -> None:
    """Any difference in seed, method, learning rate or settings is another folder, whose name
    all file systems take.
    """
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"method": "head"},
        {"lr": 0.5},
        {"max_length": 16},
        {"eps": 1e-7},
    ]
    assert len({tiny.spec(**change).run_id for change in [*changes, {}, {}]}) == len(changes) + 1
    for name in ("peft:IA3", "a.b+c", "x" * 64):
        run = tiny.spec().model_copy(
            update={"method": MethodSpec(name=name, method="peft", lr=1.0)}
        )
        assert set(run.run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "a b", "a\n", "Über"])
def test_a_method_cannot_be_named_after_a_place(name: str) -> None:
    """No separators, dots in front, blanks or line ends, nor letters beyond the pattern."""
    with pytest.raises(ValidationError):
        MethodSpec(name=name, method="lora", lr=1.0)


def test_the_protocol_covers_settings_and_digests() -> None:
    """Another setting, other weights, tokenizer, data or hub revision: another protocol; not files
    that lie elsewhere.

    Another kind of source is another one.
    """
    same = protocol_id(tiny.settings(), tiny.DIGESTS)
    others = [tiny.DIGESTS.model_copy(update={field: "other"}) for field in Digests.model_fields]
    ids = [protocol_id(tiny.settings(), other) for other in others]
    ids += [
        protocol_id(tiny.settings(**one), tiny.DIGESTS)
        for one in ({"steps": 7}, {"precision": "bf16"})
    ]
    assert len({same, *ids}) == len(ids) + 1

    def of(backbone: str, rows: str) -> str:
        dataset = {"name": "text_files", "options": {"train": rows, "more": [rows]}}
        return protocol_id(tiny.settings(backbone=backbone, dataset=dataset), tiny.DIGESTS)

    assert of("path:/a/model", "path:/a/rows.csv") == of("path:/b/model", "path:rows.csv")
    assert of("path:/a/model", "path:/a") != of("hub:a/model", "path:/a")
