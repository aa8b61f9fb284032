"""Each metric against numbers worked out by hand."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest
import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from helpers import tiny
from helpers.nvml import Machine, card
from helpers.probe_run import Encoder, Nothing, evaluation, make_run, step
from hpml_bench.builtin.probes import (
    clocks,
    communication,
    energy,
    gradient,
    inference,
    memory,
    parameters,
    quality,
    runtime,
    throughput,
)
from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric
from hpml_bench.suite import registry
from hpml_bench.training import distributed, worker
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def started(kind: type[Probe], run: Run) -> Any:
    probe = kind()
    probe.start(run)
    return probe


def slower(steps: int) -> list[Step]:
    """Return a warm-up of two steps, and steps of 1 s of which the last third takes 2 s."""
    return [
        step(1, 50.0),
        step(2, 70.0),
        *(step(i + 3, 1.0 + (i >= 2 * steps // 3)) for i in range(steps)),
    ]


DRIFT = ("step_time_drift", "step_time_drift_low", "step_time_drift_high")
THREE = [step(1, 4.0, 4.0), step(2, 1.0, 2.0), step(3, 3.0, 1.0)]
OF_STEPS: dict[str, tuple[type[Probe], int, list[Step], dict[str, float]]] = {
    "the timed window: without warm-up, 4 s of the slowest rank, 3.5 s of the mean one": (
        throughput.ThroughputProbe,
        2,
        [
            step(1, 90.0, 90.0),
            step(2, 80.0, 1.0),
            step(3, 1.0, 2.0),
            step(4, 3.0, 1.0, seconds=2.0, real_tokens=60, padded_tokens=70),
        ],  # 2 s after the other rank ended step 3
        {
            "timed_seconds": 4,
            "slowest_rank_share": 4 / 3.5 - 1,
            "samples_per_second": 16 / 4,
            "virtual_tokens": 32 / 16,
            "tokens_per_second": 100 / 4,
            "padded_tokens_per_second": 120 / 4,
            **{f"step_ms_p{share}": 2000 for share in (50, 90, 99)},
        },
    ),
    "percentiles by linear interpolation of the slower rank's 2 and 3 s": (
        throughput.ThroughputProbe,
        1,
        THREE,
        {"samples_per_second": 16 / 5, "step_ms_p90": 2900},
    ),
    "a run shorter than the warm-up is timed whole": (
        throughput.ThroughputProbe,
        9,
        THREE,
        {"samples_per_second": 24 / 9, "step_ms_p90": 3800},
    ),
    "a drift of +100 %, exactly": (
        throughput.ThroughputProbe,
        2,
        slower(24),
        dict.fromkeys(DRIFT, 1.0),
    ),
    "a step of 20 s among those of 1 s": (
        throughput.ThroughputProbe,
        2,
        [*slower(8)[:6], step(7, 20.0), step(8, 1.0)],
        {"step_time_outliers": 1},
    ),
    "too few steps for a drift": (
        throughput.ThroughputProbe,
        2,
        slower(11),
        dict.fromkeys(DRIFT, math.nan),
    ),
    "gradient norms 3 and 5, per root of 29 trained parameters": (
        gradient.GradientProbe,
        1,
        [step(1, grad_norm=3.0), step(2, grad_norm=5.0, lr=0.2)],
        {"grad_norm": 4.0, "grad_norm_per_sqrt_parameter": 4 / math.sqrt(29)},
    ),
    "the mean of the last twenty losses": (
        quality.QualityProbe,
        1,
        [step(n, loss=float(n)) for n in range(1, 26)],
        {"train_loss": 15.5},
    ),
}
"""Probes with the number of steps of the warm-up, the steps of a run, and what they tell."""


@pytest.mark.parametrize("case", OF_STEPS)
def test_figures_of_steps(case: str, tmp_path: Path) -> None:
    """Worked out by hand, whatever the windows in which the steps come."""
    kind, warmup, steps, expected = OF_STEPS[case]
    for size in (1, len(steps)):
        probe = started(kind, make_run(tmp_path, warmup_steps=warmup))
        for first in range(0, len(steps), size):
            probe.after_steps(steps[first : first + size])
        found = probe.stop()
        assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_times_are_sums_of_the_slowest_ranks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set-up 3 s, 5 s from the launch, steps 2 + 3 s, validations 0.5 + 0.25 s, 11 s to the end;
    two windows.

    Of two validations one is answered, in 2 s, and the test rows in 7 s; a task without answers has
    no time of them.
    """
    probe = started(runtime.RuntimeProbe, replace(run, launched=98.0))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: 103.0)
    probe.before_training()
    points = probe.after_steps([step(1, 1.0, 2.0, second_clock=2.01)])
    points += probe.after_steps([step(2, 3.0, 1.0, second_clock=3.02)])
    probe.after_eval(evaluation("validation", 0.5))
    probe.after_eval(replace(evaluation("validation", 0.25), answer_seconds=2.0))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: 111.0)
    probe.after_eval(replace(evaluation("test", 4.0), answer_seconds=7.0))
    assert [(p.metric, p.step, p.value) for p in points] == [
        ("step_seconds", 1, 2.0),
        ("step_seconds", 2, 3.0),
    ]
    assert [(p.ranks, p.tokens) for p in points] == [((1.0, 2.0), 50), ((3.0, 1.0), 50)]
    expected = {"first_step_seconds": 5.0, "setup_seconds": 3.0}
    expected |= {"train_seconds": 5.0, "train_seconds_second_clock": 5.03}
    expected |= {"evaluation_seconds": 0.75, "total_seconds": 11.0}
    assert probe.stop() == pytest.approx(
        expected | {"validation_answer_seconds": 2.0, "test_answer_seconds": 7.0}
    )
    assert {metric.name for metric in probe.definitions()} == set(expected)


