"""Runs that go on from a checkpoint: after kills they end with the bits of an undisturbed run."""

import errno
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faults
import numpy as np
import pytest
import torch
import torch.distributed as dist

from helpers import made_records, tiny
from hpml_bench.builtin.methods.lora import LoRA as Lora
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe
from hpml_bench.records.files import CHECKPOINTS
from hpml_bench.records.folder import RunFolder, SharedResults
from hpml_bench.records.jobs import Job
from hpml_bench.records.plan import Limits, Plan
from hpml_bench.records.points import read_points
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec, RunSpec
from hpml_bench.sweep.job import JobWork
from hpml_bench.sweep.watch import Watcher
from hpml_bench.system import environment, heartbeat
from hpml_bench.training import checkpoint
from hpml_bench.training.checkpoint import Ended
from hpml_bench.training.trainer import Trainer

SAVING = Limits(stall=120, checkpoint_steps=8)


@contextmanager
def killed(folder: Path, step: int, rank: int) -> Iterator[None]:
    """Let the body's run be hit by a SIGKILL of a rank once that has begun a step."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            for beat in heartbeat.read(folder):
                if (
                    beat.rank == rank
                    and beat.where.startswith("training step")
                    and int(beat.where.split()[2]) >= step
                ):
                    os.kill(beat.pid, signal.SIGKILL)
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def content(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return all that must not differ from an undisturbed run's."""
    assert record.status == "ok", record.error
    return faults.content_of(folder, record)


@pytest.mark.parametrize(
    ("method", "kills", "changes"),
    [
        ("lora", ((21, 1), (42, 0)), {}),
        (
            "lora",
            ((10, 1), (18, 0)),
            {"select": "early", "patience": 4, "eval_every": 4},
        ),  # which ends at 20 or later
        ("full", ((21, 1), (42, 0)), {"sharding": "fsdp", "select": "best", "eval_every": 10}),
        ("full", ((21, 1), (42, 0)), {"precision": "bf16", "trained_weights": "bfloat16"}),
    ],
)
def test_a_killed_run_goes_on(
    method: str,
    kills: tuple[tuple[int, int], ...],
    changes: dict[str, Any],
    prepared: Prepared,
    tmp_path: Path,
) -> None:
    """Two kills, the second in the part that went on: the same points, predictions and metrics
    to the bit.
    """
    spec = tiny.spec(method, steps=60, dropout=0.1, **changes)
    expected = content(tmp_path / "whole", tiny.run(spec, prepared, tmp_path / "whole"))
    folder = tmp_path / "run"
    for step, rank in kills:
        with killed(folder, step, rank):
            assert tiny.run(spec, prepared, folder, SAVING).status == "killed"
        assert (folder / CHECKPOINTS).is_dir()
    record = tiny.run(spec, prepared, folder, SAVING)
    assert content(folder, record) == expected
    assert not (folder / CHECKPOINTS).exists()
    parts = [(part.first, part.last) for part in record.segments]
    assert [first for first, _ in parts] == [1, *(last + 1 for _, last in parts[:-1])]
    assert record.consumed is not None
    assert parts[-1][1] == record.consumed.steps
    assert (parts[-1][1] == 60) == ("patience" not in changes)
    assert len(parts) == 3
    assert all(check.passed for check in record.checks)
    timed = [point for point in read_points(folder) if point.metric == "step_seconds"]
    assert [p.step for p in timed if p.again] == [
        last + 1 for _, last in parts[:-1]
    ]  # one step warms up
    counted = [p.value or 0.0 for p in timed[1:] if not p.again]
    assert record.metrics["samples_per_second"] == pytest.approx(12 * len(counted) / sum(counted))
    assert "total_seconds" not in record.metrics


class Killed(Exception):
    """Stands for a kill."""


