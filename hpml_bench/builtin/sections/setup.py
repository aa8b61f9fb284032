"""Set-up: methods, protocol, jobs and hosts, environment, and every compared run."""

from collections.abc import Iterator

from hpml_bench import statistics
from hpml_bench.judge.judged import LARGEST, MEMORY, TIME
from hpml_bench.judge.results import Results
from hpml_bench.page.pictures.charts import gantt, in_words
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.plugins.picture import Picture
from hpml_bench.records.numbers import MISSING, Cell, cell, fact, number, option_list, sentence_list
from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import alone, environment_of, flat, grouped, hosts_of
from hpml_bench.select.timeline import where
from hpml_bench.suite.settings import Settings
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import count_of, sanitize

order = 110
REPEATABILITY = (
    "On the CPU of one machine, with the same versions, a specification run twice gives identical "
    "losses and predictions; on cuda it differs in the last digits, since some backward kernels, "
    "attention's among them, add with atomics, and NCCL's order of reduction varies."
)


def sections(results: Results) -> Iterator[Section | None]:
    yield section_of(
        "methods", "Methods", _methods(results), about="options and learning rates", folded=False
    )
    about = "settings, digests, what was consumed, self-checks"
    yield section_of("protocol", "Protocol", *_protocol(results), about=about)
    if results.times is not None or any(where(record) for record in results.compared):
        yield section_of(
            "jobs", "Jobs and hosts", *_jobs(results), about="where each run ran, and when"
        )
    yield section_of(
        "environment", "Environment", *_environment(results), about="machine and versions"
    )
    runs = _runs(results) if results.compared else None
    yield section_of("runs", "Runs", runs, about="score, time and memory of each seed")


def _methods(results: Results) -> Table:
    runs = [(label, results.runs(label)[0].spec) for label in results.methods]
    own = any(spec.method.optimizer is not None for _, spec in runs)
    rows: list[list[Cell]] = []
    for label, spec in runs:
        method, optimizer = spec.method, spec.method.optimizer or spec.settings.optimizer
        used = ", ".join(part for part in (optimizer.name, option_list(optimizer.options)) if part)
        rate: Cell = (f"{method.lr:g}", method.lr)
        rows.append(
            [
                label,
                method.method,
                rate,
                *([used] if own else []),
                option_list(method.options) or "none",
            ]
        )
    columns = ("method", "Kind", "Learning rate", *(("Optimizer",) if own else ()), "Options")
    return table(
        "methods",
        "What differs between the methods; every other setting is the same",
        columns,
        rows,
    )


# Protocol


def _protocol(results: Results) -> Iterator[Text | Table | None]:
    name = results.reference.protocol_id or "not known: no run came far enough"
    agrees = (
        f"Protocol {name}: runs are compared only where it agrees, and where they consumed the "
        f"same within a seed."
    )
    yield Text(
        sentences=(agrees, *(fact(key, value) for key, value in results.reference.notes.items()))
    )
    meaning = {name: field.description or "" for name, field in Settings.model_fields.items()}
    settings, digests = (
        results.reference.spec.settings.model_dump(mode="json"),
        results.reference.digests,
    )
    if any(record.spec.method.optimizer is not None for record in results.compared):
        del settings["optimizer"]  # it is listed with the differences between methods
    rows = [
        [key, value, meaning.get(key.split(".")[0], "").replace("`", "")]
        for key, value in flat(settings)
    ]
    yield table(
        "settings", "Settings, identical for every method", ("Setting", "Value", "Meaning"), rows
    )
    parts = [
        [key, value]
        for key, value in (digests.model_dump() if digests else {}).items()
        if value is not None
    ]
    yield table("digests", "What the runs started from (SHA-256)", ("Part", "Digest"), parts)
    yield _consumption(results)
    examples = {check.name: check.detail for record in results.compared for check in record.checks}
    if not examples:
        return
    shares = []  # how many of a method's compared runs made and passed each check
    for method in results.methods:
        passed = grouped(
            (check for run in results.runs(method) for check in run.checks),
            lambda check: check.name,
        )
        counts = ([check.passed for check in passed.get(name, ())] for name in examples)
        shares.append(
            [method, *(f"{sum(made)} of {len(made)}" if made else MISSING for made in counts)]
        )
    notes = [
        (
            "Runs that passed, of those compared that made the check. A run that failed one is "
            "set apart."
        )
    ]
    notes += [f"{name}, for example: {detail}." for name, detail in examples.items()]
    yield table(
        "checks", "Arithmetic self-checks of the runs", ("method", *examples), shares, notes
    )


