"""The command is killed, interrupted, or asked to end: what is done is kept, nothing is left,
and it goes on.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import faults
import pytest

from helpers import plugin_packages, tiny
from helpers.cli_process import Command
from hpml_bench.records.load import load_records
from hpml_bench.system import processes


@pytest.fixture(scope="module")
def two_rank_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, one seed, runs of some seconds."""
    return tiny.local_suite(tmp_path_factory.mktemp("suite"), steps=250, eval_every=250)


LASTING = '''
"""A method of the tests: trains the head, a step a second; waits GRACE_SECONDS for an end."""

import os
import time

from hpml_bench.launch import watchdog
from hpml_bench.builtin.methods.head import Head

watchdog.GRACE_SECONDS = float(os.environ.get("GRACE_SECONDS", watchdog.GRACE_SECONDS))


class Lasting(Head):
    def after_step(self, encoder, step):
        time.sleep(1)
'''


@pytest.fixture
def lasting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options by which the first run takes seconds, and the second one minutes: it outlasts any
    look at it.
    """
    plug_in = plugin_packages.write(tmp_path, "methods", lasting=LASTING)
    monkeypatch.setenv("PYTHONPATH", plugin_packages.on_path(plug_in))
    # In this order they are also run.
    return [
        "--seeds",
        "1",
        "--methods",
        "head,lasting",
        "--set",
        "methods.lasting={method: lasting}",
    ]


def statuses(out: Path) -> list[str]:
    return [record.status for record in load_records(out / "colours").records]


def segments(command: Command) -> list[str]:
    """Return the segments of shared memory, that have a name, of a command's processes."""
    found: list[str] = []
    for pid in (command.process.pid, *(process.pid for process in command.family)):
        with suppress(OSError):
            found += [
                line
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
                if "/dev/shm/" in line
            ]
    return [line for line in found if not line.endswith("(deleted)")]


def test_the_command_is_killed(two_rank_suite: Path, room: Path) -> None:
    """Its processes, which hold no shared memory, end with it; the same command goes on, without
    what it left.
    """
    command = Command(two_rank_suite, room / "out", "--seeds", "1", cold=True)
    command.until(lambda: command.recorded() == 1 and command.training())
    assert segments(command) == [], "a segment of a killed process would stay"
    command.process.kill()
    command.ended()
    assert len(command.family) >= 4, "fork server, tracker and two ranks"
    assert command.left() == []
    (first,) = (room / "out").glob("*/*/run.json")
    before = first.stat().st_mtime_ns
    again = Command(two_rank_suite, room / "out", "--seeds", "1")
    assert "1 of 2 runs are recorded already" in again.ends(0)
    assert first.stat().st_mtime_ns == before
    assert statuses(room / "out") == ["ok", "ok"]
    assert list((room / "tmp").iterdir()) == []
    assert list((room / "out").glob("*/*/.*.tmp")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_terminal(
    number: signal.Signals, two_rank_suite: Path, lasting: list[str], room: Path
) -> None:
    """The whole terminal group gets the signal: status 130, the run under way `interrupted`, a
    report of the rest.
    """
    command = Command(two_rank_suite, room / "out", *lasting)
    command.until(lambda: command.recorded() == 1 and command.training())
    os.killpg(command.process.pid, number)
    assert "the same command goes on from here" in command.ends(130, 20)
    assert statuses(room / "out") == ["ok", "interrupted"]
    assert "interrupted" in (room / "out/colours/report.md").read_text()
    assert list((room / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "number"), [(0.0, signal.SIGINT), (0.5, signal.SIGTERM), (3.0, signal.SIGINT)]
)
def test_a_signal_before_the_first_run(
    seconds: float, number: signal.Signals, two_rank_suite: Path, lasting: list[str], room: Path
) -> None:
    """While processes start, or model and data are prepared: status 130, no traceback, nothing
    left.
    """
    # A fast machine is further after the same seconds, and has its second run to do for minutes.
    command = Command(two_rank_suite, room / "out", *lasting, cold=True)
    command.until(lambda: faults.servers(command))
    time.sleep(seconds)
    os.killpg(command.process.pid, number)
    command.ends(130, 30)
    assert list((room / "tmp").iterdir()) == []


def test_a_signal_in_the_first_run(two_rank_suite: Path, lasting: list[str], room: Path) -> None:
    """Torch is imported as this run begins, and then says nothing of the ranks that the signal
    ends.
    """
    command = Command(two_rank_suite, room / "out", *lasting, "--methods", "lasting", cold=True)
    command.until(command.training)
    os.killpg(command.process.pid, signal.SIGTERM)
    assert "torch/" not in command.ends(130, 30)
    assert statuses(room / "out") == ["interrupted"]


def test_ctrl_c_twice(
    two_rank_suite: Path, lasting: list[str], room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second ends all at once where the first has to wait; what was recorded is whole."""
    monkeypatch.setenv("GRACE_SECONDS", "300")
    command = Command(two_rank_suite, room / "out", *lasting)
    command.until(lambda: command.recorded() == 1 and command.training())
    ranks = command.training().values()
    (server,) = faults.servers(command)
    server.suspend()  # it can't say that the ranks ended, so that the first Ctrl-C has to wait
    os.killpg(command.process.pid, signal.SIGINT)
    command.until(
        lambda: not any(map(processes.identify, ranks))
    )  # it was heard: the second is another one
    began = time.monotonic()
    os.killpg(command.process.pid, signal.SIGINT)
    command.process.wait(20)
    assert time.monotonic() - began < 150, "the first alone would take 300 s"
    assert "at once" in command.ends(130)
    for path in (room / "out").glob("*/*/run.json"):
        json.loads(path.read_text())
    assert statuses(room / "out") == ["ok"]
    assert list((room / "tmp").iterdir()) == []
