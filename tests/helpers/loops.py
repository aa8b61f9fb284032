"""Runs of tiny models in this process, and what watches them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tiny
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe, Step
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.training.trainer import Trainer


class Recorder(Probe):
    """Keeps the steps, and counts the events of backward passes."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.backwards = 0

    def after_backward(self, index: int) -> None:
        self.backwards += 1

    def after_steps(self, window: list[Step]) -> list[Any]:
        self.steps += window
        return []

    def values(self, name: str) -> list[Any]:
        return [getattr(step, name) for step in self.steps]


class Counts(TorchDispatchMode):
    """Counts operators by name: all, or those of whose schema, arguments and result `counted` says so."""

    def __init__(self, counted: Callable[[str, Sequence[Any]], bool] = lambda *_: True) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self._counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count[func._schema.name] += self._counted(func._schema.name, (*args, result))
        return result


def run_of(
    folder: Path, task: str, method: str = "lora", options: dict[str, Any] | None = None, lr: float = 1e-2,
    **changes: Any,
) -> RunSpec:  # fmt: skip
    """Return a run of one rank, unless changes say otherwise, on rows of a task."""
    settings = tiny.task_settings(folder, task, **{"world_size": 1} | changes)
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(name=method, method=method, options=kind.Options(**options or {}).model_dump(), lr=lr)
    return RunSpec(suite="tiny", settings=settings, method=chosen, seed=0)


def trainer_of(spec: RunSpec, group: Group, *probes: Probe) -> Trainer:
    return Trainer.build(spec, prepare(spec.settings), group, probes)


def trained(spec: RunSpec, group: Group) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    trainer = trainer_of(spec, group, recorder)
    trainer.train()
    return trainer, recorder
