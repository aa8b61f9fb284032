"""Head of a page: its facts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.runs import BESIDE, OTHER_CHECKPOINTING, OTHER_RANKS
from audit.study import Study
from audit.values import NUMBER, Fact


def never_run(study: Study) -> int:
    """Return how many methods x seeds of suite.json have no record, but for those that can't be read."""
    planned = {(name, seed) for name in study.suite["methods"] for seed in range(study.suite["seeds"])}
    there = {(run.record["spec"]["method"]["name"], run.seed) for run in study.runs}
    return max(0, len(planned - there) - study.unreadable)


def head(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the facts at the head of the page."""
    facts = dict(re.findall(r"\*\*([^*]+):\*\* ([^·]*[^·\s])", found.string))
    run = study.compared[-1] if study.compared else study.runs[-1]
    length = f"{run.settings['steps']} steps" if run.settings["steps"] else f"{run.settings['epochs']} epochs"
    counts = {
        "compared": len(study.compared),
        OTHER_RANKS: sum(why == OTHER_RANKS for why in study.apart.values()),
        OTHER_CHECKPOINTING: sum(why == OTHER_CHECKPOINTING for why in study.apart.values()),
        "set apart": sum(why not in BESIDE for why in study.apart.values()),
        "not ok": sum(run.record["status"] != "ok" for run in study.runs),
        "unreadable": study.unreadable,
        "without a record": never_run(study),
    }
    shown = [f"{count} {word}" for word, count in counts.items() if count or word == "compared"]
    yield "Runs", facts["Runs"], ", ".join(shown)
    yield "Methods", facts["Methods"], len(study.methods)
    yield "Seeds", facts["Seeds"], len({run.seed for run in study.compared})
    yield "Protocol", facts["Protocol"], run.protocol_id
    yield "Model", facts["Model"], run.settings["backbone"].partition("#")[0]
    yield "Task", facts["Task"], run.settings["task"]["name"]
    yield "Data", facts["Data"], run.settings["dataset"]["name"]
    rows, batch = run.settings["train_samples"], run.settings["global_batch"]
    budget = rf"{length} of {batch} from ({NUMBER}|all).* training rows"
    yield "Budget", facts["Budget"], (budget, [rows]) if rows else (budget.replace("(", "(?:"), [])
    yield "Device", facts["Device"].partition(" x ")[0], run.settings["world_size"]
