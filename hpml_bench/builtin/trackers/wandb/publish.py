"""Publishing after a sweep: each run's history and final metrics, and one comparison run with the report's tables."""

from __future__ import annotations

import shlex
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from hpml_bench.builtin.trackers.wandb import content
from hpml_bench.builtin.trackers.wandb.helper import Helper, HelperFailedError, end_within, tell
from hpml_bench.builtin.trackers.wandb.mode import Mode, server_host
from hpml_bench.builtin.trackers.wandb.published import PublishedEntry, PublishedRuns, identity
from hpml_bench.plugins.blocks import Table
from hpml_bench.records.points import iterate_points
from hpml_bench.records.run import RunRecord
from hpml_bench.system.hashing import digest
from hpml_bench.system.text import for_terminal

PUBLISH_SECONDS = 120.0
"""Seconds that publishing a whole sweep may take."""


def publish(
    records: Sequence[RunRecord],
    tables: Callable[[], Sequence[Table]],
    mode: Mode,
    directory: Path,
    patience: float = PUBLISH_SECONDS,
) -> str | None:
    """Publish the runs of `directory` that wandb doesn't have yet, oldest first, and their comparison.

    If online fails, they are kept offline, in `directory`/wandb. Nothing is raised; returns a sentence on where they
    are, or None if nothing was published.
    """
    if mode == "off" or not records:
        return None
    places: tuple[Mode, ...] = ("online", "offline") if mode == "online" else ("offline",)
    for place in places:
        try:
            published = PublishedRuns(directory)
            seconds = patience if place == mode else PUBLISH_SECONDS  # a disk isn't slow because a server is
            _publish(records, tables, place, directory, published, seconds)
        except (OSError, HelperFailedError) as error:
            instead = "; they are kept offline instead" if place != places[-1] else ""
            why = for_terminal(error, 300)
            tell(f"publishing {place} failed, the results are not affected: {why}{instead}")
            continue
        return _sentence(records, place, directory, published)
    return None


def _sentence(records: Sequence[RunRecord], place: Mode, directory: Path, published: PublishedRuns) -> str:
    if place == "online":
        group = content.group_of(records[-1].spec)
        return f"{_runs(len(records))} and the comparison are in wandb's group {group} at {server_host()}"
    kept = sum(published.entries[record.run_id].place == "offline" for record in records)
    upload = f"wandb sync {shlex.quote(str(directory / 'wandb'))}/offline-run-*"
    what = f"{_runs(kept)} and the comparison are" if kept else "the comparison is"
    return f"{what} kept offline for wandb; upload with `{upload}`"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _publish(
    records: Sequence[RunRecord],
    tables: Callable[[], Sequence[Table]],
    place: Mode,
    directory: Path,
    published: PublishedRuns,
    patience: float,
) -> None:
    new = [record for record in records if not published.has(record.run_id, record.started, place)]
    entries = {record.run_id: PublishedEntry(published.identity(record), record.started, place) for record in new}
    state = digest([version("hpml-bench"), *((record.run_id, record.started) for record in records)])
    group = content.group_of(records[-1].spec)
    name = f"comparison {group}"
    compared = published.has(name, state, place)
    if not compared:
        before = published.entries.get(name)
        entries[name] = PublishedEntry(before.id if before else identity(name, records[-1].started), state, place)
    if not entries:
        return
    replaced = [path for entry in entries.values() for path in (directory / "wandb").glob(f"offline-run-*-{entry.id}")]
    deadline = time.monotonic() + patience
    helper = Helper(place, directory)
    late = threading.Timer(patience, helper.end)  # frees whoever waits for the helper, here or in the pipe
    late.daemon = True
    late.start()
    try:
        for record in new:
            points = sorted(iterate_points(directory / record.run_id), key=lambda point: point.step)
            opening = content.opening(record.spec, entries[record.run_id].id)
            helper.send(opening, *content.history(points), content.closing(record))
        if not compared:
            helper.send(*content.comparison(records[-1].spec, entries[name].id, tables()))
        helper.send(end_within(patience))
        helper.finish(deadline - time.monotonic())
    except HelperFailedError as error:
        if time.monotonic() >= deadline:
            raise HelperFailedError(f"it took longer than {patience:g} s") from error
        raise
    finally:
        late.cancel()
        helper.end()
    for path in replaced:
        shutil.rmtree(path, ignore_errors=True)
    published.note(entries)
