"""Weights & Biases, online or offline, in a child process of its own (hpml_bench.tracking.wandb)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hpml_bench.config.settings import RunSpec
from hpml_bench.plugins.tracker import Tracker

if TYPE_CHECKING:
    from hpml_bench.report.results import Results
    from hpml_bench.tracking.wandb import Mode


class Wandb(Tracker):
    """Follows runs live where it is online, and publishes their history and the report's tables."""

    @classmethod
    def choose_mode(cls, asked: str) -> str:
        """Return online, offline or off; `auto` is online with a key and a route, else offline."""
        from hpml_bench.tracking.wandb import choose_mode

        return choose_mode(asked)

    def follow(self, spec: RunSpec, folder: Path, results_folder: Path) -> AbstractContextManager[object]:
        """Publish the run's points as they are written."""
        if self.mode != "online":
            return nullcontext()
        from hpml_bench.tracking.wandb import follow

        return follow(spec, folder, "online", results_folder)

    def publish(self, results: Results) -> str | None:
        """Publish what wandb doesn't have yet: runs, and their comparison."""
        from hpml_bench.tracking.wandb import publish_results

        return publish_results(results, cast("Mode", self.mode))
