"""Runs of tiny models in this process, or over ranks, and what watches them."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tiny, warm
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Evaluation, Probe, Step
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.training.assembly import assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer


class Recorder(Probe):
    """Keeps the steps and evaluations, and counts the events of backward passes."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.evaluations: list[Evaluation] = []
        self.backwards = 0

    def after_backward(self, index: int) -> None:
        self.backwards += 1

    def after_steps(self, window: list[Step]) -> list[Any]:
        self.steps += window
        return []

    def after_eval(self, evaluation: Evaluation) -> list[Any]:
        self.evaluations.append(evaluation)
        return []

    def values(self, name: str) -> list[Any]:
        return [getattr(step, name) for step in self.steps]


class Counts(TorchDispatchMode):
    """Counts operators by name: all, or those of whose schema, arguments and result `counted`
    says so.
    """

    def __init__(self, counted: Callable[[str, Sequence[Any]], bool] = lambda *_: True) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self._counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count[func._schema.name] += self._counted(func._schema.name, (*args, result))
        return result


def run_of(
    folder: Path,
    task: str,
    /,
    method: str = "lora",
    options: dict[str, Any] | None = None,
    lr: float = 1e-2,
    **changes: Any,
) -> RunSpec:
    settings = tiny.task_settings(folder, task, **{"world_size": 1} | changes)
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(
        name=method, method=method, options=kind.Options(**options or {}).model_dump(), lr=lr
    )
    return RunSpec(suite="tiny", settings=settings, method=chosen, seed=0)


def trainer_of(spec: RunSpec, group: Group, *probes: Probe) -> Trainer:
    return Trainer(assemble(spec, prepare(spec.settings), group), probes)


def over_ranks(world: int, work: Callable[..., None], *given: object) -> None:
    """Let each of a group's ranks do some work, a function of a test module that gets its Group
    first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [warm.call(_rank, number, world, port, work, given) for number in range(world)]
    ended = [(process.communicate(600)[0], process.returncode) for process in ranks]
    assert [status for _, status in ended] == [0] * world, "\n".join(text for text, _ in ended)


def _rank(
    number: int, world: int, port: int, work: Callable[..., None], given: tuple[object, ...]
) -> None:
    os.environ.update(RANK=str(number), WORLD_SIZE=str(world), LOCAL_RANK=str(number))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with process_group(tiny.settings(world_size=world, global_batch=world)) as group:
        work(group, *given)


def trained(spec: RunSpec, group: Group) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    trainer = trainer_of(spec, group, recorder)
    trainer.train()
    return trainer, recorder
