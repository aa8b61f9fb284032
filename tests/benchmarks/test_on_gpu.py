"""Scripts of benchmarks/ for GPUs, as far as they can be tried without one."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import fit_ratios
import gpu
import on_gpu
import pytest
import torch
from gpu import numbers, steps
from speed import one_gpu

from helpers import language_models, tiny

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back the variables of a rank, which checks set."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture
def options(tmp_path: Path) -> Namespace:
    """The call of a check whose results are read from a file."""
    (tmp_path / "found.json").write_text("{}")
    return Namespace(json=tmp_path / "found.json")


def test_without_a_gpu_what_needs_one_is_skipped(tmp_path: Path) -> None:
    """With the reason; checks of numbers are done on the CPU, each by its own process, and the
    command ends well.
    """
    found = tmp_path / "found.json"
    words = ["--only", "context,attention", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "on_gpu.py"), *words],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(found.read_text())
    assert results["context"] == {
        "passed": None,
        "skipped": "no GPU is visible (driver, CUDA_VISIBLE_DEVICES)",
    }
    assert results["attention"]["passed"], results
    assert (len(results["attention"]["cases"]), results["about"]["cards"]) == (8, [])


def test_all_checks_end_in_time(options: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check gets what is left of the minutes; where that isn't enough it is skipped; one over
    its limit fails.
    """
    given: list[float] = []
    monkeypatch.setattr(on_gpu, "in_child", lambda check, left, _: given.append(left))
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--only", "generation,attention"])
    assert on_gpu.main() == 0
    assert 0 < given[1] <= given[0] <= 540
    monkeypatch.undo()
    on_gpu.in_child("attention", 0.05, options)
    skipped = {"passed": None, "skipped": "only 0 s of --minutes were left", "cases": {}}
    assert on_gpu.read(options)["attention"] == skipped
    monkeypatch.setitem(on_gpu.CHECKS, "context", (0.01, steps.context))
    on_gpu.in_child("context", 9, options)
    found = on_gpu.read(options)["context"]
    assert (found["passed"], found["error"].startswith("over 0 s")) == (False, True)


def test_cases_are_done_while_time_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has less time than the longest before it is skipped; a check of skipped cases alone
    is skipped.

    Each is written before the next begins; an error is a case's result, and what is known is left
    as it is.
    """
    now, written = [0.0], list[dict[str, Any]]()
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])

    def slow() -> dict[str, Any]:
        now[0] += 0.2
        return {"passed": True}

    def fails() -> dict[str, Any]:
        raise ValueError("why")

    cases = [("known", fails), ("fails", fails), ("first", slow), ("second", slow), ("third", slow)]
    found = gpu.gathered(iter(cases), 0.5, {"known": {"passed": True}}, written.append)
    assert [of["passed"] for of in found["cases"].values()] == [True, False, True, True, None]
    assert (found["passed"], found["cases"]["fails"]["error"]) == (False, "ValueError: why")
    assert found["cases"]["third"]["skipped"].startswith("less than")
    assert [[*each["cases"]] for each in written[:3]] == [["known", "fails"]] * 2 + [
        ["known", "fails", "first"]
    ]
    assert written[0]["cases"]["fails"] == gpu.RUNNING
    assert (
        gpu.gathered(iter([("one", lambda: {"passed": None, "skipped": "why"})]), 1)["passed"]
        is None
    )
    assert gpu.passed([{"passed": True}, {"passed": None}]) is True


def test_a_process_that_ends_in_a_case_is_followed_by_another(
    options: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case counts as failed, and the rest is done; one that ends at once is not tried again."""
    script = tmp_path / "check.py"
    script.write_text(
        "import json, sys, pathlib\n"
        "path = pathlib.Path(sys.argv[4])\n"
        "cases = json.loads(path.read_text())['attention']['cases']\n"
        "name = f'case {len(cases)}'\n"
        "path.write_text(json.dumps({'attention': {'passed': False, 'cases': cases | {name: "
        "{'passed': False}}}}))\n"
        "sys.exit(len(cases) < 2)\n"
    )
    monkeypatch.setattr(on_gpu, "__file__", str(script))
    on_gpu.in_child("attention", 60, options)
    assert [*on_gpu.read(options)["attention"]["cases"]] == ["case 0", "case 1", "case 2"]
    script.write_text("raise SystemExit(3)")
    on_gpu.in_child("attention", 60, options)
    assert on_gpu.read(options)["attention"] == {
        "passed": False,
        "cases": {},
        "error": "it ends with status 3",
    }


