"""The training loop in one process: probes leave it alone, schedule, optimizer and the selected
step are as defined.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers import tiny
from helpers.loops import Recorder, run_of, trainer_of
from hpml_bench.builtin.methods.lora import LoRA
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe, Step
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.suite import registry
from hpml_bench.suite.schedule import Windows, lr_factor, step_seconds, total_steps
from hpml_bench.suite.settings import RunSpec, TaskSpec
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import clock
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.clock import CpuClock, CudaClock, StepEntry, StepLog
from hpml_bench.training.saving import save_trained
from hpml_bench.training.trainer import Trainer


def losses(
    spec: RunSpec, prepared: Prepared, group: Group, folder: Path, probes: list[Probe]
) -> list[float]:
    """Train, evaluate and stop the probes; return the losses of the steps and of the test rows."""
    recorder, run = Recorder(), assemble(spec, prepared, group)
    for probe in probes:
        probe.start(replace(run, folder=folder, began=time.monotonic()))
    trainer = Trainer(run, [*probes, recorder])
    trainer.train()
    result = trainer.evaluate(run.test, "test", run.steps)
    for probe in probes:
        probe.stop()
    return recorder.values("loss") + result.predictions.loss.tolist()


def test_probes_change_nothing(prepared: Prepared, group: Group, tmp_path: Path) -> None:
    """With all of them and with none, dropout on, every loss is the same bit for bit."""
    spec = tiny.spec(world_size=1, dropout=0.1)
    probes: list[Probe] = [registry.plugin("probes", name)() for name in registry.names("probes")]
    assert losses(spec, prepared, group, tmp_path, probes) == losses(
        spec, prepared, group, tmp_path, []
    )


def test_attention_is_never_cudnns(prepared: Prepared, group: Group) -> None:
    """Whose gradient is NaN at some lengths, and which plans anew for every shape: a run leaves
    it out.
    """
    torch.backends.cuda.enable_cudnn_sdp(True)
    Trainer(assemble(tiny.spec(world_size=1), prepared, group))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


WSD = {"schedule": "wsd"}


@pytest.mark.parametrize(("changes", "factors"), [
    ({"steps": 10, "lr_warmup": 0.2}, [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ({"steps": 10, "lr_warmup": 0.2, "schedule": "constant"}, [0.5, *[1] * 9]),
    ({"steps": 10, "lr_warmup": 0.2, "lr_decay": 0.4, **WSD}, [0.5, *[1] * 6, 3 / 4, 2 / 4, 1 / 4]),
    ({"steps": 5, "lr_warmup": 0.2, "lr_decay": 0.8, **WSD}, [1, 1, 3 / 4, 2 / 4, 1 / 4]),
    ({"steps": 20, **WSD}, [1 / 2, *[1] * 16, 3 / 4, 2 / 4, 1 / 4]),
])  # fmt: skip
def test_the_learning_rate_follows_its_schedule(
    changes: dict[str, Any], factors: list[float]
) -> None:
    """Linear from a first small step to 1 over the warm-up; then, or over the last share, linear
    to a step above 0.
    """
    settings = tiny.settings(**changes)
    assert [
        lr_factor(step, len(factors), settings) for step in range(len(factors))
    ] == pytest.approx(factors)


def test_the_loop_is_plain_adamw(prepared: Prepared, group: Group, tmp_path: Path) -> None:
    """The losses are those of a loop written out here: cross-entropy, clipping, torch's AdamW,
    the same batches.
    """
    spec = tiny.spec("full", lr=1e-3, world_size=1)
    ours = losses(spec, prepared, group, tmp_path, [])[: spec.settings.steps]

    trainer = Trainer(assemble(spec, prepared, group))
    model = trainer.model.train()
    parameters = [
        {"params": list(model.encoder.parameters()), "lr": 1e-3},
        {"params": list(model.head.parameters()), "lr": spec.settings.head_lr},
    ]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    theirs = []
    for step, indices in enumerate(trainer.order()):
        for group_, lr in zip(optimizer.param_groups, (1e-3, spec.settings.head_lr), strict=True):
            group_["lr"] = lr * lr_factor(step, 6, spec.settings)
        batch = trainer.train_rows.batch(indices)
        loss = torch.nn.functional.cross_entropy(
            model(batch.input_ids, batch.attention_mask), batch.labels
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, abs=1e-5)


@given(arrays(float, (3, 7), elements=st.floats(0.001, 10)))
def test_the_steps_add_up_to_the_slowest_rank(ranks: np.ndarray) -> None:
    """Whoever is slow in which step, their sum is the longest of the ranks' sums, and none is
    negative.
    """
    seconds = step_seconds(ranks)
    assert seconds.sum() == pytest.approx(ranks.sum(axis=1).max())
    assert (seconds >= 0).all()


def test_the_log_reduces_steps_over_the_ranks(group: Group) -> None:
    """Beside a second rank of (2, 1) s, own (1, 3) s become steps of 2 and 2 s; the last has the
    second clock.

    Ten over three targets is float32's 10 / 3, as of a mean taken in the step itself; the default
    is one target.
    """

    class Two(Group):
        def gather(self, local: torch.Tensor) -> torch.Tensor:
            other = local.clone()
            other[:, 2] = torch.tensor([2.0, 1.0])
            other[:, 8] = 4.5
            return torch.stack([local, other])

    log = StepLog(Two(0, 2, group.device), CpuClock())
    for more in ({"targets": 3.0}, {}):
        log.add(StepEntry(torch.tensor(10.0), torch.tensor(1.0), 0.1, 4, 10, 12, 0, **more))
    clock: Any = SimpleNamespace(start=lambda: None, take=lambda: [1.0, 3.0], window=lambda: 4.0)
    log.clock = clock
    first, last = log.reduce()
    assert first.loss == (torch.tensor(10.0) / 3).item() != pytest.approx(10 / 3, rel=1e-12)
    assert last.loss == 10.0
    assert (first.seconds, last.seconds) == (2.0, 2.0)
    assert (first.rank_seconds, last.rank_seconds) == ((1.0, 2.0), (3.0, 1.0))
    assert (first.second_clock, last.second_clock) == (None, 4.5)
    assert (last.samples, last.real_tokens, last.padded_tokens, last.virtual_tokens) == (
        8,
        20,
        24,
        0,
    )


class Sleeper(Recorder):
    """Sleeps at the events of a run of six steps with windows that end after 1, 2, 4 and 6."""

    def before_step(self, index: int) -> None:
        time.sleep(0.05)

    def after_steps(self, window: list[Step]) -> list:
        time.sleep(0.2)
        return super().after_steps(window)

    def before_training(self) -> None:
        time.sleep(1.0)

    def after_eval(self, evaluation: object) -> list:
        time.sleep(0.2)
        return []


@pytest.mark.serial
def test_all_between_two_steps_is_timed_and_nothing_else(prepared: Prepared, group: Group) -> None:
    """What is before a step is in its time, what is between windows in none; a window's steps
    add up to its seconds.
    """
    sleeper = Sleeper()
    Trainer(assemble(tiny.spec(world_size=1), prepared, group), [sleeper]).train()
    assert sleeper.values("index") == [1, 2, 3, 4, 5, 6]
    seconds = sleeper.values("seconds")
    assert min(seconds) >= 0.05
    assert seconds[0] < 1.0
    after_windows = seconds[1], seconds[2], seconds[4]
    assert sorted(after_windows)[1] < 0.2, "a machine's hiccup in one of three is none of the loop"
    ends = [step.index for step in sleeper.steps if step.second_clock is not None]
    assert ends == [1, 2, 4, 6]
    for begin, end in itertools.pairwise([0, *ends]):
        clock = sleeper.steps[end - 1].second_clock
        assert sum(seconds[begin:end]) == pytest.approx(clock, rel=0.01, abs=0.001)


def test_windows_end_where_something_is_written() -> None:
    """After `log_every` and `eval_every` steps, the warm-up and the last; rows that fill no
    batch are left out.
    """
    assert total_steps(tiny.settings(steps=None, epochs=3, global_batch=12), rows=40) == 9
    windows = Windows(tiny.settings(steps=11, log_every=4, eval_every=6, warmup_steps=3), 11)
    assert [step for step in range(1, 12) if windows.ends_window(step)] == [3, 4, 6, 8, 11]
    assert [step for step in range(1, 12) if windows.evaluates(step)] == [6, 11]
    assert windows.count() == 5
    assert windows.first_timed() == 4
    assert Windows(tiny.settings(steps=3, warmup_steps=3), 3).first_timed() == 1


# The clocks: laps follow each other without gaps, on a CPU and by CUDA's events


class Event:
    """Stands in for CUDA's: recorded at the next full second of a stream."""

    stream: "itertools.count[int]"

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = next(self.stream)

    def elapsed_time(self, end: "Event") -> float:
        return 1000.0 * (end.at - self.at)


