"""Runs as they lie on disk, and those that are compared."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audit.answers import LOSS, SCORE, language
from audit.rows import ACCURACY, SCORED, Answers, Scored, as_bytes
from audit.values import Floats, Json

OTHER_RANKS = "on other ranks"


@dataclass(frozen=True, eq=False)
class Run:
    """One run as it lies on disk."""

    folder: Path
    record: Json
    points: list[Json]
    predictions: dict[str, Answers]
    """Columns by name; none where the file isn't the one that the record names."""
    spec: Json
    settings: Json
    seed: int
    protocol: str
    """What runs must share to be compared, as one text; the page's id stands for it."""
    started: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Method, seed and protocol."""
        return json.dumps(self.spec, sort_keys=True), self.seed, self.protocol

    @property
    def environment(self) -> str:
        """What costs depend on, as one text; the fingerprint stands for the hardware."""
        kept = {key: value for key, value in self.record["environment"].items() if key not in {"hardware", "where"}}
        return json.dumps(kept, sort_keys=True)

    @property
    def neighbours(self) -> int | None:
        """How many other runs of the sweep were on its host meanwhile; None where it isn't known."""
        found = self.record.get("neighbours")
        return None if found is None else len(found)

    @property
    def one_node(self) -> str:
        """The same of a run on one of the run's nodes, where it has several that are alike."""
        parts = json.loads(self.environment)
        parts["fingerprint"] = parts.pop("node_fingerprint", parts["fingerprint"])
        return json.dumps(parts, sort_keys=True)

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of ranks and of nodes."""
        return self.settings["world_size"], self.record["environment"]["hardware"].get("nodes", 1)

    @property
    def headline(self) -> str:
        """The metric that leads; until schema 1 every run classified."""
        return str(self.record.get("headline") or ACCURACY)

    @property
    def scorer(self) -> str | None:
        """The name of what compares answers, where a language model's are scored; of ROUGE-L as the run had it."""
        found = self.settings["task"]["options"].get("scorer")
        defined = {kept["name"]: kept["definition"] for kept in self.record["definitions"]}.get(SCORE, "")
        if found == "rouge_l" and "of any script" not in defined:
            return "rouge_l of a to z"
        return None if found is None else str(found)

    @property
    def untrained(self) -> bool:
        """Whether nothing was trained: the base model has no budget, no steps and no costs."""
        return bool(consumed(self, "steps", "samples") == (0, 0) and self.metric("trainable_parameters") == 0)

    @functools.cached_property
    def scored(self) -> Scored:
        """What the predictions give."""
        rows = self.predictions
        names = self.record["label_names"]
        if self.headline in {LOSS, SCORE}:
            return language(rows, self.scorer)
        return SCORED[self.headline](rows["reference"], rows["prediction"], rows["loss"], names)

    @property
    def scores(self) -> Floats:
        """The score of each test row."""
        return self.scored.scores

    @property
    def protocol_id(self) -> str | None:
        """The id of the protocol as recorded; that of schema 1 is made anew by the report."""
        return str(self.record.get("protocol_id")) if self.record["schema_version"] > 1 else None

    def metric(self, name: str) -> float | None:
        """Return a metric as recorded."""
        value = self.record["metrics"].get(name)
        return None if value is None else float(value)

    def series(self, name: str) -> dict[int, float]:
        """Return a series of the points, by step."""
        points = (point for point in self.points if point["metric"] == name and point["value"] is not None)
        return {int(point["step"]): float(point["value"]) for point in points}