def execute(
    folder: Path,
    spec: RunSpec,
    prepared: Prepared,
    at: float | None = None,
    limits: Limits = SAVING,
) -> Any:
    """Do a run in this process alone, up to the step `at` or, if that is infinite, the test
    rows; return the record.
    """
    step, evaluate = Trainer.step, Trainer.evaluate

    def until(trainer: Trainer, index: int, indices: np.ndarray) -> None:
        if index == at:
            raise Killed
        step(trainer, index, indices)

    def until_test(trainer: Trainer, rows: Any, phase: str, index: int) -> Any:
        if phase == "test" and at == math.inf:
            raise Killed
        return evaluate(trainer, rows, phase, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", until)
        patch.setattr(Trainer, "evaluate", until_test)
        try:
            return tiny.execute(tiny.request(spec, prepared, folder, limits))
        except (Killed, Ended):
            dist.destroy_process_group()
            return None


@pytest.mark.parametrize(
    ("method", "optimizer", "changes"),
    [
        ("lora", "adamw", {"micro_batch": 3}),
        ("lora", "lora_plus", {"precision": "bf16", "weights": "bfloat16", "schedule": "wsd"}),
        ("full", "muon", {}),
        ("full", "adamw_8bit", {}),
        ("full", "adamw", {"precision": "fp16", "micro_batch": 3}),
        ("adapter", "lion", {"gradient_checkpointing": True}),
        ("head", "sgd", {"steps": None, "epochs": 4}),
        ("prompt_tuning", "adamw", {"log_every": 3, "eval_every": 7, "select": "best"}),
        ("lora", "adamw", {"eval_every": 4, "select": "early", "patience": 6, "lr_warmup": 0.0}),
        ("qlora", "adamw", {}),
        ({"type": "ADALORA", "tinit": 3, "tfinal": 12, "deltaT": 2}, "adamw", {}),
    ],
)
def test_what_a_step_depends_on_is_saved(
    method: Any, optimizer: str, changes: dict[str, Any], prepared: Prepared, tmp_path: Path
) -> None:
    """State of optimizer, scaler, schedule, generators and method: two ends inside an epoch
    change no bit.
    """
    options = method if isinstance(method, dict) else {}
    name = "peft" if options else method
    chosen = MethodSpec(
        name=name, method=name, lr=1e-2, options=options, optimizer=OptimizerSpec(name=optimizer)
    )
    settings = tiny.settings(**{"steps": 30, "world_size": 1, "dropout": 0.1} | changes)
    spec = RunSpec(suite="tiny", settings=settings, method=chosen, seed=0)
    expected = content(tmp_path / "whole", execute(tmp_path / "whole", spec, prepared))
    for at in (13, 28):
        assert execute(tmp_path / "run", spec, prepared, at) is None
    assert content(tmp_path / "run", execute(tmp_path / "run", spec, prepared)) == expected


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / CHECKPOINTS).iterdir())


