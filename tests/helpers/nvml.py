"""Stand-in for NVIDIA's driver: cards, MIG instances, and calls of NVML that fail."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pynvml
import pytest

from hpml_bench.system import gpus


class Card(SimpleNamespace):
    """A card or an instance; what is None the driver doesn't say, and what `forbidden` says it
    won't open it.
    """

    uuid: str
    turns: Counter[tuple[str, int | None]]
    used: float | None = 3e9
    total: float | None = 80e9
    joules: float | None = 100.0
    watts: float | None = 700.0
    instances: tuple["Card", ...] | None = None
    forbidden = False
    capability: tuple[int, int] | None = (9, 0)
    clocks: tuple[int, ...] = (1200,)
    """The clock at each reading in turn, then the last."""
    slowed: Mapping[int, tuple[float, ...] | None] = MappingProxyType({})
    """Policy -> the counter's seconds at each reading in turn, then the last; None: no counter."""
    processes: tuple[tuple[int, int | None], ...] = ((1, None), (2, None))
    """Number and bytes of each process that computes there."""


def card(uuid: str, **values: Any) -> Card:
    return Card(uuid=uuid, turns=Counter(), **values)


def in_turn(card: Card, name: str, key: int | None = None) -> Any:
    """Return the next of a card's answers, or the last one again."""
    given = getattr(card, name) if key is None else getattr(card, name).get(key, (0.0,))
    if given is None:
        return None
    turn = card.turns[name, key]
    card.turns[name, key] += 1
    return given[min(turn, len(given) - 1)]


def violation(card: Card, policy: int) -> Any:
    seconds = in_turn(card, "slowed", policy)
    return None if seconds is None else SimpleNamespace(violationTime=int(seconds * 1e9))


ANSWERS: dict[str, Callable[[Card], Any]] = {
    "nvmlDeviceGetClockInfo": lambda card: in_turn(card, "clocks"),
    "nvmlDeviceGetMaxClockInfo": lambda _: 1980,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: (
        1 | 4
    ),  # it is idle, and its power is at the limit
    "nvmlDeviceGetEccMode": lambda _: None,
    "nvmlDeviceGetComputeRunningProcesses": lambda card: [
        SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in card.processes
    ],
    "nvmlDeviceGetMigMode": lambda card: (
        None if card.instances is None else [1, 1]
    ),  # now, and later
    "nvmlDeviceGetMaxMigDeviceCount": lambda _: 7,  # as A100 and H100 have
    "nvmlDeviceGetName": lambda card: f"card {card.uuid}",
    "nvmlDeviceGetUUID": lambda card: card.uuid,
    "nvmlDeviceGetCudaComputeCapability": lambda card: card.capability,
    "nvmlDeviceGetMemoryInfo": lambda card: (
        card.total
        and SimpleNamespace(total=card.total, used=card.used, free=card.total - card.used)
    ),
    "nvmlDeviceGetEnforcedPowerLimit": lambda card: card.watts and int(1000 * card.watts),
    "nvmlDeviceGetTotalEnergyConsumption": lambda card: card.joules and int(1000 * card.joules),
}
"""What the driver says of a card; None: that it isn't supported."""


class Nvml:
    """A driver with some cards, of which any call may fail as NVML's do."""

    def __init__(self, *cards: Card) -> None:
        self.cards, self.broken = cards, False

    def calls(self) -> dict[str, Callable[..., Any]]:
        every = [*self.cards, *(part for whole in self.cards for part in whole.instances or ())]
        by_uuid, by_index = {each.uuid: each for each in every}, dict(enumerate(self.cards))
        found: dict[str, Callable[..., Any]] = {
            name: lambda card, *_, of=of: of(card) for name, of in ANSWERS.items()
        }
        found |= {
            "nvmlDeviceGetViolationStatus": violation,
            "nvmlInit": lambda: "begun",
            "nvmlShutdown": lambda: "ended",
            "nvmlSystemGetDriverVersion": lambda: "580.95",
            "nvmlDeviceGetCount": lambda: len(self.cards),  # forbidden ones too
            "nvmlDeviceGetHandleByIndex": lambda index: (
                None if by_index[index].forbidden else by_index[index]
            ),
            "nvmlDeviceGetHandleByUUID": by_uuid.get,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda card, at: dict(
                enumerate(card.instances or ())
            ).get(at),
        }
        return {name: partial(self._answer, name, call) for name, call in found.items()}

    def _answer(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        told = call(*arguments)
        if told is None or (self.broken and name != "nvmlInit"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return told


Machine = Callable[..., Nvml]


def installing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Yield a function that makes a machine with these cards; then there are none."""

    def make(*cards: Card, visible: str | None = None) -> Nvml:
        driver = Nvml(*cards)
        for name, call in driver.calls().items():
            monkeypatch.setattr(pynvml, name, call)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        gpus.shut_down()
        gpus.visible_gpus.cache_clear()
        return driver

    yield make
    gpus.shut_down()
    gpus.visible_gpus.cache_clear()
