"""Entry points of child processes, passed by name, so that the parent need not import what they import."""

from __future__ import annotations

from collections.abc import Sequence

from hpml_bench.system.child import die_with_parent


def prepare(settings_json: str, target: str) -> None:
    from hpml_bench.training import worker

    worker.prepare_to(settings_json, target)


def measure(settings_json: str, target: str) -> None:
    from hpml_bench.training import worker

    worker.measure_to(settings_json, target)


def predict(suite_json: str, methods: Sequence[str], memory: int, settings_json: str, target: str) -> None:  # noqa: ARG001 - as the others
    from hpml_bench.fit.predict import predict_to

    predict_to(suite_json, methods, memory, target)


def start(request_json: str, beats: str, launched: float) -> None:
    from hpml_bench.training import worker

    die_with_parent()  # by SIGKILL; torch's launcher asks for SIGINT, which ranks ignore
    worker.start(request_json, beats, launched)
