"""Tables that repeat what stands in files: settings, environments, methods, answers, definitions, publications."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from audit.page import Table
from audit.protocol import shortened
from audit.runs import Run
from audit.study import TIME, Study
from audit.values import NUMBER, Json, agree
from audit.words import Cells, Row, metric_of

PUBLICATIONS = Path(__file__).parents[1] / "reference"
SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"


def settings_of(study: Study) -> Json:
    """Return the settings of the newest run; of those that its version did not know, the documented defaults."""
    return with_defaults(study.newest.settings)


def with_defaults(settings: Json) -> Json:
    """Return recorded settings and the documented defaults of those that they lack."""
    section = SETTINGS.read_text(encoding="utf-8").partition("## `settings`: ")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| (?:`([^|]*)`|\*empty\*) \|", section, re.MULTILINE)
    found = {name: json.loads(text or "null") for name, text in rows} | settings
    if isinstance(found["optimizer"], str):
        found["optimizer"] = {"name": found["optimizer"], "options": {}}
    return found


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each leaf of nested mappings and of lists of them, as dotted key and text."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, f"{key}.{name}".strip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            yield from leaves(item, f"{key}.{place}")
    else:
        yield key, "none" if value in (None, [], "", {}) else str(value)


def leaves_of(study: Study, table: Table, row: Row) -> Cells:
    """A setting, a digest, or an item of the environment that costs are of, in the run's record."""
    home = next(run for run in study.compared if run in study.home)
    hosts = {"hosts": ", ".join(study.hosts)} if study.hosts else {}
    said = {
        "settings": settings_of(study),
        "digests": study.newest.record["digests"],
        "environment": {**home.record["environment"], **hosts},
    }
    found = dict(leaves(said[table.name]))[row[table.header[0]]]
    return {header: found if at == 1 else row[header] for at, header in enumerate(table.header) if at}


def differing(study: Study, _: Table, row: Row) -> Cells:
    """An item that other environments have otherwise."""
    home, name = next(run for run in study.compared if run in study.home), row["Item"]
    named = [run for name in study.methods for run in study.methods[name] if name in study.named(row["Runs"])]
    here = dict(leaves(home.record["environment"]))
    others = {dict(leaves(run.record["environment"])).get(name, "–") for run in named}
    return {
        "Item": name,
        "Of the runs that costs are of": here.get(name, "–"),
        "Of these runs": next((one for one in others if agree(row["Of these runs"], one)), str(others)),
    }


def method(study: Study, _: Table, row: Row) -> Cells:
    """A method's kind, rate and options."""
    spec = study.methods[row["method"]][0].spec
    own = spec.get("optimizer") or settings_of(study)["optimizer"]
    return {
        "Kind": str(spec["method"]),
        "Learning rate": float(spec["lr"]),
        "Optimizer": ", ".join(filter(None, [own["name"], listed(own["options"])])),
        "Options": listed(spec["options"]) or "none",
    }


def listed(options: Json) -> str:
    """Return options as the page lists them."""

    def shown(value: Any) -> str:
        return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else "none" if value is None else str(value)

    return ", ".join(f"{key} = {shown(value)}" for key, value in options.items())


def answered(study: Study, table: Table, row: Row) -> Cells:
    """The answers of the first seed to a test row, and the row's mean scores over seeds."""
    place, seed = int(row["Row"]) - 1, min(run.seed for run in study.compared)
    runs = {name: next(run for run in study.methods[name] if run.seed == seed) for name in table.header[3:]}
    first = next(iter(runs.values())).predictions
    cells: Cells = {"Asked": short(first["said_question"][place]), "Expected": short(first["said_expected"][place])}
    for name, run in runs.items():
        score = float(np.mean([other.scores[place] for other in study.methods[name]]))
        text = re.escape(short(run.predictions["said_answer"][place]))
        cells[name] = (rf"{text} \[({NUMBER})\]", [score])
    return cells


def short(text: str, most: int = 300) -> str:
    """Return a text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def defined(study: Study, _: Table, row: Row) -> Cells:
    """A metric's definition."""
    item = study.definitions[row["Name"]]
    over = f"{item['over_ranks']} / {item['over_steps']}"
    unit, text = item["unit"] or "1", item["definition"]
    same: Cells = {"Name": item["name"], "Unit": unit, "Better": item["better"], "Phase": item["phase"]}
    return same | {"Over ranks / steps": over, "Definition": text}


def publications() -> Iterator[tuple[Json, Json]]:
    """Yield each publication and method of it."""
    for path in sorted(PUBLICATIONS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield from ((content, item) for item in content["methods"])


def published(study: Study, table: Table, row: Row) -> Cells:
    """A publication's figures of a method, or this suite's."""
    from audit.scores import means

    if row["From"] == "this suite":
        return means(study, table, row)
    figures = next(
        one["figures"] for of, one in publications() if (of["title"], one["title"]) == (row["From"], row["method"])
    )
    cells: Cells = {"From": row["From"]}
    for header in table.header:
        if found := metric_of(study, header):
            cells[header] = found[1] * figures[found[0]] if found[0] in figures else None
    both = figures.get("samples_per_second"), figures.get(TIME)
    return cells | {"Samples trained on": None if None in both else float(both[0] * both[1])}


def published_rows(study: Study, table: Table) -> list[str]:
    """Return a publication's methods, and beneath each those of the suite that are the same."""
    title = table.rows[0][1]
    rows: list[str] = []
    for of, one in publications():
        if of["title"] == title:
            rows += [
                one["title"],
                *(name for name, runs in study.methods.items() if kind(runs[0]) == (one["method"], one.get("type"))),
            ]
    return rows


def kind(run: Run) -> tuple[str, str | None]:
    """Return a run's method, and of `peft` its type."""
    named = run.spec["options"].get("type")
    return run.spec["method"], str(named).upper() if named else None


def tried_again(study: Study, _: Table, row: Row) -> Cells:
    """How often a run was tried, and how the earlier attempts ended."""
    (run,) = [
        run
        for run in study.runs
        if run.spec["name"] in study.named(row["method"]) and str(run.seed) == row["Seed"].partition(".")[0]
    ]
    earlier = run.record["earlier_attempts"]
    cells: Cells = {"Seed": run.seed, "Attempts": len(earlier) + 1, "Status": str(run.record["status"])}
    return cells | {"Earlier attempts": "; ".join(map(shortened, earlier))}
