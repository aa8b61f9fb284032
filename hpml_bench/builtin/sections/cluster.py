"""Jobs and hosts: host of each run, costs by hardware and with neighbours, and the jobs in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpml_bench import statistics
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import alone, grouped
from hpml_bench.report.curves import LARGEST
from hpml_bench.report.jobs import where
from hpml_bench.report.results import MEMORY, TIME, Results
from hpml_bench.report.tables import MISSING, Cell, Quantity, section_of, sentence_list, table
from hpml_bench.system.text import sanitize

order = 128
question = "setup"
about = "where each run ran, and when"


def section(results: Results) -> Section | None:
    """Return the runs' hosts, costs and jobs; None if no job did any."""
    if results.times is None and not any(where(record) for record in results.compared):
        return None
    said = Text(sentences=tuple(_sentences(results)))
    return section_of("jobs", "Jobs and hosts", said, _chart(results), _costs(results), _places(results))


def _sentences(results: Results) -> Iterator[str]:
    places = [place for record in results.compared if (place := where(record)) is not None]
    if places:
        hosts = len({host for place in places for host in place.hosts})
        engines = sentence_list(sorted({place.engine for place in places}))
        jobs = len({place.start for place in places})
        done_by = f"{jobs} job{'s' * (jobs != 1)} of {engines} on {hosts} host{'s' * (hosts != 1)}"
        yield f"{len(places)} compared runs were done by {done_by}."
    if results.beside:
        yield (
            f"{len(results.beside)} of {len(results.compared)} compared runs had neighbours: others of this sweep were "
            "on their host. Neighbours slow each other by an unknown amount, so that scores are compared all the same, "
            "and costs rank nothing."
        )
    if results.times is not None:
        from hpml_bench.report.pictures.jobs import in_words

        yield f"{in_words(results.times)}. Idle is start-up, preparation and attempts that are not kept."


def _chart(results: Results) -> Picture | None:
    if results.times is None:
        return None
    from hpml_bench.report.pictures.jobs import gantt

    return gantt(results, results.times)


def _costs(results: Results) -> Table | None:
    """Return the costs of every hardware, of runs alone and of those with neighbours; None with a single group."""
    ordered = sorted(results.compared, key=lambda record: record.run_id not in results.selection.costed)
    groups = grouped(ordered, lambda record: (str(record.environment.get("fingerprint")), alone(record)))
    quantities = [Quantity.of(results, name) for name in results.measured(TIME, "samples_per_second", *MEMORY)]
    if len(groups) < 2 or not quantities:
        return None
    rows: list[list[Cell]] = []
    for (fingerprint, quiet), records in groups.items():
        title = f"{hardware(records[0])} ({sanitize(fingerprint, 12)})"
        for method in results.methods:
            own = [record for record in records if results.labels[record.run_id] == method]
            cells = [_spread(quantity, own) for quantity in quantities]
            rows += [[title, "none" if quiet else "some", method, len(own), *cells]] if own else []
    notes = ["Mean ± standard deviation over the runs of a row; nothing is compared between rows of different groups."]
    columns = ("Hardware", "Neighbours", "method", "Runs", *(quantity.header for quantity in quantities))
    return table("costs_by_hardware", "Costs by hardware and neighbours", columns, rows, notes)


def _spread(quantity: Quantity, records: Sequence[RunRecord]) -> Cell:
    found = [record.metrics.get(quantity.metric.name) for record in records]
    values = [value for value in found if value is not None and abs(value) < LARGEST]
    return quantity.spread(statistics.mean_interval(values) if values else None)


def hardware(record: RunRecord) -> str:
    """Return a run's hardware in a few words: its GPUs, else its processor."""
    said = record.environment.get("hardware")
    parts = said if isinstance(said, dict) else {}
    cards = parts.get("gpus")
    names = [str(card.get("name")) for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    words = f"{len(names)} x {names[0]}" if names else f"{parts.get('cpu', 'unknown')}, {parts.get('cores', '?')} cores"
    nodes = parts.get("nodes")
    return sanitize(f"{nodes} nodes, {words}" if isinstance(nodes, int) and nodes > 1 else words, 60)


def _places(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for record in sorted(results.compared, key=lambda record: (record.started, record.run_id)):
        beside = None if record.neighbours is None else len(record.neighbours)
        if place := where(record):
            label, seed = results.labels[record.run_id], record.spec.seed
            rows.append(
                [label, seed, ", ".join(place.hosts) or MISSING, place.engine, place.job, place.restart, beside]
            )
    columns = ("method", "Seed", "Hosts", "Engine", "Job", "Restart", "Neighbours")
    notes = ["Restart: how often the engine had begun the job anew. Neighbours: other runs of this sweep on the host."]
    return table("places", "Where the compared runs ran", columns, rows, notes)