@pytest.fixture(params=["cpu", "cuda"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], CpuClock]:
    """A clock of either kind, for which a second goes by at each reading."""
    seconds = itertools.count()
    monkeypatch.setattr(Event, "stream", seconds, raising=False)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return CpuClock if request.param == "cpu" else CudaClock


def test_laps_follow_each_other(made: Callable[[], CpuClock]) -> None:
    """One reading a lap, from the making or the last start; what goes before a start is in none;
    each is taken once.
    """
    clock = made()
    for _ in range(3):
        clock.lap()
    clock.start()
    clock.lap()
    assert clock.take() == [1.0] * 4
    assert clock.take() == []
    clock.lap()
    assert clock.take() == [1.0]


@pytest.mark.parametrize("moment", ["start", "lap"])
def test_both_clocks_are_read_at_one_moment(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process ran between the two readings, they are read again: the clocks agree
    on the lap.
    """
    now, other = [100.0], [0]

    def reading() -> float:
        read = now[0]
        if other[0]:  # another process has the core after this reading
            other[0] -= 1
            now[0] += 0.005
        return read

    monkeypatch.setattr(time, "perf_counter", reading)
    monkeypatch.setattr(clock, "second_clock", reading)
    made = CpuClock()
    other[0] = moment == "start"
    made.start()
    now[0] += 1
    other[0] = moment == "lap"
    made.lap()
    assert made.window() == pytest.approx(made.take()[0], abs=1e-9)


# `select: best` and `early`: what is measured and saved is of the step with the best validation
# score


class Kept(Probe):
    """Keeps the weights at each evaluation of the validation rows."""

    def __init__(self, run: Assembly) -> None:
        self.weights, self.found = weights_of(run), dict[int, list[torch.Tensor]]()

    def after_eval(self, evaluation: Evaluation) -> list[Any]:
        self.found[evaluation.step] = [weight.detach().clone() for weight in self.weights]
        return []


def weights_of(run: Assembly) -> list[torch.nn.Parameter]:
    return [weight for weight in run.model.parameters() if weight.requires_grad]


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_selected_step_stays(
    select: str, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe reports that step and the seconds up to it; without `select` nothing is kept or
    reported.
    """
    spec = run_of(tmp_path, "sequence_classification", steps=9, eval_every=3, select=select)
    monkeypatch.setattr(
        Task, "best_step", lambda _, scores: min(scores)
    )  # so that it isn't the last one
    run = assemble(spec, prepare(spec.settings), group)
    probe, kept = registry.plugin("probes", "selection")(), Kept(run)
    probe.start(replace(run, folder=tmp_path))
    trainer = Trainer(run, [probe, kept])
    trainer.train()
    expected = kept.found[3 if select == "best" else 9]
    assert all(
        torch.equal(one, other) for one, other in zip(weights_of(run), expected, strict=True)
    )
    assert not torch.equal(kept.found[3][0], kept.found[9][0])
    values = probe.stop()
    assert [metric.name for metric in probe.definitions()] == (
        list(values) if select == "best" else []
    )
    if select == "best":
        assert values == {
            "selected_step": 3,
            "selected_seconds": sum(s.seconds for s in trainer.seen[:3]),
        }


@pytest.mark.parametrize("at", [4, 12])
def test_a_method_has_its_steps_state(
    at: int, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdaLoRA's files have the ranks that it had then, before or after it has dropped some."""
    monkeypatch.setattr(Task, "validation_score", lambda _, metrics: metrics["loss"])
    monkeypatch.setattr(Task, "best_step", lambda _, scores: at if at in scores else max(scores))
    options = {"type": "ADALORA", "init_r": 6, "target_r": 2, "tinit": 2, "tfinal": 6, "deltaT": 1}
    changes = {"steps": 16, "eval_every": 4, "select": "best"}
    spec = run_of(tmp_path, "sequence_classification", "peft", options, 1e-1, **changes)
    prepared = prepare(spec.settings)
    run = assemble(spec, prepared, group)

    class Saves(Probe):
        """Saves the model at each evaluation."""

        def after_eval(self, evaluation: Evaluation) -> list[Any]:
            save_trained(run.model, run.method, spec, prepared, tmp_path / str(evaluation.step))
            return []

    Trainer(run, [Saves()]).train()
    save_trained(run.model, run.method, spec, prepared, tmp_path / "end")
    files = {path.relative_to(tmp_path / "end") for path in (tmp_path / "end").rglob("adapter*")}
    assert files
    ends = [
        [(tmp_path / name / file).read_bytes() for file in sorted(files)]
        for name in ("end", str(at), "16")
    ]
    assert ends[0] == ends[1] != ends[2]


def test_a_state_that_isnt_given_is_refused(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method would go on with that of the last step."""
    monkeypatch.setattr(LoRA, "state", lambda *_: None)
    with pytest.raises(Unsupported, match="no hook `state` gives it"):
        trainer_of(
            run_of(tmp_path, "sequence_classification", steps=8, eval_every=4, select="best"), group
        )


@pytest.mark.parametrize(("task", "best"), [("sequence_classification", 4), ("regression", 2)])
def test_the_best_is_the_first_of_equals(task: str, best: int) -> None:
    """Highest accuracy, lowest error."""
    assert make_task(TaskSpec(name=task), ("a", "b")).best_step({2: 0.5, 4: 0.7, 6: 0.7}) == best


@pytest.mark.parametrize(("scores", "end"), [
    ({1: 0.1, 2: 0.2, 3: 0.3}, None),
    ({1: 0.3, 2: 0.3, 3: 0.3, 4: 0.9}, 3),  # equals are no better
    ({1: 0.3, 2: 0.1, 3: 0.4, 4: 0.1, 5: 0.1, 6: 0.9}, 5),
    ({1: np.nan, 2: np.nan, 3: 0.1, 4: 0.1}, None),
    ({1: np.nan, 2: 0.1, 3: np.nan, 4: np.nan}, 4),
])  # fmt: skip
def test_an_early_end_follows_evaluations_without_a_better_score(
    scores: dict[int, float], end: int | None
) -> None:
    """Two of them here, in a row; an undefined score is worse than any other."""
    made = make_task(TaskSpec(name="sequence_classification"), ("a", "b"))
    assert made.early_end(scores, 2) == end
    assert made.early_end(scores, None) is None
