"""A method whose runs stay after a step until they are let go, so that a test can look at a run
under way.
"""

from pathlib import Path

SOURCE = '''
"""A method of the tests: trains the head; a rank stays after step 2 while its gate is closed."""

import os
import socket
import time
from pathlib import Path

from hpml_bench.suite.base import Frozen
from hpml_bench.builtin.methods.head import Head


class Held(Head):
    class Options(Frozen):
        gate: str = ""

    def state(self, encoder):
        return {} if "HELD_SECONDS" in os.environ else None

    def after_step(self, encoder, step):
        time.sleep(float(os.environ.get("HELD_SECONDS", "0")))
        place = os.environ.get("HELD_AT")
        if place is None or step != 2:
            return
        job = f"{os.environ.get('HPML_BENCH_JOB', '')}.{os.environ.get('HPML_BENCH_RESTART', '')}"
        note = Path(place, f"{job}.{os.environ['RANK']}")
        note.write_text(f"{socket.gethostname()} {os.getpid()}")
        while Path(place, f"closed{self.options.gate}").exists():
            time.sleep(0.02)
'''
"""HELD_AT is the folder of gates; one is closed while a file `closed`, with the gate's name behind
it, is there.

HELD_SECONDS is what each step takes longer; only with it the method says that it has no state, so
that runs are saved.
"""


class Gates:
    """A suite of two methods, `a` and `b`, and two seeds; and gates, at which their runs stay
    while they are closed.
    """

    def __init__(self, suite: Path, place: Path) -> None:
        self.suite, self._place = suite, place

    def close(self, *names: str) -> None:
        for name in names:
            (self._place / f"closed{name}").touch()

    def open(self) -> None:
        for file in self._place.glob("closed*"):
            file.unlink()