def test_the_newest_that_can_be_read_is_taken(prepared: Prepared, tmp_path: Path) -> None:
    """Two stay; of a damaged one, by a single bit, the other is taken, and with both damaged the
    run begins anew.
    """
    spec, folder = tiny.spec(steps=30, world_size=1), tmp_path / "run"
    expected = content(tmp_path / "whole", execute(tmp_path / "whole", spec, prepared))
    execute(folder, spec, prepared, 28)
    assert saved_steps(folder) == [16, 24]
    file = folder / CHECKPOINTS / "24/shared.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    (folder / CHECKPOINTS / "99.new").mkdir()  # as a kill while it is written leaves it
    (folder / CHECKPOINTS / "lost+found").mkdir()
    execute(folder, spec, prepared, 18)
    assert RunFolder(folder).saved == 16  # or it would look as if the run got no further
    execute(folder, spec, prepared, 27)
    assert saved_steps(folder) == [16, 24]
    execute(folder, spec, prepared, 30)
    for file in folder.glob(f"{CHECKPOINTS}/*/rank0.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    record = execute(folder, spec, prepared)
    assert record.segments == ()
    assert content(folder, record) == expected


class Full:
    """Stands for a disk that fills up, or for a kill, while the state after a step is written."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step, self.error, self.write = step, error, checkpoint.write

    def __call__(self, path: Path, value: Any) -> None:
        if path.parent.name == f"{self.step}.new":
            path.write_bytes(b"a part")
            raise self.error
        self.write(path, value)


def test_a_full_disk_and_a_kill_while_a_state_is_saved(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a full disk the run goes on, and what was written is removed; after a kill the state
    before is taken.
    """
    spec, folder = tiny.spec(steps=30, world_size=1), tmp_path / "run"
    expected = content(tmp_path / "whole", execute(tmp_path / "whole", spec, prepared))
    monkeypatch.setattr(
        checkpoint, "write", Full(16, OSError(errno.ENOSPC, "No space left on device"))
    )
    execute(folder, spec, prepared, 18)
    assert "no checkpoint: OSError: [Errno 28] No space left on device" in capsys.readouterr().out
    assert [path.name for path in (folder / CHECKPOINTS).iterdir()] == ["8"]
    monkeypatch.setattr(checkpoint, "write", Full(16, Killed()))
    execute(folder, spec, prepared)
    assert (folder / CHECKPOINTS / "16.new").exists()
    monkeypatch.undo()
    record = execute(folder, spec, prepared)
    assert [(part.first, part.last) for part in record.segments] == [(1, 8), (9, 30)]
    assert content(folder, record) == expected


@pytest.mark.parametrize("changes", [{}, {"select": "early", "patience": 1, "eval_every": 2}])
def test_an_end_after_the_last_step(
    changes: dict[str, Any], prepared: Prepared, tmp_path: Path
) -> None:
    """Nothing that was saved is trained again; a training that ended early does so again, with
    the same chosen step.
    """
    spec = tiny.spec(steps=24, world_size=1, dropout=0.1, **changes)
    expected = content(tmp_path / "whole", execute(tmp_path / "whole", spec, prepared))
    assert execute(tmp_path / "run", spec, prepared, math.inf) is None
    saved = saved_steps(tmp_path / "run")[-1]
    record = execute(tmp_path / "run", spec, prepared)
    assert content(tmp_path / "run", record) == expected
    done = record.consumed.steps
    assert [(part.first, part.last) for part in record.segments] == [(1, saved), (saved + 1, done)]
    assert (saved, done) == (24, 24) if not changes else done < 24
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


def test_parts_on_two_hosts(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the host of each part, and both as the run's."""
    spec = tiny.spec(steps=20, world_size=1)
    for host, at in (("n2", 18), ("n1", None)):
        monkeypatch.setattr(environment.socket, "gethostname", lambda host=host: host)
        record = execute(tmp_path, spec, prepared, at)
    assert [(part.first, part.last, part.hosts) for part in record.segments] == [
        (1, 16, ("n2",)),
        (17, 20, ("n1",)),
    ]
    assert record.environment["hosts"] == ["n1", "n2"]


@pytest.mark.parametrize("other", ["method", "digests", "off", "points", "versions", "ranks"])
def test_other_states_are_left(
    other: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other options, weights, versions or ranks, no wish for checkpoints, or lost points: the
    run begins anew, and its record says why checkpoints weren't used, if any were wished for.
    """
    spec, limits = tiny.spec(steps=20, world_size=1), SAVING
    execute(tmp_path, spec, prepared, 18)
    if other == "method":
        spec = spec.model_copy(update={"method": spec.method.model_copy(update={"lr": 2e-2})})
    elif other == "digests":
        prepared = prepared.model_copy(
            update={"digests": prepared.digests.model_copy(update={"weights": "other"})}
        )
    elif other == "versions":
        here = environment.describe()
        monkeypatch.setattr(
            environment, "describe", lambda _=None: here | {"packages": {"torch": "0"}}
        )
    elif other == "ranks":
        spec = tiny.spec(steps=20, world_size=2)
    elif other == "off":
        limits = Limits(stall=0, checkpoint_minutes=0)
    else:
        os.truncate(tmp_path / "points.jsonl", 10)
    alone = other != "ranks"
    record = (
        execute(tmp_path, spec, prepared, limits=limits)
        if alone
        else tiny.run(spec, prepared, tmp_path, SAVING)
    )
    assert record.segments == ()
    reasons = {
        "method": "it is of the run ",
        "digests": "it was saved on other hardware, with other versions or of other data",
        "versions": "it was saved on other hardware, with other versions or of other data",
        "ranks": "it is of the run ",
        "points": "points.jsonl doesn't begin with the points",
    }
    assert len(record.unused_checkpoints) == (0 if other == "off" else 2)
    for why in record.unused_checkpoints:
        assert why.startswith("checkpoints/")
        assert f" is not used: {reasons[other]}" in why
    assert [point.step for point in read_points(tmp_path) if point.metric == "train_loss"] == list(
        range(1, 21)
    )
    assert all(check.passed for check in record.checks)


def test_a_run_that_is_asked_to_end(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saves at the end of the window, however long it is to the next checkpoint, and ends; it
    goes on from there.
    """
    spec, seldom = tiny.spec(steps=20, world_size=1), Limits(stall=0)
    expected = content(
        tmp_path / "whole", execute(tmp_path / "whole", spec, prepared, limits=seldom)
    )
    step = Trainer.step

    def asked(trainer: Trainer, index: int, indices: np.ndarray) -> None:
        if index == 5:
            signal.raise_signal(heartbeat.SAVE_SIGNAL)
        step(trainer, index, indices)

    before = signal.getsignal(heartbeat.SAVE_SIGNAL)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "ASKED", threading.Event())
        patch.setattr(Trainer, "step", asked)
        checkpoint.heed_requests()
        assert execute(tmp_path / "run", spec, prepared, limits=seldom) is None
    signal.signal(heartbeat.SAVE_SIGNAL, before)
    assert saved_steps(tmp_path / "run") == [6]
    record = execute(tmp_path / "run", spec, prepared, limits=seldom)
    assert content(tmp_path / "run", record) == expected


class Guarded(Probe):
    """Measures while steps are taken, and says nothing of its state."""

    def before_step(self, index: int) -> None:
        self.last = index


class Stateful(Lora):
    """Acts after each step, likewise."""

    def after_step(self, encoder: Any, step: int) -> None:
        self.last = step


@pytest.mark.parametrize("kind", [Guarded, Stateful])
def test_a_plug_in_with_an_unknown_state(
    kind: type,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is saved, the log says by whose fault, and the run is whole."""
    plugin = registry.plugin
    name = {"probes": "energy", "methods": "lora"}[kind.plugin_kind]
    monkeypatch.setattr(
        registry,
        "plugin",
        lambda of, called: kind if (of, called) == (kind.plugin_kind, name) else plugin(of, called),
    )
    assert execute(tmp_path, tiny.spec(steps=10, world_size=1), prepared).status == "ok"
    assert f"no checkpoint: TypeError: {kind.__name__} has a state" in capsys.readouterr().out


def test_the_time_between_two_grows_until_saving_takes_a_hundredth(
    group: Group, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a minute asked for, and saving of 6 s, the next checkpoint comes after 600 s."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    request = tiny.request(tiny.spec(), prepared, tmp_path, Limits(checkpoint_minutes=1))
    checkpoints, saved = checkpoint.Checkpoints(request, group, ["here"], 0.0, None), list[int]()

    def state(steps: list[None]) -> Any:
        saved.append(len(steps))
        now[0] += 6
        raise TypeError

    for step in range(1, 101):
        now[0] += 10
        checkpoints.end_window([None] * step, state)  # type: ignore[arg-type, list-item]
    assert saved == [6, 66]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A tree with tensors of all kinds of sizes, numbers to the bit; no object of a class."""
    tensors = [torch.arange(3, dtype=kind) for kind in checkpoint.NAMES if kind != torch.bool]
    tree = {
        "a": [1, 0.1, float("inf"), None, True, "x"],
        3: ({"b": tensors}, ()),
        "empty": torch.zeros(0, 2),
    }
    tree |= {
        "scalar": torch.tensor(0.5),
        "part": torch.ones(4, 4)[:, 1],
        "bits": torch.tensor([True, False]),
    }
    names = ("empty", "scalar", "part", "bits")
    checkpoint.write(tmp_path / "tree", tree)
    found = checkpoint.read(tmp_path / "tree")
    assert found["a"] == tree["a"]
    assert found.keys() == tree.keys()
    pairs = zip(
        [*found[3][0]["b"], *map(found.get, names)], [*tensors, *map(tree.get, names)], strict=True
    )
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    with pytest.raises(TypeError, match="object"):
        checkpoint.write(tmp_path / "tree", {"a": object()})


def _job(name: str) -> Job:
    return Job(
        engine="slurm",
        job=name,
        restart=0,
        unit=0,
        host="n1",
        pid=3,
        began="2026-01-01T00:00:00+00:00",
    )


def _attempt(folder: Path, job: str, step: int) -> RunFolder:
    """Begin a job's attempt, which has saved its state after a step."""
    attempt = SharedResults(folder, _job(job)).begin(tiny.spec())
    (attempt.path / CHECKPOINTS / str(step)).mkdir(parents=True, exist_ok=True)
    (attempt.path / "points.jsonl").write_text(f"points of {job}")
    return attempt


def test_a_job_takes_over_an_earlier_attempts_checkpoint(tmp_path: Path) -> None:
    """The newest, with its points; only one attempt has it. A run that is done keeps none, nor
    do its attempts.
    """
    spec = tiny.spec()
    for job, step in (("1", 8), ("2", 16)):
        _attempt(tmp_path, job, step)
    own = SharedResults(tmp_path, _job("3")).begin(spec)
    assert own.saved == 16
    own.begin()
    assert (own.path / "points.jsonl").read_text() == "points of 2"
    assert len(list(tmp_path.glob(f"attempts/*/{CHECKPOINTS}"))) == 1
    record = made_records.record("lora", 0)
    assert own.commit(record.model_copy(update={"status": "killed"})).saved == 16
    assert own.commit(record).saved == 0
    assert not (own.path / CHECKPOINTS).exists()
    zombie = SharedResults(tmp_path, _job("2")).attempt(spec).path / CHECKPOINTS / "24"
    zombie.mkdir(parents=True)  # its node was given up, and it has gone on
    SharedResults(tmp_path, _job("3")).publish(spec, record)
    assert not list(tmp_path.glob(f"attempts/*/{CHECKPOINTS}"))


def test_a_time_limit_ends_a_run_only_where_it_gets_no_further(tmp_path: Path) -> None:
    """Attempts whose checkpoint is later than all before don't count; the second without is a
    `timeout`.
    """
    ended = []
    for job, step in (("1", 8), ("2", 16), ("3", 16), ("4", 24), ("5", 24)):
        attempt = _attempt(tmp_path, job, step)
        plan = SimpleNamespace(call=0, profile=SimpleNamespace(time=None))
        work: Any = SimpleNamespace(
            results=SharedResults(tmp_path, _job(job)), had=120.0, plan=plan
        )
        record = made_records.record("lora", 0).model_copy(
            update={"status": "interrupted", "environment": {}}
        )
        JobWork._out_of_time(work, tiny.spec(), attempt.commit(record))
        ended.append(RunFolder(tmp_path / tiny.spec().run_id).record())
    assert ended[:4] == [None] * 4
    assert ended[4] is not None
    assert ended[4].status == "timeout"
    assert "2 times without progress" in ended[4].error.message


def test_a_later_checkpoint_is_progress_of_a_unit(tmp_path: Path) -> None:
    """Jobs of a unit are submitted again as long as each brings a later one, or a run."""
    watcher: Any = SimpleNamespace(
        _tries={}, _runs=Plan(((tiny.spec(),),)), _folder=tmp_path, _refused_since=0.0
    )
    watcher._saved_steps = partial(Watcher._saved_steps, watcher)
    for number in range(1, 5):
        _attempt(tmp_path, str(number), 8 * number)
        Watcher.resubmitted(watcher, [0], {0: 1})
        assert not Watcher._is_given_up(watcher, 0, 1)
    Watcher.resubmitted(watcher, [0], {0: 1})
    assert Watcher._is_given_up(watcher, 0, 1)
    assert not Watcher._is_given_up(watcher, 0, 0)
