"""Live following: a thread reads points.jsonl while the run writes it, the helper process does the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from hpml_bench.builtin.trackers.wandb.content import closing, group_of, history, opening
from hpml_bench.builtin.trackers.wandb.helper import FINISH_SECONDS, Helper, HelperFailedError, end_within, tell
from hpml_bench.builtin.trackers.wandb.mode import Mode
from hpml_bench.builtin.trackers.wandb.published import PublishedEntry, PublishedRuns, identity
from hpml_bench.records.files import POINTS
from hpml_bench.records.load import read_record
from hpml_bench.records.points import Tail
from hpml_bench.records.run import Point
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.text import for_terminal

POLL_SECONDS = 0.5
INTERRUPTED_SECONDS = 2.0

_given_up: set[Path] = set()
"""Results folders whose live publishing failed once: later runs must not pay for another attempt."""


@contextmanager
def follow(
    spec: RunSpec, folder: Path, mode: Mode, directory: Path, patience: float = FINISH_SECONDS
) -> Iterator[None]:
    """Publish a run live while the body runs it in `folder` and commits its record; wandb's files go to `directory`.

    No error of wandb is raised. PublishedRuns records afterwards whether wandb has the whole run.
    """
    if mode == "off" or directory in _given_up:
        yield
        return
    try:
        helper = Helper(mode, directory, niceness=19)  # training must not wait for it
    except OSError as error:
        _give_up(directory, str(error))
        yield
        return
    name = identity(group_of(spec), spec.run_id, datetime.now(UTC).isoformat())
    follower = _Follower(helper, spec, folder, name, patience)
    seconds = INTERRUPTED_SECONDS
    try:
        follower.start()
        yield
        seconds = patience
    finally:
        why = follower.finish(seconds)
        if why is not None and seconds == patience:
            _give_up(directory, why)
        record = read_record(folder)
        if record is not None:
            with suppress(OSError):
                place = mode if why is None else ""
                PublishedRuns(directory).note({spec.run_id: PublishedEntry(name, record.started, place)})


def _give_up(directory: Path, why: str) -> None:
    _given_up.add(directory)
    tell(f"live publishing stopped, the results are not affected: {for_terminal(why, 300)}")


class _Follower(threading.Thread):
    """Thread that sends a run's points until the run is over."""

    def __init__(self, helper: Helper, spec: RunSpec, folder: Path, name: str, patience: float) -> None:
        super().__init__(name="wandb-follow", daemon=True)
        self._helper = helper
        self._folder = folder
        self._opening = opening(spec, name)
        self._patience = patience
        self._over = threading.Event()
        self._broken: str | None = None

    def run(self) -> None:
        """Send points until the run is over, then its record."""
        try:
            self._helper.send(self._opening)
            tail = Tail(self._folder / POINTS)
            over = False
            while not over:
                over = self._over.wait(POLL_SECONDS)  # before reading, so that all points written until then are read
                self._helper.send(*history(_points(tail.lines())))
            self._helper.send(closing(read_record(self._folder)), end_within(self._patience))
        except Exception as error:  # publishing must never hurt the sweep
            self._broken = str(error) or type(error).__name__

    def finish(self, seconds: float) -> str | None:
        """Send the remaining points, for `seconds` at most; return the error, if any."""
        deadline = time.monotonic() + seconds
        self._over.set()
        try:
            self.join(seconds)
            self._helper.finish(deadline - time.monotonic() if not self._broken else 0)
        except HelperFailedError as error:
            self._broken = self._broken or str(error)
        finally:
            self._helper.end()
        return self._broken


def _points(lines: list[str]) -> Iterator[Point]:
    for line in lines:
        with suppress(ValidationError):
            yield Point.model_validate_json(line)
