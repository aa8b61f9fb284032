"""Environment of the runs: hardware, versions and process settings; of several environments, the differences by run."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import environment_of, flat, grouped
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, section_of, table
from hpml_bench.system.environment import Environment

order = 130
question = "setup"
about = "machine and versions"
REPEATABILITY = (
    "On the CPU of one machine, with the same versions, a specification run twice gives identical losses and "
    "predictions; on cuda it differs in the last digits, since some backward kernels, attention's among them, add with "
    "atomics, and NCCL's order of reduction varies."
)


def section(results: Results) -> Section | None:
    """Return the environment whose costs count, and the differences of the others."""
    environments = list(results.machines.values())
    if not environments or not any(record.environment for record in results.compared):
        return None
    sentences = [REPEATABILITY]
    if len(environments) > 1:
        sentences.append(
            f"The compared runs come from {len(environments)} environments of different hardware, versions or "
            "settings. Scores are compared all the same; times, throughput and memory are of the first alone."
        )
    shared = {
        key: value for key, value in environments[0][0].environment.items() if key not in Environment.names("ignored")
    }
    if results.hosts:
        shared["hosts"] = ", ".join(results.hosts)
    rows = [[key, value] for key, value in flat(shared)]
    where = table("environment", "Environment of the runs that costs are of", ("Item", "Value"), rows)
    others = _differences(results, environments)
    return section_of("environment", "Environment", Text(sentences=tuple(sentences)), where, others)


def _differences(results: Results, environments: list[tuple[RunRecord, ...]]) -> Table:
    """Return a row for each environment and item in which it differs from the first, with its runs."""
    first, rows = environment_of(environments[0][0]), []
    for runs in environments[1:]:
        other = environment_of(runs[0])
        keys = [key for key in dict.fromkeys([*first, *other]) if first.get(key) != other.get(key)]
        rows += [[_named(results, runs), key, first.get(key, MISSING), other.get(key, MISSING)] for key in keys]
    notes = ["All that costs are taken to depend on; where one of these differs, a run's costs enter nothing."]
    columns = ("Runs", "Item", "Of the runs that costs are of", "Of these runs")
    return table("environments", "What differs in the other environments", columns, rows, notes)


def _named(results: Results, runs: tuple[RunRecord, ...]) -> str:
    by_method = grouped(runs, lambda record: results.labels[record.run_id])
    return "; ".join(f"{method}, seed {', '.join(str(r.spec.seed) for r in own)}" for method, own in by_method.items())
