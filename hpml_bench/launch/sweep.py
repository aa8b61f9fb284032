"""Every method and seed of a suite: resumed where it stopped, seed by seed, methods in a balanced order."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hpml_bench.config.devices import resolve_devices
from hpml_bench.config.settings import RunSpec
from hpml_bench.config.suite import Suite
from hpml_bench.data.prepared import Prepared
from hpml_bench.errors import UserError
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.launch.limits import RETRIED, Limits
from hpml_bench.launch.order import methods_of_seed
from hpml_bench.launch.progress import SweepProgress
from hpml_bench.records import store
from hpml_bench.records.run import DONE, RunRecord, protocol_id
from hpml_bench.system import disk
from hpml_bench.system.signals import stoppable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left."""

    folder: Path
    records: tuple[RunRecord, ...]
    """One for each run asked for that has a record, whether made now or before."""
    interrupted: bool = False
    ended_by: str | None = None
    """Why runs were left out that were asked for, if any were: a limit, in words."""

    @property
    def failed(self) -> int:
        """How many runs did not end well."""
        return sum(record.status not in DONE for record in self.records)


def definite(suite: Suite) -> Suite:
    """Return the suite with devices, ranks, threads and precision as found on this machine."""
    return suite.model_copy(update={"settings": resolve_devices(suite.settings)})


def balanced(runs: Iterable[RunSpec], methods: Sequence[str]) -> list[RunSpec]:
    """Return the runs seed by seed, methods in another order in each: else method is confounded with the hour.

    The order depends on the seed and the suite's `methods` alone, so that a sweep that is resumed, has more seeds or
    some of the methods only goes on in the same one. Methods that the suite doesn't have come last.
    """

    def place(spec: RunSpec) -> tuple[int, int]:
        name, row = spec.method.name, methods_of_seed(len(methods), spec.seed)
        return spec.seed, row.index(methods.index(name)) if name in methods else len(methods)

    return sorted(runs, key=place)


def places(runs: Iterable[RunSpec]) -> dict[str, tuple[int, int]]:
    """Return run_id -> position in the sweep and within its seed, both from 1."""
    seen: Counter[int] = Counter()
    found = {}
    for order, spec in enumerate(runs, start=1):
        seen[spec.seed] += 1
        found[spec.run_id] = order, seen[spec.seed]
    return found


