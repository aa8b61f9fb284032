"""Settings that are measured: decided once for a results folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import tiny
from hpml_bench.launch import launcher, preparation
from hpml_bench.records.plan import UNLIMITED
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.sweep import resolve as resolving
from hpml_bench.sweep.resolve import ResolvedSuite
from hpml_bench.system import environment, gpus
from hpml_bench.system.errors import UserError
from hpml_bench.training import products
from hpml_bench.training.products import Products


def figures(fp32: float, bf16: float) -> Products:
    return Products(shape=(64, 32, 128), threads=1, fp32_seconds=fp32, bf16_seconds=bf16)


def suite_of(folder: Path, **changes: object) -> Suite:
    return load_suite(str(tiny.local_suite(folder, **{"precision": "auto", **changes})))


def resolve(
    suite: Suite,
    folder: Path,
    measure: Any = None,
    fits: Any = None,
    known: bool = False,
    here: int | None = None,
) -> ResolvedSuite:
    """Resolve a suite with these results of measurements; what isn't given is measured, or
    `known` from the folder.
    """
    with pytest.MonkeyPatch.context() as patch:
        if measure:
            patch.setattr(preparation, "products", lambda settings, _: measure(settings))
        if fits:
            patch.setattr(resolving, "tried_out", lambda *_: fits)
        return resolving.resolve(suite, folder, None if known else UNLIMITED, here)


ON_TWO = {"micro_batch": "auto", "device": "cuda", "world_size": 2, "global_batch": 24}


def never(_: object) -> Any:
    pytest.fail("measured, or tried out, again")


def with_flags(flags: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(environment, "_cpu", lambda: {"model name": "CPU", "flags": flags})


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"), [(1.16, 1.0, "bf16"), (1.14, 1.0, "fp32"), (1.0, 1.6, "fp32")]
)
def test_the_faster_precision_is_taken(
    fp32: float, bf16: float, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 where a product is 1.15 times as fast in it; the figures are kept, and stand in a
    note.
    """
    with_flags("avx512_bf16", monkeypatch)
    suite, notes = resolve(suite_of(tmp_path), tmp_path, measure=lambda _: figures(fp32, bf16))
    assert suite.settings.precision == chosen
    (kept,) = json.loads((tmp_path / "definite.json").read_text()).values()
    assert Products.model_validate(kept) == figures(fp32, bf16)
    assert notes["precision"].startswith(
        f"{chosen}, as a product of 64 x 32 x 128 took {1e3 * fp32:.3g} ms in fp32 and "
        f"{1e3 * bf16:.3g} ms in bf16"
    )


def test_a_second_call_takes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would measure doesn't matter; another processor or backbone is measured by itself."""
    with_flags("amx_bf16", monkeypatch)
    suite = suite_of(tmp_path)
    first = resolve(suite, tmp_path, measure=lambda _: figures(2, 1))
    assert resolve(suite, tmp_path, measure=never) == first
    again = resolve(suite, tmp_path, measure=never).suite
    assert [spec.run_id for spec in again.runs()] == [spec.run_id for spec in first.suite.runs()]
    assert resolve(suite, tmp_path, known=True, here=2) == first
    monkeypatch.setattr(environment, "_cpu", lambda: {"model name": "another", "flags": "amx_bf16"})
    assert resolve(suite, tmp_path, known=True, here=2).suite.settings.precision == "fp32"
    assert (
        resolve(suite, tmp_path, measure=lambda _: figures(1, 1)).suite.settings.precision == "fp32"
    )
    assert len(json.loads((tmp_path / "definite.json").read_text())) == 2