def test_bytes_are_those_of_trained_parameters(run: Run) -> None:
    """29 trained parameters of 4 bytes; a trained parameter of half precision counts half."""
    probe = started(communication.CommunicationProbe, run)
    assert probe.stop()["allreduced_bytes_per_step"] == 29 * 4
    run.model.head.half()
    probe.start(run)
    assert probe.stop()["allreduced_bytes_per_step"] == 4 * 4 + 25 * 2


def ddp_log(*readings: tuple[float, int]) -> Any:
    """Return a model under DDP whose log says, a reading after the other, mean nanoseconds and
    the last step noted.
    """
    said = iter(readings)

    def read() -> dict[str, float]:
        mean, last = next(said)
        return {"avg_backward_comm_time": mean, "iteration": last} if last else {}

    return SimpleNamespace(
        _set_ddp_runtime_logging_sample_rate=lambda _: None,
        _get_ddp_logging_data=read,
        register_forward_pre_hook=lambda _: SimpleNamespace(remove=lambda: None),
    )


@pytest.mark.parametrize(
    ("warmup", "readings", "steps", "milliseconds", "percent"),
    [
        pytest.param(
            3, ((0, 0), (310e6 / 3, 3), (366e6 / 11, 20)), 30, 7, 25, id="the warm-up is left out"
        ),
        pytest.param(
            2,
            ((0, 0), (4e6, 2), (4e6, 2)),
            3,
            4,
            4 / 90,
            id="of all steps, where the warm-up is longer",
        ),
        pytest.param(2, ((0, 0), (0, 0), (0, 0)), 3, math.nan, math.nan, id="none was noted"),
        pytest.param(
            2,
            ((9e6, 2), (9e6, 2), (9e6, 2)),
            3,
            math.nan,
            math.nan,
            id="the rehearsal alone was noted",
        ),
        pytest.param(
            2,
            ((9e6, 2),),
            0,
            math.nan,
            math.nan,
            id="it went on from a checkpoint after the last step",
        ),
    ],
)
def test_all_reduce_times(
    warmup: int,
    readings: tuple[tuple[float, int], ...],
    steps: int,
    milliseconds: float,
    percent: float,
    tmp_path: Path,
) -> None:
    """DDP notes steps 1 to 10 and 20; in the first run 300, 5 and 5 ms of the warm-up, and 7 ms
    of the eight others.
    """
    probe = started(communication.CommunicationProbe, make_run(tmp_path, warmup_steps=warmup))
    probe.wrapped(ddp_log(*readings))
    for index in range(1, steps + 1):
        probe.after_backward(index)
        probe.after_steps(
            [step(index, 9.0 if index <= warmup else 0.028 if index <= 10 or index == 20 else 1.0)]
        )
    probe.after_training()
    found = [probe.stop()[f"communication_{unit}"] for unit in ("ms", "percent")]
    assert found == pytest.approx([milliseconds, percent], nan_ok=True)


