"""Trials of a tuning, from its record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from audit.values import Json

PACKAGED = Path(__file__).parents[1] / "tuning"
"""Where the records of the packaged suites lie."""


@dataclass(frozen=True)
class Tuning:
    """The trials of each method, and how their score is read."""

    trials: dict[str, list[Json]]
    sign: int
    """1 where higher is better, -1 where lower is."""
    scale: float
    record: Json
    """As it lies on disk: settings, digests, methods."""
    rows: int | None = None
    """Validation rows, where the record says how many."""

    def ended(self, name: str) -> list[Json]:
        """Return the trials of a method that ended well."""
        return [trial for trial in self.trials[name] if trial["status"] == "ok"]

    def best(self, name: str) -> Json:
        """Return the trial with the best score; of equals the lowest loss, then the first."""
        return max(self.ended(name), key=lambda t: (self.sign * score(t), -float(t["loss"]), -int(t["number"])))


def score(trial: Json) -> float:
    """Return the score of a trial."""
    return float(trial["score"])


def read_tuning(folder: Path, suite: str) -> Tuning:
    """Return a folder's own tuning, else that of the suite that was tuned, beside it or packaged; else no trials."""
    name, own = suite.removesuffix("-tuned"), Path("tuning/trials.json")
    places = (folder / own, folder.parent / name / own, PACKAGED / f"{name}.json")
    path = next((place for place in places if place.exists()), places[-1])
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"methods": []}
    metric = record.get("headline", {"better": "higher", "format": ".1%"})
    trials = {entry["spec"]["name"]: entry["trials"] for entry in record["methods"]}
    scale = 100.0 if metric["format"].endswith("%") else 1.0
    return Tuning(trials, -1 if metric["better"] == "lower" else 1, scale, record, record.get("validation_rows"))