@pytest.mark.parametrize(
    ("flags", "changes"),
    [("avx2", {}), ("amx_bf16", {"weights": "bfloat16"}), ("amx_bf16", {"precision": "bf16"})],
)
def test_nothing_is_measured_where_nothing_is_open(
    flags: str, changes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor without bfloat16 takes fp32, and what was asked for stands."""
    with_flags(flags, monkeypatch)
    found, notes = resolve(suite_of(tmp_path, **changes), tmp_path, measure=never)
    assert found.settings.precision == ("bf16" if changes else "fp32")
    assert notes == {}
    assert not (tmp_path / "definite.json").exists()


def test_a_real_product_is_measured_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the backbone's own shape: 32 wide, and four times that inside."""
    with_flags("amx_bf16", monkeypatch)
    suite = resolve(suite_of(tmp_path), tmp_path).suite
    (kept,) = json.loads((tmp_path / "definite.json").read_text()).values()
    found = Products.model_validate(kept)
    assert found.shape[1:] == (32, 128)
    assert found.fp32_seconds > 0 < found.bf16_seconds
    assert suite.settings.precision == found.precision


@pytest.mark.parametrize(("config", "shape"), [
    ({"n_embd": 768}, (512, 768, 2543)),
    ({"hidden_size": 576, "intermediate_size": 1536}, (512, 576, 1536)),
    ({"hidden_size": 4096, "intermediate_size": 14336}, (512, 4096, 476)),
    ({"text_config": {"hidden_size": 64, "intermediate_size": 100}}, (512, 64, 100)),
    ({"hidden_size": [8, 16]}, (512, 768, 2543)),
])  # fmt: skip
def test_shapes_are_the_feed_forward_layers(
    config: dict[str, object], shape: tuple[int, int, int]
) -> None:
    """By the names that configurations have, usual ones for stages' lists; rows and columns as
    the time allows.
    """
    assert products.shape_of(config, tokens=4000) == shape


# Micro-batches


def on_gpus(patch: pytest.MonkeyPatch) -> None:
    gpu = {"name": "GPU", "memory_mb": 80_000, "capability": "9.0"}
    patch.setattr(gpus, "visible_gpus", lambda: ({**gpu, "index": 0}, {**gpu, "index": 1}))


def test_the_largest_micro_batch_that_fits_all_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divisors of a rank's share, from the largest; what one method can't have no later one is
    tried with.
    """
    on_gpus(monkeypatch)
    suite = suite_of(tmp_path, **ON_TWO)
    most = {"head": 5, "lora": 3}
    tried: list[tuple[str, int]] = []

    def fits(spec: RunSpec) -> bool:
        assert isinstance(spec.settings.micro_batch, int)
        tried.append((spec.method.name, spec.settings.micro_batch))
        return spec.settings.micro_batch <= most[spec.method.name]

    found, notes = resolve(suite, tmp_path, fits=fits)
    assert notes == {
        "micro_batch": "3, the largest that fitted for all methods when it was tried out"
    }
    assert found.settings.micro_batch == 3
    assert tried == [("head", 12), ("head", 6), ("head", 4), ("lora", 4), ("lora", 3)]

    assert resolve(suite, tmp_path, fits=never).suite == found
    assert {spec.settings.micro_batch for spec in found.runs()} == {3}
    assert (
        resolve(suite_of(tmp_path, micro_batch="auto"), tmp_path).suite.settings.micro_batch is None
    )


@pytest.mark.parametrize("large", ["head", "lora"])
def test_a_method_that_fits_at_no_size_is_left_out(
    large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others don't get its size; the note names it, also in a second call, and its own run
    lacks memory.
    """
    on_gpus(monkeypatch)
    suite = suite_of(tmp_path, **ON_TWO)
    first = resolve(
        suite, tmp_path, fits=lambda s: s.method.name != large and s.settings.micro_batch <= 4
    )
    assert first.suite.settings.micro_batch == 4
    assert first.notes["micro_batch"] == (
        f"4, the largest that fitted for all methods but {large}, which ran out of memory with a "
        "single sample too when it was tried out"
    )
    assert {spec.method.name for spec in first.suite.runs()} == {"head", "lora"}
    assert resolve(suite, tmp_path, fits=lambda _: False) == first
    assert resolve(suite, tmp_path, known=True).suite == first.suite


def test_a_run_can_be_tried_out(tmp_path: Path) -> None:
    """Two steps on the longest batch, and no points, predictions or metrics."""
    record = tiny.run(
        tiny.spec(micro_batch=2), tiny.prepared(tmp_path), tmp_path / "run", try_out=True
    )
    assert (record.status, record.metrics, record.consumed) == ("ok", {}, None)
    assert not (tmp_path / "run" / "predictions.parquet").exists()


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ("ok", 8),
        ("unsupported", 8),
        ("oom_cuda", 1),
        ("failed", UserError),
        ("timeout", UserError),
        ("interrupted", KeyboardInterrupt),
    ],
)
def test_only_lacks_of_memory_split(
    ended: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try-out that ended for another reason decides nothing: it is told, Ctrl-C is Ctrl-C, and
    nothing is kept.
    """
    on_gpus(monkeypatch)
    suite = suite_of(tmp_path, micro_batch="auto", device="cuda", world_size=1, global_batch=8)
    record = SimpleNamespace(status=ended, error=SimpleNamespace(message="no reason"))
    monkeypatch.setattr(preparation, "prepare", lambda *_: tiny.prepared(tmp_path / "prepared"))
    monkeypatch.setattr(launcher, "run", lambda _: record)
    if isinstance(expected, int):
        assert resolve(suite, tmp_path).suite.settings.micro_batch == expected
        return
    told = (
        f"^micro_batch auto: head with 8 ended as {ended}: no reason; give micro_"
        if expected is UserError
        else "^$"
    )
    with pytest.raises(expected, match=told):
        resolve(suite, tmp_path)
    assert not (tmp_path / "definite.json").exists()
