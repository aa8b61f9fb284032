"""All checks, in the order in which they are shown."""

from __future__ import annotations

from hpml_bench.doctor import devices, folders, machine, packages, services

CHECKS = (
    packages.python, packages.dependencies, packages.extras, packages.quickstart, devices.torch,
    machine.processor, devices.gpus, devices.precision, machine.memory, folders.shared_memory, machine.limits,
    folders.results_folder, folders.temporary_folder, folders.cache, folders.hub_cache, folders.datasets_cache,
    services.loopback, services.hub, services.package_index, services.trackers, services.engines, machine.clock,
)  # fmt: skip
