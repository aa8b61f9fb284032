"""Where it ran: hardware, versions and process settings; several environments are said, with what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpml_bench.records import Section, Table, Text
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, table

order = 130
MAX_ENVIRONMENTS = 4
REPEATABILITY = (
    "On the CPU of one machine the same specification, run twice, gives identical losses and predictions; on cuda it "
    "differs in the last digits, since some backward kernels add with atomics and NCCL's order of reduction varies."
)


def section(results: Results) -> Section | None:
    """Return a column an environment."""
    environments = [dict(_flat(environment)) for environment in results.machines.values() if environment]
    if not environments:
        return None
    sentences = [REPEATABILITY]
    if len(environments) > 1:
        sentences.append(
            f"The compared runs come from {len(environments)} environments of different hardware or versions. Accuracy "
            "is compared all the same; times, throughput and memory are not ranked."
        )
    blocks: list[Text | Table] = [Text(sentences=tuple(sentences))]
    shown = environments[:MAX_ENVIRONMENTS]
    keys = dict.fromkeys(key for environment in shown for key in environment)
    rows = [[key, *(environment.get(key, MISSING) for environment in shown)] for key in keys]
    columns = ["Item", *(("Value",) if len(shown) == 1 else (f"Environment {i}" for i in range(1, len(shown) + 1)))]
    blocks.append(table("environment", "Environment of the compared runs", columns, rows))
    return Section(slug="environment", title="Environment", blocks=tuple(blocks))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}".strip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{key}.{index}")
    else:
        yield key, "none" if value in (None, [], "") else str(value)
