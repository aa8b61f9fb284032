"""Watchdog of a run or a preparation, in its parent: limits, requests to end, peak memory,
processes left behind.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from hpml_bench.records.files import OUTCOME, POINTS
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunError, Status
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.files import open_plain
from hpml_bench.system.heartbeat import Beat
from hpml_bench.system.signals import Stop

POLL_SECONDS = 0.2
POLLS_PER_SCAN = (
    5  # polls from one scan of the processes to the next: each scan takes CPU time from the ranks
)
# the most seconds that count between two polls: a suspended machine must not look like a hang
LONGEST_POLL = 1.0
STACK_SECONDS = 2.0
KILL_SECONDS = 0.05
INTERRUPTED = "ended on request (Ctrl-C, SIGTERM or SIGHUP) before it was done"
SAVE_SECONDS = (
    20.0  # seconds within which a run that is asked to end may save its state, at a window's end
)
GRACE_SECONDS = (
    3.0  # seconds after which a fork server that hasn't reported the end of its children is ended
)


class Watchdog:
    """Watches a run while its body runs: ends its processes when a limit is reached, and those
    left at the end.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        stop: Stop,
        beats: Path | None = None,
        late: Callable[[], object] = lambda: None,
        stuck: Callable[[set[psutil.Process]], bool] = lambda _: True,
    ) -> None:
        """`beats`: the folder of heartbeats if it is another; `late`: called at a limit, before any
        rank is touched.

        `stuck`: whether these processes make no progress while no heartbeat is new; ranks don't.
        """
        self.verdict: tuple[Status, RunError] | None = (
            None  # status and error of the run where the watchdog ended it
        )
        self.peak_mb: dict[int, float] = {}  # rank -> highest memory observed
        self._folder, self._limits, self._stop = folder, limits, stop
        self._beats, self._late, self._stuck = beats or folder, late, stuck
        self._over = threading.Event()
        self._seen: set[psutil.Process] = set()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._resources = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self._resources.enter_context(processes.subreaper())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources:
            self._over.set()
            self._thread.join()
            processes.terminate(self._seen | processes.descendants())
            processes.terminate(processes.adopted(self._seen))
            _end_stopped_server()
            if (
                self._stop.requested and self.verdict is None and not self._done()
            ):  # a rank may get the signal first
                self.verdict = "interrupted", RunError(kind="Interrupted", message=INTERRUPTED)
            heartbeat.remove(self._beats)

    def _watch(self) -> None:
        last, watched, idle = time.monotonic(), 0.0, 0.0
        counts: tuple[int, ...] = ()
        polls, gone = 0, 0.0
        while not self._over.wait(POLL_SECONDS):
            now = time.monotonic()
            passed, last = min(now - last, LONGEST_POLL), now
            beats = heartbeat.read(self._beats)
            for beat in beats:  # at each poll: it can't be read once a rank is killed
                if peak := processes.memory_mb(beat.pid, "VmHWM"):
                    self.peak_mb[beat.rank] = peak
            if polls % POLLS_PER_SCAN == 0 or len(beats) != len(counts):
                self._seen |= processes.descendants()
                ended = self._seen and not any(map(processes.alive, self._seen))
                gone = gone + POLLS_PER_SCAN * POLL_SECONDS if ended else 0.0
                if gone > GRACE_SECONDS:
                    _end_stopped_server()
            polls += 1
            before, counts = counts, tuple(beat.count for beat in beats)
            watched, idle = (
                watched + passed,
                idle + passed if counts == before and self._stuck(self._seen) else 0.0,
            )
            if verdict := self._judge(watched, idle):
                self._end(*verdict, beats)
                return

    def _judge(self, watched: float, idle: float) -> tuple[Status, str, str] | None:
        stall, most = self._limits.stall, self._limits.run_timeout
        if self._stop.requested:
            return "interrupted", "Interrupted", INTERRUPTED
        if most and watched > most:
            return "timeout", "RunTimeout", f"not done after {most:g} s (--run-timeout)"
        if stall and idle > stall:
            return "timeout", "Stall", f"no progress for {stall:g} s (--stall)"
        return None

    def _end(self, status: Status, kind: str, words: str, beats: tuple[Beat, ...]) -> None:
        if not self._done():  # else the run is done and only its exit hangs
            stopped = {beat.rank for beat in beats if processes.stopped(beat.pid)}
            self.verdict = status, RunError(kind=kind, message=words)
            # a request to end waits for a state where the run has lasted longer, or is saved after
            # some steps
            long = (
                time.monotonic() - self._began > SAVE_SECONDS
                or self._limits.checkpoint_steps is not None
            )
            if status == "timeout":
                self._late()
                places = [
                    f"rank {b.rank} at {b.where}{' (stopped)' if b.rank in stopped else ''}"
                    for b in beats
                ]
                words, stacks = (
                    f"{words}: {', '.join(places) or 'no rank had begun'}",
                    self._stacks(beats) or None,
                )
                error = RunError(
                    kind=kind, message=words, rank=min(stopped, default=None), traceback=stacks
                )
                self.verdict = status, error
            elif self._limits.checkpoints and long and _size(self._folder / POINTS) > 0:
                self._signal(beats, heartbeat.SAVE_SIGNAL)
                self._over.wait(SAVE_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while not self._over.wait(KILL_SECONDS):
            self._seen |= processes.descendants()
            processes.kill(self._seen)
            if time.monotonic() > deadline:
                processes.end_fork_server()
                deadline += GRACE_SECONDS

    def _done(self) -> bool:
        return (self._folder / OUTCOME).exists()

    def _ours(self, beats: tuple[Beat, ...]) -> tuple[Beat, ...]:
        ours = {process.pid for process in self._seen if processes.alive(process)}
        return tuple(beat for beat in beats if beat.pid in ours)

    def _signal(self, beats: tuple[Beat, ...], number: signal.Signals) -> None:
        for beat in self._ours(beats):
            with suppress(ProcessLookupError):
                os.kill(beat.pid, number)

    def _stacks(self, beats: tuple[Beat, ...]) -> str:
        """Return the ranks' Python stacks, which they write to their logs; stopped ranks are
        continued for that.
        """
        beats = self._ours(beats)
        logs = [self._folder / f"rank{beat.rank}.log" for beat in beats]
        begun = [_size(log) for log in logs]
        for number in (heartbeat.STACK_SIGNAL, signal.SIGCONT):
            self._signal(beats, number)
        deadline = time.monotonic() + STACK_SECONDS
        while time.monotonic() < deadline and any(
            _size(log) == size for log, size in zip(logs, begun, strict=True)
        ):
            time.sleep(KILL_SECONDS)
        time.sleep(POLL_SECONDS)  # the last may still write
        stacks = []
        for beat, log, size in zip(beats, logs, begun, strict=True):
            with suppress(OSError), open_plain(log) as file:
                file.seek(size)
                text = file.read(20_000).decode(errors="replace").strip()
                stacks.append(f"rank {beat.rank}, {beat.where}:\n{text or 'gave no answer'}")
        return "\n\n".join(stacks)


def _end_stopped_server() -> None:
    """End a server that a signal has stopped: who waits for its forks would wait for ever."""
    if processes.stopped(processes.fork_server() or 0):
        processes.end_fork_server()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