def run_sweep(
    suite: Suite,
    out: Path,
    console: Console,
    methods: Sequence[str] | None = None,
    fresh: bool = False,
    verbose: bool = False,
    wandb_mode: str = "off",
    seed: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> SweepResult:
    """Run what is missing of a suite; every finished run is kept, whatever happens to the next.

    With `seed`, that one seed only.

    Raises:
        UserError: the settings can't be met on this machine, a source can't be had, the folder is in use, or its disk
            is full or read-only.

    """
    suite = definite(suite)
    runs = balanced(suite.runs(methods, None if seed is None else [seed]), list(suite.methods))
    if not runs:
        raise UserError(f"suite {suite.name}: there is no method to run; name some under methods, or by --methods a,b")
    folder = out / suite.name
    make_folder(folder)
    with disk.told(folder), locked(folder), stoppable():
        if fresh:
            clear(folder, None if methods is None and seed is None else [spec.run_id for spec in runs])
        store.sweep_up(folder)
        store.redact_abandoned_logs(folder)
        store.write_atomically(folder / store.SUITE, suite.model_dump_json(indent=1))
        try:
            return _run_missing(runs, folder, console, verbose, wandb_mode, limits)
        except KeyboardInterrupt:  # between runs
            return SweepResult(folder, _records(runs, folder), interrupted=True)


def _run_missing(
    runs: list[RunSpec], folder: Path, console: Console, verbose: bool, wandb_mode: str, limits: Limits
) -> SweepResult:
    began, interrupted, ended_by = time.monotonic(), False, None
    with SweepProgress(console, len(runs), verbose) as progress:
        fork_server.start_fork_server()
        from hpml_bench.report.render import load_libraries

        load_libraries()  # the server imports torch meanwhile, on another core; later they would take a run's
        progress.say(f"preparing model and data of {runs[0].settings.backbone.partition('#')[0]} ...")
        prepared = preparation.prepare(runs[0].settings, limits.max_seconds)
        protocol = protocol_id(runs[0].settings, prepared.digests)
        for spec in runs:
            set_aside_if_damaged(folder / spec.run_id, progress)
            set_aside_if_other(folder / spec.run_id, protocol, progress)
        todo = [spec for spec in runs if not _settled(store.settled(folder / spec.run_id), protocol)]
        progress.skip(len(runs) - len(todo))
        position = places(runs)
        for spec in todo:
            if limits.ended(time.monotonic() - began):
                ended_by = f"--max-hours {limits.max_hours:g}"
                break
            target = folder / spec.run_id
            live = partial(_follow_with_wandb, spec, target, wandb_mode, folder)
            try:
                order, place = position[spec.run_id]
                record = run_with_retries(spec, prepared, target, limits, progress, began, live, order, place)
            except (launcher.Interrupted, KeyboardInterrupt):
                interrupted = True
                break
            progress.finished(record)
            if limits.fail_fast and record.status not in DONE:
                ended_by = None if spec is todo[-1] else "--fail-fast"
                break
    return SweepResult(folder, _records(runs, folder), interrupted, ended_by)


def _records(runs: Iterable[RunSpec], folder: Path) -> tuple[RunRecord, ...]:
    return tuple(found for spec in runs if (found := store.settled(folder / spec.run_id)))


def set_aside_if_damaged(target: Path, progress: SweepProgress) -> None:
    """Move a run whose files are damaged out of the way, and say so; it is then done again."""
    why = store.damage(target)
    if why:
        moved = store.set_aside(target)
        progress.say(f"{target.name}: {why}; it is kept as {moved.parent.name}/{moved.name}, and the run is done again")


def set_aside_if_other(target: Path, protocol: str, progress: SweepProgress) -> None:
    """Move a good run on other weights or rows than are there now out of the way, and say so: it took time."""
    record = store.settled(target)
    if record is not None and record.status in DONE and record.protocol_id != protocol:
        moved = store.set_aside(target)
        progress.say(
            f"{target.name} was made on other rows or weights than are there now; it is kept as "
            f"{moved.parent.name}/{moved.name}, and the run is done again"
        )


def run_with_retries(
    spec: RunSpec,
    prepared: Prepared,
    target: Path,
    limits: Limits,
    progress: SweepProgress,
    began: float,
    live: Callable[[], AbstractContextManager[object]] = nullcontext,
    order: int | None = None,
    place: int | None = None,
) -> RunRecord:
    """Do one run, again where it ended in a way that another attempt may mend; the last line is the caller's to print.

    `began` is the time.monotonic() of the sweep's begin, from which its hours count.

    Raises:
        Interrupted: a signal asked for the end.
        UserError: the disk is nearly full.

    """
    earlier: tuple[str, ...] = ()
    while True:
        disk.check_space(target.parent)
        with progress.run(spec, target, steps_of(spec)), live():
            record = launcher.run(spec, prepared, target, order, limits, earlier, place)
        if record.status not in RETRIED or len(earlier) >= limits.retries:
            return record
        if limits.ended(time.monotonic() - began):
            progress.say(f"{target.name}: not tried again, by --max-hours {limits.max_hours:g}")
            return record
        progress.finished(record)
        earlier += (f"{record.status}: {record.error.message if record.error else 'no reason given'}"[:500],)
        progress.again(len(earlier), limits.retries)


def _settled(record: RunRecord | None, protocol: str) -> bool:
    """Whether a run need not be tried again: it ended, and on the weights and rows that are there now."""
    return record is not None and record.status in DONE and record.protocol_id == protocol


def steps_of(spec: RunSpec) -> int | None:
    """Return the optimizer steps of a run as far as its settings alone tell."""
    settings = spec.settings
    if settings.steps or not settings.train_samples:
        return settings.steps
    return (settings.epochs or 1) * (settings.train_samples // settings.global_batch)


def _follow_with_wandb(spec: RunSpec, target: Path, mode: str, folder: Path) -> AbstractContextManager[object]:
    if mode != "online":
        return nullcontext()
    from hpml_bench.tracking.wandb import follow

    return follow(spec, target, "online", folder)


def make_folder(folder: Path) -> None:
    """Create a results folder.

    Raises:
        UserError: it can't be created or written to.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: the results folder can't be created: {error.strerror}; give another --out"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: the results folder can't be written to; give another --out")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a results folder alone; the lock goes with the process, however it ends.

    Raises:
        UserError: another process holds it; says which.

    """
    lock, holder = FileLock(folder / ".lock"), folder / ".lock-holder.json"
    if (folder / ".lock").is_symlink():
        raise UserError(f"{folder / '.lock'} is a link, and none is followed; remove it, or give another --out")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = store.read_json(holder) or {}
        raise UserError(
            f"{folder} is in use by process {who.get('pid', '?')} on {who.get('host', 'another machine')}; "
            "wait for it, or give another --out"
        ) from None
    try:
        store.write_atomically(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def clear(folder: Path, run_ids: Iterable[str] | None = None) -> None:
    """Remove these runs of a results folder, or all, and nothing else that may lie there."""
    for path in folder.glob("*/") if run_ids is None else (folder / run_id for run_id in run_ids):
        if (path / store.RECORD).exists() or (path / store.POINTS).exists() or (path / "rank0.log").exists():
            store.remove(path)
