"""What every registered method, probe, task and section must have, whoever wrote it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import test_probes
from pydantic import BaseModel

from hpml_bench import registry
from hpml_bench.config.base import Frozen
from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric

HEAVY = ("torch", "transformers", "peft", "datasets", "pandas", "matplotlib", "scipy", "statsmodels", "wandb")
OPTIONAL = {
    "before_train": ["model", "batches", "total_steps"],
    "after_step": ["model", "step"],
    "penalty": ["model"],
    "merge": ["model"],
    "save": ["model", "folder"],
}


def parameters(function: object) -> int:
    """Return how many arguments a function takes."""
    return len(inspect.signature(function).parameters)  # type: ignore[arg-type]


def check_options(options: type[BaseModel]) -> None:
    """Options are frozen values, each explained."""
    assert issubclass(options, Frozen)
    for name, field in options.model_fields.items():
        assert field.description, f"{options.__module__}.Options.{name} has no docstring"


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method(name: str) -> None:
    """Title, learning rate, explained options with defaults that validate, `build`, and no verb of another shape."""
    module = registry.get("methods", name)
    assert module.__doc__
    assert isinstance(module.title, str)
    assert module.title
    assert module.lr > 0
    check_options(module.Options)
    defaults = module.Options()
    assert module.Options.model_validate(defaults.model_dump(mode="json")) == defaults
    assert parameters(module.build) == 2
    for verb, arguments in OPTIONAL.items():
        if hasattr(module, verb):
            assert parameters(getattr(module, verb)) == len(arguments), verb


@pytest.mark.parametrize("name", registry.names("datasets"))
def test_a_task(name: str) -> None:
    """A first line, explained options, and `load(settings, options)`."""
    module = registry.get("datasets", name)
    assert module.__doc__
    check_options(module.Options)
    assert parameters(module.load) == 2


@pytest.mark.parametrize("name", registry.names("sections"))
def test_a_section(name: str) -> None:
    """An order, and `section(results)`."""
    module = registry.get("sections", name)
    assert module.__doc__
    assert isinstance(module.order, int)
    assert parameters(module.section) == 1


def test_sections_have_a_definite_order() -> None:
    """No two sections ask for the same place."""
    orders = [registry.get("sections", name).order for name in registry.names("sections")]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("name", registry.names("probes"))
def test_a_probe(name: str, tmp_path: Path) -> None:
    """It goes through a run, and what it returns at the end are metrics it defined."""
    module = registry.get("probes", name)
    assert module.__doc__
    measure = module.Measure()
    assert isinstance(measure, Probe)
    measure.start(test_probes.make_run(tmp_path))
    measure.before_training()
    for index in (1, 2):
        measure.before_step(index)
        measure.after_backward(index)
    points = measure.after_steps([test_probes.step(1), test_probes.step(2)])
    measure.before_eval("validation")
    points += measure.after_eval(test_probes.evaluation("validation"))
    measure.after_training()
    measure.before_eval("test")
    measure.after_eval(test_probes.evaluation("test"))
    found = measure.stop()
    assert all(point.step >= 1 for point in points)
    assert set(found) <= {metric.name for metric in module.metrics}
    assert [metric.name for metric in measure.here(module.metrics)] == [metric.name for metric in module.metrics]
    for value in found.values():
        assert value is None or isinstance(float(value), float)


def test_metrics_have_one_owner() -> None:
    """No name is defined twice, over all probes; each has a definition and a format that formats."""
    metrics: list[Metric] = [m for name in registry.names("probes") for m in registry.get("probes", name).metrics]
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.definition.endswith(".")
        assert metric.title
        assert format(1234.5, metric.format)


def test_importing_them_imports_nothing_heavy() -> None:
    """All files of all kinds, and the command line with what it needs to list them, come without the big libraries."""
    script = (
        "import sys; from hpml_bench import registry, cli, listing, suite, api, store, environment\n"
        "for kind in ('methods', 'probes', 'tasks', 'sections'):\n"
        "    for name in registry.names(kind): registry.get(kind, name)\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
