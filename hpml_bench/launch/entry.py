"""Where child processes begin. The parent hands these over by name, so that it need not import what they import."""

from __future__ import annotations

from hpml_bench.system.parent_death import die_with_parent


def prepare(settings_json: str, target: str) -> None:
    """Begin `worker.prepare_to`."""
    from hpml_bench.training import worker

    worker.prepare_to(settings_json, target)


def start(spec_json: str, prepared_json: str, folder: str, launched: float) -> None:
    """Begin `worker.start` in a rank."""
    from hpml_bench.training import worker

    die_with_parent()  # torch's launcher has asked for SIGINT in its place, which ranks don't heed
    worker.start(spec_json, prepared_json, folder, launched)