def test_passes_of_the_rehearsal_are_in_no_all_reduce_time(tmp_path: Path) -> None:
    """Of DDP's own log: two passes before the first step count in it, and those whose gradients
    aren't reduced don't.

    Steps 1 to 8 are then noted, and step 18; the warm-up has four.
    """
    probe = started(communication.CommunicationProbe, make_run(tmp_path, warmup_steps=4))
    with tiny.alone():
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        probe.wrapped(model)
        for _ in range(2):
            with model.no_sync():
                model(torch.ones(1, 2)).sum().backward()
            model(torch.ones(1, 2)).sum().backward()
        probe.before_training()
        for index in range(1, 21):
            model(torch.ones(1, 2)).sum().backward()
            probe.after_backward(index)
        first, warm = probe.before
        assert (first.last, first.steps, warm.last, warm.steps) == (2, 2, 6, 6)
        probe.after_steps(
            [step(index, 0.02 if index in {5, 6, 7, 8, 18} else 9.0) for index in range(1, 21)]
        )
        probe.after_training()
    found = probe.stop()
    assert found["communication_ms"] > 0
    assert found["communication_percent"] == pytest.approx(100 * found["communication_ms"] / 20)


def test_parameters_are_counted_without_the_head(run: Run) -> None:
    """4 of the 28 of the encoder are trained; the head has 25 and is in the total; of 24 frozen
    ones 12 are in bf16.
    """
    kept = torch.nn.Parameter(torch.zeros(12, dtype=torch.bfloat16), requires_grad=False)
    run.model.encoder.register_parameter("kept", kept)
    probe = started(parameters.ParametersProbe, run)
    probe.after_training()
    found = probe.stop()
    size = found.pop("saved_bytes")
    assert found == {
        "trainable_parameters": 4,
        "head_parameters": 25,
        "total_parameters": 53,
        "trainable_percent": 100 / 7,
        "frozen_bf16_percent": 50.0,
        "frozen_bytes": 12 * 4 + 12 * 2,
    }
    trained = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    assert list(run.folder.iterdir()) == [], "nothing is written"
    save_file(trained, run.folder / "trained.safetensors")
    assert size == (run.folder / "trained.safetensors").stat().st_size


def test_the_methods_own_saving_is_weighed(tmp_path: Path) -> None:
    """What the method writes, in any depth, and the head; ranks but the first have nothing to
    say of the size.
    """

    class Saving(Nothing):
        def save(self, encoder: Any, folder: Path) -> bool:
            (folder / "deep").mkdir()
            (folder / "deep/weights").write_bytes(bytes(10_000))
            return True

    size = parameters.saved_bytes(make_run(tmp_path, method=Saving(None)))
    assert 10_000 + 25 * 4 < size < 10_000 + 25 * 4 + 500
    probe = started(parameters.ParametersProbe, make_run(tmp_path, rank=1))
    probe.after_training()
    assert probe.stop()["saved_bytes"] is None


