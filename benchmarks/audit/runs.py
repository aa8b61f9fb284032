"""Runs as they lie on disk, and those that are compared."""

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audit.rows import SCORE, Answers, as_bytes, scores_of
from audit.statistics import Floats, Json


@dataclass(frozen=True, eq=False)
class Run:
    """One run as it lies on disk."""

    folder: Path
    record: Json
    points: list[Json]
    predictions: dict[str, Answers]  # columns by name
    spec: Json
    settings: Json
    seed: int
    protocol: str  # what runs must share to be compared, as one text; the page's id stands for it
    started: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Method, seed and protocol."""
        return json.dumps(self.spec, sort_keys=True), self.seed, self.protocol

    @property
    def answers_alike(self) -> bool:
        """Whether it is of a language model as it is that samples nothing: any seed answers so."""
        task = self.settings["task"]
        drawn = self.spec["method"] in {
            "few_shot",
            "command",
        }  # examples by the seed, or a program that gets it
        greedy = not task["options"].get("temperature")
        return self.untrained and task["name"] == "causal_lm" and greedy and not drawn

    @property
    def environment(self) -> str:
        """What costs depend on, as one text; the fingerprint stands for the hardware."""
        kept = self.record["environment"].keys() - {"hardware", "where", "hosts"}
        return json.dumps({key: self.record["environment"][key] for key in kept}, sort_keys=True)

    @property
    def hosts(self) -> tuple[str, ...]:
        environment = self.record["environment"]
        where = environment.get("where") or {}
        return tuple(
            sorted(
                environment.get("hosts") or where.get("hosts") or filter(None, [where.get("host")])
            )
        )

    @property
    def neighbours(self) -> int | None:
        """How many other runs of the sweep were on its host meanwhile; None where it isn't
        known.
        """
        found = self.record.get("neighbours")
        return None if found is None else len(found)

    @property
    def headline(self) -> str:
        return str(self.record["headline"])

    @property
    def scorer(self) -> str | None:
        """The name of what compares answers, where a language model's are scored; of ROUGE-L as
        the run had it.
        """
        found = self.settings["task"]["options"].get("scorer")
        defined = {kept["name"]: kept["definition"] for kept in self.record["definitions"]}.get(
            SCORE, ""
        )
        if found == "rouge_l" and "of any script" not in defined:
            return "rouge_l of a to z"
        if found == "number" and self.settings["task"]["options"].get("decimal_mark") == "comma":
            return "number with a decimal comma"
        return None if found is None else str(found)

    @property
    def untrained(self) -> bool:
        """Whether nothing was trained: the base model has no budget, no steps and no costs."""
        return bool(
            consumed(self, "steps", "samples") == (0, 0)
            and self.metric("trainable_parameters") == 0
        )

    @functools.cached_property
    def scores(self) -> Floats:
        return scores_of(self.headline, self.predictions, self.record["label_names"], self.scorer)

    @property
    def drawn(self) -> Floats:
        """The score of each test row, or of each group of them: of what is drawn anew in another
        test set.
        """
        return self.by_group(self.scores)

    def by_group(self, scores: Floats) -> Floats:
        """Return the scores of groups of rows: s + G m_g / m (s_g - s), of G groups of m_g of
        all m rows.
        """
        if "group" not in self.predictions:
            return scores
        of = pd.Series(scores).groupby(self.predictions["group"])
        share = of.size() * of.ngroups / len(scores)
        return np.asarray(scores.mean() + share * (of.mean() - scores.mean()))

    def metric(self, name: str) -> float | None:
        value = self.record["metrics"].get(name)
        return None if value is None else float(value)

    def series(self, name: str) -> dict[int, float]:
        points = (
            point for point in self.points if point["metric"] == name and point["value"] is not None
        )
        return {int(point["step"]): float(point["value"]) for point in points}


def read_run(folder: Path) -> Run | None:
    """Read a run, if its record and the files that it names are there."""
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
    if path:
        frame = pd.read_parquet(path).sort_values("index", kind="stable")
        predictions = {str(name): column(frame[name]) for name in frame.columns}
    spec, settings = record["spec"], record["spec"]["settings"]
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


def nowhere(settings: Json) -> Json:
    """Return settings without what doesn't bear on their protocol: folders, and an option that
    says the default.
    """
    task = settings["task"]
    options = {
        name: value
        for name, value in task["options"].items()
        if (name, value) != ("pooling", "last")
    }
    text = re.sub(
        r'"path:[^"]*"', '"path:"', json.dumps({**settings, "task": {**task, "options": options}})
    )
    return dict(json.loads(text))


def believed(run: Run) -> bool:
    """Whether the stored predictions hold every test row once and give the recorded score."""
    rows, recorded = run.predictions, run.metric(run.headline)
    if not rows or not np.array_equal(
        rows["index"], np.arange(run.settings["test_samples"] or len(rows["index"]))
    ):
        return False
    return recorded is not None and abs(recorded - run.scores.mean()) <= 1e-6 * max(
        1, abs(recorded)
    )


def one_host(runs: list[Run]) -> list[Run]:
    """Return each seed's runs on the host that most of them share; none of a seed in which no
    two methods share one.
    """
    kept = []
    for seed in {run.seed for run in runs}:
        group = [run for run in runs if run.seed == seed and not run.untrained]
        newest = {
            run.hosts: max(other.started for other in group if other.hosts == run.hosts)
            for run in group
        }
        host = most((run.hosts for run in group), newest.__getitem__) if group else ()
        there = [run for run in group if run.hosts == host]
        kept += there if len(there) > 1 or len(there) == len(group) else []
    return [run for run in runs if run in kept or run.untrained]


def most(values: Iterable[Any], prefer: Callable[[Any], Any]) -> Any:
    """Return the most frequent value, of equally many the one that is preferred; None of none."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], prefer(value)), default=None)