def test_the_checks_of_numbers_pass_where_they_can_be_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the CPU answers side by side are those alone, and attention's gradients the plain
    kernel's.
    """
    save = language_models.save_models
    monkeypatch.setattr(
        language_models, "save_models", lambda folder: {"Llama": save(folder)["Llama"]}
    )
    answered = gpu.gathered(numbers.generation("cpu"), 600)
    assert answered["passed"], answered
    assert [*answered["cases"]] == [
        "Llama fp32",
        "Llama fp32 sampled",
        "Llama bf16",
        "Llama bf16 sampled",
    ]


def test_methods_are_compared_by_their_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of either, alike up to the order of sums, or both refused."""
    tried = {"lora fp32", "lora fp16", "LILY fp32"}
    found = {name: call() for name, call in numbers.methods("cpu") if name in tried}
    assert all(of["passed"] for of in found.values()), found
    assert len(found["lora fp16"]["cpu"]) == 3
    assert isinstance(found["LILY fp32"]["cpu"], str)
    for other in ([1.0, 0.9, 0.81], "refused"):
        losses = iter([[1.0, 0.9, 0.8], other])
        monkeypatch.setattr(numbers, "losses", lambda *_, losses=losses, **__: next(losses))
        assert not next(numbers.methods("cpu"))[1]()["passed"]


def test_memory_and_steps_are_compared_on_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase within a tenth of what is predicted, beside what a step does; work side by side
    counts once.
    """
    assert (steps.covered([(0, 2), (1, 3), (5, 6)]), steps.covered([])) == (4, 0)
    for check, name in (("METHODS", "lora checkpointing"), ("LEVERS", "quantization nf4")):
        monkeypatch.setattr(steps, check, {name: getattr(steps, check)[name]})
    for check in (steps.fit, steps.levers):
        (found,) = gpu.gathered(check("cpu", steps.SMALL), 600)["cases"].values()
        assert {*found["ratios"]} == {*fit_ratios.PHASES}
        assert found["passed"], found
        assert found["samples_per_second"] == pytest.approx(
            steps.SMALL.batch / found["step_seconds"]
        )
        assert (found["kernels"] > 100, found["waits"]) == (True, 0)


def test_a_cards_peaks_are_counted_from_what_it_held_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase has its own peak; a run that needs more than is free isn't tried."""
    peaks = iter((150, 300, 200, 500))
    for name, value in {
        "memory_allocated": 100,
        "synchronize": None,
        "reset_peak_memory_stats": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peaks))
    spec = fit_ratios.spec_of("causal_lm", "lora", {}, {})
    with tiny.alone() as group:
        found = steps.on_card(spec, fit_ratios.prepare(tmp_path, spec.settings.task), group)
    assert [found[phase] for phase in ("loading", "evaluation", "generation", "step")] == [
        50,
        200,
        100,
        400,
    ]
    assert found["loading_seconds"] > 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10 * 10**9, 80 * 10**9))
    assert not steps.lacking(9 * 10**9)
    assert steps.lacking(11 * 10**9) == "it needs 11.0 GB, and 10.0 GB are free"


@pytest.mark.parametrize(
    ("visible", "one"), [(None, "0"), ("3,1", "3"), ("GPU-a,GPU-b", "GPU-a"), ("", "")]
)
def test_a_contender_has_one_gpu(
    visible: str | None, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that is visible: of more, the HF Trainer would make a DataParallel."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert one_gpu() == {"CUDA_VISIBLE_DEVICES": one}
