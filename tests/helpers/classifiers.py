"""Classifiers on the small random backbones of benchmarks/support_table.py, with any method."""

from importlib.util import find_spec
from pathlib import Path

from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.task import make_task
from hpml_bench.suite.registry import plugin
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.training.model import build_model


def installed(method: str) -> bool:
    """Tell whether a method's packages are here: bitsandbytes, where it quantises the backbone."""
    kind = plugin("methods", method)
    return kind(kind.Options()).quantization is None or find_spec("bitsandbytes") is not None


def settings(**changes: object) -> Settings:
    return Settings.model_validate(
        {"backbone": "path:", "dataset": "d", "steps": 3, "max_length": 12} | changes
    )


def assemble(
    folder: Path, method: str, seed: int = 0, options: dict | None = None, **changes: object
) -> tuple[TaskModel, Method]:
    """Build a classifier of four classes with a method's defaults, or some options, and return
    the method beside it.
    """
    kind = plugin("methods", method)
    chosen = MethodSpec(
        name=method, method=method, options=kind.Options(**options or {}).model_dump(), lr=kind.lr
    )
    spec = RunSpec(suite="s", settings=settings(**changes), method=chosen, seed=seed)
    made = make_method(chosen)
    return build_model(folder, spec, made, make_task(spec.settings.task, tuple("abcd"))), made


def build(
    folder: Path, method: str, seed: int = 0, options: dict | None = None, **changes: object
) -> TaskModel:
    return assemble(folder, method, seed, options, **changes)[0]
