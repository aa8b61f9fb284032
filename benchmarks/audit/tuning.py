"""Sentences on a tuning: from what it started, under which settings, with which options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from audit.runs import most, nowhere
from audit.study import Study
from audit.values import Fact, Json
from audit.words import listed

BESIDE_TRAINING = {
    "test_samples", "eval_batch", "eval_every", "log_every", "warmup_steps", "latency_samples", "device", "world_size",
    "threads",
}  # fmt: skip
"""Settings that train nothing."""


def tried(study: Study, found: re.Match[str]) -> Iterator[Fact]:
    """Yield the rows that rates were tried on, whether they were these runs' data, and the number of trials."""
    tried_on = study.tuning.rows or study.tuning.record["settings"]["validation_samples"]
    yield "validation rows", found["rows"].replace(",", ""), tried_on
    yield "other data", str(bool(found["other"])), str("data" in other_starts(study))
    yield "trials", found["trials"], most(map(len, study.tuning.trials.values()), int)


def other_starts(study: Study) -> list[str]:
    """Return which of weights, tokenizer and data have another digest than those of the compared runs."""
    run = (study.compared or study.runs)[-1]
    here, there = study.tuning.record["digests"], run.record["digests"] or {}
    return [part for part in ("weights", "tokenizer", "data") if there and here.get(part) != there[part]]


def other_settings(study: Study) -> list[str]:
    """Return the settings that both name and that differ, but for those that train nothing."""
    here = nowhere(study.tuning.record["settings"])
    there = nowhere((study.compared or study.runs)[-1].settings)
    return [key for key in here if key in there and key not in BESIDE_TRAINING and unlike(here[key], there[key])]


def unlike(one: Any, other: Any) -> bool:
    """Whether two values differ in what both name; a name alone is one without options."""
    if isinstance(one, dict) != isinstance(other, dict):
        one, other = (value if isinstance(value, dict) else {"name": value} for value in (one, other))
    if isinstance(one, dict):
        return any(unlike(one[key], other[key]) for key in one.keys() & other.keys())
    return bool(one != other)


def other_options(study: Study) -> str:
    """Return the methods whose runs have other options than the trials had, as far as both name them."""
    parts = []
    for entry in study.tuning.record["methods"]:
        runs = [run.spec for run in study.compared if run.spec["name"] == entry["spec"]["name"]]
        keys = {key for spec in runs for key in differing(entry["spec"], spec)}
        parts += [f"{entry['spec']['name']} ({', '.join(sorted(keys))})"] if keys else []
    return listed(parts)


def differing(tuned: Json, run: Json) -> list[str]:
    """Return what but the rate differs between two specifications, as far as both name it."""
    one, other = tuned["options"], run["options"]
    found = [key for key in one.keys() & other.keys() if one[key] != other[key]]
    return found + [key for key in ("method",) if tuned[key] != run[key]]
