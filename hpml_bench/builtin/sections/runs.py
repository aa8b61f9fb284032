"""Compared runs: seed, place in the sweep, time and scores of each."""

from __future__ import annotations

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section
from hpml_bench.report.comparability import alone, hosts_of
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, cell, section_of, sentence_list, table
from hpml_bench.system.text import sanitize

order = 140
question = "setup"
about = "score, time and memory of each seed"


def section(results: Results) -> Section | None:
    """Return one row per compared run, in the order they ran; the others are listed among the failures."""
    if not results.compared:
        return None
    metrics = dict.fromkeys((results.quality, "test_loss", TIME, "samples_per_second", *MEMORY))
    quantities = [Quantity.of(results, name) for name in results.measured(*metrics)]
    beside = any(not alone(record) for record in results.compared)
    hosts = len({hosts_of(record) for record in results.compared}) > 1
    rows: list[list[Cell]] = []
    for record in sorted(results.compared, key=lambda r: (r.started, r.run_id)):
        costs = record.run_id in results.costs_shown
        rows.append(
            [
                results.labels[record.run_id],
                record.spec.seed,
                record.order,
                record.place,
                *(None if record.neighbours is None else len(record.neighbours),) * beside,
                *(", ".join(sanitize(host, 60) for host in hosts_of(record) or ()) or MISSING,) * hosts,
                cell(record.seconds if costs else None, ".1f"),
                *(
                    q.cell(record.metrics.get(q.metric.name) if costs or not q.metric.depends_on_machine else None)
                    for q in quantities
                ),
                record.run_id,
            ]
        )
    head = ("method", "Seed", "Order", "Place", *("Neighbours",) * beside, *("Hosts",) * hosts, "Wall time (s)")
    columns = (*head, *(q.header for q in quantities), "Run")
    notes = ["Order: position in the plan of the sweep; place: within the seed. Wall time includes start-up."]
    if beside:
        notes.append("Neighbours: runs of this sweep on the same host meanwhile; costs of such a run rank nothing.")
    notes += _turns(results)
    return section_of("runs", "Runs", table("runs", "All compared runs", columns, rows, notes))


def _turns(results: Results) -> list[str]:
    """Return a note on whether the methods took turns within seeds, by their recorded places."""
    if any(record.place is None for record in results.compared):
        return []
    apart = [seed for seed in results.seeds if not _in_order(results, seed)]
    places = {method: {record.place for record in results.runs(method)} for method in results.methods}
    fixed = [method for method, of in places.items() if len(of) == 1 and len(results.seeds) >= statistics.LEAST_SEEDS]
    if not apart and not fixed:
        return ["Within a seed the methods took turns: none had the same place in all seeds."]
    findings = [f"in all seeds one place had {sentence_list(fixed)}"] if fixed else []
    findings += [f"seeds {', '.join(map(str, apart))} did not run in the order of their places"] if apart else []
    return [f"What the machine did over the sweep may lie on some methods more than on others: {'; '.join(findings)}."]


def _in_order(results: Results, seed: int) -> bool:
    """Whether a seed's runs began in the order of their places, with no other seed's between them."""
    runs = sorted(results.compared, key=lambda r: (r.started, r.order or 0))
    mine = [index for index, record in enumerate(runs) if record.spec.seed == seed]
    places = [runs[index].place or 0 for index in mine]
    return places == sorted(places) and mine[-1] - mine[0] == len(mine) - 1