def test_figures_of_evaluations_are_of_the_test_rows(tmp_path: Path) -> None:
    """Three of five are right, in 0.5 s; F1 of the classes is 1, 2/3, 2/3, 0, 0; validation rows
    give points alone.
    """
    run = make_run(tmp_path, latency_samples=0)
    good, timed = started(quality.QualityProbe, run), started(inference.InferenceProbe, run)
    test, validation = evaluation("test", 0.5), evaluation("validation", 7.0, step=3)
    points = {(p.metric, p.step): p.value for p in good.after_eval(validation)}
    assert points == pytest.approx({("validation_loss", 3): 0.4, ("validation_accuracy", 3): 0.6})
    assert good.after_eval(test) == []
    found, expected = good.stop(), {"test_accuracy": 0.6, "test_loss": 0.4, "test_macro_f1": 7 / 15}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    timed.after_eval(test)
    timed.after_eval(validation)
    assert timed.stop() == {"inference_seconds": 0.5, "inference_samples_per_second": 10.0}


def test_latency_percentiles_before_and_after_merging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 to 100 ms have p50 = 50.5 and p99 = 99.01; merged, where it can be, the folded encoder is
    twice as fast.

    One rank times single examples, and the others are idle.
    """
    folded, folding = Encoder(), Nothing(None)
    monkeypatch.setattr(folding, "merge", lambda _: folded)
    monkeypatch.setattr(
        inference,
        "latencies",
        lambda _, model: [i / (2000 if model.encoder is folded else 1000) for i in range(1, 101)],
    )
    probe = started(inference.InferenceProbe, make_run(tmp_path, method=folding))
    found = probe.stop()
    assert [found["latency_ms_p50"], found["latency_ms_p99"]] == pytest.approx([50.5, 99.01])
    assert [found["merged_latency_ms_p50"], found["merged_latency_ms_p99"]] == pytest.approx(
        [25.25, 49.505]
    )
    assert set(started(inference.InferenceProbe, make_run(tmp_path)).stop()) == {
        "latency_ms_p50",
        "latency_ms_p99",
    }
    assert started(inference.InferenceProbe, make_run(tmp_path, rank=1)).stop() == {}


@pytest.mark.parametrize(("asked", "timed"), [(4, 4), (50, 10)])
def test_latencies_are_of_first_rows(
    asked: int, timed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One time for each of the first `latency_samples` rows, at most all ten, each of which was
    read before.
    """
    run, calls, read = make_run(tmp_path, latency_samples=asked), [], []
    batch = run.test.batch
    monkeypatch.setattr(
        run.test, "batch", lambda rows: (read.append(rows.tolist()), batch(rows))[1]
    )
    run.model.register_forward_hook(lambda *_: calls.append(run.model.training))
    assert len(inference.latencies(run, run.model)) == timed
    assert calls == [False] * 2 * timed
    assert read == 2 * [[row] for row in range(timed)]


