"""Protocol: every setting, the digests of weights, tokenizer and data, and the runs' consumption."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.run import Check
from hpml_bench.report.comparability import flat
from hpml_bench.report.results import Results
from hpml_bench.report.tables import MISSING, Cell, fact, number, section_of, table
from hpml_bench.suite.settings import Settings

order = 120
question = "setup"
about = "settings, digests, what was consumed, self-checks"


def section(results: Results) -> Section | None:
    """Return protocol id, settings, digests, consumption and self-checks."""
    reference = results.reference
    name = reference.protocol_id or "not known: no run came far enough"
    intro = [
        f"Protocol {name}: runs are compared only where it agrees, and where they consumed the same within a seed."
    ]
    intro += [fact(key, value) for key, value in reference.notes.items()]
    tables = (_settings(results), _digests(results), _consumption(results), _checks(results))
    return section_of("protocol", "Protocol", Text(sentences=tuple(intro)), *tables)


def _settings(results: Results) -> Table:
    meaning = {name: field.description or "" for name, field in Settings.model_fields.items()}
    settings = results.reference.spec.settings.model_dump(mode="json")
    if any(record.spec.method.optimizer is not None for record in results.compared):
        del settings["optimizer"]  # it is listed with the differences between methods
    leaves = flat(settings)
    rows = [[key, value, meaning.get(key.split(".")[0], "").replace("`", "")] for key, value in leaves]
    return table("settings", "Settings, identical for every method", ("Setting", "Value", "Meaning"), rows)


def _digests(results: Results) -> Table:
    digests = results.reference.digests
    rows = [[key, value] for key, value in (digests.model_dump() if digests else {}).items() if value is not None]
    return table("digests", "What the runs started from (SHA-256)", ("Part", "Digest"), rows)


def _consumption(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for method in results.methods:
        used = [record.consumed for record in results.runs(method) if record.consumed]
        fields = ("steps", "samples", "real_tokens", "padded_tokens")
        ranges = (_range([getattr(one, field) for one in used]) for field in fields)
        orders = " ".join(dict.fromkeys(one.order[:6] for one in used)) or MISSING
        rows.append([method, *ranges, orders])
    columns = ("method", "Steps", "Samples", "Real tokens", "Padded tokens", "Sample orders")
    notes = [
        "Per run, over all ranks; a range where seeds differ. Tokens before a method adds virtual ones. Orders: "
        "digest of the sample order of each seed. Within a seed all compared runs consumed the same; those that "
        "consumed something else are set apart and enter no mean."
    ]
    return table("consumption", "What the compared runs consumed", columns, rows, notes)


def _range(values: list[int]) -> Cell:
    low, high = min(values), max(values)
    text = number(low, "d") if low == high else f"{number(low, 'd')}–{number(high, 'd')}"
    return text, float(low) if low == high else text


def _checks(results: Results) -> Table | None:
    """Return one row per method: how many of its compared runs made and passed each check."""
    examples = {check.name: check.detail for record in results.compared for check in record.checks}
    if not examples:
        return None
    rows = []
    for method in results.methods:
        made = [check for run in results.runs(method) for check in run.checks]
        rows.append([method, *(_passed([check for check in made if check.name == name]) for name in examples)])
    notes = ["Runs that passed, of those compared that made the check. A run that failed one is set apart."]
    notes += [f"{name}, for example: {detail}." for name, detail in examples.items()]
    return table("checks", "Arithmetic self-checks of the runs", ("method", *examples), rows, notes)


def _passed(checks: list[Check]) -> str:
    return f"{sum(check.passed for check in checks)} of {len(checks)}" if checks else MISSING
