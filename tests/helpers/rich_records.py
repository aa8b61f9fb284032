"""Records that have as much of a report as made ones can: jobs, failures, more ranks,
checkpointing, other settings.
"""

from pathlib import Path

from helpers import made_records
from helpers.made_records import ENVIRONMENT, SETTINGS, by_jobs, failed, record, sweep

TIMED = {
    "first_step_seconds": 0.5,
    "validation_answer_seconds": 0.1,
    "test_answer_seconds": 0.2,
    "merged_evaluation_seconds": 0.3,
    "dequantized_evaluation_seconds": 0.1,
    "converted_evaluation_seconds": 0.05,
}
"""Times of parts that the made records lack."""


def write(folder: Path) -> Path:
    methods = ("lora", "full", "head")
    usual = [
        run.model_copy(update={"metrics": run.metrics | TIMED})
        for run in by_jobs(sweep(methods, 3))
    ]
    where = {run.spec.seed: run.environment for run in usual}
    hardware = {"hardware": ENVIRONMENT["hardware"] | {"nodes": 2}, "fingerprint": "two"}  # type: ignore[operator]
    others = []
    for settings, own, environment in (
        ({"world_size": 1}, {}, {}),
        (
            {"world_size": 4},
            {
                "samples_per_second": 1200.0,
                "communication_ms": 2.0,
                "between_nodes_bytes_per_step": 8000.0,
            },
            hardware | {"node_fingerprint": ENVIRONMENT["fingerprint"]},
        ),
        ({"gradient_checkpointing": True}, {"train_seconds": 2.5, "peak_memory_mb": 300.0}, {}),
    ):
        for run in sweep(("lora",), 3, settings=SETTINGS.model_copy(update=settings)):
            speed = {"samples_per_second": (300.0, 500.0, 700.0)[run.spec.seed]}
            update = {
                "environment": where[run.spec.seed] | environment,
                "metrics": run.metrics | speed | own,
            }
            others.append(run.model_copy(update=update))
    broken = [failed("full", 7, "failed", "an error"), record("head", 8, consumed=None)]
    place = made_records.write(folder, [*usual, *others, *broken])
    made_records.write_jobs(place, usual)
    return place
