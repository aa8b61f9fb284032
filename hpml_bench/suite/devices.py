"""Devices: settings with device, ranks, threads and precision resolved for this machine."""

import logging
from functools import cache
from typing import Any

from hpml_bench.suite.registry import validated
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment, gpus
from hpml_bench.system.errors import UserError

BY_NODE = (
    "device",
    "world_size",
    "threads",
    "precision",
)  # settings that a node decides where they are None or `auto`


@cache
def _warn_once(sentence: str) -> None:
    logging.getLogger(__name__).warning(sentence)


def decided_as(requested: Settings, found: Settings) -> Settings:
    """Return settings with those that they leave to a machine taken from `found`."""
    left_open = [name for name in BY_NODE if getattr(requested, name) in {None, "auto"}]
    left_open += ["micro_batch"] if requested.micro_batch == "auto" else []
    return requested.model_copy(update={name: getattr(found, name) for name in left_open})


def resolve_suite(suite: Suite) -> Suite:
    return suite.model_copy(update={"settings": resolve_devices(suite.settings)})


def default_ranks(device: str | None = None) -> int:
    """Return the ranks of a suite that names none: one per visible GPU, or two on a CPU that has
    as many cores.
    """
    cards = len(gpus.visible_gpus())
    return cards if cards and device != "cpu" else min(2, environment.cores())


def default_threads(ranks: int) -> int:
    """Return the threads of each of this machine's ranks, where a suite names none: its share of
    the cores.
    """
    return max(1, environment.cores() // ranks)


def resolve_devices(settings: Settings, here: int | None = None) -> Settings:
    """Return the settings with device, world size, threads and precision resolved for this machine.

    `here` is the number of ranks on this machine; None: all of them. Raises UserError if a GPU was
    requested and there is none, or fewer than ranks.
    """
    cards = len(gpus.visible_gpus())
    device = settings.device if settings.device != "auto" else ("cuda" if cards else "cpu")
    if device == "cuda" and not cards:
        other = f"; {unused}" if (unused := gpus.unused_accelerator()) else ""
        raise UserError(
            f"settings.device is cuda, but no GPU is visible (driver, CUDA_VISIBLE_DEVICES); use "
            f"--device cpu{other}"
        )
    if settings.device == "auto" and not cards and (unused := gpus.unused_accelerator()):
        _warn_once(unused)
    world = settings.world_size or default_ranks(device)
    here = here or world
    if device == "cuda" and here > cards:
        ranks = (
            f"settings.world_size is {world}"
            if here == world
            else f"{here} of {world} ranks are on this machine"
        )
        raise UserError(f"{ranks}, but {cards} GPU(s) are visible; use --nproc {cards}")
    threads = settings.threads or default_threads(here)
    precision = _precision(settings, device)
    resolved: dict[str, Any] = {
        "device": device,
        "world_size": world,
        "threads": threads,
        "precision": precision,
    }
    if settings.micro_batch == "auto" and device == "cpu":
        resolved["micro_batch"] = None
    return with_decided(settings, resolved)


def with_decided(settings: Settings, decided: dict[str, Any]) -> Settings:
    """Return settings with what was left open decided; a UserError where it doesn't go with the
    others.
    """
    return validated(Settings, {**settings.model_dump(), **decided}, "settings:")


def measures_precision(settings: Settings, device: str) -> bool:
    """Return whether a suite's precision is that of the faster products: `auto` on a CPU that
    has bf16 too.
    """
    # A CPU's flags say which instructions it has, not which are faster.
    left_open = settings.precision == "auto" and settings.needed_precision is None
    return left_open and device == "cpu" and environment.has_bf16("cpu")


def _precision(settings: Settings, device: str) -> str:
    chosen, old = str(settings.precision), device == "cuda" and not environment.has_bf16(device)
    if chosen == "auto":  # on a CPU sweep.resolve measures it
        chosen = settings.needed_precision or ("bf16" if device == "cuda" and not old else "fp32")
    if (chosen == "tf32" and device == "cpu") or (chosen in {"tf32", "bf16"} and old):
        raise UserError(
            f"settings.precision is {chosen}, which GPUs have from compute capability 8.0 on; use "
            "fp32, or fp16 on a GPU"
        )
    return chosen
