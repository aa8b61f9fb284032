"""A tuning is killed: nothing of it is left, and the same command goes on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from helpers import plugin_packages, tiny
from helpers.cli_process import Command
from hpml_bench.system import heartbeat, temporary

SECRET = "hf_" + "abcdefghij" * 3
LOUD = '''
"""A method of the tests: trains the head, a step each tenth of a second, and prints what it should not."""

import os
import time

from hpml_bench.builtin.methods.head import Head


class Loud(Head):
    def after_step(self, encoder, step):
        print(os.environ["HF_TOKEN"], flush=True)
        time.sleep(0.1)
'''


class Tuning(Command):
    """`hpml-bench tune SUITE --out OUT` of the method `loud`, in a session of its own."""

    does = ("tune", "--trials", "1", "--methods", "loud", "--set", "methods.loud={method: loud}")

    @property
    def logs(self) -> list[Path]:
        return list(self.out.glob("*/tuning/*/rank*.log"))

    def trains(self) -> bool:
        beats = [beat for folder in self.out.glob("*/tuning/*/") for beat in heartbeat.read(folder)]
        said = [log for log in self.logs if SECRET in log.read_text()]
        return len(beats) == len(said) == 2 and all("step" in beat.where for beat in beats)


@pytest.fixture
def loud_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite whose runs take seconds, and the method `loud` where processes of the test find it."""
    pytest.importorskip("optuna")
    plug_in = plugin_packages.write(tmp_path, "methods", loud=LOUD)
    monkeypatch.setenv("PYTHONPATH", plugin_packages.on_path(plug_in))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return tiny.local_suite(tmp_path / "suite", steps=40)


def test_a_tuning_that_is_killed(loud_suite: Path) -> None:
    """Its processes end with it; the next start removes its temporary files and redacts its logs; then it goes on."""
    with tempfile.TemporaryDirectory(prefix="hpml-test-", dir="/tmp") as room:
        command = Tuning(loud_suite, Path(room) / "out")
        command.until(command.trains)
        here, pid = temporary.beside(Path(room) / "out/colours/tuning/trials.json"), command.process.pid
        torn = here.with_name(here.name.replace(f".{os.getpid()}.", f".{pid}."))
        torn.write_text("{")
        command.process.kill()
        command.ended()
        assert command.left() == []
        assert list(command.temporary.iterdir()) != []
        assert len(command.logs) == 2
        again = Tuning(loud_suite, Path(room) / "out", "--max-hours", "0")
        status, said = again.ended()
        assert status == 2, said  # no hours, no preparation
        assert list(command.temporary.iterdir()) == []
        assert [SECRET in log.read_text() for log in command.logs] == [False, False]
        assert not torn.exists()
        status, said = Tuning(loud_suite, Path(room) / "out").ended(120)
        assert status == 0, said
        assert list(command.temporary.iterdir()) == []
