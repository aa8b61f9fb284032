"""What tests on the two-node Slurm share: the cluster itself, a tiny suite, and what a local
sweep of it computes.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from disturbed import Disturbed, write_suite
from two_nodes import TwoNodes

from helpers import held, plugin_packages, skips, tiny
from hpml_bench.suite import registry
from hpml_bench.system import disk


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[TwoNodes]:
    """The cluster, with one session's number; where it can't be had, the reason stands among the
    skipped tests.
    """
    cluster = TwoNodes(os.getpid() % 99 + 1)
    if (why := cluster.up()) is not None:
        skips.only_as_root(why)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.exports().items():
            patch.setenv(name, value)
        yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def held_suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A suite of runs of seconds; its method `held` is known to all processes that are started
    from here.
    """
    folder = plugin_packages.write(tmp_path_factory.mktemp("plug-in"), "methods", held=held.SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", plugin_packages.on_path(folder))
        for cached in (registry.names, registry._foreign):  # another test may have looked before
            cached.cache_clear()
        yield (
            once(tmp_path_factory, "suite", lambda folder: write_suite(tiny.local_suite(folder)))
            / "colours.yaml"
        )


def once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that one of several processes of tests has filled for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"cluster-{name}"
    with disk.lock_held(Path(f"{folder}.lock"), "give another --basetemp"):
        if not (folder / ".made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / ".made").touch()
    return folder


@pytest.fixture(scope="session")
def local(held_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rich.console import Console

    from hpml_bench.suite.suite import load_suite
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.sweep.request import SweepRequest

    def swept(folder: Path) -> None:
        result = run_sweep(SweepRequest(load_suite(str(held_suite)), folder), Console(quiet=True))
        assert [record.status for record in result.records] == ["ok"] * 4

    return once(tmp_path_factory, "local", swept) / "colours"


@pytest.fixture(scope="session")
def truth(local: Path) -> dict[str, Any]:
    return faults.content(local)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="hpml-cluster-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


@pytest.fixture
def disturbed(
    slurm_cluster: TwoNodes, held_suite: Path, truth: dict[str, Any], shared_folder: Path
) -> Iterator[Callable[..., Disturbed]]:
    """Maker of sweeps with changes to the profile; afterwards no job is left, and the nodes are
    well.
    """
    yield lambda **profile: Disturbed(slurm_cluster, held_suite, shared_folder / "out", **profile)
    slurm_cluster.restore()
