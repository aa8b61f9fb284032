"""What tests share: a cache of the session's own, so that nothing is written under the checkout,
and small fixtures.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from helpers import skips, warm
from hpml_bench.system.gpus import visible_gpus

if TYPE_CHECKING:
    from helpers.held import Gates
    from helpers.nvml import Machine
    from hpml_bench.data.prepared import Prepared
    from hpml_bench.plugins.group import Group

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported, thus by fixtures only
# In the background of a script, or under nohup, a process is born with these ignored, and so would
# be what tests start.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
hypothesis.settings.register_profile(
    "tests", database=None, deadline=None, derandomize=True, max_examples=60
)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of README's command."""
    parser.addoption(
        "--here", action="store_true", help="leave out tests that have an environment of their own"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the server of warm processes for all processes of tests, where there are several."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        server = warm.Server()
        os.environ[warm.ADDRESS] = server.address
        config.add_cleanup(server.end)


LONGEST_FIRST = (
    "test_wheel.py",
    "trackers/test_wandb.py",
    "launch/",
    "sweep/",
    "engines/",
    "training/",
    "gate/",
)
"""Parts of paths of the tests that take longest: begun last, one would run while the other
processes are idle.
"""
APART = (
    "wheel",
    "browser",
    "tables",
    "calibration",
    "suites",
    "benchmarks",
    "disks",
    "cluster",
    "cluster_slow",
    "fit",
    "cuda",
)
"""Markers of tests that an environment of their own runs, and README's command doesn't; see
CONTRIBUTING.md.
"""
NEEDED_GPUS = {"gpu": 1, "multigpu": 2}
"""GPUs that a marker asks for."""

TRIED = pytest.StashKey[int]()
"""How many tests were collected, less those with an environment of their own."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, where several processes share the tests; skip what needs more
    GPUs.
    """
    if config.getoption("here"):
        apart = [item for item in items if any(map(item.get_closest_marker, APART))]
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if not any(map(item.get_closest_marker, APART))]
        config.stash[TRIED] = len(items)
    places = {
        item.path: next((i for i, p in enumerate(LONGEST_FIRST) if p in str(item.path)), 99)
        for item in items
    }
    items.sort(key=lambda item: places[item.path])
    for marker, least in NEEDED_GPUS.items():
        if len(visible_gpus()) < least:
            for item in (item for item in items if item.get_closest_marker(marker)):
                item.add_marker(
                    pytest.mark.skip(reason=skips.NO_GPU if least == 1 else skips.ONE_GPU)
                )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let one of two calls, with and without serial tests, select nothing: those chosen may be
    all serial, or none.
    """
    tried = session.config.stash.get(TRIED, 0)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = tried
    elif exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and (
        tried or ") and " in session.config.option.markexpr
    ):
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the number of tests from one of several processes."""
    node.config.stash[TRIED] = getattr(node, "workeroutput", {}).get("tried", 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Let a test or a file that was skipped fail under CI, unless its reason is among those in
    `helpers.skips`.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if skips.must_run(reason):
            report.outcome = "failed"
            report.longrepr = f"{reason}: under CI this has to run; see tests/helpers/skips.py"
    return report


pytest_make_collect_report = pytest_runtest_makereport


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point the caches of the harness and of hypothesis at folders that go with the session."""
    set_hypothesis_home_dir(str(tmp_path_factory.mktemp("hypothesis")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPML_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        warm.start_fork_servers_warm(patch)
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPML_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline_cache(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; and no reader asks the network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    return empty_cache


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder with a short path: sockets are made below it."""
    with tempfile.TemporaryDirectory(prefix="hpml-test-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    from helpers import tiny

    with tiny.alone() as found:
        yield found


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    from helpers import tiny

    return tiny.prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def backbone_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small backbones on which all PEFT types are tried."""
    import support_table

    return support_table.save_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(scope="module")
def one_rank_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two seeds, one rank, runs of some seconds."""
    from helpers import tiny

    return tiny.local_suite(
        tmp_path_factory.mktemp("suite"), steps=150, eval_every=150, world_size=1
    )


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gates]:
    """A suite whose runs stay at gates, which are open, known to this process and all that are
    started from here.
    """
    from helpers import held, plugin_packages, tiny

    for name in ("suite", "gates"):
        (tmp_path / name).mkdir()
    methods = {name: {"method": "held", "options": {"gate": name}} for name in ("a", "b")}
    path = tiny.local_suite(tmp_path / "suite", more={"methods": methods}, world_size=1)
    plugin_packages.install(monkeypatch, tmp_path, "methods", held=held.SOURCE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("HELD_AT", str(tmp_path / "gates"))
    yield held.Gates(path, tmp_path / "gates")
    plugin_packages.forget()


@pytest.fixture
def install_cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a function that makes a machine with these cards."""
    from helpers import nvml

    yield from nvml.installing(monkeypatch)