def _consumption(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for method in results.methods:
        used = [record.consumed for record in results.runs(method) if record.consumed]
        cells: list[Cell] = [method]
        for field in ("steps", "samples", "real_tokens", "padded_tokens"):
            low, high = (end(getattr(one, field) for one in used) for end in (min, max))
            cells.append(
                cell(low, "d") if low == high else f"{number(low, 'd')}–{number(high, 'd')}"
            )
        rows.append([*cells, " ".join(dict.fromkeys(one.order[:6] for one in used)) or MISSING])
    columns = ("method", "Steps", "Samples", "Real tokens", "Padded tokens", "Sample orders")
    notes = [
        "Per run, over all ranks; a range where seeds differ. Tokens before a method adds virtual "
        "ones. Orders: digest of the sample order of each seed. Within a seed all compared runs "
        "consumed the same; those that consumed something else are set apart and enter no mean."
    ]
    return table("consumption", "What the compared runs consumed", columns, rows, notes)


# Jobs and hosts


def _jobs(results: Results) -> Iterator[Text | Table | Picture | None]:
    sentences, found = (
        [],
        [(record, place) for record in results.by_start if (place := where(record)) is not None],
    )
    if places := [place for _, place in found]:
        on = count_of(len({host for place in places for host in place.hosts}), "host")
        engines = sentence_list(sorted({place.engine for place in places}))
        jobs = count_of(len({place.start for place in places}), "job")
        sentences.append(f"{len(places)} compared runs were done by {jobs} of {engines} on {on}.")
    if results.beside:
        sentences.append(
            f"{len(results.beside)} of {len(results.compared)} compared runs had neighbours: "
            "others of this sweep were on their host. Neighbours slow each other by an unknown "
            "amount, so that scores are compared all the same, and costs rank nothing."
        )
    if results.times is not None:
        idle = "Idle is start-up, preparation and attempts that are not kept."
        sentences.append(f"{in_words(results.times)}. {idle}")
    yield Text(sentences=tuple(sentences))
    yield gantt(results, results.times) if results.times is not None else None
    yield _hardware(results)
    rows: list[list[Cell]] = []
    for record, place in found:
        label, seed, hosts = (
            results.labels[record.run_id],
            record.spec.seed,
            ", ".join(place.hosts) or MISSING,
        )
        rows.append([label, seed, hosts, place.engine, *place.start, _neighbours(record)])
    columns = ("method", "Seed", "Hosts", "Engine", "Job", "Restart", "Neighbours")
    notes = [
        (
            "Restart: how often the engine had begun the job anew. Neighbours: other runs of this "
            "sweep on the host."
        )
    ]
    yield table("places", "Where the compared runs ran", columns, rows, notes)


def _hardware(results: Results) -> Table | None:
    """Return the costs of every hardware, of runs alone and of those with neighbours; None with
    a single group.
    """
    ordered = sorted(results.compared, key=lambda record: record.run_id not in results.costed_ids)
    groups = grouped(
        ordered, lambda record: (str(record.environment.get("fingerprint")), alone(record))
    )
    quantities = [
        quantity_of(results, name) for name in results.measured(TIME, "samples_per_second", *MEMORY)
    ]
    if len(groups) < 2 or not quantities:
        return None
    rows: list[list[Cell]] = []
    for (fingerprint, quiet), records in groups.items():
        title = f"{hardware(records[0])} ({sanitize(fingerprint, 12)})"
        for method in results.methods:
            own = [record for record in records if results.labels[record.run_id] == method]
            recorded = (
                [run.metrics.get(quantity.metric.name) for run in own] for quantity in quantities
            )
            known = (
                [value for value in of if value is not None and abs(value) < LARGEST]
                for of in recorded
            )
            cells = [
                quantity.spread(statistics.mean_interval(of) if of else None)
                for quantity, of in zip(quantities, known, strict=True)
            ]
            rows += [[title, "none" if quiet else "some", method, len(own), *cells]] if own else []
    notes = [
        (
            "Mean ± standard deviation over the runs of a row; nothing is compared between rows "
            "of different groups."
        )
    ]
    columns = (
        "Hardware",
        "Neighbours",
        "method",
        "Runs",
        *(quantity.header for quantity in quantities),
    )
    return table("costs_by_hardware", "Costs by hardware and neighbours", columns, rows, notes)


def hardware(record: RunRecord) -> str:
    parts = Environment.read(record.environment).hardware
    cards = parts.get("gpus")
    names = (
        [str(card.get("name")) for card in cards if isinstance(card, dict)]
        if isinstance(cards, list)
        else []
    )
    words = (
        f"{len(names)} x {names[0]}"
        if names
        else f"{parts.get('cpu', 'unknown')}, {parts.get('cores', '?')} cores"
    )
    nodes = parts.get("nodes")
    return sanitize(
        f"{nodes} nodes, {words}" if isinstance(nodes, int) and nodes > 1 else words, 60
    )


def _neighbours(record: RunRecord) -> int | None:
    return None if record.neighbours is None else len(record.neighbours)


# Environment


def _environment(results: Results) -> tuple[Text | Table, ...]:
    environments = list(results.machines.values())
    if not environments or not any(record.environment for record in results.compared):
        return ()
    sentences = [REPEATABILITY]
    if len(environments) > 1:
        sentences.append(
            f"The compared runs come from {len(environments)} environments of different hardware, "
            "versions or settings. Scores are compared all the same; times, throughput and memory "
            "are of the first alone."
        )
    ignored = Environment.names("ignored")
    shared = {
        key: value for key, value in environments[0][0].environment.items() if key not in ignored
    }
    if results.hosts:
        shared["hosts"] = ", ".join(results.hosts)
    caption = "Environment of the runs that costs are of"
    own = table(
        "environment", caption, ("Item", "Value"), [[key, value] for key, value in flat(shared)]
    )
    first, rows = environment_of(environments[0][0]), []
    for runs in environments[1:]:
        other, by_method = (
            environment_of(runs[0]),
            grouped(runs, lambda record: results.labels[record.run_id]),
        )
        who = (
            f"{method}, seed {', '.join(str(run.spec.seed) for run in of)}"
            for method, of in by_method.items()
        )
        named = "; ".join(who)
        keys = [key for key in dict.fromkeys([*first, *other]) if first.get(key) != other.get(key)]
        rows += [[named, key, first.get(key, MISSING), other.get(key, MISSING)] for key in keys]
    notes = [
        (
            "All that costs are taken to depend on; where one of these differs, a run's costs "
            "enter nothing."
        )
    ]
    columns = ("Runs", "Item", "Of the runs that costs are of", "Of these runs")
    others = table("environments", "What differs in the other environments", columns, rows, notes)
    return Text(sentences=tuple(sentences)), own, others


# Runs


def _runs(results: Results) -> Table:
    metrics = dict.fromkeys((results.quality, "test_loss", TIME, "samples_per_second", *MEMORY))
    quantities = [quantity_of(results, name) for name in results.measured(*metrics)]
    beside = any(not alone(record) for record in results.compared)
    hosts = len({hosts_of(record) for record in results.compared}) > 1
    rows: list[list[Cell]] = []
    for record in results.by_start:
        costs = record.run_id in results.costs_shown
        shown = [
            q.cell(
                record.metrics.get(q.metric.name)
                if costs or not q.metric.depends_on_machine
                else None
            )
            for q in quantities
        ]
        row: list[Cell] = [
            results.labels[record.run_id],
            record.spec.seed,
            record.order,
            record.place,
        ]
        row += [_neighbours(record)] if beside else []
        row += (
            [", ".join(sanitize(host, 60) for host in hosts_of(record) or ()) or MISSING]
            if hosts
            else []
        )
        row += [cell(record.wall_seconds if costs else None, ".1f"), *shown]
        rows.append([*row, record.run_id])
    head = (
        "method",
        "Seed",
        "Order",
        "Place",
        *("Neighbours",) * beside,
        *("Hosts",) * hosts,
        "Wall time (s)",
    )
    columns = (*head, *(q.header for q in quantities), "Run")
    notes = [
        (
            "Order: position in the plan of the sweep; place: within the seed. Wall time includes "
            "start-up."
        )
    ]
    if beside:
        notes.append(
            "Neighbours: runs of this sweep on the same host meanwhile; costs of such a run rank "
            "nothing."
        )
    return table("runs", "All compared runs", columns, rows, [*notes, *_turns(results)])


def _turns(results: Results) -> list[str]:
    """Return a note on whether the methods took turns within seeds, by their recorded places."""
    if any(record.place is None for record in results.compared):
        return []
    begun = sorted(results.compared, key=lambda r: (r.started, r.order or 0))
    # seeds whose runs did not begin in the order of their places, or with another seed's between
    # them
    apart = []
    for seed in results.seeds:
        mine = {
            at: record.place or 0 for at, record in enumerate(begun) if record.spec.seed == seed
        }
        if [*mine.values()] != sorted(mine.values()) or max(mine) - min(mine) != len(mine) - 1:
            apart.append(seed)
    places = {
        method: {record.place for record in results.runs(method)} for method in results.methods
    }
    fixed = [
        method
        for method, of in places.items()
        if len(of) == 1 and len(results.seeds) >= statistics.LEAST_SEEDS
    ]
    if not apart and not fixed:
        return ["Within a seed the methods took turns: none had the same place in all seeds."]
    findings = [f"in all seeds one place had {sentence_list(fixed)}"] if fixed else []
    findings += (
        [f"seeds {', '.join(map(str, apart))} did not run in the order of their places"]
        if apart
        else []
    )
    return [
        (
            f"What the machine did over the sweep may lie on some methods more than on others: "
            f"{'; '.join(findings)}."
        )
    ]