def consumed(run: Run, *names: str) -> tuple[Any, ...]:
    return tuple(run.record["consumed"][name] for name in names)


def compared_of(runs: list[Run]) -> list[Run]:
    """Return those of the runs that ended well that are compared: once each, sound, of one protocol
    and consumption.

    Runs that `hpml-bench verify` refuses are out of a page, and not all are here: of their folder
    figures disagree.
    """
    same = Counter(run.key for run in runs)
    passed = [
        run
        for run in runs
        if same[run.key] == 1 and all(check["passed"] for check in run.record["checks"])
    ]
    kept = [run for run in passed if believed(run)]
    for protocol in {run.protocol for run in kept}:
        rows = {run: run.predictions for run in kept if run.protocol == protocol}
        group = {
            run: as_bytes(of["reference"]) + as_bytes(of.get("group", np.empty(0)))
            for run, of in rows.items()
        }
        labels = most(group.values(), len)
        kept = [run for run in kept if group.get(run, labels) == labels]
    # Of equally many the newest: the methodology doesn't say.
    newest = {run.protocol: run.started for run in sorted(kept, key=lambda run: run.started)}
    chosen = most((run.protocol for run in kept), newest.__getitem__)
    kept = [run for run in kept if run.protocol == chosen and run.record["consumed"] is not None]
    budget = most(
        (consumed(run, "steps", "samples") for run in kept if not run.untrained),
        lambda value: value,
    )
    kept = [run for run in kept if run.untrained or consumed(run, "steps", "samples") == budget]
    names = ("real_tokens", "padded_tokens", "order")
    for seed in {run.seed for run in kept}:
        of_seed = {
            run: consumed(run, *names) for run in kept if run.seed == seed and not run.untrained
        }
        # Of equally many the fewest tokens: the methodology doesn't say.
        usual = most(of_seed.values(), lambda value: (-value[0], -value[1]))
        kept = [run for run in kept if of_seed.get(run, usual) == usual]
    return sorted(kept, key=lambda run: run.started)


def costed(compared: list[Run]) -> list[Run]:
    """Return the runs that costs are of: alone, in one environment, each seed on one host, where
    these are enough.
    """
    quiet = [run for run in compared if not run.neighbours]
    here = at_home(quiet)
    home = one_host(here)
    if 2 * len(quiet) >= len(compared) and len(home) == len(here):
        return home
    seeds = [
        {run.seed for run in home if run.key[0] == key} for key in {run.key[0] for run in home}
    ]
    sharing = any(len(one & other) >= 3 for one, other in itertools.combinations(seeds, 2))
    return home if sharing else at_home(compared)


def at_home(runs: list[Run]) -> list[Run]:
    """Return the runs in the environment that most share."""
    newest = {run.environment: run.started for run in runs}
    chosen = most((run.environment for run in runs), newest.__getitem__) if runs else ""
    return [run for run in runs if run.environment == chosen]


def by_method(runs: list[Run], order: list[str]) -> dict[str, list[Run]]:
    """Return runs by method, in the suite's order; methods of one name are told apart by what
    differs.
    """
    found: dict[str, list[Run]] = {}
    specs = {run.key[0]: run.spec for run in sorted(runs, key=lambda run: run.spec["lr"])}
    for wanted in [*order, *sorted({spec["name"] for spec in specs.values()} - set(order))]:
        alike = [key for key, spec in specs.items() if spec["name"] == wanted]
        for key in alike:
            differing = {one for other in alike for one in apart(specs[key], specs[other])}
            shown = [
                f"{of.rpartition('.')[2]}={said_of(specs[key], of)}" for of in sorted(differing)
            ]
            name = wanted + (f" ({', '.join(shown)})" if shown else "")
            own = sorted((run for run in runs if run.key[0] == key), key=lambda run: run.seed)
            alone = len(own) == 1 and own[0].answers_alike
            found[name] = (
                [replace(own[0], seed=seed) for seed in sorted({run.seed for run in runs})]
                if alone
                else own
            )
    return found


def apart(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """Yield the dotted keys in which two specifications differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {*one, *other}:
            yield from apart(one.get(name), other.get(name), f"{key}.{name}".strip("."))
    elif one != other:
        yield key


def said_of(spec: Any, key: str) -> str:
    """Return the value at a dotted key as a method's name has it; of an optimizer its name."""
    if key == "optimizer":
        return str(spec[key]["name"]) if spec.get(key) else "the suite's"
    value = functools.reduce(lambda of, name: (of or {}).get(name), key.split("."), spec)
    return "none" if value is None else str(value)
