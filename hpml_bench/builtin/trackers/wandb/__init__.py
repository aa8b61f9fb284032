"""Weights & Biases: each run's history in one group, and one comparison run with the report's own tables.

wandb runs in a helper process of its own (`python -m hpml_bench.builtin.trackers.wandb`). It may be slow, hang or die:
then the helper is ended, one sentence says so, and nothing else is affected. The helper gets few environment variables,
so that other keys and tokens can't reach wandb; and since each attempt has its own helper, an online one
that failed doesn't spoil the offline one after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import RunSpec

if TYPE_CHECKING:
    from hpml_bench.builtin.trackers.wandb.mode import Mode


class Wandb(Tracker):
    """Follows runs live where it is online, and publishes their history and the report's tables."""

    @classmethod
    def choose_mode(cls, asked: str) -> str:
        """Return online, offline or off; `auto` is online with a key and a route, else offline."""
        from hpml_bench.builtin.trackers.wandb.mode import choose_mode

        return choose_mode(asked)

    @classmethod
    def obstacle(cls) -> str | None:
        """Return that the key or the route is missing."""
        from hpml_bench.builtin.trackers.wandb.mode import obstacle

        return obstacle()

    def follow(self, spec: RunSpec, folder: Path, results_folder: Path) -> AbstractContextManager[object]:
        """Publish the run's points as they are written."""
        if self.mode != "online":
            return nullcontext()
        from hpml_bench.builtin.trackers.wandb.follow import follow

        return follow(spec, folder, "online", results_folder)

    def publish(self, folder: Path, records: Sequence[RunRecord], tables: Callable[[], Sequence[Table]]) -> str | None:
        """Publish the runs that wandb doesn't have yet, and their comparison."""
        from hpml_bench.builtin.trackers.wandb.publish import publish

        return publish(records, tables, cast("Mode", self.mode), folder)
