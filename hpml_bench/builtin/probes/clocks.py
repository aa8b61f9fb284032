"""How far power and heat slowed a GPU while it trained, and its clock."""

import math
import time
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Probe, Run, Step
from hpml_bench.records.run import Metric, Point
from hpml_bench.system.gpus import SLOWDOWNS, clock_mhz, slowed_seconds

_metric = partial(
    Metric.define, over_ranks="max", phase="train", group="energy", depends_on_machine=True
)
_COUNTER = (
    "NVML's counter of violations from before the first step to after the last, over that time, "
    "validation included; the largest of the GPUs'. Empty where the driver doesn't say, and on a "
    "CPU."
)


class ClocksProbe(Probe):
    """Reads the counters before and after the training, and the clock at the end of each window:
    within a step that would be timed, and after the test rows the GPU idles.
    """

    of_training = True
    metrics = (
        _metric(
            "slowed_by_heat",
            "slowed by heat",
            "",
            "lower",
            ".1%",
            f"Share of the training in which heat lowered a GPU's clock: {_COUNTER}",
        ),
        _metric(
            "slowed_by_power",
            "slowed by power limit",
            "",
            "lower",
            ".1%",
            f"Share of the training in which the power limit lowered a GPU's clock: {_COUNTER}",
        ),
        _metric(
            "lowest_clock_mhz",
            "lowest clock",
            "MHz",
            "higher",
            ",.0f",
            "Lowest clock of the GPU's multiprocessors (NVML), read at the end of each window of "
            "steps; the mean over the GPUs.",
            over_ranks="mean",
        ),
    )

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.run.group.device.type == "cuda" else ()

    def start(self, run: Run) -> None:
        super().start(run)
        self._uuid = ""
        self._earlier = {"seconds": 0.0} | dict.fromkeys(SLOWDOWNS, 0.0)
        self._lowest = math.inf
        if run.group.device.type == "cuda":
            from hpml_bench.training.distributed import uuid

            self._uuid = uuid(run.group.device)

    def before_training(self) -> None:
        self._before = self._read()

    def after_steps(self, window: list[Step]) -> list[Point]:
        if self._uuid:
            clock = clock_mhz(self._uuid)
            self._lowest = min(self._lowest, math.inf if math.isnan(clock) else clock)
        return []

    def after_training(self) -> None:
        if not self._uuid:
            return
        spent = self._spent()
        for name in SLOWDOWNS:
            share = spent[name] / spent["seconds"]
            # the counter and our clock are read in turn
            self.values[f"slowed_by_{name}"] = 1.0 if share > 1 else share
        self.values["lowest_clock_mhz"] = self._lowest if self._lowest < math.inf else math.nan

    def state(self) -> dict[str, Any]:
        return {"spent": self._spent(), "lowest": self._lowest if self._lowest < math.inf else None}

    def load(self, state: dict[str, Any], step: int) -> None:
        self._earlier = state["spent"]
        self._before = self._read()  # reading the checkpoint is no part of the training
        self._lowest = math.inf if state["lowest"] is None else state["lowest"]

    def _spent(self) -> dict[str, float]:
        """Return the seconds of the steps that count, and those in which each cause slowed them."""
        now = self._read()
        return {name: self._earlier[name] + now[name] - self._before[name] for name in now}

    def _read(self) -> dict[str, float]:
        slowed = slowed_seconds(self._uuid) if self._uuid else dict.fromkeys(SLOWDOWNS, math.nan)
        return {"seconds": time.monotonic(), **slowed}
