"""Trackers: the base class of services that runs are published to, while they run and
afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, cast

from hpml_bench.plugins.blocks import Table
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError


class Tracker:
    """A service that runs are published to; every hook does nothing unless it is overridden.

    In the order of a sweep:

        choose_mode(asked) -> mode                  before anything runs; OFF leaves the tracker out
        follow(spec, folder, results_folder)        around each run
        publish(folder, records, tables, page)      after the report is written, and by `report`

    Nothing a service does may hurt the runs: `follow` and `publish` raise nothing and take a
    bounded time. Keys, folders and facts about the machine are not sent. The service's library is
    imported inside functions.
    """

    plugin_kind: ClassVar[str] = "trackers"
    OFF: ClassVar[str] = "off"
    """The mode of a tracker that isn't used."""
    services: ClassVar[tuple[str, ...]] = ()
    """Services that have no tracker of their own: `--track SERVICE` uses this one with the
    service as its mode.
    """

    def __init__(self, mode: str) -> None:
        """Keep the mode, as `choose_mode` returned it."""
        self.mode = mode

    @classmethod
    def choose_mode(cls, asked: str) -> str:
        """Return the mode in which to publish, from `--track NAME=MODE`; `on` where no mode is
        given.

        Raises UserError: `asked` is no mode of this tracker, or isn't available here.
        """
        return asked

    @classmethod
    def obstacle(cls) -> str | None:
        """Return why nothing can be sent from here, such as a missing key, and what to do; None:
        nothing is known.
        """
        return None

    def follow(
        self, spec: RunSpec, folder: Path, results_folder: Path
    ) -> AbstractContextManager[object]:
        """Return a context in which a run writes to `folder` and commits its record; publish it
        live meanwhile.
        """
        return nullcontext()

    def publish(
        self,
        folder: Path,
        records: Sequence[RunRecord],
        tables: Callable[[], Sequence[Table]],
        page: Path | None,
    ) -> str | None:
        """Publish what the service lacks of a results folder; return a sentence that says where, if
        any.

        `records` are those of all its runs; `tables` makes the tables of the report, which takes
        seconds; `page` is the report as an HTML file, None where it was not written.
        """
        return None


def make_trackers(modes: Mapping[str, str]) -> tuple[Tracker, ...]:
    """Return the trackers that are on, given the mode of each by name; those that are off are not
    imported.

    Raises UserError: there is no such tracker, or it can't be used as asked.
    """
    trackers, known = [], registry.names("trackers")
    for name, wanted in modes.items():
        if wanted == Tracker.OFF:
            continue
        kinds = (
            cast(type[Tracker], registry.plugin("trackers", of))
            for of in ([name] if name in known else known)
        )
        kind = next((kind for kind in kinds if name in known or name in kind.services), None)
        if kind is None:
            services = [
                service for of in known for service in registry.plugin("trackers", of).services
            ]
            raise UserError(
                f"there is no tracker '{name}'; there are {', '.join(sorted({*services, *known}))}"
            )
        if name not in known and wanted != "on":
            raise UserError(f"--track {name}={wanted}: {name} has no modes; write --track {name}")
        mode = kind.choose_mode(wanted if name in known else name)
        if mode != Tracker.OFF:
            trackers.append(kind(mode))
    return tuple(trackers)
