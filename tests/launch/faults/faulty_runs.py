"""A method that breaks on command, runs of it, and what happens to their ranks."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from helpers import tiny
from helpers.waiting import until
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system import heartbeat

FAULTY = '''
"""A method of the tests: trains the head, and breaks after a step on one rank."""

import itertools
import multiprocessing.util
import os
import resource
import signal
import time

import torch

from hpml_bench.suite.base import Frozen
from hpml_bench.builtin.methods.head import Head
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification

hours = itertools.count(1)


def break_at_exit(number):
    """Send this rank a signal as it exits, when it has done all."""

    def end():
        if os.environ["RANK"] != "0":
            time.sleep(3)  # meanwhile rank 0 writes that the run is done
        os.kill(os.getpid(), number)

    multiprocessing.util.Finalize(None, end, exitpriority=-1000)


def spoil_the_loss(value):
    """Make the next steps' losses NaN or infinite on this rank only, and no shared gradient."""
    right = SequenceClassification.loss
    SequenceClassification.loss = lambda *args: right(*args) + value


class Faulty(Head):
    class Options(Frozen):
        fault: str = ""
        rank: int = 1
        step: int = 2

    def after_step(self, encoder, step):
        asked = self.options
        if step != asked.step or int(os.environ["RANK"]) != asked.rank:
            return
        if asked.fault == "raise":
            raise ArithmeticError("the fault that was asked for")
        if asked.fault == "memory, and peers wait":  # as NCCL would, were the process group left
            torch.distributed.destroy_process_group = lambda *_: time.sleep(600)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if asked.fault in ("nan", "inf"):
            spoil_the_loss(float(asked.fault))
        if asked.fault == "sleep":
            time.sleep(600)
        if asked.fault == "memory of the GPU":
            torch.zeros(10**12, device="cuda")
        elif asked.fault.startswith("memory of"):
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, used + 300_000_000))
            bytearray(2 * 10**9) if asked.fault == "memory of python" else torch.zeros(2 * 10**9)
        if asked.fault == "clock":
            clock = time.time
            time.time = lambda: clock() - 3600 * next(hours)
        if asked.fault.startswith("SIG"):
            break_at_exit(getattr(signal, asked.fault))
'''


def faulty(fault: str, rank: int = 1, step: int = 2, **settings: object) -> RunSpec:
    options = {"fault": fault, "rank": rank, "step": step}
    method = MethodSpec(name="faulty", method="faulty", options=options, lr=1e-3)
    return RunSpec(suite="tiny", settings=tiny.settings(**settings), method=method, seed=0)


def endless(method: str = "head") -> RunSpec:
    return tiny.spec(method, steps=1_000_000, eval_every=1_000_000, log_every=5)


def when(condition: Callable[[], object], action: Callable[..., None]) -> threading.Thread:
    """Do `action` with what the condition returns once that is true."""

    def wait() -> None:
        if found := until(condition):
            action(found)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def when_training(
    folder: Path, action: Callable[[dict[int, int]], None], one_at: str = "training step"
) -> threading.Thread:
    """Do `action` with the ranks' process numbers once all take steps in `folder`, and one is
    where `one_at` says.
    """

    def stepping() -> dict[int, int]:
        beats = heartbeat.read(folder)
        there = len(beats) == 2 and all("step" in beat.where for beat in beats)
        return (
            {beat.rank: beat.pid for beat in beats}
            if there and any(one_at in b.where for b in beats)
            else {}
        )

    return when(stepping, action)


def send(number: signal.Signals, rank: int = 1) -> Callable[[dict[int, int]], None]:
    return lambda pids: os.kill(pids[rank], number)