def hold(megabytes: int) -> None:
    block = np.ones(megabytes * 1_000_000 // 8)
    del block


@pytest.fixture
def resettable() -> None:
    """Skip where the kernel doesn't let a process reset its peak."""
    memory.reset_host_peak()
    before = memory.host_peak_mb()
    hold(60)
    memory.trim_heap()
    memory.reset_host_peak()
    if not memory.host_peak_mb() < before + 40:
        pytest.skip("VmHWM can't be reset here")


@pytest.mark.usefixtures("resettable")
def test_each_phase_has_its_own_peak(run: Run) -> None:
    """200 MB held only while training are in the training peak; what saving needs belongs to no
    phase.
    """
    probe = started(memory.MemoryProbe, run)
    probe.before_training()
    hold(200)
    probe.before_eval("validation")
    probe.after_eval(evaluation("validation"))
    probe.after_training()
    hold(400)
    probe.before_eval("test")
    probe.after_eval(evaluation("test"))
    found = probe.stop()
    assert found["peak_memory_mb"] == found["host_train_mb"]
    assert 150 < found["host_train_mb"] - found["host_evaluation_mb"] < 300
    assert found["cuda_allocated_train_mb"] is None


@pytest.mark.usefixtures("resettable")
def test_memory_over_set_up_is_what_training_needs(run: Run) -> None:
    """Of 300 MB held since the set-up, 400 MB to save or load a state, and 200 MB in training,
    the last; it adds up.
    """
    probe = started(memory.MemoryProbe, run)
    held = np.ones(300_000_000 // 8)
    probe.before_training()
    state = probe.state()
    hold(400)
    probe.before_step(1)
    probe.load(state, 1)
    hold(400)
    probe.before_step(2)
    hold(200)
    probe.before_eval("validation")
    del held
    found = probe.stop()
    assert 190 < found["peak_memory_over_setup_mb"] < 220
    assert found["host_setup_mb"] >= found["host_before_training_mb"] > 300
    parts = found["host_before_training_mb"] + found["peak_memory_over_setup_mb"]
    assert parts == pytest.approx(found["peak_memory_mb"])


def test_the_set_up_ends_when_the_frozen_weights_are_cast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their float32 copies would be the least peak of a training, the same for all methods
    that freeze them.
    """
    prepared, seen, probe = tiny.prepared(tmp_path), [], memory.MemoryProbe()
    with tiny.alone() as group:
        assembly = assemble(tiny.spec("lora", precision="bf16", world_size=1), prepared, group)
        layers = [layer for layer in assembly.model.encoder.modules() if type(layer) is Conv1D]

        def take(phase: str, **_: bool) -> bool:
            kinds = {
                p.dtype
                for of in layers
                for p in of.parameters(recurse=False)
                if not p.requires_grad
            }
            seen.append((phase, kinds))
            return False

        monkeypatch.setattr(probe, "_take", take)
        probe.start(make_run(tmp_path))
        Trainer(assembly, [probe]).train()
    assert seen[0] == ("setup", {torch.bfloat16})


def test_memory_over_set_up_is_unknown_where_peaks_cannot_be_reset(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak would be the set-up's, and the difference would be taken for what training needs."""
    monkeypatch.setattr(memory, "reset_host_peak", lambda: False)
    probe = started(memory.MemoryProbe, run)
    probe.before_training()
    probe.before_eval("validation")
    found = probe.stop()
    assert found["peak_memory_mb"] > 0
    assert found["peak_memory_over_setup_mb"] is found["host_before_training_mb"] is None


def test_memory_moves_in_known_steps(run: Run) -> None:
    """The host's in huge pages of 2 MiB, that of tensors on CUDA in blocks of 512 bytes; NVML's
    is not known.
    """
    probe, page, block = started(memory.MemoryProbe, run), 2 * 2**20 / 1e6, 512 / 1e6
    for device, peak in (("cpu", page), ("cuda", block)):
        probe.device = torch.device(device)
        grids = {m.name: m.grid for m in probe.definitions()}
        for kind, grid in {
            "peak_memory_mb": peak,
            "host_": page,
            "cuda_allocated": block,
            "nvml": None,
        }.items():
            assert {found for name, found in grids.items() if name.startswith(kind)} == {grid}


@pytest.mark.usefixtures("resettable")
@pytest.mark.parametrize(("validation", "counts"), [(50, True), (400, False)])
def test_training_after_a_hungrier_validation_does_not_count(
    run: Run, validation: int, counts: bool
) -> None:
    """200 MB held in the second stretch of training are in its peak, unless the validation
    before it held more.
    """
    probe = started(memory.MemoryProbe, run)
    probe.before_training()
    before = memory.host_peak_mb()
    hold(100)
    probe.before_eval("validation")
    hold(validation)
    # a larger block doesn't always fit where the allocator keeps the pages of those before it
    memory.trim_heap()
    probe.after_eval(evaluation("validation"))
    hold(200)
    probe.before_eval("validation")
    probe.after_eval(evaluation("validation"))
    probe.before_eval("test")
    probe.after_eval(evaluation("test"))
    peak = probe.stop()["peak_memory_mb"] - before
    assert (170 if counts else 70) < peak < (230 if counts else 130)


@pytest.mark.parametrize(
    ("rank", "readings", "joules"),
    [
        (0, (10.0, 14.5), 4.5),
        (0, (10.0, 2.0), math.nan),
        (0, (math.nan, math.nan), math.nan),
        (1, (10.0, 14.5), 0.0),
    ],
    ids=[
        "the difference",
        "a counter that wrapped around",
        "no counter",
        "the second rank of a machine",
    ],
)
def test_energy_is_a_difference(
    rank: int,
    readings: tuple[float, float],
    joules: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the counter over training, which is the whole machine's and counted once."""
    monkeypatch.setattr(energy, "rapl_joules", partial(next, iter(readings)))
    probe = started(energy.EnergyProbe, make_run(tmp_path, rank=rank))
    probe.before_training()
    probe.after_training()
    assert probe.stop()["energy_joules"] == pytest.approx(joules, nan_ok=True)


def test_energy_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joules before it count; those between the starts and while it is read don't."""
    monkeypatch.setattr(
        energy, "rapl_joules", partial(next, iter((0.0, 30.0, 100.0, 107.0, 112.0)))
    )
    probe = started(energy.EnergyProbe, make_run(tmp_path))
    probe.before_training()
    state = json.loads(json.dumps(probe.state()))
    again = started(energy.EnergyProbe, make_run(tmp_path))
    again.before_training()
    again.load(state, 1)
    again.after_training()
    assert again.stop()["energy_joules"] == pytest.approx(35.0)


HEAT, POWER = pynvml.NVML_PERF_POLICY_THERMAL, pynvml.NVML_PERF_POLICY_POWER


@pytest.mark.parametrize(
    ("slowed", "heat", "power"),
    [
        ({HEAT: (5.0, 15.0), POWER: (0.0, 2.5)}, 0.25, 0.0625),
        ({HEAT: (5.0,), POWER: (0.0, 90.0)}, 0.0, 1.0),
        ({HEAT: None, POWER: (0.0, 2.5)}, math.nan, 0.0625),
    ],
)
def test_what_slows_a_gpu_is_read_over_its_training(
    slowed: dict[int, tuple[float, ...] | None],
    heat: float,
    power: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    install_cards: Machine,
) -> None:
    """Shares of 40 s by NVML's counters before and after, and the lowest clock of its windows;
    NaN where the driver doesn't count, nothing on a CPU.
    """
    install_cards(card("GPU-a", slowed=slowed, clocks=(1900, 1400, 1800, 300)))
    times = iter((100.0, 140.0))
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(distributed, "uuid", lambda _: "a")
    run = make_run(tmp_path)
    run.group.device = torch.device("cuda")
    probe = started(clocks.ClocksProbe, run)
    probe.before_training()
    for first in (1, 2, 3):
        assert probe.after_steps([step(first, 1.0)]) == []
    probe.after_training()
    found = probe.stop()
    assert found == pytest.approx(
        {"slowed_by_heat": heat, "slowed_by_power": power, "lowest_clock_mhz": 1400}, nan_ok=True
    )
    assert {metric.name for metric in probe.definitions()} == set(found)


def test_a_checkpoint_keeps_what_slowed_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install_cards: Machine
) -> None:
    """Seconds and the lowest clock before it count; those between the starts don't, nor does the
    time in which the checkpoint is read.
    """
    slowed = {HEAT: (0.0, 10.0, 70.0, 75.0, 85.0)}
    install_cards(card("GPU-a", slowed=slowed, clocks=(1400, 1900)))
    times = iter((0.0, 20.0, 100.0, 150.0, 170.0))
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(distributed, "uuid", lambda _: "a")
    run = make_run(tmp_path)
    run.group.device = torch.device("cuda")
    probe = started(clocks.ClocksProbe, run)
    probe.before_training()
    probe.after_steps([step(1, 1.0)])
    state = json.loads(json.dumps(probe.state()))
    again = started(clocks.ClocksProbe, run)
    again.before_training()
    again.load(state, 1)
    again.after_steps([step(2, 1.0)])
    again.after_training()
    assert again.stop() == {"slowed_by_heat": 0.5, "slowed_by_power": 0, "lowest_clock_mhz": 1400}


def test_no_clock_is_read_on_a_cpu(tmp_path: Path, install_cards: Machine) -> None:
    """Where a card is there that the run doesn't use."""
    install_cards(card("GPU-a"))
    probe = started(clocks.ClocksProbe, make_run(tmp_path))
    probe.before_training()
    probe.after_steps([step(1, 1.0)])
    probe.after_training()
    assert (probe.stop(), probe.definitions()) == ({}, ())


def test_rapl_packages_add_up(tmp_path: Path) -> None:
    """Packages are summed, in joules; domains inside or around them would count twice; without
    any it is unknown.
    """
    assert math.isnan(energy.rapl_joules(tmp_path))
    zones = {"intel-rapl:0": ("package-0", 2_000_000), "intel-rapl:1": ("package-1", 500_000)}
    zones |= {"intel-rapl:0:0": ("core", 9_000_000), "intel-rapl:2": ("psys", 7_000_000)}
    for zone, (name, microjoules) in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
    assert energy.rapl_joules(tmp_path) == 2.5


def reduced(*ranks: dict[str, float | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    names, define = (
        ("sum", "mean", "max", "same", "rank0"),
        partial(Metric.define, unit="", better="lower", form=""),
    )
    definitions = tuple(
        define(name, "t", definition="d", over_ranks=name, phase="run", group="time")
        for name in names
    )
    rows = [
        [math.nan if rank.get(m.name) is None else rank[m.name] for m in definitions]
        for rank in ranks
    ]
    group = SimpleNamespace(gather=lambda local: torch.tensor(rows, dtype=torch.float64))
    return worker.reduce_over_ranks(definitions, ranks[0], group)  # type: ignore[arg-type]


def test_ranks_become_one_by_the_metrics_definition() -> None:
    """1 and 3 give 4, 2, 3, and what rank 0 says; the ranks' own values are kept where they differ
    by nature.

    A metric that is NaN on all ranks is missing; one that is NaN on some has no value.
    """
    metrics, per_rank = reduced(
        *(dict.fromkeys(("sum", "mean", "max", "same", "rank0"), of) for of in (1.0, 3.0))
    )
    assert metrics == {"sum": 4.0, "mean": 2.0, "max": 3.0, "same": 1.0, "rank0": 1.0}
    assert per_rank == dict.fromkeys(("sum", "mean", "max"), (1.0, 3.0))
    assert reduced({"sum": None, "max": 1.0, "rank0": None}, {"max": None, "rank0": 2.0})[0] == {
        "max": None
    }


def test_the_series_are_those_documented(run: Run) -> None:
    """What all probes together write to points.jsonl is what docs/metrics.md names."""
    names = set()
    for probe in [registry.plugin("probes", name)() for name in registry.names("probes")]:
        probe.start(run)
        names |= {
            p.metric
            for p in [*probe.after_steps([step(1)]), *probe.after_eval(evaluation("validation"))]
        }
    page = (Path(__file__).parents[3] / "docs/metrics.md").read_text(encoding="utf-8")
    _, _, series = page.partition("## Series of `points.jsonl`")
    names = {"validation_<headline>" if name == "validation_accuracy" else name for name in names}
    assert names == {line.split("`")[1] for line in series.splitlines() if line.startswith("| `")}