def read_run(folder: Path) -> Run | None:
    """Read a run, if its record and the files that it names are there; predictions if they are those it names."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError:
        return None
    files = {name: folder / name for name in record.get("files", {})}
    if not all(path.exists() for path in files.values()):
        return None
    points = folder / "points.jsonl"
    lines = points.read_text(encoding="utf-8").splitlines() if points.exists() else []
    path, predictions = files.get("predictions.parquet"), {}
    if path and hashlib.sha256(path.read_bytes()).hexdigest() == record["files"][path.name]:
        frame = pd.read_parquet(path).sort_values("index", kind="stable")
        predictions = {str(name): column(frame[name]) for name in frame.columns}
        predictions.setdefault("reference", predictions.get("label"))  # as schema 1 calls it
    spec, settings = record["spec"], modern(record["spec"]["settings"])
    protocol = json.dumps([nowhere(settings), record.get("digests")], sort_keys=True)
    parts = (spec["method"], settings, int(spec["seed"]), protocol, str(record["started"]))
    return Run(folder, record, [json.loads(line) for line in lines], predictions, *parts)


def column(values: Any) -> Answers:
    """Return a column of predictions: numbers, or an array a row."""
    if len(values) and isinstance(values.iloc[0], np.ndarray):
        return [np.asarray(row) for row in values]
    if len(values) and isinstance(values.iloc[0], str):
        return [str(text) for text in values]
    return values.to_numpy(dtype=np.float64)


def modern(settings: Json) -> Json:
    """Return settings as schema 2 writes them: in schema 1 `task` named the data set, and pooling was a setting."""
    found = dict(settings)
    if "dataset" not in found:
        pooling = found.pop("pooling", "last")
        found |= {
            "dataset": found["task"],
            "task": {"name": "sequence_classification", "options": {"pooling": pooling}},
        }
    return found


def nowhere(settings: Json) -> Json:
    """Return settings without what doesn't bear on their protocol: folders, and an option that says the default."""
    task = settings["task"]
    options = {name: value for name, value in task["options"].items() if (name, value) != ("pooling", "last")}
    text = re.sub(r'"path:[^"]*"', '"path:"', json.dumps({**settings, "task": {**task, "options": options}}))
    found: Json = json.loads(text)
    return found


def believed(run: Run) -> bool:
    """Whether the stored predictions hold every test row once and give the recorded scores."""
    rows = run.predictions
    if not rows or not np.array_equal(rows["index"], np.arange(run.settings["test_samples"] or len(rows["index"]))):
        return False
    given, defined = run.scored.metrics, {item["name"] for item in run.record["definitions"]}
    needed = {run.headline, "test_loss"} | (given.keys() & defined)
    recorded = {name: run.metric(name) for name in given}
    if any(recorded[name] is None for name in needed):
        return False
    known = {name: value for name, value in recorded.items() if value is not None}
    return all(abs(value - given[name]) <= 1e-6 * max(1, abs(value)) for name, value in known.items())


def most(values: Iterable[Any], prefer: Callable[[Any], Any]) -> Any:
    """Return the most frequent value; of equally many the one that is preferred."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], prefer(value)))


def consumed(run: Run, *names: str) -> tuple[Any, ...]:
    """Return what a run consumed."""
    return tuple(run.record["consumed"][name] for name in names)


def alike(run: Run, other: Run) -> bool:
    """Whether two runs' protocols differ in nothing but the number of ranks."""
    return run.record["digests"] == other.record["digests"] and (
        {**run.settings, "world_size": 0} == {**other.settings, "world_size": 0}
    )


def set_apart(runs: list[Run]) -> dict[Run, str]:
    """Return which runs that ended well are not compared, and why."""
    same = Counter(run.key for run in runs)
    why = {run: "records of one" for run in runs if same[run.key] > 1}
    single = [run for run in runs if run not in why]
    passed_all = [run for run in single if all(check["passed"] for check in run.record["checks"])]
    sound = [run for run in passed_all if believed(run)]
    why |= {run: "not believed" if run in passed_all else "invalid" for run in single if run not in sound}
    for protocol in {run.protocol for run in sound}:
        group = [run for run in sound if run.protocol == protocol]
        labels = most((as_bytes(run.predictions["reference"]) for run in group), len)
        why |= {run: "not believed" for run in group if as_bytes(run.predictions["reference"]) != labels}

    def left() -> list[Run]:
        return sorted((run for run in runs if run not in why), key=lambda run: run.started)

    def trained() -> list[Run]:
        return [run for run in left() if not run.untrained]

    newest = {run.protocol: run.started for run in left()}
    if left():
        # Of equally many the newest: the methodology doesn't say.
        chosen = most((run.protocol for run in left()), lambda protocol: newest[protocol])
        here = next(run for run in left() if run.protocol == chosen)
        others = [run for run in left() if run.protocol != chosen]
        why |= {run: OTHER_RANKS if alike(run, here) else "another protocol" for run in others}
    why |= {run: "not recorded" for run in left() if run.record["consumed"] is None}
    if trained():
        budget = most((consumed(run, "steps", "samples") for run in trained()), lambda value: value)
        why |= {run: "consumed other" for run in trained() if consumed(run, "steps", "samples") != budget}
    names = ("real_tokens", "padded_tokens", "order")
    for seed in {run.seed for run in left()}:
        group = [run for run in trained() if run.seed == seed]
        if not group:
            continue
        # Of equally many the fewest tokens: the methodology doesn't say.
        usual = most((consumed(run, *names) for run in group), lambda value: (-value[0], -value[1]))
        why |= {run: "consumed other" for run in group if consumed(run, *names) != usual}
    return why
